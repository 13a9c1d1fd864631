"""From files to batches: decoding and augmentation in worker processes.

A data set is asked for (index, seed) pairs, and what it gives back is a pure function of the pair.
A file that can't be decoded is never an exception here: its path and the reason travel with the
batch, and the run's ledger decides (`lib.data.bad_images`).
"""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from lib.config.recipe import Recipe
from lib.data.augmenting import NO_EXTRAS, Extras
from lib.data.bad_images import BadImage
from lib.data.decoding import PILLOW, Augmentation, train_reader
from lib.data.image_list import ImageList
from lib.data.rgb import IGNORE, open_rgb, warnings_named
from lib.data.samplers import EvalBatches, SampleKey, TrainBatches
from lib.data.transforms import PixelArray, eval_pixels
from lib.data.watching import WatchedLoader, end_worker_that_loses_a_batch
from lib.runtime.environment import check_num_workers, num_cores
from lib.runtime.shortages import is_shortage
from lib.runtime.text import one_line

MAX_REPLACEMENTS = 10


class Batch(NamedTuple):
    """Pictures as uint8 N x H x W x 3, their classes as int64 N, and the files that were bad."""

    images: Tensor
    targets: Tensor
    bad: list[BadImage]
    decode_s: float = 0.0  # seconds that reading and decoding took, of a training batch
    indices: tuple[int, ...] = ()  # places in the image list, of a batch to evaluate


class Sample(NamedTuple):
    """One picture as uint8 H x W x 3 (None: there is none), its class, the files that were bad."""

    pixels: PixelArray | None
    target: int
    bad: list[BadImage]
    decode_s: float = 0.0
    place: int | None = None  # in the list, of a picture to evaluate


@dataclass(frozen=True)
class LoaderOptions:
    """What training and evaluation loaders have in common.

    Args:
        batch_size: pictures in a batch of one process.
        image_size: side in pixels of what the network is fed.
        num_workers: decoding processes; 0 decodes in the calling process.
        seed: seed of the run.
        rank, world_size: which shard of the pictures this process has, of how many.
        pin_memory: put batches in page-locked memory, for a faster copy to an accelerator.
        orientation: of training pictures; see `lib.data.rgb.open_rgb`. Evaluation has its recipe's.

    Raises:
        ValueError: a number outside its range.
    """

    batch_size: int
    image_size: int
    num_workers: int = 0
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    pin_memory: bool = False
    orientation: str = IGNORE

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("image_size", 1), ("num_workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be {least} or more")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is outside 0..{self.world_size - 1}")


class ImageFiles:
    """Paths and classes in three arrays, and where the pictures are.

    Forked workers share their memory: reading a Python list would copy it page by page into each
    of them, as it changes reference counts.
    """

    def __init__(self, images: ImageList) -> None:
        if len(images) == 0:
            raise ValueError("the list of pictures is empty")
        encoded = [os.fsencode(path) for path in images.paths]
        self._characters = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self._targets = np.asarray(images.targets, np.int64)
        self._contents = images.contents

    def __len__(self) -> int:
        return len(self._targets)

    def path(self, index: int) -> str:
        begin = self._ends[index - 1] if index > 0 else 0
        return os.fsdecode(self._characters[begin : self._ends[index]].tobytes())

    def picture(self, index: int) -> str | bytes:
        """What is decoded: a file's path, or what the file held that is in a shard now.

        Raises lib.data.packed.storage.StorageError where a shard can't be read.
        """
        return self.path(index) if self._contents is None else self._contents.read(index)

    def target(self, index: int) -> int:
        return int(self._targets[index])


def decode(
    files: ImageFiles, index: int, read: Callable[[str | bytes], PixelArray]
) -> PixelArray | BadImage:
    """What `read` makes of a picture, or why it gives none.

    Raises as `ImageFiles.picture`, and where memory or open files ran out: no picture's fault.
    """
    picture, path = files.picture(index), files.path(index)
    try:
        with warnings_named(path):
            return read(picture)
    # Damaged files make Pillow raise nearly anything. Each case is told to the run's ledger.
    except Exception as error:
        if is_shortage(error):
            raise
        return BadImage(path, one_line(error, with_type=True))


class TrainImages(Dataset[Sample]):
    """Augmented pictures; another one, drawn by the same seed, stands in for a bad file."""

    def __init__(
        self, images: ImageList, augmentation: Augmentation, *, decoder: str = PILLOW
    ) -> None:
        self._files = ImageFiles(images)
        self._read = train_reader(decoder, augmentation)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, key: SampleKey) -> Sample:
        """The picture for (index, seed); None after 10 more that are bad as well."""
        began_s = time.perf_counter()
        index, seed = key
        rng = random.Random(seed)
        bad: list[BadImage] = []
        for _ in range(1 + MAX_REPLACEMENTS):
            pixels = decode(self._files, index, lambda picture: self._read(picture, rng))
            if not isinstance(pixels, BadImage):
                spent_s = time.perf_counter() - began_s
                return Sample(pixels, self._files.target(index), bad, spent_s)
            bad.append(pixels)
            index = rng.randrange(len(self))
        return Sample(None, self._files.target(index), bad)


class EvalImages(Dataset[Sample]):
    """Pictures as they are evaluated; the seed of a key means nothing, a bad file gives none."""

    def __init__(self, images: ImageList, recipe: Recipe) -> None:
        self._files = ImageFiles(images)
        self._read = partial(_read_to_evaluate, recipe=recipe)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, key: SampleKey) -> Sample:
        index, _ = key
        target = self._files.target(index)
        pixels = decode(self._files, index, self._read)
        if isinstance(pixels, BadImage):
            return Sample(None, target, [pixels])
        return Sample(pixels, target, [], place=index)


