"""The curves as line charts: numbers in, places on a canvas out. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from lib.plots.points import Curves, Line, loss_limit

WIDTH, HEIGHT = 360.0, 200.0  # of the area within the axes, in units of the canvas
_MAX_POINTS = 800  # of a line: there are hardly more pixels
_MAX_DOTS = 30
_LOG_RATIO = 20  # rates further apart are drawn by their magnitude


@dataclass(frozen=True)
class Drawn:
    """One line: what it is, its class in the style sheet, and its points as `x,y x,y`."""

    name: str
    style: str
    points: str
    dots: Sequence[tuple[float, float]]  # of lines with few points, each is to be seen


@dataclass(frozen=True)
class Chart:
    """One chart; a tick is (place, label)."""

    title: str
    summary: str  # what it shows in words
    lines: Sequence[Drawn]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    note: str = ""


@dataclass(frozen=True)
class _Axes:
    low: float
    high: float
    last: float  # epochs done
    is_log: bool = False

    def x(self, value: float) -> float:
        return round(WIDTH * value / self.last, 1)

    def y(self, value: float) -> float:
        scale: Callable[[float], float] = math.log10 if self.is_log else float
        low, high = scale(self.low), scale(self.high)
        return round(HEIGHT * (1 - (scale(value) - low) / (high - low)), 1)


def charts_of(curves: Curves) -> list[Chart]:
    """Return the charts of loss, accuracy and learning rate; none of those without a point."""
    charts = (_loss(curves), _accuracy(curves), _rate(curves))
    return [chart for chart in charts if any(line.points for line in chart.lines)]


def _loss(curves: Curves) -> Chart:
    lines = (
        ("training, each log interval", "faint", curves.step_loss),
        ("training, mean of the epoch", "first", curves.train_loss),
        ("validation", "second", curves.val_loss),
    )
    values = [value for _, _, line in lines for value in line[1]]
    limit = loss_limit(curves.step_loss[1], curves.train_loss[1], curves.val_loss[1])
    axes = _axes(min(values, default=0), min(limit, max(values, default=1)), curves.last)
    num_above = sum(value > axes.high for value in values)
    points = "point" if num_above == 1 else "points"
    note = f"{num_above} {points} above {axes.high:g} cut off" if num_above else ""
    return _chart("Loss", lines, axes, note=note)


def _accuracy(curves: Curves) -> Chart:
    lines = (
        ("training top-1, mean of the epoch", "first", curves.train_top1),
        ("validation top-1", "second", curves.val_top1),
        ("validation top-5", "third", curves.val_top5),
    )
    values = [value for _, _, line in lines for value in line[1]]
    axes = _axes(min(values, default=0), max(values, default=100), curves.last, most=100)
    return _chart("Accuracy (%)", lines, axes)


def _rate(curves: Curves) -> Chart:
    rates = curves.rate[1]
    low, high = min(rates, default=0), max(rates, default=1)
    is_log = low > 0 and high > _LOG_RATIO * low
    if is_log:
        low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
        axes = _Axes(low, high, curves.last, is_log=True)
    else:
        axes = _axes(0, high, curves.last)
    lines = [("", "first", _stairs(curves.rate))]
    return _chart("Learning rate", lines, axes, note="log scale" if is_log else "")


def _axes(low: float, high: float, last: float, *, most: float = math.inf) -> _Axes:
    """Return axes that begin and end at a tick."""
    if high <= low:
        low, high = low - 0.5 * abs(low or 1), min(most, high + 0.5 * abs(high or 1))
    ticks = _ticks(low, high)
    return _Axes(max(0.0, ticks[0]) if low >= 0 else ticks[0], min(most, ticks[-1]), last)


def _ticks(low: float, high: float) -> list[float]:
    return np.asarray(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)).tolist()


def _chart(
    title: str, lines: Sequence[tuple[str, str, Line]], axes: _Axes, *, note: str = ""
) -> Chart:
    drawn = [_drawn(name, style, line, axes) for name, style, line in lines if line[0]]
    epochs = MaxNLocator(6, steps=[1, 2, 5, 10], integer=True).tick_values(0, axes.last)
    return Chart(
        title,
        _summary(title, lines),
        drawn,
        [(axes.x(e), f"{e:g}") for e in np.asarray(epochs).tolist() if 0 <= e <= axes.last],
        [(axes.y(value), f"{value:g}") for value in _y_values(axes)],
        note,
    )


def _y_values(axes: _Axes) -> list[float]:
    if axes.is_log:
        decades = range(round(math.log10(axes.low)), round(math.log10(axes.high)) + 1)
        return [10.0**decade for decade in decades]
    slack = 1e-9 * (axes.high - axes.low)
    ticks = _ticks(axes.low, axes.high)
    return [round(t, 12) for t in ticks if axes.low - slack <= t <= axes.high + slack]


def _drawn(name: str, style: str, line: Line, axes: _Axes) -> Drawn:
    places = [(axes.x(x), axes.y(y)) for x, y in zip(*_thinned(line), strict=True)]
    text = " ".join(f"{x:g},{y:g}" for x, y in places)
    has_dots = len(places) == 1 or (bool(name) and style != "faint" and len(places) <= _MAX_DOTS)
    return Drawn(name, style, text, places if has_dots else ())


def _stairs(line: Line) -> Line:
    """Return a line that has each value from where the one before ends."""
    x, y = _thinned(line, _MAX_POINTS // 2)  # each becomes two
    begins = [0.0, *x[:-1]] if x else []
    return (
        [place for pair in zip(begins, x, strict=True) for place in pair],
        [value for value in y for _ in range(2)],
    )


def _thinned(line: Line, most: int = _MAX_POINTS) -> Line:
    """Return the means of neighbours where there are more points than can be seen."""
    step = math.ceil(len(line[0]) / most)
    if step <= 1:
        return line
    starts = np.arange(0, len(line[0]), step)
    sizes = np.diff([*starts, len(line[0])])
    x, y = (np.add.reduceat(np.asarray(values), starts) / sizes for values in line)
    return x.tolist(), y.tolist()


def _summary(title: str, lines: Sequence[tuple[str, str, Line]]) -> str:
    parts = [
        f"{name or 'it'} goes from {values[0]:.4g} to {values[-1]:.4g}"
        for name, _, (_, values) in lines
        if values
    ]
    return f"{title} over the epochs: {'; '.join(parts)}"
