"""Input files as Ascend's ais_bench takes them: said before the NPU runs, and not after.

It names a result by what stands before the first dot of its input's name. It refuses links, what
others than the owner may write to, and paths with unusual characters.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from lib.runtime.text import printable, quoted, shorten

FILE_MODE, FOLDER_MODE = 0o644, 0o755  # whatever the umask

_REFUSED = re.compile(r"[^A-Za-z0-9_/.-]")
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def faults_of_names(stems: Iterable[str]) -> list[str]:
    """Return a sentence for each kind of file names that ais_bench mixes up, loses or refuses."""
    by_beginning: dict[str, list[str]] = {}
    stems = list(stems)
    for stem in stems:
        by_beginning.setdefault(stem.split(".")[0], []).append(stem)
    clashes = [
        " and ".join(map(quoted, names)) for names in by_beginning.values() if len(names) > 1
    ]
    dotted = [stem for stem in stems if "." in stem]
    refused = [stem for stem in stems if _REFUSED.search(stem)]
    said = []
    if clashes:
        said.append(
            f"ais_bench names results by what stands before the first dot, so that {len(clashes)} "
            f"would be those of several pictures: {shorten(clashes, form=str)}; rename these "
            "pictures"
        )
    elif dotted:
        said.append(
            f"ais_bench names results by what stands before the first dot, so that the label file "
            f"would miss those of {len(dotted)} pictures: {shorten(dotted)}; rename these pictures"
        )
    if refused:
        said.append(
            "ais_bench takes letters, digits, '_', '-' and '.' in names alone, and refuses "
            f"{len(refused)}: {shorten(refused)}; rename these pictures"
        )
    return said


def faults_of_folder(folder: Path) -> list[str]:
    """Return a sentence for each thing for which ais_bench refuses a folder of input files."""
    said = []
    name = printable(str(folder))
    if folder.is_symlink():
        said.append(f"ais_bench refuses links, and {name} is one: give it the folder itself")
    if folder.stat().st_mode & _WRITABLE_BY_OTHERS:
        said.append(
            f"ais_bench refuses {name}, since others than its owner may write to it: chmod go-w"
        )
    return said


def make_acceptable(folder: Path) -> None:
    """Take the right to write from others than the owner, of all files in a folder.

    What a stopped write left aside is removed. Links, and files of another owner, stay as they
    are. Raises OSError.
    """
    for entry in os.scandir(folder):
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            continue
        if entry.name.startswith(".") and entry.name.endswith(".tmp"):
            os.unlink(entry.path)
        elif stat.S_IMODE(status.st_mode) != FILE_MODE:
            os.chmod(entry.path, FILE_MODE)
