"""One request for a file, or for the rest of it: what is sent is appended to a part."""

from __future__ import annotations

import os
import re
import shutil
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPMessage,
    HTTPResponse,
    HTTPSConnection,
)
from io import FileIO
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
    build_opener,
)

from tqdm import tqdm

from lib.data.packed.storage import LimitedResponse
from lib.models.weights.forms import web_page_title
from lib.runtime.files import write_whole
from lib.runtime.text import printable

_TIMEOUT_S = 60.0
_RANGE_OF_ANOTHER_FILE = 416
_TEMPORARY = (408, _RANGE_OF_ANOTHER_FILE, 425, 429, 500, 502, 503, 504)
_WANTS_LOGIN = (401, 403, 407, 511)
_CHUNK_BYTES = 1 << 18
_LENGTH = re.compile(r"\d{1,18}")
_SPAN = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
INSTEAD = "or fetch it in another way and give the file's path"


class DownloadError(OSError):
    """A file cannot be had; the message is one line and all that a user needs."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


class Interrupted(Exception):
    """What a further try may mend."""


class Unreachable(Interrupted):
    """The server was not even reached."""


class TooSlow(Interrupted):
    """Too little arrives for the file ever to be whole."""


@dataclass(frozen=True)
class Source:
    """What to download."""

    name: str  # for messages
    url: str
    sha256: str = ""  # whole, or its first digits; empty: not published
    instead: str = INSTEAD  # what else a user can do
    max_bytes: int = 8 << 30  # more is no file of weights


@dataclass
class Note:
    """What is known of a part; kept beside it, for the process that goes on with it."""

    url: str
    validator: str = ""  # ETag or Last-Modified: tells whether the file is still the same
    num_bytes: int = -1  # of the whole file; -1: the server doesn't say
    sha256: str = ""  # as the Hugging Face hub states it
    commit: str = ""  # revision there


def size_of(file: FileIO) -> int:
    """Return a part's length in bytes."""
    return os.fstat(file.fileno()).st_size


