"""A validation part set aside from the training pictures, for data sets that come without one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from lib.data.bad_images import in_one_line
from lib.data.image_list import ImageList
from lib.data.picture_files import LeftOut
from lib.runtime.files import write_atomically
from lib.runtime.run_folder import SPLIT

_TRAIN, _VAL = "train", "val"  # in split.tsv


@dataclass(frozen=True)
class SetAside:
    """Which pictures of each class are set aside: DATASET.VAL_SHARE and DATASET.SPLIT_SEED.

    `kept` are those that the run has set aside before, by their `names_below`. They and no others
    are set aside then, so that none that was trained on is ever validated with. Of a data set that
    has none of the run's pictures, pictures are chosen anew.
    """

    share: float  # of each class; 0: none
    seed: int = 0
    kept: Set[str] | None = None
    trained: Set[str] = frozenset()  # those that the run has trained on, where that is known

    @classmethod
    def of_run(cls, share: float, seed: int, folder: Path) -> SetAside:
        """Return what the run of a folder has set aside, as its split.tsv says, if there is one.

        All pictures that it names lie in DATASET.TRAIN_SET, which is what their paths share.
        """
        if not share or not (folder / SPLIT).is_file():
            return cls(share, seed)
        return cls(share, seed, *_read_split(folder / SPLIT))

    def split(self, images: ImageList, folder: Path) -> tuple[ImageList, ImageList]:
        """Return the pictures to train on and those set aside, each in the order of `images`.

        Of n pictures of a class round(share * n) are set aside, at least 1 and at most n - 1: those
        with the smallest hashes of the seed and their path below `folder`. So neither the machine
        nor the order of the files matters, and pictures added later move few of the others.
        Raises ValueError where no class has two pictures, or none is left of those kept.
        """
        names = names_below(images, folder)
        if self.trained:
            names = [in_one_line(name) for name in names]  # as they are listed
        is_other_data = self.trained and not (self.trained | (self.kept or set())) & set(names)
        is_drawn = self.kept is None or is_other_data
        aside = self._chosen(names, images.targets) if is_drawn else self._kept(names)
        if not aside and is_drawn:
            raise ValueError(
                f"{folder}: no class has two pictures, so that one could be set aside to validate "
                "with (DATASET.VAL_SHARE): add pictures, or a val/ folder"
            )
        if not aside or len(aside) == len(names):
            missing = "validate with" if not aside else "train on"
            raise ValueError(
                f"{folder} holds nothing to {missing}: the run has set aside "
                f"{len(self.kept or ())} pictures, of which {len(aside)} are among its "
                f"{len(names)}; bring the pictures back, or begin a new run with --pretrained"
            )
        indices = range(len(images))
        to_train = _subset(images, [index for index in indices if index not in aside])
        to_validate = _subset(images, [index for index in indices if index in aside])
        return to_train, replace(to_validate, left_out=LeftOut())  # it is said once

    def _chosen(self, names: Sequence[str], targets: Sequence[int]) -> set[int]:
        by_class: dict[int, list[tuple[bytes, int]]] = {}
        for index, (name, target) in enumerate(zip(names, targets, strict=True)):
            by_class.setdefault(target, []).append((self._hash(name), index))
        aside: set[int] = set()
        for members in by_class.values():
            num_aside = min(max(1, round(self.share * len(members))), len(members) - 1)
            aside.update(index for _, index in sorted(members)[:num_aside])
        return aside

    def _kept(self, names: Sequence[str]) -> set[int]:
        return {index for index, name in enumerate(names) if name in (self.kept or ())}

    def _hash(self, name: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/".encode() + os.fsencode(name)).digest()


def write_split(images: ImageList, val_images: ImageList, folder: Path) -> None:
    """Write split.tsv: the pictures to train on, and those set aside. Raises OSError."""
    lines = ["part\tfile"]
    for split, listed in ((_TRAIN, images), (_VAL, val_images)):
        lines += [f"{split}\t{in_one_line(path)}" for path in listed.paths]
    text = "\n".join([*lines, ""])
    write_atomically(text.encode(errors="surrogateescape"), folder / SPLIT)


def _read_split(listing: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Return what is set aside and what is trained on, below the folder that they share."""
    text = listing.read_bytes().decode("utf-8", errors="surrogateescape")
    rows = [line.partition("\t")[::2] for line in text.split("\n")[1:] if "\t" in line]
    top = os.path.commonpath([os.path.dirname(path) for _, path in rows] or [""])
    names = [(split, os.path.relpath(path, top)) for split, path in rows]
    return tuple(  # type: ignore[return-value]
        frozenset(name for split, name in names if split == wanted) for wanted in (_VAL, _TRAIN)
    )


def names_below(images: ImageList, folder: Path) -> list[str]:
    """Return the pictures' paths below `folder`, in which they were listed."""
    prefix = os.path.join(folder, "")
    return [path.removeprefix(prefix) for path in images.paths]


def _subset(images: ImageList, indices: list[int]) -> ImageList:
    paths = tuple(images.paths[index] for index in indices)
    return replace(images, paths=paths, targets=tuple(images.targets[index] for index in indices))
