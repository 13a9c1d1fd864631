"""Curves of a run: loss, accuracy and learning rate over epochs, for curves.png and report.html."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from lib.config.schedules import Schedule
from lib.report.plots.palette import FAINT, TRAINING, VALIDATION, VALIDATION_TOP5
from lib.report.plots.points import Curves, Line, Record, curves_of, loss_limit
from lib.report.plots.svg import inline_svg
from lib.report.plots.text import FONT, plain_text, save

_SIZE = (4.3, 3.7)  # inches of one chart
_INSIDE = (0.16, 0.14, 0.8, 0.66)  # of it within the axes: left, bottom, width, height
_POINTS = 9  # of every text
_MAX_DOTS = 30  # of a line with few points, each is to be seen
_LOG_RATIO = 20  # rates of which many are that far below the highest are drawn by magnitude


@dataclass(frozen=True)
class Chart:
    """A drawing within a page."""

    title: str
    svg: str


@dataclass(frozen=True)
class _Look:
    """One line of a chart, and how it is drawn."""

    label: str
    line: Line
    colour: str
    style: str = "-"
    is_behind: bool = False


@dataclass(frozen=True)
class _Panel:
    """One chart: `finish` sets the axes for what is drawn and returns an addition to the title."""

    name: str
    title: str
    looks: Callable[[Curves], list[_Look]]
    finish: Callable[[Axes, Curves], str]


def save_curves(
    records: Sequence[Record],
    path: Path,
    *,
    schedule: Schedule | None = None,
    num_classes: int | None = None,
) -> None:
    """Draw loss, accuracy and learning rate over epochs as a PNG. Raises OSError.

    `records` are the lines of metrics.jsonl. Values that are null or not finite are left out. For
    `schedule` and `num_classes` see `curves_of`.
    """
    curves = curves_of(records, schedule=schedule, num_classes=num_classes)
    with plain_text(FONT, points=_POINTS):
        figure = Figure(figsize=(len(_PANELS) * _SIZE[0], _SIZE[1]))
        for place, panel in enumerate(_PANELS):
            _draw(figure, panel, curves, place=place, num_places=len(_PANELS))
        save(figure, path)


def curve_charts(curves: Curves) -> list[Chart]:
    """Return the same charts one by one, for a page; none of those without a point."""
    charts = []
    with plain_text(FONT, points=_POINTS):
        for panel in _PANELS:
            looks = panel.looks(curves)
            if any(look.line[0] for look in looks):
                figure = Figure(figsize=_SIZE)
                _draw(figure, panel, curves)
                summary = _summary(panel.title, looks)
                charts.append(
                    Chart(panel.title, inline_svg(figure, name=panel.name, summary=summary))
                )
    return charts


def _draw(
    figure: Figure, panel: _Panel, curves: Curves, *, place: int = 0, num_places: int = 1
) -> None:
    # Drawn after every epoch: a layout of its own is twice as fast as one fitted to the texts.
    left, bottom, width, height = _INSIDE
    axes = figure.add_axes(((place + left) / num_places, bottom, width / num_places, height))
    looks = [look for look in panel.looks(curves) if look.line[0]]
    for look in looks:
        num_points = len(look.line[0])
        has_dots = num_points == 1 or (num_points <= _MAX_DOTS and len(looks) > 1)
        axes.plot(
            *look.line, look.style, color=look.colour, label=look.label,
            linewidth=1 if look.is_behind else 1.6,
            marker="." if has_dots and (not look.is_behind or num_points == 1) else "",
        )  # fmt: skip
    axes.set_xlim(0, 1.02 * curves.last)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    remark = panel.finish(axes, curves)
    # Above the axes, where nothing can lie under it.
    if len(looks) > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, frameon=False,
            borderaxespad=0.2, handlelength=1.6, columnspacing=1.2, labelspacing=0.25,
        )  # fmt: skip
    title = f"{panel.title} ({remark})" if remark else panel.title
    figure.text((place + 0.02) / num_places, 0.955, title, va="center", fontsize=_POINTS + 1)
    axes.set_xlabel("epochs done")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _losses(curves: Curves) -> list[_Look]:
    return [
        _Look("training, log intervals", curves.step_loss, FAINT, is_behind=True),
        _Look("training, epochs", curves.train_loss, TRAINING),
        _Look("validation", curves.val_loss, VALIDATION),
    ]


def _finish_loss(axes: Axes, curves: Curves) -> str:
    lines = (curves.step_loss[1], curves.train_loss[1], curves.val_loss[1])
    values, top = [y for line in lines for y in line], loss_limit(*lines)
    num_above = sum(y > top for y in values)
    if not num_above:
        return ""
    bottom = min(values)
    axes.set_ylim(bottom - 0.05 * (top - bottom), top)
    return f"{num_above} point{'' if num_above == 1 else 's'} above {top:.3g} cut off"


def _accuracies(curves: Curves) -> list[_Look]:
    return [
        _Look("training top-1", curves.train_top1, TRAINING),
        _Look("validation top-1", curves.val_top1, VALIDATION),
        _Look("validation top-5", curves.val_top5, VALIDATION_TOP5, style="--"),
    ]


def _finish_accuracy(axes: Axes, curves: Curves) -> str:
    low, high = axes.get_ylim()
    if curves.chance is not None and low < curves.chance < high:
        axes.axhline(curves.chance, color=FAINT, linestyle=":", label="chance")
    return ""


def _rates(curves: Curves) -> list[_Look]:
    return [_Look("learning rate", curves.rate, TRAINING)]


def _finish_rate(axes: Axes, curves: Curves) -> str:
    """Set the scale: by magnitude where many rates are far below the highest, as after drops."""
    positive = [rate for rate in curves.rate[1] if rate > 0]
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    if not positive or np.quantile(curves.rate[1], 0.25, method="lower") * _LOG_RATIO > max(
        positive
    ):
        axes.set_ylim(bottom=0)
        return ""
    low = 10.0 ** math.floor(math.log10(min(positive)))
    high = max(10 * low, 10.0 ** math.ceil(math.log10(max(positive))))
    axes.set_yscale("log")
    axes.set_ylim(low / 1.2, 1.2 * high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high <= 100 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda rate, _: ""))
    return "log scale"


_PANELS = (
    _Panel("loss", "loss", _losses, _finish_loss),
    _Panel("accuracy", "accuracy (%)", _accuracies, _finish_accuracy),
    _Panel("rate", "learning rate", _rates, _finish_rate),
)


def _summary(title: str, looks: Sequence[_Look]) -> str:
    said = [
        f"{look.label} goes from {look.line[1][0]:.4g} to {look.line[1][-1]:.4g}"
        for look in looks
        if look.line[1]
    ]
    return f"{title} over the epochs: {'; '.join(said)}"
