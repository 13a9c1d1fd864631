"""How long a training will take, said as soon as a speed is known."""

from __future__ import annotations

from dataclasses import dataclass

from lib.metrics.stats import EpochStats, IntervalStats
from lib.runtime.text import counted, duration
from lib.training.checkpoint import Position

_STEPS_TO_KNOW_THE_SPEED = 2  # those before hold the compilation
_WORTH_SAYING_S = 60.0  # where the speed is that of one step, or known late


@dataclass
class TimeLeft:
    """Gives the `expected:` line once for good, and before that a first guess of a long training.

    Each method returns the line, or None where nothing is to be said.
    """

    start: Position  # what was done before this process began
    num_epochs: int  # of the whole run
    is_compiled: bool  # then the first steps tell nothing of the speed
    num_timed: int = 0
    is_guessed: bool = False
    is_said: bool = False

    def after_first_step(self, time_s: float) -> str | None:
        """One of the first steps, timed by itself: the second gives a guess."""
        self.num_timed += 1
        if self.num_timed != _STEPS_TO_KNOW_THE_SPEED or self.is_compiled:
            return None
        epoch, num_done = divmod(self.start.step + self.num_timed - 1, self.start.num_steps)
        line = self._line(self.start.epoch + epoch, num_done + 1, time_s, least_s=_WORTH_SAYING_S)
        self.is_guessed = line is not None
        return f"{line}, by the second step's time" if line else None

    def after_interval(self, epoch: int, stats: IntervalStats) -> str | None:
        """A logged step: the first that is not the compilation's gives the line."""
        if self.is_said or stats.step < _STEPS_TO_KNOW_THE_SPEED:
            return None
        self.is_said = True
        return self._line(epoch, stats.step + 1, stats.time_s)

    def after_epoch(self, epoch: int, stats: EpochStats) -> str | None:
        """The end of an epoch: it is the latest that a long training's time is said."""
        if self.is_said or self.is_guessed:
            return None
        self.is_said = True
        return self._line(epoch, self.start.num_steps, stats.time_s, least_s=_WORTH_SAYING_S)

    def _line(
        self, epoch: int, num_done: int, step_time_s: float, *, least_s: float = 0.0
    ) -> str | None:
        num_evaluations = self.num_epochs - epoch
        time_s = (num_evaluations * self.start.num_steps - num_done) * step_time_s
        if time_s <= least_s:
            return None
        return (
            f"expected: about {duration(time_s)} of training are left, beside "
            f"{counted(num_evaluations, 'evaluation')}"
        )
