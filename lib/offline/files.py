"""Names of files, and records beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lib.files import write_atomically
from lib.transforms import PICTURE_SUFFIXES

_MAX_NAMES_SHOWN = 5


def write_json(content: object, path: Path) -> None:
    """Write `content` as indented JSON in one piece. Raises OSError."""
    write_atomically(f"{json.dumps(content, indent=2)}\n".encode(), path)


def picture_stem(name: str) -> str:
    """`a.b` for the picture `a.b.jpg`, and for `a.b`, which has no picture's ending."""
    dot = name.rfind(".")
    return name[:dot] if dot > 0 and name[dot:].lower() in PICTURE_SUFFIXES else name


def shorten(names: Sequence[str]) -> str:
    """A few of the names, and how many more there are."""
    shown = ", ".join(names[:_MAX_NAMES_SHOWN])
    num_more = len(names) - _MAX_NAMES_SHOWN
    return f"{shown} and {num_more} more" if num_more > 0 else shown
