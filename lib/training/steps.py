"""The steps of an epoch that are to be run, and whom the loop tells about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lib.data.bad_images import BadImages
from lib.metrics.meter import Metrics
from lib.metrics.stats import IntervalStats


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
