"""The training loader, on files and on shards, against torchvision's usual one on files."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lib.benchmark.rounds import Row, compare, peer_module, torch_threads
from lib.config.recipe import IMAGENET_MEAN, IMAGENET_STD
from lib.data.build import read_val
from lib.data.decoding import FAST, PILLOW, Augmentation, choose_decoder, has_fast_decoder
from lib.data.image_list import ImageList
from lib.data.loading import LoaderOptions, Sample, TrainImages, train_loader
from lib.data.packed.options import PackOptions
from lib.data.packed.packing import pack
from lib.data.picture_files import is_picture
from lib.data.samplers import TrainBatches

GOAL_A_CORE, GOAL_WORKERS, GOAL_PACKED = 2.2, 1.8, 4.0
_MODE, _UNIT = "load", "pictures/s"
_PEER = "torchvision, ImageFolder's PIL pictures, ToTensor, Normalize"
_BATCH = 32
_PACKED_SIDE = 256  # short side of the packed pictures, as evaluation at 224 has it
_NUM_A_ROUND = 256  # at least: shorter rounds are noisier
_NUM_FOR_WORKERS = 1024  # enough that the first batches, which nothing overlaps, do not count
_SCALE, _RATIO, _HFLIP = (0.08, 1.0), (3 / 4, 4 / 3), 0.5  # both sides' defaults


def measure(pictures: Sequence[Path], *, size: int, rounds: int) -> list[Row]:
    """Compare training pictures of `size` on one core, packed ones too, then two workers with one.

    Raises ValueError where torchvision or a picture is missing or cannot be read.
    """
    decoder = choose_decoder("auto", is_installed=has_fast_decoder())
    augmentation = Augmentation(size, _SCALE, _RATIO, _HFLIP)
    pictures = _at_least(_NUM_A_ROUND, pictures)
    theirs = _Reference(pictures, _torchvision(size))
    with torch_threads(1):
        one_core = partial(
            compare,
            _MODE,
            num_items=len(pictures),
            unit=_UNIT,
            rounds=rounds,
            goal=GOAL_A_CORE,
            clock=time.process_time,
        )
        rows = [
            one_core(
                "one picture after another, one core",
                ours=_one_by_one(pictures, augmentation, decoder),
                peer=lambda: [theirs[index] for index in range(len(theirs))],
                peer_name=_PEER,
                remark=f"decoder {decoder}",
            ),
            one_core(
                f"batches of {_BATCH}, one core",
                ours=_batches(_loader(_images(pictures), size, decoder)),
                peer=_batches(DataLoader(theirs, _BATCH, shuffle=True)),
                peer_name=_PEER,
                remark=f"decoder {decoder}",
            ),
            _packed(pictures, theirs, size, decoder, rounds),
        ]
        if decoder == FAST:
            rows.append(_beside_pillow(pictures, augmentation, rounds))
        return [*rows, _two_workers(pictures, size, decoder, rounds)]


def _packed(
    pictures: Sequence[Path],
    theirs: Dataset[tuple[Tensor, int]],
    size: int,
    decoder: str,
    rounds: int,
) -> Row:
    """The packed pictures against theirs, which remain the files."""
    with tempfile.TemporaryDirectory(prefix="benchmark_") as scratch:
        return compare(
            _MODE,
            f"packed with --resize {_PACKED_SIDE}, batches of {_BATCH}, one core",
            ours=_batches(_loader(_packed_images(pictures, Path(scratch)), size, decoder)),
            peer=_batches(DataLoader(theirs, _BATCH, shuffle=True)),
            num_items=len(pictures),
            unit=_UNIT,
            rounds=rounds,
            goal=GOAL_PACKED,
            peer_name=f"{_PEER}, of the files",
            remark=f"decoder {decoder}",
        )


def _packed_images(pictures: Sequence[Path], scratch: Path) -> ImageList:
    """Pack pictures that may lie anywhere. Raises ValueError for one that can't be read."""
    folder = scratch / "files" / "train" / "any"
    folder.mkdir(parents=True)
    for number, path in enumerate(pictures):
        ending = path.suffix if is_picture(f"a{path.suffix}") else ".jpg"
        os.symlink(path.resolve(), folder / f"{number:06}{ending}")
    report = pack(scratch / "files", scratch / "packed", PackOptions(resize=_PACKED_SIDE))
    for link, reason in report.failed.items():
        raise ValueError(f"picture {os.path.realpath(link)!r} can't be read ({reason})")
    return read_val(scratch / "packed", val_set="train", class_names=None, num_classes=1)


