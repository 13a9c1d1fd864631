"""What the curves of a run show, from the lines of its metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Record = Mapping[str, object]
Line = tuple[list[float], list[float]]  # epochs done, values


@dataclass(frozen=True)
class Curves:
    """The lines of a run; a mean stands in the middle of what it is of."""

    step_loss: Line  # mean of each log interval
    train_loss: Line
    val_loss: Line
    train_top1: Line  # percent, as the next two
    val_top1: Line
    val_top5: Line
    rate: Line  # of an interval's last step
    last: float  # epochs done at the end of the last record


def curves_of(records: Sequence[Record]) -> Curves:
    """Return the lines of a run. Values that are null or not finite are left out."""
    epochs = [r for r in records if r["kind"] == "epoch"]
    intervals = [r for r in records if r["kind"] == "interval"]
    return Curves(
        step_loss=_interval_means(intervals),
        train_loss=_points(epochs, "train_loss", _epoch_middle),
        val_loss=_points(epochs, "val_loss", _epoch_end),
        train_top1=_points(epochs, "train_accuracy_top1", _epoch_middle),
        val_top1=_points(epochs, "val_accuracy_top1", _epoch_end),
        val_top5=_points(epochs, "val_accuracy_top5", _epoch_end),
        rate=_points(intervals, "learning_rate", _interval_end),
        last=max([*map(_epoch_end, epochs), *map(_interval_end, intervals)], default=1),
    )


def loss_limit(steps: list[float], train: list[float], val: list[float]) -> float:
    """Return the largest loss to show: infinity, unless outliers would flatten the rest.

    A line's upper quartile is free of single outliers. The first training loss is about the log
    of the number of classes, so that it is never an outlier, however low the loss gets.
    """
    usual = max((max(line[0], _quartile(line)) for line in (steps, train) if line), default=0.0)
    if len(val) == 1 and usual > 0:  # nothing says yet whether it is an outlier
        usual = max(usual, min(val[0], 5 * usual))
    elif val:
        usual = max(usual, _quartile(val))
    return 2 * usual if usual > 0 else math.inf


def _quartile(values: list[float]) -> float:
    """Return the upper quartile, rounded down to one of the values."""
    return float(np.quantile(values, 0.75, method="lower"))


def _number(value: object) -> float:
    """Return a record's value as a float; NaN for null, a missing key and infinity."""
    is_finite = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_finite else math.nan  # type: ignore[arg-type]


def _epoch_end(record: Record) -> float:
    return _number(record["epoch"]) + 1


def _epoch_middle(record: Record) -> float:
    """Return where the mean of an epoch belongs: at its end it would lag the weights it is of."""
    return _number(record["epoch"]) + 0.5


def _interval_end(record: Record) -> float:
    steps_done = _number(record["step"]) + 1
    return _number(record["epoch"]) + steps_done / _number(record["num_steps"])


def _points(records: Sequence[Record], key: str, place: Callable[[Record], float]) -> Line:
    """Return (epochs done, values) of the records that have a finite value."""
    pairs = [(place(record), _number(record.get(key))) for record in records]
    pairs = [pair for pair in pairs if math.isfinite(pair[1])]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _interval_means(intervals: Sequence[Record]) -> Line:
    """Return (epochs done, mean loss) of each log interval, placed at its middle."""
    middle, last_end = {}, 0.0
    for record in intervals:
        end = _interval_end(record)
        start = max(last_end, _number(record["epoch"]))  # an epoch starts an interval of its own
        middle[id(record)] = (min(start, end) + end) / 2
        last_end = end
    return _points(intervals, "loss", lambda record: middle[id(record)])
