"""The line that says whether a run waits for its pictures."""

from __future__ import annotations

import pytest

from lib.metrics.meter import Metrics
from lib.metrics.stats import IntervalStats
from lib.training.input_wait import LoaderSetup, input_line


def line(
    wait_s: float, decode_s: float, *, workers: int = 4, cores: int = 4, decoder="fast"
) -> str:
    """Of steps that take a second each."""
    stats = IntervalStats(0, 1, 1.0, 10.0, wait_s, decode_s, Metrics(), 0.1, 1.0)
    return input_line(stats, LoaderSetup(workers, cores, decoder))


def test_shares_of_waiting_computing_and_decoding_add_up() -> None:
    assert line(0.05, 2.0) == (
        "Input: waiting 5% of the time, computing 95%; 4 workers decoding 50% of theirs"
    )
    assert line(0.05, 0.03, workers=0).endswith("decoding 3%, in this process")
    assert "waiting 100%" in line(1.2, 9.0), "clocks of several processes differ a little"


@pytest.mark.parametrize(
    ("decode_s", "settings", "advice"),
    [
        (3.9, {"cores": 8}, "--workers 8"),
        (0.5, {"workers": 0}, "--workers 4"),
        (1.0, {}, "faster reading; tools/pack_dataset.py"),
        (3.9, {"decoder": "pillow"}, "pip install simplejpeg"),
        (3.9, {}, "smaller pictures: tools/pack_dataset.py --resize"),
    ],
)
def test_a_run_that_waits_is_told_what_would_help(decode_s, settings, advice) -> None:
    assert f"; what would help: {advice}" in line(0.5, decode_s, **settings)
    assert "what would help" not in line(0.05, decode_s, **settings)


def test_no_other_scripts_patterns_are_in_the_line() -> None:
    """The launchers' logs are searched for these, and the last match wins."""
    text = line(0.5, 3.9)
    assert not any(word in text for word in ("Epoch:", "Fps_Avg", "Accuracy@1", "Test", "Loss"))
