"""Learning rates as pure functions of progress.

Progress is the epoch with the fraction of it that is done, so the rate changes at every step, and a
resumed run and an uninterrupted one agree at every step: nothing is remembered.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from yacs.config import CfgNode


class Schedule(Protocol):
    """A learning rate over a run."""

    @property
    def base(self) -> float:
        """The rate that all others are derived from."""

    def learning_rate(self, epoch: float) -> float:
        """Return the rate at `epoch`, whole or with the fraction of the epoch that is done."""

    def describe(self) -> str:
        """Return in words how the rate changes, for the log."""


@dataclass(frozen=True)
class StepSchedule:
    """`base` times `factor` for each milestone (in epochs) already reached."""

    base: float
    milestones: tuple[int, ...]
    factor: float

    def learning_rate(self, epoch: float) -> float:
        """Return the rate at `epoch`."""
        return self.base * self.factor ** bisect_right(self.milestones, epoch)

    def describe(self) -> str:
        """Return in words how the rate changes."""
        return f"times {self.factor:g} at epochs {list(self.milestones)}"


@dataclass(frozen=True)
class CosineSchedule:
    """Half a cosine from `base` at epoch `begin` down to `least` at epoch `end`.

    least + (base - least) (1 + cos(pi p)) / 2, where p is the share of the way that is done.
    Loshchilov and Hutter, SGDR, arXiv 1608.03983, equation 5, without restarts.
    """

    base: float
    least: float
    begin: float
    end: float

    def learning_rate(self, epoch: float) -> float:
        """Return the rate at `epoch`."""
        share = _share(epoch, self.begin, self.end)
        return self.least + (self.base - self.least) * (1 + math.cos(math.pi * share)) / 2

    def describe(self) -> str:
        """Return in words how the rate changes."""
        return f"along a cosine to {self.least:g}"


@dataclass(frozen=True)
class PolynomialSchedule:
    """least + (base - least) (1 - p)^power, where p is the share of `begin`..`end` that is done."""

    base: float
    least: float
    begin: float
    end: float
    power: float

    def learning_rate(self, epoch: float) -> float:
        """Return the rate at `epoch`."""
        left = 1 - _share(epoch, self.begin, self.end)
        return self.least + (self.base - self.least) * left**self.power

    def describe(self) -> str:
        """Return in words how the rate changes."""
        return f"as a polynomial of power {self.power:g} to {self.least:g}"


@dataclass(frozen=True)
class WarmUp:
    """The rate of `schedule`, times a factor that rises evenly from `factor` to 1 by `epochs`.

    Goyal et al., Accurate, Large Minibatch SGD, arXiv 1706.02677, section 2.2.
    """

    schedule: Schedule
    epochs: float
    factor: float

    @property
    def base(self) -> float:
        """The rate after the warm-up."""
        return self.schedule.base

    def learning_rate(self, epoch: float) -> float:
        """Return the rate at `epoch`."""
        rate = self.schedule.learning_rate(epoch)
        if epoch >= self.epochs:
            return rate
        return rate * (self.factor + (1 - self.factor) * epoch / self.epochs)

    def describe(self) -> str:
        """Return in words how the rate changes."""
        return (
            f"rising from {self.factor:g} of it over {self.epochs:g} "
            f"{'epoch' if self.epochs == 1 else 'epochs'}, then "
            f"{self.schedule.describe()}"
        )


def _share(epoch: float, begin: float, end: float) -> float:
    """The share of `begin`..`end` that is done at `epoch`, within 0..1."""
    if epoch <= begin:
        return 0.0
    return min(1.0, (epoch - begin) / (end - begin)) if end > begin else 1.0


@dataclass(frozen=True)
class ScheduleOptions:
    """Settings of the learning rate; `rate` and `least` are those of one card."""

    name: str
    rate: float
    num_epochs: int
    milestones: Sequence[int] = ()  # of the step schedule
    factor: float = 0.1  # of the step schedule
    least: float = 0.0  # at the end of a cosine or a polynomial
    power: float = 1.0  # of a polynomial
    warmup_epochs: float = 0.0
    warmup_factor: float = 0.0


# Of the options, and of the rates for all cards at the beginning and at the end.
_BUILDERS: dict[str, Callable[[ScheduleOptions, float, float], Schedule]] = {
    "step": lambda o, base, least: StepSchedule(base, tuple(o.milestones), o.factor),
    "cosine": lambda o, base, least: CosineSchedule(base, least, o.warmup_epochs, o.num_epochs),
    "poly": lambda o, base, least: PolynomialSchedule(
        base, least, o.warmup_epochs, o.num_epochs, o.power
    ),
}
SCHEDULES = tuple(_BUILDERS)


def build_schedule(options: ScheduleOptions, *, num_cards: int) -> Schedule:
    """Return the schedule of a run on `num_cards` cards: rates of one card times the cards.

    A cosine and a polynomial begin where the warm-up ends; a step schedule's epochs are the run's.
    Raises ValueError for an unknown name.
    """
    if options.name not in _BUILDERS:
        raise ValueError(f"schedule {options.name!r} is not one of {', '.join(SCHEDULES)}")
    base, least = options.rate * num_cards, options.least * num_cards
    schedule = _BUILDERS[options.name](options, base, least)
    if options.warmup_epochs > 0:
        return WarmUp(schedule, options.warmup_epochs, options.warmup_factor)
    return schedule


def run_schedule(config: CfgNode, num_cards: int) -> Schedule:
    """Return the learning rate over a run with this configuration."""
    train = config.TRAIN
    options = ScheduleOptions(
        train.SCHEDULE,
        train.LR,
        num_epochs=train.END_EPOCH,
        milestones=train.LR_STEP,
        factor=train.LR_FACTOR,
        least=train.LR_MIN,
        power=train.LR_POWER,
        warmup_epochs=train.WARMUP_EPOCHS,
        warmup_factor=train.WARMUP_FACTOR,
    )
    return build_schedule(options, num_cards=num_cards)
