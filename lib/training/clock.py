"""The wall time of training steps, and what it comes to in a log interval and an epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lib.data.loading import Batch
from lib.metrics.meter import Metrics
from lib.metrics.stats import EpochStats, IntervalStats
from lib.runtime.distributed import Processes
from lib.training.steps import StepRange


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
class Clock:
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

    def epoch(
        self,
        processes: Processes,
        metrics: Metrics,
        *,
        num_done: int,
        loss: float,
        signal: int,
    ) -> EpochStats:
        """End an epoch; `loss` is that of its last console line.

        Its speed is over all ranks, and without the warm-up.
        """
        (num_images,) = processes.sum([self._counted.num_images])
        return EpochStats(
            metrics,
            time_s=self._counted.time_s / max(1, self._counted.num_steps),
            images_per_s=num_images / max(self._counted.time_s, 1e-9),
            num_steps_done=num_done,
            last_loss=loss,
            stop_signal=signal,
            num_images_timed=num_images,
        )
