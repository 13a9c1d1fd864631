"""What the curves of a run show, from the lines of its metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from lib.config.schedules import Schedule

Record = Mapping[str, object]
Line = tuple[list[float], list[float]]  # epochs done, values

_MAX_POINTS = 800  # of a line: there are hardly more pixels
_SMALL_SHARE = 0.5  # an interval of fewer images, in relation to the usual ones, has no point alone


@dataclass(frozen=True)
class Curves:
    """The lines of a run; a mean stands in the middle of what it is of."""

    step_loss: Line  # means over log intervals, each of about as many images
    train_loss: Line
    val_loss: Line
    train_top1: Line  # percent, as the next two
    val_top1: Line
    val_top5: Line  # empty where there are no more than five classes
    rate: Line  # of every step done: a corner where a step begins or ends
    last: float  # epochs done at the end of the last record
    chance: float | None  # percent right by guessing, each class as likely as the others


def curves_of(
    records: Sequence[Record], *, schedule: Schedule | None = None, num_classes: int | None = None
) -> Curves:
    """Return the lines of a run. Values that are null or not finite are left out.

    `schedule` is the run's, where it is known: then the rate is that of every step.
    """
    epochs = [r for r in records if r["kind"] == "epoch"]
    intervals = [r for r in records if r["kind"] == "interval"]
    has_top5 = num_classes is None or num_classes > 5
    return Curves(
        step_loss=_interval_means(intervals),
        train_loss=_points(epochs, "train_loss", _epoch_middle),
        val_loss=_points(epochs, "val_loss", _epoch_end),
        train_top1=_points(epochs, "train_accuracy_top1", _epoch_middle),
        val_top1=_points(epochs, "val_accuracy_top1", _epoch_end),
        val_top5=_points(epochs, "val_accuracy_top5", _epoch_end) if has_top5 else ([], []),
        rate=_rates(intervals, schedule),
        last=max([*map(_epoch_end, epochs), *map(_interval_end, intervals)], default=1),
        chance=100 / num_classes if num_classes else None,
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


@dataclass(frozen=True)
class _Mean:
    """The mean loss from `begin` to `end`, in epochs done, of `weight` images."""

    begin: float
    end: float
    weight: float
    loss: float


def _interval_means(intervals: Sequence[Record]) -> Line:
    """Return (epochs done, mean loss) of the log intervals, each placed at its middle.

    The first of an epoch is of one step, the last of what was left, of one image maybe: such ones
    go into the mean of their neighbour, by their number of images.
    """
    means = list(_means(intervals))
    weights = [mean.weight for mean in means]
    least = max(
        _SMALL_SHARE * float(np.median(weights)) if weights else 0.0, sum(weights) / _MAX_POINTS
    )
    groups: list[list[_Mean]] = []
    for mean in means:
        if groups and sum(m.weight for m in groups[-1]) < least:
            groups[-1].append(mean)
        else:
            groups.append([mean])
    if len(groups) > 1 and sum(m.weight for m in groups[-1]) < least:
        groups[-2] += groups.pop()
    return (
        [(group[0].begin + group[-1].end) / 2 for group in groups],
        [
            float(np.average([m.loss for m in group], weights=[m.weight for m in group]))
            for group in groups
        ],
    )


def _means(intervals: Sequence[Record]) -> Iterator[_Mean]:
    """Yield the finite means of log intervals. Older runs have not noted their images: steps."""
    has_images = all(_number(record.get("num_images")) > 0 for record in intervals)
    last_end = 0.0
    for record in intervals:
        end, num_steps = _interval_end(record), _number(record["num_steps"])
        begin = min(end, max(last_end, _number(record["epoch"])))  # an epoch begins one of its own
        last_end = end
        loss = _number(record.get("loss"))
        if math.isfinite(loss):
            images = _number(record.get("num_images"))
            weight = images if has_images else max(1.0, (end - begin) * num_steps)
            yield _Mean(begin, end, weight, loss)


def _rates(intervals: Sequence[Record], schedule: Schedule | None) -> Line:
    """Return the rate of the steps done: the schedule's in each epoch whose log agrees with it.

    Elsewhere (a run that went on with other settings) there is what was logged.
    """
    line: list[tuple[float, float]] = []
    by_epoch = [(epoch, list(of)) for epoch, of in groupby(intervals, lambda r: r["epoch"])]
    for epoch, of_epoch in by_epoch:
        logged = [pair for pair in map(_logged_rate, of_epoch) if math.isfinite(pair[1])]
        start = _number(epoch)
        if schedule is None or not all(_agrees(schedule, *pair) for pair in logged):
            line += logged
            continue
        num_steps = int(_number(of_epoch[-1]["num_steps"]))
        num_done = int(_number(of_epoch[-1]["step"])) + 1
        stride = max(1, len(by_epoch) * num_steps // _MAX_POINTS)
        for step in range(0, num_done, stride):
            rate = schedule.learning_rate(start + step / num_steps)
            end = min(step + stride, num_done)
            # Each step has one rate from its beginning to its end; of many, the corners are too
            # small to be seen.
            line += [
                (start + place / num_steps, rate) for place in (step, end)[: 1 + (stride == 1)]
            ]
        if stride > 1:
            last = schedule.learning_rate(start + (num_done - 1) / num_steps)
            line.append((start + num_done / num_steps, last))
    return [x for x, _ in line], [y for _, y in line]


def _logged_rate(record: Record) -> tuple[float, float]:
    """Return where an interval's last step begins, and its rate."""
    step, num_steps = _number(record["step"]), _number(record["num_steps"])
    return _number(record["epoch"]) + step / num_steps, _number(record.get("learning_rate"))


def _agrees(schedule: Schedule, place: float, rate: float) -> bool:
    return math.isclose(schedule.learning_rate(place), rate, rel_tol=1e-6, abs_tol=1e-12)