def _beside_pillow(pictures: Sequence[Path], augmentation: Augmentation, rounds: int) -> Row:
    return compare(
        _MODE,
        "one picture after another, one core",
        ours=_one_by_one(pictures, augmentation, FAST),
        peer=_one_by_one(pictures, augmentation, PILLOW),
        num_items=len(pictures),
        unit=_UNIT,
        rounds=rounds,
        peer_name="itself with Pillow",
    )


def _two_workers(pictures: Sequence[Path], size: int, decoder: str, rounds: int) -> Row:
    many = _at_least(_NUM_FOR_WORKERS, pictures)
    return compare(
        _MODE,
        f"batches of {_BATCH}, 2 workers",
        ours=_batches(_loader(_images(many), size, decoder, num_workers=2)),
        peer=_batches(_loader(_images(many), size, decoder, num_workers=1)),
        num_items=len(many),
        unit=_UNIT,
        rounds=rounds,
        goal=GOAL_WORKERS,
        peer_name="itself with 1 worker",
        remark=f"decoder {decoder}",
    )


def _at_least(num: int, pictures: Sequence[Path]) -> list[Path]:
    """Return the pictures, again and again where they are few."""
    return list(pictures) * -(-num // len(pictures))


def _images(pictures: Sequence[Path]) -> ImageList:
    return ImageList([str(path) for path in pictures], [0] * len(pictures), ("any",))


def _one_by_one(
    pictures: Sequence[Path], augmentation: Augmentation, decoder: str
) -> Callable[[], None]:
    dataset = TrainImages(_images(pictures), augmentation, decoder=decoder)
    seeds = count()

    def run() -> None:
        for index in range(len(dataset)):
            _require_good(dataset[index, next(seeds)])

    return run


def _loader(
    images: ImageList, size: int, decoder: str, *, num_workers: int = 0
) -> DataLoader[Sample]:
    return train_loader(
        images,
        LoaderOptions(_BATCH, size, num_workers),
        scale=_SCALE,
        ratio=_RATIO,
        hflip=_HFLIP,
        decoder=decoder,
    )


def _batches(loader: DataLoader) -> Callable[[], None]:
    """Return what takes all batches of an epoch, of another one each time."""
    epochs, order = count(), loader.batch_sampler

    def run() -> None:
        if isinstance(order, TrainBatches):
            order.epoch = next(epochs)
        for batch in loader:
            _require_good(batch)

    return run


def _require_good(made: object) -> None:
    """Raise ValueError for a bad file: it would be measured as something else."""
    bad = getattr(made, "bad", ())
    if bad:
        raise ValueError(f"picture {bad[0].path!r} can't be read ({bad[0].reason}): leave it out")


@dataclass(frozen=True)
class _Reference(Dataset[tuple[Tensor, int]]):
    """What torchvision's ImageFolder makes of files whose classes do not matter."""

    pictures: Sequence[Path]
    prepare: Callable[[str], Tensor]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.prepare(str(self.pictures[index])), 0


def _torchvision(size: int) -> Callable[[str], Tensor]:
    transforms = peer_module("torchvision.transforms")
    default_loader = peer_module("torchvision.datasets.folder").default_loader
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, _SCALE, _RATIO),
            transforms.RandomHorizontalFlip(_HFLIP),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return lambda path: pipeline(default_loader(path))
