"""The fastest way to train on this machine: precision, layout, compilation, widths, batch.

Each way is measured alone, within a time budget, and its precision's cost is stated: how far its
logits are from float32's with the same weights on the same images.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from lib import device as devices
from lib.benchmark.network import Task, ours_network, ours_training, synthetic_batch
from lib.precision import Precision

_WARMUP_STEPS, _MIN_STEPS, _MAX_STEPS = 2, 3, 20
_COMPARED_IMAGES = 32


@dataclass(frozen=True)
class Way:
    """One way to train."""

    precision: str
    compile_mode: str  # a value of TRAIN.COMPILE
    batch: int
    memory_format: str = "auto"  # a value of TRAIN.MEMORY_FORMAT
    width_multiple: int = 1  # a value of TRAIN.WIDTH_MULTIPLE

    @property
    def arguments(self) -> str:
        """What to give to tools/train.py."""
        settings = (
            ("COMPILE", self.compile_mode, "no"),
            ("MEMORY_FORMAT", self.memory_format, "auto"),
            ("WIDTH_MULTIPLE", self.width_multiple, 1),
        )
        unusual = [f" TRAIN.{key} {value}" for key, value, usual in settings if value != usual]
        return f"--precision {self.precision} --bs {self.batch}{''.join(unusual)}"

    def of(self, task: Task) -> Task:
        """Return the task as it is computed in this way."""
        return replace(
            task,
            precision=self.precision,
            batch=self.batch,
            memory_format=self.memory_format,
            compile_mode=self.compile_mode,
            width_multiple=self.width_multiple,
        )


@dataclass(frozen=True)
class Outcome:
    """What a way came to; `failure` says why there is no speed."""

    way: Way
    images_per_s: float = 0.0
    peak_mib: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Agreement:
    """Logits of a precision against float32's."""

    relative_error: float  # the largest difference, over the range of float32's logits
    top1: float  # share of the images for which both name the same class


def ways(
    device: torch.device, batches: Sequence[int], *, with_compile: bool, is_uneven: bool
) -> Iterator[Way]:
    """Yield what is worth trying on a device, the likely fast ones first.

    Widths are rounded up on cuda alone, where the network `is_uneven`: has some that 8 does not
    divide. npu's kernels and the CPU's do that by themselves.
    """
    precisions = {"cpu": ("fp32", "bf16"), "cuda": ("bf16", "fp16", "hf32", "fp32")}
    modes = {"cpu": ("no", "default"), "cuda": ("no", "default", "reduce-overhead")}
    found = itertools.product(
        batches,
        modes.get(device.type, ("no",)) if with_compile else ("no",),
        ("auto",) if device.type == "npu" else ("auto", "contiguous"),
        (1, 8) if device.type != "npu" and is_uneven else (1,),
        precisions.get(device.type, ("fp16", "bf16", "hf32", "fp32")),
    )
    for batch, mode, layout, multiple, precision in found:
        yield Way(precision, mode, batch, layout, multiple)


def try_out(
    task: Task,
    candidates: Sequence[Way],
    *,
    budget_s: float,
    on_outcome: Callable[[Outcome], None],
) -> list[Outcome]:
    """Measure the ways one by one until the budget is spent; a way that is begun is ended.

    Each gets an equal part of what is left, and no less than a few steps.
    """
    end_s = time.monotonic() + budget_s
    outcomes: list[Outcome] = []
    for number, way in enumerate(candidates):
        left_s = end_s - time.monotonic()
        if left_s <= 0 and outcomes:
            break
        share_s = max(0.0, left_s) / (len(candidates) - number)
        outcomes.append(_measured(task, way, budget_s=share_s))
        on_outcome(outcomes[-1])
    return outcomes


def _measured(task: Task, way: Way, *, budget_s: float) -> Outcome:
    devices.reset_peak_memory(task.device)
    try:
        times_s = _timed(ours_training(way.of(task)), budget_s)
    except (RuntimeError, torch.OutOfMemoryError) as error:  # out of memory; no compiler
        return Outcome(way, failure=" ".join(str(error).split())[:120] or type(error).__name__)
    speed = way.batch / statistics.median(times_s)
    return Outcome(way, speed, devices.peak_memory_mib(task.device))


def _timed(step: Callable[[], object], budget_s: float) -> list[float]:
    """Seconds of each step after the first two, for the budget's time or a few steps."""
    for _ in range(_WARMUP_STEPS):
        step()
    times_s: list[float] = []
    while len(times_s) < _MIN_STEPS or (sum(times_s) < budget_s and len(times_s) < _MAX_STEPS):
        start_s = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - start_s)
    return times_s


def agreement(task: Task, precision: str, network: nn.Module | None = None) -> Agreement:
    """Compare the logits of a precision with float32's on images of chance.

    `network` is what to compare; None: one with random weights, whose classes are close together.
    """
    task = replace(task, batch=_COMPARED_IMAGES)
    network = (network or ours_network(task)).eval()
    images, _ = synthetic_batch(task)
    logits = []
    for name in ("fp32", precision):
        with torch.inference_mode(), Precision(name, task.device).autocast():
            logits.append(network(images).float())
    expected, found = logits
    error = (found - expected).abs().max() / (expected.max() - expected.min())
    same = (found.argmax(dim=1) == expected.argmax(dim=1)).float().mean()
    return Agreement(float(error), float(same))


def table(outcomes: Sequence[Outcome], agreements: dict[str, Agreement]) -> str:
    """Return the outcomes as a Markdown table, the fastest first."""
    lines = [
        "| way | images/s | peak memory, MiB | logits off fp32's by | same class |",
        "|---|--:|--:|--:|--:|",
    ]
    for outcome in sorted(outcomes, key=lambda o: -o.images_per_s):
        cost = agreements[outcome.way.precision]
        speed = outcome.failure or f"{outcome.images_per_s:.4g}"
        memory = "" if outcome.peak_mib is None else f"{outcome.peak_mib:.0f}"
        lines.append(
            f"| `{outcome.way.arguments}` | {speed} | {memory} | {cost.relative_error:.1e} | "
            f"{100 * cost.top1:.0f} % |"
        )
    return "\n".join(lines)
