"""Which pictures make up which batch, as pure functions of seed, epoch, step and rank.

Nothing here or in the data sets depends on the state of a random generator that lives on, so a
run gives the same batches with any number of workers and after a restart in mid-epoch.
"""

import random
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch.utils.data import Sampler

# What a batch sampler asks the data set for: (picture index, seed of its augmentation).
SampleKey = tuple[int, int]


def sample_seed(run_seed: int, epoch: int, index: int) -> int:
    """A seed for `random.Random` that no other picture, epoch or run seed has."""
    return (run_seed << 64) | (epoch << 40) | index


def epoch_order(num_images: int, run_seed: int, epoch: int) -> torch.Tensor:
    """The order of all pictures in an epoch: an int64 permutation of 0..num_images-1.

    The seed is mixed down to 32 bits first, since torch's CPU generator reads only the low 32.
    """
    seed = random.Random(sample_seed(run_seed, epoch, 0)).getrandbits(32)
    return torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))


class TrainBatches(Sampler[list[SampleKey]]):
    """One rank's batches of a shuffled epoch; every rank has the same number of steps.

    At step k the ranks together take pictures k * B .. (k + 1) * B - 1 of the epoch's order, with
    B = batch_size * world_size: what one process with batches of B takes. Where the world size
    doesn't divide the number of pictures, the first world_size - 1 or fewer come a second time.
    The last batch may be short; nothing is dropped. Where fewer than a quarter of a batch would
    be left for it, it takes half of the batch before it as well: its step counts as much as any.

    Attributes:
        epoch: set it before each epoch.
        start_step: steps of the epoch that were done before; iteration begins there.
    """

    def __init__(
        self, num_images: int, batch_size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.epoch = 0
        self.start_step = 0
        self._num_images = num_images
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        """Steps of a whole epoch, wherever iteration begins."""
        return _ceil_div(self._num_images, self._batch_size * self._world_size)

    @property
    def last_batch_sizes(self) -> tuple[int, int]:
        """Pictures in one rank's last two batches of an epoch; 0 for one that there isn't."""
        *_, before, begin, end = (0, 0, *self._ends())
        return begin - before, end - begin

    @property
    def is_spread(self) -> bool:
        """True where the last two batches share what is left of an epoch."""
        return 0 < self._num_left * 4 < self._batch_size and len(self) > 1

    @property
    def _num_left(self) -> int:
        """Pictures of one rank beyond its full batches."""
        return _ceil_div(self._num_images, self._world_size) % self._batch_size

    def _ends(self) -> list[int]:
        """Where each batch ends within a rank's pictures of an epoch."""
        shard_size = _ceil_div(self._num_images, self._world_size)
        ends = [min(shard_size, step * self._batch_size) for step in range(1, len(self) + 1)]
        if self.is_spread:
            ends[-2] -= self._batch_size // 2
        return ends

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yield the (index, seed) pairs of each batch.

        Raises:
            ValueError: `start_step` is not within 0..len(self).
        """
        if not 0 <= self.start_step <= len(self):
            raise ValueError(
                f"start step {self.start_step} is outside this epoch's 0..{len(self)}: resume "
                "with the batch size and the number of cards that the state was saved with"
            )
        # A copy, since prefetching asks for batches after the caller may have set a new epoch.
        epoch = self.epoch
        order = epoch_order(self._num_images, self._seed, epoch)
        num_padded = _ceil_div(self._num_images, self._world_size) * self._world_size
        shard = order[torch.arange(self._rank, num_padded, self._world_size) % self._num_images]
        ends = self._ends()
        for begin, end in list(pairwise([0, *ends]))[self.start_step :]:
            indices = shard[begin:end].tolist()
            yield [(index, sample_seed(self._seed, epoch, index)) for index in indices]


class EvalBatches(Sampler[list[SampleKey]]):
    """One rank's batches of pictures rank, rank + world_size, ...: every picture exactly once.

    Nothing is padded, so ranks may differ by one step.
    """

    def __init__(
        self, num_images: int, batch_size: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self._num_images = num_images
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size

    @property
    def num_common_steps(self) -> int:
        """The steps that every rank has, which is those of the shortest shard."""
        return _ceil_div(self._num_images // self._world_size, self._batch_size)

    def __len__(self) -> int:
        return _ceil_div(len(self._shard()), self._batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        shard = self._shard()
        for begin in range(0, len(shard), self._batch_size):
            yield [(index, 0) for index in shard[begin : begin + self._batch_size]]

    def _shard(self) -> range:
        return range(self._rank, self._num_images, self._world_size)


def _ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
