"""Which pictures are meant by files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from lib.pictures import find_pictures


def expand(words: Sequence[str]) -> tuple[str, ...]:
    """Return the pictures' paths, each once: of a folder all below it, of a pattern all it fits.

    Raises FileNotFoundError where a word names nothing, or a folder without pictures.
    """
    paths: dict[str, None] = {}
    for word in words:
        paths.update(dict.fromkeys(_expand_one(word)))
    return tuple(paths)


def _expand_one(word: str) -> list[str]:
    if os.path.isdir(word):
        return [os.path.join(word, name) for name in find_pictures(Path(word)).pictures]
    if os.path.isfile(word):  # even where its name looks like a pattern
        return [word]
    found = sorted(path for path in glob.glob(word, recursive=True) if os.path.isfile(path))
    if not found:
        what = "fits the pattern" if glob.has_magic(word) else "is there under the name"
        raise FileNotFoundError(
            f"no picture {what} {word!r}: give files, folders of pictures, or patterns"
        )
    return found
