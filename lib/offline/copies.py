"""Predictions that several devices made of the same pictures, as ais_bench's do by default."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.offline.prediction_files import read_whole


@dataclass(frozen=True)
class Copies:
    """The predictions of a folder, each once."""

    names: tuple[str, ...]  # relative to the folder; without what devices disagree on
    num_copies: int  # further files that equal one of these
    differing: Mapping[str, str]  # a file, and the first of that name, which it should equal


def without_copies(folder: Path, names: Sequence[str]) -> Copies:
    """Take files of one name in several device folders for one, where their bytes are equal."""
    first_of: dict[str, str] = {}
    num_copies = 0
    differing: dict[str, str] = {}
    in_doubt: set[str] = set()
    for name in names:
        base = os.path.basename(name)
        first = first_of.setdefault(base, name)
        if first == name:
            continue
        if _are_equal(folder / first, folder / name):
            num_copies += 1
        else:
            differing[name] = first
            in_doubt.add(base)
    kept = tuple(name for base, name in first_of.items() if base not in in_doubt)
    return Copies(kept, num_copies, differing)


def _are_equal(first: Path, second: Path) -> bool:
    try:
        return read_whole(first) == read_whole(second)
    except (OSError, ValueError):
        return False
