"""A profile of a few steps, where PROFILE_TYPE asks for one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from lib.runtime import device as devices
from lib.runtime import run_folder
from lib.runtime.console import Console
from lib.runtime.distributed import Processes
from lib.training.start import TrainRequest


def _nothing() -> None:
    """No step is profiled."""


class Profiling:
    """Profiles the run's first epoch on rank 0; `step` is called after each training step."""

    def __init__(self, request: TrainRequest, processes: Processes, console: Console):
        self._request, self._console = request, console
        self._device = processes.device
        self._is_due = request.profile_start_step is not None and processes.ranks.is_main
        self.step: Callable[[], None] = _nothing

    def begin(self, stack: ExitStack, *, num_steps: int) -> None:
        """Profile an epoch that has `num_steps` left, up to the end of `stack`.

        An epoch that ends before its first profiled step is not profiled, which is said.
        """
        first_step = self._request.profile_start_step
        if not self._is_due or first_step is None:
            return
        self._is_due = num_steps == 0  # nothing was left of a resumed epoch
        num_before = first_step + devices.PROFILER_WARMUP_STEPS
        if 0 < num_steps <= num_before:
            self._console.say(
                f"[Warning] nothing is profiled: PROFILE_START_STEP={first_step} and its warm-up "
                f"take {num_before} steps, and the run's first epoch has {num_steps}; give less"
            )
        if num_steps <= num_before:
            return
        folder = self._request.folder / run_folder.PROFILE
        profiler = devices.profiler(self._device, folder, first_step=first_step)
        self.step = stack.enter_context(profiler).step  # type: ignore[attr-defined]
        stack.callback(self._end)

    def _end(self) -> None:
        self.step = _nothing
