"""Names of files, and writes of which nothing or everything is seen."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from lib.transforms import PICTURE_SUFFIXES

_MAX_NAMES_SHOWN = 5


def write_whole(data: bytes | memoryview, path: str | Path, *, durable: bool = True) -> None:
    """Write aside and rename, so that `path` never holds half a file, whatever ends the process.

    What a killed process left aside is overwritten by the next write of the same file.

    Args:
        data: the content.
        path: where it goes.
        durable: wait until it is on the disk. Without, a power cut may lose the file (not halve
            it), and thousands of small files are written many times faster.

    Raises:
        OSError: the disk is full, say; nothing is left behind.
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
    except BaseException:
        if os.path.lexists(aside):
            os.unlink(aside)
        raise


def write_json(content: object, path: Path) -> None:
    """Write `content` as indented JSON in one piece. Raises OSError."""
    write_whole(f"{json.dumps(content, indent=2)}\n".encode(), path)


def picture_stem(name: str) -> str:
    """`a.b` for the picture `a.b.jpg`, and for `a.b`, which has no picture's ending."""
    dot = name.rfind(".")
    return name[:dot] if dot > 0 and name[dot:].lower() in PICTURE_SUFFIXES else name


def shorten(names: Sequence[str]) -> str:
    """A few of the names, and how many more there are."""
    shown = ", ".join(names[:_MAX_NAMES_SHOWN])
    num_more = len(names) - _MAX_NAMES_SHOWN
    return f"{shown} and {num_more} more" if num_more > 0 else shown
