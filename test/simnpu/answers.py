"""Asks the simulated npu what a training run does not show, and prints its answers as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.runtime import device as devices

NPU = torch.device("npu", 0)
NUM_BYTES = 2**24


def waits() -> dict[str, bool]:
    """Tell by operation whether the host had to wait for its result."""
    x, mask = torch.arange(4.0, device=NPU), torch.tensor([True, False, True, True]).to(NPU)
    indices, counts = torch.tensor([1, 2]).to(NPU), torch.ones(4, dtype=torch.long).to(NPU)
    asked: dict[str, Callable[[], object]] = {
        "nonzero": lambda: x.nonzero(),
        "masked_select": lambda: x.masked_select(mask),
        "boolean index": lambda: x[mask],
        "boolean assignment": lambda: x.index_put_((mask,), torch.ones(3, device=NPU)),
        "unique": lambda: x.unique(),
        "unique_consecutive": lambda: x.unique_consecutive(),
        "bincount": lambda: counts.bincount(),
        "repeat_interleave": lambda: x.repeat_interleave(counts),
        "item": lambda: x.sum().item(),
        "equal": lambda: x.equal(x),
        "tolist": lambda: x.tolist(),
        "integer index": lambda: x[indices],
        "integer assignment": lambda: x.index_put_((indices,), torch.ones(2, device=NPU)),
        "where": lambda: torch.where(mask, x, 0.0),
        "sum": lambda: (x + 1).sum(),
        "max": lambda: x.max(dim=0),
    }
    return {name: "to host" in _kinds(ask) for name, ask in asked.items()}


def random_numbers() -> list[bool]:
    """A state put back gives the same numbers again, and each draw gives others."""
    state = devices.rng_state(NPU)
    assert state is not None
    first, second = torch.rand(8, device=NPU), torch.rand(8, device=NPU)
    devices.set_rng_state(state, NPU)
    again = torch.rand(8, device=NPU)
    return [torch.equal(first, again), torch.equal(first, second)]


def peaks() -> list[bool]:
    """The peak outlives what caused it, until it is reset."""
    tensor = torch.empty(NUM_BYTES, dtype=torch.uint8, device=NPU)
    devices.synchronize(NPU)
    del tensor
    least_mib = NUM_BYTES / 2**20
    before = devices.peak_memory_mib(NPU) or 0
    devices.reset_peak_memory(NPU)
    after = devices.peak_memory_mib(NPU) or 0
    return [before >= least_mib, after >= least_mib]


def copies() -> dict[str, list[str]]:
    """What is noted of a copy from memory of either kind."""
    host = torch.ones(8)
    return {
        "plain": _kinds(lambda: host.to(NPU)),
        "pinned": _kinds(lambda: host.pin_memory().to(NPU, non_blocking=True)),
    }


def _kinds(ask: Callable[[], object]) -> list[str]:
    """The kinds of the events that `ask` causes."""
    from torch_npu import _C

    num_before = len(_C.events())
    ask()
    return [kind for kind, _, _ in _C.events()[num_before:]]


if __name__ == "__main__":
    answers = {
        "waits": waits(),
        "random numbers": random_numbers(),
        "peaks": peaks(),
        "copies": copies(),
        "synchronize": _kinds(lambda: devices.synchronize(NPU)),
    }
    print(json.dumps(answers))
