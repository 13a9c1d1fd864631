"""The two loops: one epoch of training, one evaluation. No command line, no config, no files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from lib.data.bad_images import BadImages
from lib.data.loading import Batch
from lib.evaluation.forward import Computing
from lib.metrics.meter import Meter, Metrics
from lib.metrics.stats import EpochStats, IntervalStats
from lib.models.layer_groups import begin_training
from lib.runtime import device as devices
from lib.runtime.distributed import Processes
from lib.training.objective import PLAIN, LossesOfParts, Objective
from lib.training.optim import set_learning_rate


@dataclass(frozen=True)
class StepRange:
    """Which steps of an epoch to run, and which of them to log."""

    first: int  # steps done before a resume
    end: int  # one past the last; below `num_steps` for a performance run
    num_steps: int  # of the whole epoch
    print_freq: int
    num_warmup: int  # steps timed one by one and left out of the averages (compilation)
    epoch: int = 0

    def is_logged(self, step: int) -> bool:
        """Tell whether a console line follows this step."""
        return step % self.print_freq == 0 or step == self.end - 1

    def is_warmup(self, step: int) -> bool:
        """Tell whether this step is timed alone; the last step never is, so averages exist."""
        return step < min(self.first + self.num_warmup, self.end - 1)


@dataclass(frozen=True)
class TrainHooks:
    """What the training loop asks and tells its caller."""

    learning_rate: Callable[[int], float]  # of a step of this epoch
    on_first_step: Callable[[float], None]  # seconds of each of the first steps
    on_interval: Callable[[IntervalStats], None]
    on_bad_images: Callable[[BadImages], None]
    # Gets the steps done and a function for the epoch's sums so far (a host sync, called by all
    # ranks or none); returns the number of a signal that asks the epoch to stop, else 0.
    after_step: Callable[[int, Callable[[], Metrics]], int]


def train_one_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    optimizer: torch.optim.Optimizer,
    computing: Computing,
    steps: StepRange,
    hooks: TrainHooks,
    sums_before: Metrics,
    objective: Objective = PLAIN,
) -> EpochStats:
    """Run the steps of `steps` and return what they came to.

    `batches` begins at `steps.first`. `sums_before` are the sums, over all ranks, of this epoch's
    steps before a resume. Besides the warm-up steps the host waits for the device once a log
    interval. Raises ValueError where a loss is NaN or infinite, naming step, rate and scale.
    """
    device = computing.processes.device
    begin_training(model)
    meter, clock = Meter(device), _Clock()
    total, last_loss, stop_signal, num_done = sums_before, float("nan"), 0, steps.first

    def read() -> tuple[Metrics, float]:
        reading = meter.read(computing.precision.loss_scale())
        metrics = Metrics(*computing.processes.sum(reading.metrics.counts()))
        if metrics.num_not_finite:
            bad_steps = computing.processes.gather(reading.first_bad_step)
            first_bad_step = min(step for step in bad_steps if step is not None)
            rate_then = hooks.learning_rate(first_bad_step)
            raise ValueError(_not_finite(first_bad_step, rate_then, reading.loss_scale))
        return metrics, reading.loss_scale

    for step, batch in zip(range(steps.first, steps.end), clock.waited(batches), strict=False):
        hooks.on_bad_images(batch.bad)
        rate = hooks.learning_rate(step)
        set_learning_rate(optimizer, rate)
        parts = LossesOfParts(model, batch, computing, objective, (steps.epoch, step))
        computing.precision.step(parts, optimizer)
        for part in parts.done:
            meter.add(*part, step=step)
        clock.count(len(batch.targets), batch.decode_s)
        num_done = step + 1
        if steps.num_warmup and step < steps.first + steps.num_warmup:
            devices.synchronize(device)
            hooks.on_first_step(clock.lap(counts=not steps.is_warmup(step)))
        if steps.is_logged(step):
            metrics, scale = read()
            meter.reset()
            total, last_loss = total + metrics, metrics.loss
            hooks.on_interval(clock.interval(step, steps, metrics, rate=rate, scale=scale))
        stop_signal = hooks.after_step(num_done, lambda: total + read()[0])  # noqa: B023  called at once
        if stop_signal:
            total = total + read()[0]
            break
    time_s, images_per_s, num_timed = clock.averages(computing.processes)
    return EpochStats(total, time_s, images_per_s, num_done, last_loss, stop_signal, num_timed)


@dataclass
class _Lap:
    time_s: float = 0.0
    num_steps: int = 0
    num_images: int = 0

    def add(self, other: _Lap) -> None:
        self.time_s += other.time_s
        self.num_steps += other.num_steps
        self.num_images += other.num_images


@dataclass
class _Clock:
    """Wall time, read only where the device has just been waited for."""

    _lap: _Lap = field(default_factory=_Lap)  # since the last synchronisation
    _interval: _Lap = field(default_factory=_Lap)  # since the last console line
    _counted: _Lap = field(default_factory=_Lap)  # the epoch without its warm-up
    _wait_s: float = 0.0
    _decode_s: float = 0.0
    _began_s: float = field(default_factory=time.perf_counter)

    def waited(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, adding up the time spent waiting for each."""
        iterator = iter(batches)
        while True:
            began_s = time.perf_counter()
            batch = next(iterator, None)
            self._wait_s += time.perf_counter() - began_s
            if batch is None:
                return
            yield batch

    def count(self, num_images: int, decode_s: float) -> None:
        self._lap.add(_Lap(0.0, 1, num_images))
        self._decode_s += decode_s

    def lap(self, *, counts: bool = True) -> float:
        """End a lap; return its seconds."""
        now_s = time.perf_counter()
        lap, self._lap = self._lap, _Lap()
        lap.time_s, self._began_s = now_s - self._began_s, now_s
        self._interval.add(lap)
        if counts:
            self._counted.add(lap)
        return lap.time_s

    def interval(
        self, step: int, steps: StepRange, metrics: Metrics, *, rate: float, scale: float
    ) -> IntervalStats:
        """End a lap and a log interval; `metrics` are the interval's, over all ranks."""
        self.lap()
        ended, self._interval = self._interval, _Lap()
        wait_s, self._wait_s = self._wait_s, 0.0
        decode_s, self._decode_s = self._decode_s, 0.0
        return IntervalStats(
            step=step,
            num_steps=steps.num_steps,
            time_s=ended.time_s / max(1, ended.num_steps),
            images_per_s=metrics.num_images / max(ended.time_s, 1e-9),
            data_time_s=wait_s / max(1, ended.num_steps),
            decode_time_s=decode_s / max(1, ended.num_steps),
            metrics=metrics,
            learning_rate=rate,
            loss_scale=scale,
        )

    def averages(self, processes: Processes) -> tuple[float, float, int]:
        """Return (seconds a step, images a second, images), over all ranks without the warm-up."""
        (num_images,) = processes.sum([self._counted.num_images])
        return (
            self._counted.time_s / max(1, self._counted.num_steps),
            num_images / max(self._counted.time_s, 1e-9),
            num_images,
        )


def _not_finite(step: int, learning_rate: float, loss_scale: float) -> str:
    return (
        f"the outputs or the loss became NaN or infinite at step {step} of this epoch (learning "
        f"rate {learning_rate:g}, loss scale {loss_scale:g}); the last checkpoint is untouched: "
        "lower TRAIN.LR, or where precision is fp16 take --precision bf16 or fp32"
    )
