"""When a run says how long it will take, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib.metrics.meter import Metrics
from lib.metrics.stats import EpochStats, IntervalStats
from lib.training.checkpoint import Position
from lib.training.time_left import TimeLeft

START = Position(0, 0, num_steps=10, images_per_step=8)
INTERVAL = IntervalStats(5, 10, 6.0, 1.0, 0.0, 0.0, Metrics(), 0.1, 1.0)
EPOCH = EpochStats(Metrics(), 6.0, 1.0, 10, 1.0)


def test_the_second_step_gives_a_guess_and_a_logged_step_the_line_once() -> None:
    expecting = TimeLeft(START, num_epochs=3, is_compiled=False)
    assert expecting.after_first_step(40.0) is None
    assert expecting.after_first_step(6.0) == (
        "expected: about 2 min 48 s of training are left, beside 3 evaluations, by the second "
        "step's time"
    )
    assert expecting.after_interval(0, replace(INTERVAL, step=0)) is None
    line = expecting.after_interval(0, INTERVAL)
    assert line == "expected: about 2 min 24 s of training are left, beside 3 evaluations"
    assert expecting.after_interval(1, INTERVAL) is None
    assert expecting.after_epoch(0, EPOCH) is None


@pytest.mark.parametrize(("is_compiled", "num_timed"), [(True, 2), (False, 1), (False, 0)])
def test_the_end_of_the_first_epoch_is_the_latest(is_compiled: bool, num_timed: int) -> None:
    """Where its steps are few, or compiled."""
    expecting = TimeLeft(replace(START, num_steps=2), num_epochs=20, is_compiled=is_compiled)
    assert [expecting.after_first_step(6.0) for _ in range(num_timed)] == [None] * num_timed
    assert expecting.after_interval(0, replace(INTERVAL, step=1)) is None
    line = expecting.after_epoch(0, EPOCH)
    assert line == "expected: about 3 min 48 s of training are left, beside 20 evaluations"
    assert expecting.after_epoch(1, EPOCH) is None


def test_less_than_a_minute_is_neither_guessed_nor_said_at_an_epochs_end() -> None:
    expecting = TimeLeft(START, num_epochs=1, is_compiled=False)
    assert expecting.after_first_step(6.0) is expecting.after_first_step(6.0) is None
    assert expecting.after_epoch(0, EPOCH) is None


def test_the_second_step_of_a_resumed_run_may_lie_in_the_next_epoch() -> None:
    start = replace(START, epoch=1, step=9)
    expecting = TimeLeft(start, num_epochs=4, is_compiled=False)
    expecting.after_first_step(6.0)
    line = expecting.after_first_step(10.0)
    assert line and line.startswith("expected: about 3 min 10 s of training are left, beside 2 ")
