"""The confusion matrix as a picture: blue where the class is right, orange where it is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.metrics.confusion import ConfusionCounts
from lib.report.plots.palette import FULL_OPACITY, RIGHT, WRONG
from lib.report.plots.svg import inline_svg
from lib.report.plots.text import (
    FONT,
    class_labels,
    plain_text,
    save,
    shortened,
    width_inches,
    wrapped,
)

MAX_COUNTED = 20  # up to so many classes a cell has room for its count
MAX_NAMED = 60  # up to so many classes a row has room for its name
MAX_BLOCKS = 100  # rows of a reduced matrix
GAMMA = 0.4  # an error of 1 % gets a sixth of the opacity, not a hundredth
_NUM_CONFUSIONS = 20  # bars beside a reduced matrix
_COLUMN_INCHES = 0.075  # of one character in the size of the labels, roughly
_LINE_INCHES = 0.16  # of its lines
_LABEL_POINTS = 8
_TITLE_INCHES = 0.4
_SCALE_INCHES = 0.28  # width of the scale of shares
_SCALE_SHARES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)


def save_confusion(confusion: ConfusionCounts, class_names: Sequence[str], path: Path) -> str:
    """Draw a confusion matrix as a PNG, coloured by the shares of each true class.

    Up to 20 classes the counts stand in the cells, up to 60 the names beside them; above, blocks of
    classes are drawn together and the most frequent confusions listed. Returns a warning where
    names cannot be drawn, which appear as `#3`; '' where all can. Raises OSError.
    """
    num_images, num_correct = int(confusion.num_images.sum()), int(confusion.num_correct.sum())
    top1 = f"top-1 {100 * num_correct / num_images:.2f} % of " if num_images else ""
    labels = class_labels(class_names, confusion.num_classes)
    with plain_text(*labels.fonts):
        figure = _figure(confusion, labels.texts, lists_confusions=True)
        figure.suptitle(f"{top1}{num_images:,} image{'' if num_images == 1 else 's'}")
        save(figure, path)
    return labels.remark


def confusion_svg(confusion: ConfusionCounts, class_names: Sequence[str]) -> str:
    """Return the same matrix as an element of a page, whose reader has fonts for all names."""
    texts = [name if name.strip() else f"#{n}" for n, name in enumerate(class_names)]
    with plain_text(FONT):
        figure = _figure(confusion, texts, lists_confusions=False)
        summary = (
            f"confusion matrix of {confusion.num_classes} classes: rows are true classes, columns "
            "predicted ones; the commonest confusions are in the table that follows"
        )
        return inline_svg(figure, name="matrix", summary=summary)


def _figure(confusion: ConfusionCounts, labels: Sequence[str], *, lists_confusions: bool) -> Figure:
    if confusion.num_classes <= MAX_NAMED:
        return _whole_matrix(confusion, labels)
    return _reduced_matrix(confusion, labels, lists_confusions=lists_confusions)


def _whole_matrix(confusion: ConfusionCounts, labels: Sequence[str]) -> Figure:
    """Return a figure with a row a class, named, and with the counts where they fit."""
    counts, num_classes = confusion.blocks(1), confusion.num_classes
    texts = [[f"{count:,}" if count else "" for count in row] for row in counts.tolist()]
    is_counted = num_classes <= MAX_COUNTED
    longest_count = max((len(text) for row in texts for text in row), default=1)
    cell = max(0.45, _COLUMN_INCHES * (longest_count + 1)) if is_counted else 0.2
    side = max(2.4, cell * num_classes)
    cell = side / max(1, num_classes)
    labels = [wrapped(label, int(cell / _LINE_INCHES)) for label in labels]
    longest = max((width_inches(label, _LABEL_POINTS) for label in labels), default=0)
    is_flat = longest < 0.9 * cell
    left, bottom = longest + 0.55, (0.2 if is_flat else longest) + 0.55
    # A layout of its own takes half the time of one that is fitted to the texts.
    figure = Figure(figsize=(left + side + 1.3, bottom + side + _TITLE_INCHES))
    axes = _add_axes(figure, left, bottom, width=side, height=side)
    _draw_shares(axes, counts, unit="class")
    _draw_scale(_add_axes(figure, left + side + 0.15, bottom, width=_SCALE_INCHES, height=side))
    ticks = range(num_classes)
    axes.set_xticks(ticks, labels, rotation=0 if is_flat else 90, fontsize=_LABEL_POINTS)
    axes.set_yticks(ticks, labels, fontsize=_LABEL_POINTS)
    for row, column in np.argwhere(counts).tolist() if is_counted else ():
        axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=8)
    return figure


def _add_axes(figure: Figure, left: float, bottom: float, *, width: float, height: float) -> Axes:
    """Return new axes at a place in inches."""
    all_width, all_height = figure.get_size_inches()
    return figure.add_axes(
        (left / all_width, bottom / all_height, width / all_width, height / all_height)
    )


def _reduced_matrix(
    confusion: ConfusionCounts, labels: Sequence[str], *, lists_confusions: bool
) -> Figure:
    """Return a figure with block sums of the matrix, and a list of the commonest confusions."""
    num_classes = confusion.num_classes
    block = math.ceil(num_classes / MAX_BLOCKS)
    ratios = (6.0, _SCALE_INCHES, 4.0) if lists_confusions else (6.0, _SCALE_INCHES)
    figure = Figure(figsize=(15 if lists_confusions else 7.8, 6.6), layout="constrained")
    matrix, scale, *lists = figure.subplots(1, len(ratios), width_ratios=ratios)
    unit = f"class, {block} a cell" if block > 1 else "class"
    _draw_shares(matrix, confusion.blocks(block), unit=unit)
    _draw_scale(scale)
    tick_classes = MaxNLocator(8, steps=[1, 2, 5, 10], integer=True).tick_values(0, num_classes - 1)
    inside = [int(c) for c in tick_classes if 0 <= c < num_classes]
    for axis in (matrix.xaxis, matrix.yaxis):
        axis.set_ticks([(c + 0.5) / block - 0.5 for c in inside], [str(c) for c in inside])
    for axes in lists:
        _draw_confusions(axes, confusion, labels)
    return figure


def _draw_shares(axes: Axes, counts: np.ndarray, *, unit: str) -> None:
    """Draw `counts` as shares of their rows: the larger, the more opaque."""
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    are_right = np.eye(len(counts), dtype=bool)
    axes.imshow(_cells(shares, are_right), interpolation="none")
    axes.set_xlabel(f"predicted {unit}")
    axes.set_ylabel(f"true {unit}")


def _cells(shares: np.ndarray, are_right: np.ndarray) -> np.ndarray:
    """Return the cells' colours, H x W x 4 in 0..1."""
    cells = np.empty((*shares.shape, 4))
    cells[..., :3] = np.where(are_right[..., None], to_rgb(RIGHT), to_rgb(WRONG))
    cells[..., 3] = FULL_OPACITY * shares**GAMMA
    return cells


