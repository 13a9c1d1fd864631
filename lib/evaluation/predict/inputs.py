"""Which pictures are meant by files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lib.data.picture_files import LeftOut, entries, find_pictures, is_system, walk
from lib.report.plots.text import DRAWN_BY
from lib.runtime.text import look_alikes, quoted, shorten

_NUM_BYTES_LOOKED_AT = 1024  # the texts of a PNG come first


def expand(words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the pictures' paths, each once, and lines on what of folders is left out.

    Of a folder they are all below it, of a pattern all it fits. A picture that is named in two ways
    has the path of the first; a link is a picture of its own. What was drawn by this program, an
    earlier contact sheet say, is left out unless it is named.
    Raises FileNotFoundError where a word names nothing, or a folder without pictures.
    """
    real_folder = cache(os.path.realpath)
    paths: dict[tuple[str, str], str] = {}
    said: dict[str, None] = {}
    drawings: dict[str, None] = {}
    for word in words:
        found, lines = _expand_one(word)
        said |= dict.fromkeys(lines)
        for path in found:
            if path != word and _is_drawing(path):
                drawings[path] = None
                continue
            folder, name = os.path.split(path)
            paths.setdefault((real_folder(folder), name), path)
    if drawings:
        line = f"{len(drawings)} drawings of this program left out: {shorten([*drawings])}"
        if not paths:
            raise FileNotFoundError(f"there are no pictures; {line}")
        said[line] = None
    return tuple(paths.values()), list(said)


def _is_drawing(path: str) -> bool:
    if not path.lower().endswith(".png"):
        return False
    try:
        with open(path, "rb") as file:
            return f"Software\0{DRAWN_BY}".encode() in file.read(_NUM_BYTES_LOOKED_AT)
    except OSError:  # reading it as a picture tells why
        return False


def _expand_one(word: str) -> tuple[Sequence[str], list[str]]:
    if os.path.isdir(word):
        listed = find_pictures(Path(word))
        paths = [os.path.join(word, name) for name in listed.pictures]
        return paths, listed.left_out.lines(word)
    if os.path.isfile(word):  # even where its name looks like a pattern
        return [word], []
    _check_listable(word)
    fitting = sorted(path for path in glob.glob(word, recursive=True) if os.path.isfile(path))
    found = [path for path in fitting if not _is_systems(path, word)]
    if not found:
        what = "fits the pattern" if glob.has_magic(word) else "is there under the name"
        raise FileNotFoundError(
            f"no picture {what} {quoted(word)}: give files, folders of pictures, or patterns"
            f"{_look_alike(word)}"
        )
    system = tuple(path for path in fitting if path not in set(found))
    return found, LeftOut(system=system).lines(os.curdir)


def _check_listable(pattern: str) -> None:
    """Raise ValueError for a folder that a pattern looks into and that can't be listed.

    Python's glob takes such a one for empty.
    """
    parts = Path(pattern).parts
    for number, part in enumerate(parts):
        if not glob.has_magic(part):
            continue
        before = os.path.join(*parts[:number]) if number else os.curdir
        for folder in filter(os.path.isdir, glob.glob(before, recursive=True)):
            for _ in walk(folder) if part == "**" else (entries(folder),):
                pass


def _is_systems(path: str, pattern: str) -> bool:
    """Tell whether a path has a name that systems keep, which the pattern doesn't ask for."""
    return any(is_system(name) and name not in pattern for name in Path(path).parts)


def _look_alike(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        return look_alikes([name], os.listdir(folder or os.curdir))
    except OSError:
        return ""
