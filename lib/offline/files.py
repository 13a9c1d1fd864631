"""Names of files, and records beside them."""

from __future__ import annotations

import json
from pathlib import Path

from lib.files import write_atomically
from lib.pictures import picture_stem, shorten

__all__ = ["picture_stem", "shorten", "write_json"]


def write_json(content: object, path: Path) -> None:
    """Write `content` as indented JSON in one piece. Raises OSError."""
    write_atomically(f"{json.dumps(content, indent=2)}\n".encode(), path)
