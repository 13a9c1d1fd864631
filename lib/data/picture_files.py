"""Which pictures a folder holds, and under which stem each one's result is known.

Every program finds its pictures by these rules, so all of them see the same ones, and says what it
has left out. A picture is a file with a picture's ending, in upper or lower case. Left out, with
all that is in them, are hidden files and folders and those that systems keep for themselves:
thumbnails, recycle bins, snapshots.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lib.config.recipe import Recipe
from lib.data.rgb import open_rgb
from lib.data.transforms import eval_pixels, normalize
from lib.runtime.text import one_line, printable, quoted, shorten

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp")
PICTURE_SUFFIXES = (
    *JPEG_SUFFIXES,
    *(".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)

LABEL_FILE = "val_label.txt"  # beside pictures that are in no class folders

# In lower case. Synology, QNAP, macOS, Windows, NetApp and fsck keep these beside the data.
_SYSTEM_WORDS = """
@eadir @tmp @recycle @recently-snapshot @__thumb @__qini @sharebin @sharesnap #recycle #snapshot
~snapshot __macosx __pycache__ lost+found $recycle.bin thumbs.db ehthumbs.db ehthumbs_vista.db
desktop.ini picasa.ini
"""
_SYSTEM_NAMES = frozenset(
    (*_SYSTEM_WORDS.split(), "icon\r", "network trash folder", "system volume information",
     "temporary items")
)  # fmt: skip
_SYSTEM_START, _SYSTEM_ENDS = "synophoto_", ("@synoeastream", "@synoresource")

# Of the files left out, so many are looked into for a picture that lacks its ending.
_MAX_SNIFFED = 1000
_NEVER_PICTURES = (".bin", ".npy", ".json", ".txt", ".xml", ".csv", ".md", ".tsv", ".yaml")
_NUM_BYTES_SNIFFED = 16
_PICTURE_STARTS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8"),
    *(b"P4\n", b"P5\n", b"P6\n", b"\0\0\0\x0cjP  "),
)


def is_picture(name: str) -> bool:
    """Return True for a file name with a picture's ending that isn't hidden or a system's own."""
    return name.lower().endswith(PICTURE_SUFFIXES) and not is_system(name)


def is_system(name: str) -> bool:
    """Return True for the name of a file or folder that is hidden, or that a system keeps."""
    if name.startswith("."):
        return True
    lower = name.lower()
    return lower in _SYSTEM_NAMES or lower.startswith(_SYSTEM_START) or lower.endswith(_SYSTEM_ENDS)


class Entries(NamedTuple):
    """The sorted names in one folder; links are followed."""

    folders: list[str]
    files: list[str]
    system: list[str]  # hidden, a system's own, or neither file nor folder (a pipe, say)


def entries(folder: Path | str) -> Entries:
    """Return what lies right in a folder.

    The listing itself says what is what: only links are asked for, since files may be millions.
    Raises ValueError, which names the folder, where it can't be listed.
    """
    found = Entries([], [], [])
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                if is_system(entry.name):
                    found.system.append(entry.name)
                elif _is_folder(entry):
                    found.folders.append(entry.name)
                else:
                    names = found.files if _is_file_or_gone(entry) else found.system
                    names.append(entry.name)
    except OSError as error:  # what it holds would be missing without a word
        raise ValueError(
            f"the folder {quoted(os.fspath(folder))} can't be listed "
            f"({error.strerror or error}): make it readable for this user, or move it elsewhere"
        ) from None
    for names in found:
        names.sort()
    return found


@dataclass(frozen=True)
class LeftOut:
    """The files and folders that a listing has passed over, by their whole paths."""

    others: tuple[str, ...] = ()  # files without a picture's ending
    outside: tuple[str, ...] = ()  # pictures beside the class folders
    system: tuple[str, ...] = ()  # hidden files and folders, and systems' own

    @classmethod
    def whole(cls, parts: Sequence[LeftOut]) -> LeftOut:
        """Return what all of several listings have passed over."""
        return cls(
            tuple(path for part in parts for path in part.others),
            tuple(path for part in parts for path in part.outside),
            tuple(path for part in parts for path in part.system),
        )

    def lines(self, root: Path | str) -> list[str]:
        """Return the line to say of it; none where there is nothing. See `remark`.

        What a user may miss is a warning.
        """
        remark = self.remark(root).removeprefix("; ")
        warning = "[Warning] " if self.others or self.outside else ""
        return [warning + remark] if remark else []

    def remark(self, root: Path | str) -> str:
        """Return how many there are, and a few names below `root`, after `; `; '' for none.

        Files are looked into for this: some may be pictures.
        """
        names = partial(shorten, form=lambda path: quoted(os.path.relpath(path, root)))
        kinds = (
            ("file", "without a picture's ending", self.others),
            ("picture", "beside the class folders", self.outside),
            ("name", "hidden or of the system", self.system),
        )
        said = [
            f"{len(paths)} {what}{'s' * (len(paths) > 1)} {kind} ({names(sorted(paths))})"
            for what, kind, paths in kinds
            if paths
        ]
        unnamed = [path for path in sorted(self.others)[:_MAX_SNIFFED] if _looks_like_picture(path)]
        if unnamed:
            said.append(
                f"pictures by their content are {names(unnamed)}: give them an ending such as "
                "'.jpg' to have them taken"
            )
        return f"; left out of {quoted(os.fspath(root))}: {'; '.join(said)}" if said else ""