def _draw_scale(axes: Axes) -> None:
    """Draw the scale of both colours."""
    shares = np.repeat(np.linspace(0, 1, 256)[::-1, None] ** (1 / GAMMA), 2, axis=1)
    cells = _cells(shares, np.broadcast_to([True, False], shares.shape))
    axes.imshow(cells, extent=(0, 2, 0, 1), aspect="auto", interpolation="none")
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    ticks = [share**GAMMA for share in _SCALE_SHARES]
    axes.set_yticks(ticks, [f"{100 * s:.0f} %" for s in _SCALE_SHARES], fontsize=_LABEL_POINTS)
    axes.set_xticks((0.5, 1.5), ("right", "wrong"), rotation=90, fontsize=_LABEL_POINTS)
    axes.set_ylabel("share of the true class's images", fontsize=_LABEL_POINTS)


def _draw_confusions(axes: Axes, confusion: ConfusionCounts, labels: Sequence[str]) -> None:
    """List the pairs of different classes with the most images, the largest on top."""
    pairs = confusion.wrong[:_NUM_CONFUSIONS]
    axes.set_title("most frequent confusions (true → predicted)", fontsize=10)
    if not len(pairs):
        axes.set_axis_off()
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
        return
    counts = confusion.counts[pairs].tolist()
    bars = axes.barh(range(len(pairs)), counts, color=WRONG, alpha=FULL_OPACITY)
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=2, fontsize=_LABEL_POINTS)
    names = [
        f"{shortened(labels[true])} → {shortened(labels[predicted])}"
        for true, predicted in zip(confusion.true[pairs], confusion.predicted[pairs], strict=True)
    ]
    axes.set_yticks(range(len(pairs)), names, fontsize=_LABEL_POINTS)
    axes.set_ylim(_NUM_CONFUSIONS - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("images")