def receive(
    source: Source,
    file: FileIO,
    note: Note,
    *,
    keep_note: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Append what is missing of the file to its part, and write down in `note` what is told of it.

    Raises Interrupted where less comes, DownloadError where nothing better can be hoped for.
    """
    if not (note.validator or note.sha256 or source.sha256):
        file.truncate(0)  # nothing could tell whether the file is still the same
    start = size_of(file)
    if start and start == note.num_bytes:
        return
    hops = _Hops()
    opener = build_opener(hops, _Http(source.max_bytes), _Https(source.max_bytes))
    with _open(opener, source, file, note) as response:
        start = _take_note(response, hops, file, note, start=start)
        if note.num_bytes > source.max_bytes:
            raise _too_long(source, f"announces {note.num_bytes / 1e9:.1f} GB")
        keep_note()
        _check_free_space(source, file, note)
        going_on = f", going on at {start / 1e6:.1f} MB" if start else ""
        say(f"downloading {source.name}{_megabytes(note)} from {source.url}{going_on}")
        _copy(response, file, source, note)
    if note.num_bytes >= 0 and size_of(file) < note.num_bytes:
        raise Interrupted(f"the connection ended at {size_of(file)} of {note.num_bytes} bytes")


def _open(opener: OpenerDirector, source: Source, file: FileIO, note: Note) -> HTTPResponse:
    headers = {"User-Agent": "hrnet-weights", "Accept-Encoding": "identity"}
    if size_of(file):
        headers["Range"] = f"bytes={size_of(file)}-"
        if note.validator:
            headers["If-Range"] = note.validator
    try:
        response: HTTPResponse = opener.open(
            Request(source.url, headers=headers), timeout=_TIMEOUT_S
        )
        return response
    except DownloadError:
        raise
    except HTTPError as error:
        error.close()
        said = f"the server answers {error.code} {error.reason}"
        if HTTPRedirectHandler.inf_msg in str(error.reason):
            said = "its redirects lead back to where they began"
        if error.code == _RANGE_OF_ANOTHER_FILE:
            file.truncate(0)
        if error.code in _TEMPORARY:
            raise Interrupted(said) from None
        raise DownloadError(
            f"{source.url} cannot be downloaded: {said}; {_advice(source, error.code)}"
        ) from None
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(_untrusted(source, error.reason)) from None
        raise Unreachable(_words(error.reason)) from None
    except TimeoutError as error:
        raise TooSlow(_words(error)) from None
    except (OSError, HTTPException) as error:
        raise Interrupted(_words(error)) from None


def _advice(source: Source, code: int) -> str:
    if code in _WANTS_LOGIN:
        return f"it, or a proxy on the way, wants a login: fetch it there, {source.instead}"
    return f"the file has moved or the address is wrong: look it up, {source.instead}"


def _too_long(source: Source, what: str) -> DownloadError:
    return DownloadError(
        f"{source.url} cannot be downloaded: the server {what}, and weights have at most "
        f"{source.max_bytes / 1e9:.0f} GB here: is it the right address?"
    )


class _Http(HTTPHandler):
    """Opens connections whose answers have an end to their time and length."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(partial(_connection, HTTPConnection, self._max_bytes), req)  # type: ignore[arg-type,return-value]


class _Https(HTTPSHandler):
    """The same with TLS."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(partial(_connection, HTTPSConnection, self._max_bytes), req)  # type: ignore[arg-type,return-value]


def _connection(
    kind: type[HTTPConnection], max_bytes: int, host: str, *, timeout: float
) -> HTTPConnection:
    connection = kind(host, timeout=timeout)
    connection.response_class = partial(LimitedResponse, most=max_bytes)  # type: ignore[assignment]
    return connection


def _untrusted(source: Source, error: ssl.SSLCertVerificationError) -> str:
    return (
        f"{source.url} cannot be downloaded: its certificate is not trusted "
        f"({error.verify_message}); behind a proxy that signs anew, let SSL_CERT_FILE name the "
        f"proxy's certificates, {source.instead}"
    )


class _Hops(HTTPRedirectHandler):
    """Follows redirects, and remembers the headers of those passed."""

    def __init__(self) -> None:
        self.headers: list[HTTPMessage] = []

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if req.type == "https" and not newurl.lower().startswith("https://"):
            raise DownloadError(
                f"{req.full_url} cannot be downloaded: it leads to {newurl}, which is not https: a "
                f"login page? Open it in a browser, {INSTEAD}"
            )
        self.headers.append(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _take_note(response: HTTPResponse, hops: _Hops, file: FileIO, note: Note, *, start: int) -> int:
    """Note what the headers tell; return where the content begins, the part being cut to that."""
    span = _SPAN.fullmatch(response.headers.get("Content-Range", ""))
    if response.status == 206 and not (span and int(span[1]) == start):
        file.truncate(0)
        raise Interrupted("the server sends another part than it was asked for")
    if response.status == 206 and span:
        note.num_bytes = int(span[2]) if span[2] != "*" else _announced(response, start=start)
    else:  # the whole file: the server knows no parts, or it is another file meanwhile
        file.truncate(0)
        start = 0
        note.num_bytes = _announced(response, start=0)
    tag = response.headers.get("ETag", "")
    is_strong = tag and not tag.startswith("W/")
    note.validator = tag if is_strong else response.headers.get("Last-Modified", "")
    for head in (*hops.headers, response.headers):
        note.commit = head.get("X-Repo-Commit", note.commit)
        stated = _SHA256.fullmatch(head.get("X-Linked-Etag", ""))
        note.sha256 = stated[1] if stated else note.sha256
    return start


def _announced(response: HTTPResponse, *, start: int) -> int:
    """The length of the file when all that the server means to send has come; -1: it isn't said."""
    length = response.headers.get("Content-Length", "")
    return start + int(length) if _LENGTH.fullmatch(length) else -1


def _copy(response: HTTPResponse, file: FileIO, source: Source, note: Note) -> None:
    start = size_of(file)
    with tqdm(
        desc=source.name,
        total=note.num_bytes if note.num_bytes >= 0 else None,
        initial=start,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,  # where stderr is no terminal
    ) as progress:
        while chunk := _read(response):
            if start == 0 == size_of(file):
                _refuse_web_page(response, chunk, source)
            write_whole(file, chunk)
            progress.update(len(chunk))
            whole = source.max_bytes if note.num_bytes < 0 else note.num_bytes
            if size_of(file) > whole:
                file.truncate(0)
                raise _too_long(source, f"sends more than {whole} bytes")


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK_BYTES)
    except TimeoutError as error:
        raise TooSlow(_words(error)) from None
    except (OSError, HTTPException) as error:
        raise Interrupted(f"the connection broke ({_words(error)})") from None


def _refuse_web_page(response: HTTPResponse, beginning: bytes, source: Source) -> None:
    title = web_page_title(beginning)
    if title is None and response.headers.get_content_type() != "text/html":
        return
    raise DownloadError(
        f"{source.url} sends a web page{f' ({title!r})' if title else ''} in place of the file, "
        f"from {response.url}: a proxy's or a login page? Open it in a browser, {source.instead}"
    )


def _check_free_space(source: Source, file: FileIO, note: Note) -> None:
    folder = Path(os.fsdecode(file.name)).parent
    needed, free = note.num_bytes - size_of(file), shutil.disk_usage(folder).free
    if needed > free:
        raise no_space(
            source, folder, f"{needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB free"
        )


def no_space(source: Source, folder: Path, reason: str) -> DownloadError:
    """Return the error that says so."""
    return DownloadError(
        f"no space for {source.name} in {folder}: {reason}; make room, or let TORCH_HOME and "
        "HF_HUB_CACHE be folders elsewhere"
    )


def _megabytes(note: Note) -> str:
    return f" ({note.num_bytes / 1e6:.1f} MB)" if note.num_bytes >= 0 else ""


def _words(error: object) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
