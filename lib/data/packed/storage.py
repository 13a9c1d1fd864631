"""Where a packed data set lies: in a folder, or below an http address. Parts of files are read.

A store can be handed to other processes, by fork as by pickling: connections are each one's own,
and a file read by offset has no position that two could fight over.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import stat
import time
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from lib.runtime.files import is_url
from lib.runtime.text import one_line, printable

_MAX_OPEN_FILES = 256
_TIMEOUT_S = 60.0
_LOWEST_BYTES_PER_S = 10_000  # that a server must send after as many seconds
_MAX_HEADER_BYTES = 2**20
_BLOCK_BYTES = 2**20
# Seconds before each further try. The first comes at once: servers close idle connections.
_WAITS_S = (0.0, 0.5, 1.0, 2.0, 4.0)
_TEMPORARY = (408, 429, 500, 502, 503, 504)
_NO_PARTS = (
    "the server sends whole files where a part is asked for (a Range request), as Python's "
    "http.server does; use one that sends parts, such as nginx or Apache"
)


class StorageError(OSError):
    """A file of a packed data set can't be had, or isn't the one that its index tells of."""

    def __init__(self, message: str) -> None:
        # A worker's error is made anew in the parent from its whole traceback, which ends in this
        # message; that is all that a user needs.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class Store(Protocol):
    """Files by their names below a root, such as `train/000000.tar`."""

    def where(self, name: str) -> str:
        """Return the path or address of a file."""

    def whole(self, name: str, *, most: int) -> bytes:
        """Return all of a file, which has `most` bytes or fewer. Raises StorageError."""

    def part(self, name: str, offset: int, num_bytes: int, *, size: int) -> bytes:
        """Return a part of a file that has `size` bytes in all. Raises StorageError."""


def open_store(root: Path | str) -> Store:
    """Return the store of a folder or an address. Raises ValueError for half an address."""
    return HttpStore(str(root)) if is_url(root) else FolderStore(Path(root))


class FolderStore:
    """Files in a folder; the shards read last stay open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, int] = {}

    def __reduce__(self) -> tuple[type[FolderStore], tuple[Path]]:
        return FolderStore, (self._root,)

    def __del__(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def where(self, name: str) -> str:
        return printable(str(self._root / name))

    def whole(self, name: str, *, most: int) -> bytes:
        path = self._root / name
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):  # a pipe would keep its reader waiting
                raise StorageError(f"{self.where(name)} can't be read: it is no file")
            if found.st_size > most:
                raise StorageError(_too_long(self.where(name), most))
            return path.read_bytes()
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(f"{self.where(name)} can't be read: {error.strerror}") from None

    def part(self, name: str, offset: int, num_bytes: int, *, size: int) -> bytes:
        try:
            descriptor = self._descriptor(name, size)
            content = os.pread(descriptor, num_bytes, offset)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{self.where(name)} can't be read: {error.strerror}") from None
        if len(content) != num_bytes:
            raise StorageError(
                f"{self.where(name)} was cut short meanwhile: bytes {offset} to "
                f"{offset + num_bytes} are not there"
            )
        return content

    def _descriptor(self, name: str, size: int) -> int:
        if name not in self._open:
            descriptor = os.open(self._root / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            found = os.fstat(descriptor).st_size
            if found != size:
                os.close(descriptor)
                raise StorageError(_other_size(self.where(name), found, size))
            if len(self._open) >= _MAX_OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[name] = descriptor
        return self._open[name]


class _Arriving(io.RawIOBase):
    """What a server sends, for as long as it comes fast enough and there isn't too much of it."""

    def __init__(self, connection: socket.socket, most: int) -> None:
        self._connection, self._most = connection, most
        self._stream = connection.makefile("rb", buffering=0)
        self._begin_s, self._num_bytes = time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._num_bytes > self._most:
            raise http.client.HTTPException(f"more than {self._most} bytes came")
        allowed_s = _TIMEOUT_S + self._num_bytes / _LOWEST_BYTES_PER_S
        left_s = self._begin_s + allowed_s - time.monotonic()
        try:
            self._connection.settimeout(max(left_s, 1e-3))
            num_bytes = self._stream.readinto(buffer) or 0
        except TimeoutError:
            raise TimeoutError(f"{self._num_bytes} bytes came in {allowed_s:.0f} s") from None
        self._num_bytes += num_bytes
        return num_bytes

    def close(self) -> None:
        self._stream.close()
        super().close()


class LimitedResponse(http.client.HTTPResponse):
    """An answer, head and body, with an end to its time and length."""

    def __init__(
        self,
        connection: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        *,
        most: int,
    ) -> None:
        super().__init__(connection, debuglevel, method)
        self.fp.close()
        self.fp = io.BufferedReader(_Arriving(connection, most + _MAX_HEADER_BYTES))


class HttpStore:
    """Files below an address, over one connection a process that is kept and mended."""

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")
        try:
            address = urlsplit(self._root)
            self._host, self._port = address.hostname or "", address.port
        except ValueError:  # a port that is no number, half a pair of brackets
            self._host = ""
        if not self._host or address.query or address.fragment:
            raise ValueError(f"{root!r} is no address to read from: use http://HOST:PORT/PATH")
        self._is_secure, self._path = address.scheme.lower() == "https", address.path
        self._connection: http.client.HTTPConnection | None = None
        self._process = 0

    def __reduce__(self) -> tuple[type[HttpStore], tuple[str]]:
        return HttpStore, (self._root,)

    def where(self, name: str) -> str:
        return f"{self._root}/{quote(name)}"

    def whole(self, name: str, *, most: int) -> bytes:
        content, _ = self._get(name, {}, wanted=200, most=most)
        if len(content) > most:
            raise StorageError(_too_long(self.where(name), most))
        return content

    def part(self, name: str, offset: int, num_bytes: int, *, size: int) -> bytes:
        if num_bytes == 0:  # what no Range can ask for
            return b""
        last = offset + num_bytes - 1
        asked = {"Range": f"bytes={offset}-{last}"}
        content, span = self._get(name, asked, wanted=206, most=num_bytes)
        _, _, found = span.rpartition("/")
        if found.isdecimal() and int(found) != size:
            raise StorageError(_other_size(self.where(name), int(found), size))
        if not span.startswith(f"bytes {offset}-{last}/") or len(content) != num_bytes:
            raise StorageError(
                f"{self.where(name)}: the server was asked for bytes {offset}-{last} and sent "
                f"{'more than ' * (len(content) > num_bytes)}"
                f"{min(len(content), num_bytes)} bytes, {span or 'without a Content-Range'}"
            )
        return content

    def _get(
        self, name: str, headers: dict[str, str], *, wanted: int, most: int
    ) -> tuple[bytes, str]:
        """Return a file's content, or its part, and the Content-Range that came with it.

        Where it is longer than `most`, one byte more is returned.
        """
        reason = ""
        for wait_s in (None, *_WAITS_S):
            if wait_s is not None:
                time.sleep(wait_s)
            try:
                response = self._ask(name, headers, most)
                if response.status == wanted:
                    content = _read(response, most)
                    if len(content) > most:
                        self._connection = None  # the rest isn't read
                    return content, response.headers.get("Content-Range", "")
            except (OSError, http.client.HTTPException) as error:
                self._connection = None
                reason = one_line(error, with_type=True)
                continue
            self._connection = None  # what else it sends isn't read: it may be a whole shard
            reason = f"the server answers {response.status} {response.reason}"
            if response.status == 200:
                reason = _NO_PARTS
            if response.status not in _TEMPORARY:
                raise StorageError(f"{self.where(name)} can't be read: {reason}")
        tries = f"tried {1 + len(_WAITS_S)} times"
        raise StorageError(f"{self.where(name)} can't be read: {reason} ({tries})")

    def _ask(self, name: str, headers: dict[str, str], most: int) -> http.client.HTTPResponse:
        if self._connection is None or self._process != os.getpid():
            kind = http.client.HTTPSConnection if self._is_secure else http.client.HTTPConnection
            self._connection = kind(self._host, self._port, timeout=_TIMEOUT_S)
            self._process = os.getpid()
        if self._connection.sock is not None:
            self._connection.sock.settimeout(_TIMEOUT_S)
        self._connection.response_class = partial(LimitedResponse, most=most)  # type: ignore[assignment]
        self._connection.request("GET", f"{self._path}/{quote(name)}", headers=headers)
        return self._connection.getresponse()


def _read(response: http.client.HTTPResponse, most: int) -> bytes:
    content = bytearray()
    while len(content) <= most:
        block = response.read(min(_BLOCK_BYTES, most + 1 - len(content)))
        if not block:
            break
        content += block
    if len(content) <= most and response.length:
        raise http.client.IncompleteRead(bytes(content), response.length)
    return bytes(content)


def _too_long(where: str, most: int) -> str:
    return f"{where} has more than {most} bytes: it is damaged, or another file"


def _other_size(where: str, found: int, size: int) -> str:
    return (
        f"{where} has {found} bytes and the index says {size}: it was damaged or replaced; "
        "tools/pack_dataset.py --verify names what else is"
    )
