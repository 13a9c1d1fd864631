"""What is worth knowing of the pictures before the training begins."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from yacs.config import CfgNode

from lib.data import BadImageLedger, ImageList
from lib.data.bad_images import BadImage, describe_failure
from lib.pictures import walk
from lib.transforms import is_picture

_MUCH_LARGER, _NUM_NAMED = 5, 3


@dataclass(frozen=True)
class Surveyed:
    """What is looked at: the pictures of both lists, and the other files of their folders."""

    images: ImageList
    val_images: ImageList
    folders: tuple[Path, ...] = ()  # that the lists are of


def survey(
    data: Surveyed, settings: CfgNode, *, progress: Callable[[list[str]], Iterable[str]]
) -> list[str]:
    """Return what is worth knowing of the data before the training begins, line by line.

    Only the heads of the files are read: what is damaged further on is met in training, and goes
    into its ledger. `settings` is the configuration's DATASET. `progress` gets the paths and gives
    them back one by one.
    Raises ValueError where more files cannot be opened than DATASET.BAD_IMAGES_MAX_SHARE allows.
    """
    images, val_images = data.images, data.val_images
    lines = _counts(images, num_val_images=len(val_images))
    others = _others(data.folders, frozenset((*images.paths, *val_images.paths)))
    lines += [_others_line(others)] if others else []
    if images.contents is not None:
        return lines
    bad = {image.path: image for image in _unreadable(progress([*images.paths, *val_images.paths]))}
    for what, part in (("to train on", images), ("to validate with", val_images)):
        _check_share([bad[path] for path in part.paths if path in bad], part, what, settings)
    return [*lines, _bad_line(list(bad.values()))] if bad else lines


def _counts(images: ImageList, *, num_val_images: int) -> list[str]:
    names = images.class_names
    counts = Counter(images.targets)
    order = sorted(range(len(names)), key=lambda number: counts[number])
    least, most = order[0], order[-1]
    lines = [
        f"your pictures: {len(names)} classes, {len(images)} to train on, {num_val_images} to "
        "validate with",
        f"pictures to train on a class: {counts[least]} ({names[least]}) to {counts[most]} "
        f"({names[most]}), {counts[order[len(order) // 2]]} in the middle",
    ]
    if counts[most] > _MUCH_LARGER * max(1, counts[least]):
        lines.append(
            "[Warning] the classes are unequal: TRAIN.CLASS_WEIGHTS balanced gives the pictures "
            "of the small ones more weight"
        )
    return lines


def _others(folders: Sequence[Path], listed: Set[str]) -> Counter[str]:
    """Count what is left out: files by suffix, and pictures that lie beside class folders."""
    counts: Counter[str] = Counter()
    for parent, names in (entry for folder in folders for entry in walk(folder)):
        for name in names:
            if not is_picture(name):
                counts[Path(name).suffix.lower() or "without a suffix"] += 1
            elif os.path.join(parent, name) not in listed:
                counts["pictures beside the class folders"] += 1
    return counts


def _others_line(counts: Counter[str]) -> str:
    named = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    return (
        f"[Warning] {counts.total()} files are no pictures that can be read, or of no class, and "
        f"are left out: {named}"
    )


def _unreadable(paths: Iterable[str]) -> list[BadImage]:
    bad = []
    for path in paths:
        try:
            with Image.open(path):
                pass
        except Exception as error:  # damaged files make Pillow raise nearly anything
            bad.append(BadImage(path, describe_failure(error)))
    return bad


def _check_share(bad: Sequence[BadImage], images: ImageList, what: str, settings: CfgNode) -> None:
    """Raise ValueError where these bad files would end the run."""
    allowed = settings.BAD_IMAGES_MAX_SHARE
    if settings.BAD_IMAGES == "skip" and len(bad) > allowed * len(images):
        raise ValueError(
            f"{len(bad)} of {len(images)} pictures {what} cannot be opened, a share of "
            f"{len(bad) / len(images):.4g} where DATASET.BAD_IMAGES_MAX_SHARE {allowed:g} is "
            f"allowed ({_named(bad)}): repair or remove them, or raise that key"
        )
    ledger = BadImageLedger(
        None, policy=settings.BAD_IMAGES, max_share=allowed, num_images=len(images)
    )
    ledger.record(bad)


def _bad_line(bad: Sequence[BadImage]) -> str:
    return f"[Warning] {len(bad)} files cannot be opened and will be left out: {_named(bad)}"


def _named(bad: Sequence[BadImage]) -> str:
    named = "; ".join(f"{path}: {reason}" for path, reason in bad[:_NUM_NAMED])
    return named + ("; ..." if len(bad) > _NUM_NAMED else "")
