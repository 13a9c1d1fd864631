"""A validation part set aside from the training pictures, for data sets that come without one."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from lib.data.lists import ImageList


@dataclass(frozen=True)
class SetAside:
    """Which pictures of each class are set aside: DATASET.VAL_SHARE and DATASET.SPLIT_SEED."""

    share: float  # of each class; 0: none
    seed: int = 0

    def split(self, images: ImageList, folder: Path) -> tuple[ImageList, ImageList]:
        """Return the pictures to train on and those set aside, each in the order of `images`.

        Of n pictures of a class round(share * n) are set aside, at least 1 and at most n - 1: those
        with the smallest hashes of the seed and their path below `folder`. So neither the machine
        nor the order of the files matters, and pictures added later move few of the others.
        Raises ValueError where no class has two pictures.
        """
        by_class: dict[int, list[tuple[bytes, int]]] = {}
        for index, (path, target) in enumerate(zip(images.paths, images.targets, strict=True)):
            key = self._hash(os.path.relpath(path, folder))
            by_class.setdefault(target, []).append((key, index))
        aside: set[int] = set()
        for members in by_class.values():
            num_aside = min(max(1, round(self.share * len(members))), len(members) - 1)
            aside.update(index for _, index in sorted(members)[:num_aside])
        if not aside:
            raise ValueError(
                f"{folder}: no class has two pictures, so that one could be set aside to validate "
                "with (DATASET.VAL_SHARE): add pictures, or a val/ folder"
            )
        indices = range(len(images))
        return (
            _subset(images, [index for index in indices if index not in aside]),
            _subset(images, [index for index in indices if index in aside]),
        )

    def _hash(self, name: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/".encode() + os.fsencode(name)).digest()


def _subset(images: ImageList, indices: list[int]) -> ImageList:
    paths = tuple(images.paths[index] for index in indices)
    return replace(images, paths=paths, targets=tuple(images.targets[index] for index in indices))
