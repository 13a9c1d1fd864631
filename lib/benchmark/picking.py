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
from yacs.config import CfgNode

from lib.benchmark.network import Task, ours_network, ours_training, synthetic_batch
from lib.models.hrnet import find_spec
from lib.runtime import device as devices
from lib.runtime.precision import Precision
from lib.runtime.text import one_line

_WARMUP_STEPS, _MIN_STEPS, _MAX_STEPS = 2, 3, 20
_COMPARED_IMAGES = 32
_MODES = {"cpu": ("no", "default"), "cuda": ("no", "default", "reduce-overhead")}


@dataclass(frozen=True)
class Outcome:
    """What a way to train came to; `failure` says why there is no speed."""

    way: Task
    images_per_s: float = 0.0
    peak_mib: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Agreement:
    """Logits of a precision against float32's."""

    relative_error: float  # the largest difference, over the range of float32's logits
    top1: float  # share of the images for which both name the same class


def ways(task: Task, batches: Sequence[int], *, with_compile: bool) -> Iterator[Task]:
    """Yield what is worth trying for a network on a device, the likely fast ones first.

    Widths are rounded up where the network has some that 8 does not divide; on cuda alone, since
    npu's kernels do it by themselves and on the CPU it makes no lasting difference.
    """
    kind = task.device.type
    is_uneven = any(width % 8 for width in find_spec(task.arch).stage4.widths)
    precisions = {"cpu": ("fp32", "bf16"), "cuda": ("bf16", "fp16", "hf32", "fp32")}
    found = itertools.product(
        batches,
        _MODES.get(kind, ("no",)) if with_compile else ("no",),
        ("auto",) if kind == "npu" else ("auto", "contiguous"),
        (8, 1) if is_uneven and kind == "cuda" else (1,),
        precisions.get(kind, ("fp16", "bf16", "hf32", "fp32")),
    )
    for batch, mode, layout, multiple, precision in found:
        yield replace(
            task,
            batch=batch,
            compile_mode=mode,
            memory_format=layout,
            width_multiple=multiple,
            precision=precision,
        )


def arguments(way: Task, usual: CfgNode) -> str:
    """Return what to give to tools/train.py beside the yaml that `usual` was loaded from."""
    words = ["--precision", way.precision, "--bs", str(way.batch), *way.settings(usual)]
    return " ".join(words)


def try_out(
    candidates: Sequence[Task],
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
        outcomes.append(_measured(way, budget_s=share_s))
        on_outcome(outcomes[-1])
    return outcomes


def _measured(way: Task, *, budget_s: float) -> Outcome:
    devices.reset_peak_memory(way.device)
    devices.forget_compiled()
    try:
        times_s = _timed(ours_training(way), budget_s)
    except (RuntimeError, torch.OutOfMemoryError) as error:  # out of memory; no compiler
        return Outcome(way, failure=one_line(error))
    speed = way.batch / statistics.median(times_s)
    return Outcome(way, speed, devices.peak_memory_mib(way.device))


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


def table(outcomes: Sequence[Outcome], agreements: dict[str, Agreement], usual: CfgNode) -> str:
    """Return the outcomes as a Markdown table, the fastest first; see `arguments`."""
    lines = [
        "| way | images/s | peak memory, MiB | logits off fp32's by | same class |",
        "|---|--:|--:|--:|--:|",
    ]
    for outcome in sorted(outcomes, key=lambda o: -o.images_per_s):
        cost = agreements[outcome.way.precision]
        speed = outcome.failure or f"{outcome.images_per_s:.4g}"
        memory = "" if outcome.peak_mib is None else f"{outcome.peak_mib:.0f}"
        words, error = arguments(outcome.way, usual), f"{cost.relative_error:.1e}"
        lines.append(f"| `{words}` | {speed} | {memory} | {error} | {100 * cost.top1:.0f} % |")
    return "\n".join(lines)