@dataclass(frozen=True)
class Found:
    """What lies below a folder: sorted paths of pictures relative to it, and what is left out."""

    pictures: tuple[str, ...]
    left_out: LeftOut


@dataclass(frozen=True)
class Sources:
    """The pictures below `root`, by stem; in the order of their paths."""

    root: Path
    paths: dict[str, str]  # stem: path relative to root
    left_out: LeftOut = field(default_factory=LeftOut)

    def full_path(self, stem: str) -> str:
        """Where the picture lies."""
        return os.path.join(self.root, self.paths[stem])


def find_pictures(root: Path, *, leave_out: Path | None = None) -> Found:
    """The pictures right in `root` and in its folders, of any depth; links are followed.

    Args:
        root: the folder.
        leave_out: a folder that may lie in it and isn't looked into.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
        ValueError: a folder can't be listed.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder of pictures: {quoted(str(root))}")
    listed = list_below(root, leave_out=leave_out)
    if not listed.pictures:
        raise FileNotFoundError(
            f"{quoted(str(root))} holds no pictures: give the folder of the pictures, or of their "
            f"class folders (looked for {' '.join(PICTURE_SUFFIXES)}){listed.left_out.remark(root)}"
        )
    prefix = os.path.join(root, "")
    relative = sorted(path.removeprefix(prefix) for path in listed.pictures)
    return Found(tuple(relative), listed.left_out)


def find_sources(root: Path, *, leave_out: Path | None = None) -> Sources:
    """As `find_pictures`, for results that are named after the pictures' stems.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
        ValueError: two pictures have one stem, or a folder can't be listed.
    """
    found = find_pictures(root, leave_out=leave_out)
    return Sources(root, _by_stem(found.pictures), found.left_out)


def list_below(folder: Path | str, *, leave_out: Path | None = None) -> Found:
    """The same by whole paths, sorted by folder and name, for none too.

    Raises ValueError where a folder can't be listed.
    """
    pictures: list[str] = []
    others: list[str] = []
    system: list[str] = []
    for parent, found in sorted(walk(folder, leave_out=leave_out)):
        for name in found.files:
            kind = pictures if name.lower().endswith(PICTURE_SUFFIXES) else others
            if name != LABEL_FILE:
                kind.append(os.path.join(parent, name))
        system += [os.path.join(parent, name) for name in found.system]
    return Found(tuple(pictures), LeftOut(tuple(others), system=tuple(system)))


def network_input(path: Path, recipe: Recipe) -> npt.NDArray[np.float32]:
    """What evaluation feeds the network of a picture: float32, 3 x crop x crop.

    Raises ValueError that names the file where it can't be read.
    """
    try:
        image = open_rgb(path, orientation=recipe.orientation)
        return normalize(eval_pixels(image, recipe), recipe)
    except Exception as error:  # Pillow's answers to damaged files have no common base
        raise ValueError(
            f"the picture {quoted(str(path))} can't be read: {one_line(error, with_type=True)}"
        ) from None


def picture_stem(name: str) -> str:
    """`a.b` for the picture `a.b.jpg`, and for `a.b`, which has no picture's ending."""
    dot = name.rfind(".")
    return name[:dot] if dot > 0 and name[dot:].lower() in PICTURE_SUFFIXES else name


def walk(root: Path | str, *, leave_out: Path | None = None) -> Iterator[tuple[str, Entries]]:
    """Yield each folder below `root`, itself included, with its entries; links are followed.

    Not followed are links that lead back to a folder they are in, and the folder `leave_out`.
    Raises ValueError where a folder can't be listed.
    """
    left_out = None if leave_out is None else leave_out.resolve()
    folders = [os.fspath(root)]
    while folders:
        folder = folders.pop()
        found = entries(folder)
        below = [os.path.join(folder, name) for name in found.folders]
        folders += [
            path
            for path in below
            if not _leads_back(folder, path)
            and (left_out is None or Path(path).resolve() != left_out)
        ]
        yield folder, found


def has_pictures_below(folder: Path) -> bool:
    """Tell whether a picture lies in a folder, at any depth; raises ValueError as `walk`."""
    if not folder.is_dir():
        return False
    return any(any(map(is_picture, found.files)) for _, found in walk(folder))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_file_or_gone(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere is kept: whoever reads it says so, with its name."""
    if not entry.is_symlink():
        return entry.is_file()
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)


def _leads_back(folder: str, path: str) -> bool:
    return os.path.islink(path) and Path(folder).resolve().is_relative_to(Path(path).resolve())


def _looks_like_picture(path: str) -> bool:
    """Tell whether a file begins like a picture, whatever its name; what can't be read does not."""
    if path.lower().endswith(_NEVER_PICTURES) or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(_NUM_BYTES_SNIFFED)
    except OSError:
        return False
    bmp = start[:2] == b"BM" and start[6:10] == bytes(4)  # four reserved bytes, always zero
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return bmp or webp or start.startswith(_PICTURE_STARTS)


def _by_stem(pictures: Sequence[str]) -> dict[str, str]:
    paths: dict[str, str] = {}
    collisions: list[str] = []
    for path in pictures:
        first = paths.setdefault(picture_stem(os.path.basename(path)), path)
        if first != path:
            collisions.append(f"{quoted(first)} and {quoted(path)}")
    if collisions:
        raise ValueError(
            f"{len(collisions)} pictures share their name without its ending with another, so "
            "their results would overwrite each other: "
            f"{shorten(collisions, form=printable)}; rename one of each"
        )
    return paths
