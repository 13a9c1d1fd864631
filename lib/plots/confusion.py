"""The confusion matrix as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lib.confusion import ConfusionCounts
from lib.plots.text import labels_of, num_columns, plain_text, save

MAX_COUNTED = 20  # up to so many classes a cell has room for its count
MAX_NAMED = 60  # up to so many classes a row has room for its name
MAX_BLOCKS = 100  # rows of a reduced matrix
_NUM_CONFUSIONS = 20  # bars beside a reduced matrix
_COLUMN_INCHES = 0.075  # of one character in the size of the labels, roughly
_LABEL_POINTS = 8
GAMMA = 0.4  # an error of 1 % gets a sixth of the colour scale, not a hundredth


def save_confusion(confusion: ConfusionCounts, class_names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix as a PNG, coloured by the shares of each true class.

    Up to 20 classes the counts stand in the cells, up to 60 the names beside them; above, blocks of
    classes are drawn together and the most frequent confusions listed. A class without a name that
    can be drawn appears as `#3`.
    """
    num_images, num_correct = int(confusion.num_images.sum()), int(confusion.num_correct.sum())
    top1 = f"top-1 {100 * num_correct / num_images:.3f} % of " if num_images else ""
    title = f"{top1}{num_images} image{'' if num_images == 1 else 's'}"
    labels = labels_of(class_names, confusion.num_classes)
    with plain_text(*labels.fonts):
        draw = _whole_matrix if confusion.num_classes <= MAX_NAMED else _reduced_matrix
        figure = draw(confusion, labels.texts)
        figure.suptitle(title)
        save(figure, path)


def _whole_matrix(confusion: ConfusionCounts, labels: Sequence[str]) -> Figure:
    """Return a figure with a row a class, named, and with the counts where they fit."""
    counts, num_classes = confusion.blocks(1), confusion.num_classes
    is_counted = num_classes <= MAX_COUNTED
    side = max(3.2, (0.45 if is_counted else 0.2) * num_classes)
    longest = max(map(num_columns, labels), default=0) * _COLUMN_INCHES
    figure = Figure(figsize=(side + longest + 1.8, side + longest + 0.9), layout="constrained")
    axes = figure.subplots()
    shares = _draw_shares(figure, axes, counts, unit="class")
    is_flat = longest < 0.9 * side / max(1, num_classes)
    ticks = range(num_classes)
    axes.set_xticks(ticks, labels, rotation=0 if is_flat else 90, fontsize=_LABEL_POINTS)
    axes.set_yticks(ticks, labels, fontsize=_LABEL_POINTS)
    if is_counted:
        for row, column in np.argwhere(counts).tolist():
            count = int(counts[row, column])
            text = str(count) if count < 100_000 else f"{count // 1000}k"
            is_dark = shares[row, column] ** GAMMA > 0.6
            colour = "white" if is_dark else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    return figure


def _reduced_matrix(confusion: ConfusionCounts, labels: Sequence[str]) -> Figure:
    """Return a figure with block sums of the matrix and a list of the commonest confusions."""
    num_classes = confusion.num_classes
    block = math.ceil(num_classes / MAX_BLOCKS)
    blocks = confusion.blocks(block)
    figure = Figure(figsize=(15, 6.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_shares(figure, left, blocks, unit=f"class, {block} a cell" if block > 1 else "class")
    tick_classes = MaxNLocator(8, steps=[1, 2, 5, 10], integer=True).tick_values(0, num_classes - 1)
    inside = [int(c) for c in tick_classes if 0 <= c < num_classes]
    for axis in (left.xaxis, left.yaxis):
        axis.set_ticks([(c + 0.5) / block - 0.5 for c in inside], [str(c) for c in inside])
    _draw_confusions(right, confusion, labels)
    return figure


def _draw_shares(figure: Figure, axes: Axes, counts: np.ndarray, *, unit: str) -> np.ndarray:
    """Draw `counts` as shares of their rows, and return the shares."""
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    norm = PowerNorm(GAMMA, vmin=0, vmax=1)
    image = axes.imshow(shares, norm=norm, cmap="Blues", interpolation="nearest")
    axes.set_xlabel(f"predicted {unit}")
    axes.set_ylabel(f"true {unit}")
    bar = figure.colorbar(image, ax=axes, aspect=30, label="share of the true class's images")
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    return shares


def _draw_confusions(axes: Axes, confusion: ConfusionCounts, labels: Sequence[str]) -> None:
    """List the pairs of different classes with the most images, the largest on top."""
    pairs = confusion.wrong[:_NUM_CONFUSIONS]
    axes.set_title("most frequent confusions (true → predicted)", fontsize=10)
    if not len(pairs):
        axes.set_axis_off()
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
        return
    bars = axes.barh(range(len(pairs)), confusion.counts[pairs].tolist(), color="tab:red")
    axes.bar_label(bars, padding=2, fontsize=_LABEL_POINTS)
    names = [
        f"{labels[true]} → {labels[predicted]}"
        for true, predicted in zip(confusion.true[pairs], confusion.predicted[pairs], strict=True)
    ]
    axes.set_yticks(range(len(pairs)), names, fontsize=_LABEL_POINTS)
    axes.set_ylim(_NUM_CONFUSIONS - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("images")
