"""Which pictures a folder holds, and under which stem each one's result is known.

Every script that takes a folder of pictures finds them here, so all of them see the same ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lib.recipe import Recipe
from lib.transforms import PICTURE_SUFFIXES, eval_pixels, is_picture, normalize, open_rgb

_NEVER_PICTURES = (".bin", ".npy", ".json", ".txt")
_NUM_BYTES_SNIFFED = 16
_MAX_NAMES_SHOWN = 5
_MAX_REASON_LENGTH = 200


@dataclass(frozen=True)
class Found:
    """What lies below a folder: sorted paths relative to it."""

    pictures: tuple[str, ...]
    others: tuple[str, ...]  # files that are no pictures


@dataclass(frozen=True)
class Sources:
    """The pictures below `root`, by stem; in the order of their paths."""

    root: Path
    paths: dict[str, str]  # stem: path relative to root
    others: tuple[str, ...]  # files that are no pictures, relative to root

    def full_path(self, stem: str) -> str:
        """Where the picture lies."""
        return os.path.join(self.root, self.paths[stem])


def find_pictures(root: Path, *, leave_out: Path | None = None) -> Found:
    """The pictures right in `root` and in its folders, of any depth; links are followed.

    A picture is what has a picture's ending, and what begins like a JPEG, PNG, WebP or BMP file
    whatever its ending. Hidden files and folders are none.

    Args:
        root: the folder.
        leave_out: a folder that may lie in it and isn't looked into.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder of pictures: {root}")
    pictures: list[str] = []
    others: list[str] = []
    for path in sorted(_files_below(root, leave_out)):
        found = is_picture(os.path.basename(path)) or _begins_like_a_picture(root / path)
        (pictures if found else others).append(path)
    if not pictures:
        raise FileNotFoundError(
            f"{root} holds no pictures ({len(others)} other files{': ' if others else ''}"
            f"{shorten(others)}): give the folder of the pictures, or of their class folders"
        )
    return Found(tuple(pictures), tuple(others))


def find_sources(root: Path, *, leave_out: Path | None = None) -> Sources:
    """As `find_pictures`, for results that are named after the pictures' stems.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
        ValueError: two pictures have one stem.
    """
    found = find_pictures(root, leave_out=leave_out)
    return Sources(root, _by_stem(found.pictures), found.others)


def network_input(path: Path, recipe: Recipe) -> npt.NDArray[np.float32]:
    """What evaluation feeds the network of a picture: float32, 3 x crop x crop.

    Raises ValueError that names the file where it can't be read.
    """
    try:
        return normalize(eval_pixels(open_rgb(path), recipe), recipe)
    except Exception as error:  # Pillow's answers to damaged files have no common base
        raise ValueError(f"the picture {path} can't be read: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """An exception's kind and text, short enough for a list of them."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_REASON_LENGTH]


def picture_stem(name: str) -> str:
    """`a.b` for the picture `a.b.jpg`, and for `a.b`, which has no picture's ending."""
    dot = name.rfind(".")
    return name[:dot] if dot > 0 and name[dot:].lower() in PICTURE_SUFFIXES else name


def shorten(names: Sequence[str]) -> str:
    """A few of the names, and how many more there are."""
    shown = ", ".join(names[:_MAX_NAMES_SHOWN])
    num_more = len(names) - _MAX_NAMES_SHOWN
    return f"{shown} and {num_more} more" if num_more > 0 else shown


def walk(root: Path | str, *, leave_out: Path | None = None) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below `root`, itself included, with the names of its files; links followed.

    Left out are hidden files and folders, links that lead back to a folder they are in, what is
    neither file nor folder (a pipe would keep its reader waiting), and the folder `leave_out`.
    """
    left_out = None if leave_out is None else leave_out.resolve()
    folders = [os.fspath(root)]
    while folders:
        folder = folders.pop()
        below, names = _entries(folder)
        folders += [path for path in below if left_out is None or Path(path).resolve() != left_out]
        yield folder, names


def has_pictures_below(folder: Path) -> bool:
    """Tell whether a file with a picture's ending lies in a folder, at any depth."""
    return any(any(map(is_picture, names)) for _, names in walk(folder))


def _entries(folder: str) -> tuple[list[str], list[str]]:
    """Paths of the folders in a folder, and names of its files; see `walk`.

    The listing itself says what is what: only links are asked for, since files may be millions.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError:  # a folder that can't be read has nothing
        return [], []
    folders = [entry.path for entry in entries if _is_folder(entry)]
    names = [entry.name for entry in entries if _is_file_or_gone(entry)]
    return [path for path in folders if not _leads_back(folder, path)], names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_file_or_gone(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere is kept: whoever reads it says so, with its name."""
    if not entry.is_symlink():
        return entry.is_file()
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)


def _leads_back(folder: str, path: str) -> bool:
    return os.path.islink(path) and Path(folder).resolve().is_relative_to(Path(path).resolve())


def _files_below(root: Path, leave_out: Path | None) -> Iterator[str]:
    for folder, names in walk(root, leave_out=leave_out):
        below = os.path.relpath(folder, root)
        for name in names:
            yield name if below == "." else os.path.join(below, name)


def _begins_like_a_picture(path: Path) -> bool:
    if path.name.lower().endswith(_NEVER_PICTURES) or not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(_NUM_BYTES_SNIFFED)
    bmp = start[:2] == b"BM" and start[6:10] == bytes(4)  # four reserved bytes, always zero
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return bmp or webp or start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n"))


def _by_stem(pictures: Sequence[str]) -> dict[str, str]:
    paths: dict[str, str] = {}
    collisions: list[str] = []
    for path in pictures:
        first = paths.setdefault(picture_stem(os.path.basename(path)), path)
        if first != path:
            collisions.append(f"{first} and {path}")
    if collisions:
        raise ValueError(
            f"{len(collisions)} pictures share their name without its ending with another, so "
            f"their results would overwrite each other: {shorten(collisions)}; rename one of each"
        )
    return paths
