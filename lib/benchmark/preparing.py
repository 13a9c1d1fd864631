"""Preprocessing against torchvision's PIL pipeline, to the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from lib.benchmark.rounds import Row, compare, peer_module, torch_threads
from lib.config.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe, eval_resize
from lib.offline.preprocess import PreprocessOptions, picture_planes, preprocess
from lib.offline.preprocess_record import ENDING
from lib.runtime.environment import num_cores
from lib.runtime.files import write_atomically

_MODE, _UNIT = "preprocess", "pictures/s"
GOAL_A_CORE = 1.3


def measure(pictures: Sequence[Path], scratch: Path, *, crop: int, rounds: int) -> list[Row]:
    """Compare on one core, then this side alone on all cores with itself on one.

    Raises ValueError where the two sides write different bytes.
    """
    ours, theirs = scratch / "ours", scratch / "torchvision"
    for folder in (ours, theirs):
        folder.mkdir()
    with torch_threads(1):
        row = compare(
            _MODE,
            "to .bin files, one core",
            ours=partial(_write_all, pictures, ours, partial(_ours, crop=crop)),
            peer=partial(_write_all, pictures, theirs, _torchvision(crop)),
            num_items=len(pictures),
            unit=_UNIT,
            rounds=rounds,
            goal=GOAL_A_CORE,
            peer_name="torchvision, PIL + tofile",
            clock=time.process_time,
        )
    row = replace(row, remark=f"{_require_equal(ours, theirs)} files bit-equal")
    return [row, *_on_all_cores(pictures, scratch, crop=crop, rounds=rounds)]


def _write_all(
    pictures: Sequence[Path], folder: Path, write: Callable[[Path, Path], object]
) -> None:
    for picture in pictures:
        write(picture, folder / f"{picture.stem}{ENDING}")


def _ours(picture: Path, target: Path, *, crop: int) -> None:
    planes = picture_planes(picture, Recipe.for_crop(crop))
    write_atomically(planes.data, target, durable=False)


def _torchvision(crop: int) -> Callable[[Path, Path], None]:
    transforms = peer_module("torchvision.transforms")
    pipeline = transforms.Compose(
        [
            transforms.Resize(eval_resize(crop)),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

    def write(picture: Path, target: Path) -> None:
        with Image.open(picture) as image:
            pipeline(image.convert("RGB")).numpy().tofile(target)

    return write


def _require_equal(ours: Path, theirs: Path) -> int:
    names = sorted(path.name for path in ours.iterdir())
    different = [n for n in names if (ours / n).read_bytes() != (theirs / n).read_bytes()]
    if different:
        raise ValueError(f"{len(different)} files differ from torchvision's: {different[0]}, ...")
    return len(names)


def _on_all_cores(pictures: Sequence[Path], scratch: Path, *, crop: int, rounds: int) -> list[Row]:
    cores = num_cores()
    if cores < 2:
        return []
    source = scratch / "pictures"
    source.mkdir()
    copies = max(1, 300 // len(pictures))  # enough that starting the processes does not count
    for copy in range(copies):
        for picture in pictures:
            (source / f"{copy}_{picture.name}").symlink_to(picture.resolve())
    num_run = 0

    def run(num_workers: int) -> None:
        nonlocal num_run
        num_run += 1  # a fresh folder: what is there already is not made again
        options = PreprocessOptions(Recipe.for_crop(crop), num_workers)
        preprocess(source, scratch / f"run_{num_run}", options)

    return [
        compare(
            _MODE,
            f"the command's work, {cores} processes",
            ours=partial(run, cores),
            peer=partial(run, 1),
            num_items=copies * len(pictures),
            unit=_UNIT,
            rounds=rounds,
            peer_name="itself with 1 process",
        )
    ]
