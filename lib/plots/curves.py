"""Curves of a run: loss, accuracy and learning rate over epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from lib.plots.points import Curves, Record, curves_of, loss_limit
from lib.plots.text import FONT, plain_text, save

_MARGINS = {"left": 0.055, "right": 0.99, "bottom": 0.13, "top": 0.92, "wspace": 0.22}


def save_curves(records: Sequence[Record], path: Path) -> None:
    """Draw loss, accuracy and learning rate over epochs as a PNG.

    `records` are the lines of metrics.jsonl. Values that are null or not finite are left out.
    """
    curves = curves_of(records)
    with plain_text(FONT):
        # Drawn after every epoch: a layout of its own is twice as fast as one fitted to the texts.
        figure = Figure(figsize=(13, 4))
        loss, accuracy, rate = figure.subplots(1, 3, gridspec_kw=_MARGINS)
        _draw_loss(loss, curves)
        for line, label in (
            (curves.train_top1, "train top-1, mean of the epoch"),
            (curves.val_top1, "validation top-1"),
            (curves.val_top5, "validation top-5"),
        ):
            accuracy.plot(*line, marker=".", label=label)
        accuracy.set_title("accuracy (%)")
        accuracy.legend()
        _draw_rate(rate, *curves.rate)
        for axes in (loss, accuracy, rate):
            axes.set_xlabel("epochs done")
            axes.set_xlim(0, 1.02 * curves.last)
            axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
            axes.grid(alpha=0.3)
        save(figure, path)


def _draw_loss(axes: Axes, curves: Curves) -> None:
    steps, train, val = curves.step_loss, curves.train_loss, curves.val_loss
    marker = "." if len(steps[0]) == 1 else ""  # a line needs two points to be seen
    label = "train, mean of each log interval"
    axes.plot(*steps, color="0.7", linewidth=1, marker=marker, label=label)
    axes.plot(*train, marker=".", label="train, mean of the epoch")
    axes.plot(*val, marker=".", label="validation")
    axes.legend()
    values = [y for _, line in (steps, train, val) for y in line]
    top = loss_limit(steps[1], train[1], val[1])
    num_above = sum(y > top for y in values)
    if num_above:
        bottom = min(values)
        axes.set_ylim(bottom - 0.05 * (top - bottom), top)
        points = "point" if num_above == 1 else "points"
        axes.set_title(f"loss ({num_above} {points} above {top:.3g} cut off)")
    else:
        axes.set_title("loss")


def _draw_rate(axes: Axes, epochs_done: list[float], rates: list[float]) -> None:
    """Draw the learning rate: that of an interval's last step, up to where the interval ends."""
    axes.set_title("learning rate")
    axes.plot(epochs_done, rates, drawstyle="steps-pre", marker="." if len(rates) == 1 else "")
    positive = [rate for rate in rates if rate > 0]
    if not positive:
        return
    low = 10.0 ** math.floor(math.log10(min(positive)))
    high = 10.0 ** math.ceil(math.log10(max(positive)))
    high = high if high > low else 10 * low
    if len(positive) < len(rates):  # a logarithmic axis has no 0: a linear piece down to it
        axes.set_yscale("symlog", linthresh=low)
        axes.set_ylim(-0.1 * low, 1.2 * high)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.2, 1.2 * high)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high <= 100 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda rate, _: ""))