def _read_to_evaluate(picture: str | bytes, recipe: Recipe) -> PixelArray:
    return eval_pixels(open_rgb(picture, orientation=recipe.orientation), recipe)


@dataclass(frozen=True)
class Collate:
    """Puts samples together; those without a picture are left out."""

    image_size: int

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        good = [sample for sample in samples if sample.pixels is not None]
        pictures = [torch.from_numpy(sample.pixels) for sample in good]
        if pictures:
            # In a worker this writes to the memory that is shared with the parent: no second copy.
            images = default_collate(pictures)
        else:
            images = torch.empty(0, self.image_size, self.image_size, 3, dtype=torch.uint8)
        targets = torch.tensor([sample.target for sample in good], dtype=torch.int64)
        bad = [image for sample in samples for image in sample.bad]
        decode_s = sum(sample.decode_s for sample in samples)
        indices = tuple(sample.place for sample in good if sample.place is not None)
        return Batch(images, targets, bad, decode_s, indices)


def train_loader(
    images: ImageList,
    options: LoaderOptions,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    hflip: float,
    decoder: str = PILLOW,
    extras: Extras = NO_EXTRAS,
) -> WatchedLoader:
    """Shuffled, augmented batches; its `batch_sampler` is the `TrainBatches` to set the epoch on.

    Args:
        images: at least one.
        options: see there.
        scale, ratio, hflip: see `lib.data.transforms.train_pixels`.
        decoder: what `lib.data.decoding.choose_decoder` returned.
        extras: what else is done to a picture.

    Raises:
        ValueError: no pictures, an augmentation setting outside its range, or extras without
            torchvision; pictures packed in another orientation.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"AUG.CROP_SCALE is {list(scale)}: use 0 < smallest <= largest <= 1")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"AUG.CROP_RATIO is {list(ratio)}: use 0 < smallest <= largest")
    if not 0 <= hflip <= 1:
        raise ValueError(f"AUG.HFLIP is {hflip}: use a probability in 0..1")
    _check_packed_orientation(images, options.orientation)
    augmentation = Augmentation(
        options.image_size, scale, ratio, hflip, extras, options.orientation
    )
    dataset = TrainImages(images, augmentation, decoder=decoder)
    batches = TrainBatches(
        len(images),
        options.batch_size,
        seed=options.seed,
        rank=options.rank,
        world_size=options.world_size,
    )
    return _loader(dataset, batches, options)


def eval_loader(images: ImageList, options: LoaderOptions, recipe: Recipe) -> WatchedLoader:
    """This rank's exact share of the pictures in fixed order; `batch_sampler` is `EvalBatches`.

    Args:
        images: at least one.
        options: see there; the size of the pictures is the recipe's.
        recipe: how they are prepared; the normalisation is left to the device.

    Raises:
        ValueError: no pictures, or pictures packed in another orientation.
    """
    _check_packed_orientation(images, recipe.orientation)
    options = replace(options, image_size=recipe.crop)
    dataset = EvalImages(images, recipe)
    batches = EvalBatches(
        len(images), options.batch_size, rank=options.rank, world_size=options.world_size
    )
    return _loader(dataset, batches, options)


def _check_packed_orientation(images: ImageList, wanted: str) -> None:
    """Raise ValueError where pictures were turned upright, or not, when they were packed."""
    made = None if images.contents is None else images.contents.orientation
    if made is not None and made != wanted:
        raise ValueError(
            f"these pictures were made smaller by pack_dataset.py with --orientation {made}, and "
            f"DATASET.ORIENTATION is {wanted}: set it to {made}, or pack the pictures again with "
            f"--orientation {wanted}"
        )


def num_workers(setting: int, num_cards: int) -> int:
    """Decoding processes for each card: the setting itself, or cores / cards (1 or more) for -1.

    Raises:
        ValueError: a setting below -1, or of more than this machine has use for.
    """
    check_num_workers("WORKERS", setting)
    if setting < -1:
        raise ValueError(f"WORKERS is {setting}: use 0 or more, or -1 for cores / cards")
    if setting >= 0:
        return setting
    return max(1, num_cores() // num_cards)


def _loader(
    dataset: TrainImages | EvalImages, batches: TrainBatches | EvalBatches, options: LoaderOptions
) -> WatchedLoader:
    return WatchedLoader(
        dataset,
        batch_sampler=batches,
        num_workers=options.num_workers,
        collate_fn=Collate(options.image_size),
        pin_memory=options.pin_memory,
        worker_init_fn=_begin_worker,
        persistent_workers=options.num_workers > 0,
        # Its own, so that the global generator stays where the network's dropout expects it.
        generator=torch.Generator().manual_seed(options.seed),
    )


def _begin_worker(worker_id: int) -> None:
    end_worker_that_loses_a_batch()
    _leave_signals_to_parent()


def _leave_signals_to_parent() -> None:
    """Make Ctrl-C and a SIGTERM to the whole process group pass a worker by.

    The parent then still gets its batches, and can save its state. Its own SIGTERM to a worker,
    sent when it closes the loader, does end the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Without sigwaitinfo (macOS) the senders can't be told apart, and a worker that ignored all
    # would keep its parent from ending.
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parents_sigterm, daemon=True).start()


def _exit_on_parents_sigterm() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent.pid:
            os._exit(0)
