"""Writes of which nothing or everything is seen."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(data: bytes | memoryview, path: str | Path, *, durable: bool = True) -> None:
    """Write aside and rename, so that `path` never holds half a file, whatever ends the process.

    What a killed process left aside is overwritten by the next write of the same file. Without
    `durable` a power cut may lose the file (not halve it), and thousands of small files are written
    many times faster.
    Raises OSError (a full disk, say); the old file then stands untouched, with no debris.
    """
    folder, name = os.path.split(path)
    aside = os.path.join(folder, f".{name}.tmp")
    try:
        with open(aside, "wb", buffering=0) as file:
            # A single call writes up to 2 GiB; what it leaves (a disk nearly full) goes next.
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[file.write(rest) :]
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
