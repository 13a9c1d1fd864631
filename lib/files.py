"""Writes of which nothing or everything is seen."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

_CHUNK = 2**20


def sha256_of(path: Path) -> str:
    """Return the SHA-256 sum of a file in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_json(content: object, path: Path) -> None:
    """Write `content` as indented JSON in one piece. Raises OSError."""
    write_atomically(f"{json.dumps(content, indent=2)}\n".encode(), path)


def write_atomically(data: bytes | memoryview, path: str | Path, *, durable: bool = True) -> None:
    """Write aside and rename, so that `path` never holds half a file, whatever ends the process.

    What a killed process left aside is overwritten by the next write of the same file. Without
    `durable` a power cut may lose the file (not halve it), and thousands of small files are written
    many times faster.
    Raises OSError (a full disk, say); the old file then stands untouched, with no debris.
    """
    with open_atomically(path, durable=durable) as file:
        write_whole(file, data)


def write_whole(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of `data`: one call writes up to 2 GiB, and less on a disk nearly full."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def open_atomically(path: str | Path, *, durable: bool = True) -> Iterator[FileIO]:
    """Yield a file to write to that becomes `path` at the end of the block; see above.

    Where the block raises, the old file stands untouched.
    """
    folder, name = os.path.split(path)
    aside = os.path.join(folder, f".{name}.tmp")
    try:
        with open(aside, "wb", buffering=0) as file:
            yield file
            if durable:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        if os.path.lexists(aside):
            os.unlink(aside)
        if isinstance(error, OSError):  # named after the file that is missing now
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    if durable:
        _flush_folder(folder or ".")


def _flush_folder(folder: str) -> None:
    """Put a rename itself on the disk: it must outlive a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
