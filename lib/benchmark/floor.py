"""How fast a network could be on a machine: its arithmetic and its traffic over measured rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lib.models.complexity import ModelInfo
from lib.runtime import device as devices

# A backward pass computes the gradients of the inputs and of the weights.
_PASSES = {"infer": 1, "train": 3}
# Each layer's output is written and read again; batch norm and ReLU after a convolution read and
# write it once more where they are not folded.
_TOUCHES = {"infer": 2, "train": 8}
_SIDE, _MEBI_VALUES, _ROUNDS = 2048, 64, 9


@dataclass(frozen=True)
class Rates:
    """What the machine does at best."""

    multiply_adds_per_s: float  # of a large matrix product
    bytes_per_s: float  # read and written by a large copy

    def best(self, other: Rates) -> Rates:
        """Return the higher of each; on a shared machine a single measurement may be too low."""
        return Rates(
            max(self.multiply_adds_per_s, other.multiply_adds_per_s),
            max(self.bytes_per_s, other.bytes_per_s),
        )


@dataclass(frozen=True)
class Floor:
    """The least time that an image can take."""

    arithmetic_s: float
    traffic_s: float

    @property
    def images_per_s(self) -> float:
        """The rate at which the slower of the two would be all there is."""
        return 1 / max(self.arithmetic_s, self.traffic_s)


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Measure a matrix product of 2048 x 2048 and a copy of 64 Mi values of `dtype`."""
    a, b = (torch.randn(_SIDE, _SIDE, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(_MEBI_VALUES * 2**20, device=device, dtype=dtype)
    target = torch.empty_like(source)
    product_s = _least_s(lambda: a @ b, device)
    copy_s = _least_s(lambda: target.copy_(source), device)
    return Rates(_SIDE**3 / product_s, 2 * source.numel() * source.element_size() / copy_s)


def floor_of(info: ModelInfo, rates: Rates, *, mode: str, bytes_per_value: int) -> Floor:
    """Return the floor of one image in `mode`, infer or train; weights count as nothing."""
    return Floor(
        info.num_multiply_adds * _PASSES[mode] / rates.multiply_adds_per_s,
        info.num_activations * _TOUCHES[mode] * bytes_per_value / rates.bytes_per_s,
    )


def _least_s(work: Callable[[], object], device: torch.device) -> float:
    work()
    times = []
    for _ in range(_ROUNDS):
        devices.synchronize(device)
        start_s = time.perf_counter()
        work()
        devices.synchronize(device)
        times.append(time.perf_counter() - start_s)
    return min(times)
