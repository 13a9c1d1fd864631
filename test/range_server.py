"""An http server of a folder that sends parts of files, and has the faults that it is asked for."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeHandler(SimpleHTTPRequestHandler):
    """Answers `Range: bytes=A-B`; the server's `faults` come first, one an answer."""

    protocol_version = "HTTP/1.1"  # keeps connections open
    disable_nagle_algorithm = True  # else head and body, sent apart, cost 40 ms

    def do_GET(self) -> None:
        self.server.requests.append((self.client_address[1], self.path))
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "close":
            self.close_connection = True
            return
        if isinstance(fault, int):
            self.send_error(fault)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not asked or not path.is_file():
            super().do_GET()
            return
        first, last = map(int, asked.groups())
        with open(path, "rb") as file:
            file.seek(first)
            size, part = path.stat().st_size, file.read(last + 1 - first)
        if fault == "other part":
            first += 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if fault == "half":
            part, self.close_connection = part[: len(part) // 2], True
        self.wfile.write(part)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class WeightHandler(RangeHandler):
    """Answers `Range: bytes=A-` and If-Range by ETag, as servers of large files do."""

    def do_GET(self) -> None:
        self.server.requests.append((self.client_address[1], self.path))
        self.server.ranges.append(self.headers.get("Range"))
        self.server.may_answer.wait(30)
        fault = self.server.faults.pop(0) if self.server.faults else ""
        path = Path(self.translate_path(self.path))
        if self.path in self.server.redirects:
            self._answer(302, self.server.redirects[self.path], b"")
        elif fault == "close":
            self.close_connection = True
        elif isinstance(fault, int) or not path.is_file():
            self.send_error(fault or 404)
        elif fault.startswith("page "):
            self._answer(200, {"Content-Type": "text/html"}, fault.removeprefix("page ").encode())
        else:
            self._send(path.read_bytes(), fault)

    def _send(self, content: bytes, fault: str) -> None:
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        headers = {} if fault == "no tag" else {"ETag": tag}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        is_same = self.headers.get("If-Range", tag) == tag or fault == "any tag"
        if fault.startswith("no parts, "):
            self._answer(200, headers, content, share=float(fault.removeprefix("no parts, ")))
            return
        if not asked or not is_same or fault == "no parts":
            share = 0.5 if fault in ("half", "no tag", "half without length") else 1.0
            says_length = fault != "half without length"
            self._answer(200, headers, content, share=share, says_length=says_length)
            return
        first = int(asked[1])
        if first >= len(content):
            self.send_error(416)
            return
        total = "*" if fault == "half of unknown" else len(content)
        headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{total}"
        share = 0.5 if fault in ("half", "half of unknown") else 1.0
        self._answer(206, headers, content[first:], share=share)

    def _answer(
        self,
        status: int,
        headers: dict[str, str],
        body: bytes,
        *,
        share: float = 1.0,
        says_length: bool = True,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if share < 1:
            body, self.close_connection = body[: int(share * len(body))], True
        self.wfile.write(body)


class RangeServer(ThreadingHTTPServer):
    """A server on a free port of this machine."""

    daemon_threads = True

    def __init__(self, folder: Path, handler: type[SimpleHTTPRequestHandler]) -> None:
        self.faults: list[int | str] = []
        self.requests: list[tuple[int, str]] = []  # (port of the connection, path)
        self.ranges: list[str | None] = []  # of a WeightHandler's requests
        self.redirects: dict[str, dict[str, str]] = {}  # headers by path, for a WeightHandler
        self.may_answer = threading.Event()  # cleared: a WeightHandler waits with its answers
        self.may_answer.set()
        super().__init__(("127.0.0.1", 0), partial(handler, directory=str(folder)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(
    folder: Path, handler: type[SimpleHTTPRequestHandler] = RangeHandler
) -> Iterator[RangeServer]:
    """Serve a folder meanwhile."""
    with RangeServer(folder, handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
