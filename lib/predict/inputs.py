"""Which pictures are meant by files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lib.pictures import find_pictures


def expand(words: Sequence[str]) -> tuple[str, ...]:
    """Return the pictures' paths, each once: of a folder all below it, of a pattern all it fits.

    A picture that is named in two ways has the path of the first; a link is a picture of its own.
    Raises FileNotFoundError where a word names nothing, or a folder without pictures.
    """
    real_folder = cache(os.path.realpath)
    paths: dict[tuple[str, str], str] = {}
    for word in words:
        for path in _expand_one(word):
            folder, name = os.path.split(path)
            paths.setdefault((real_folder(folder), name), path)
    return tuple(paths.values())


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
