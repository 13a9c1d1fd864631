"""torch_npu.profiler: which steps it would trace, in its own argument order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path


def schedule(
    wait: int,
    active: int,
    warmup: int = 0,
    repeat: int = 0,
    skip_first: int = 0,
    skip_first_wait: int = 0,
) -> Callable[[int], bool]:
    """Return a function that tells whether a step is traced. Not torch's argument order."""

    def is_traced(step: int) -> bool:
        step -= skip_first
        cycle, place = divmod(step, wait + warmup + active)
        return step >= 0 and place >= wait + warmup and (not repeat or cycle < repeat)

    return is_traced


def tensorboard_trace_handler(
    dir_name: str | None = None,
    worker_name: str | None = None,
    analyse_flag: bool = True,
    async_mode: bool = False,
) -> Callable[[profile], None]:
    """Return what writes the numbers of the traced steps into `dir_name`."""

    def write(traced: profile) -> None:
        folder = Path(dir_name or ".")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{worker_name or os.getpid()}_ascend_pt.json"
        (folder / name).write_text(json.dumps({"steps": traced.steps}))

    return write


class profile:
    """Counts steps; on the way out it hands over those that its schedule has traced."""

    def __init__(
        self,
        *,
        activities: Iterable[object] | None = None,
        schedule: Callable[[int], bool] | None = None,
        on_trace_ready: Callable[[profile], None] | None = None,
    ) -> None:
        self.steps: list[int] = []
        self._step = 0
        self._is_traced = schedule or (lambda step: True)
        self._on_trace_ready = on_trace_ready

    def __enter__(self) -> profile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._on_trace_ready is not None and self.steps:
            self._on_trace_ready(self)

    def step(self) -> None:
        """Note that a step has ended."""
        if self._is_traced(self._step):
            self.steps.append(self._step)
        self._step += 1
