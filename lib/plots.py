"""Pictures of a run: curves and the confusion matrix, drawn without a display."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from lib.files import write_atomically

_MAX_COUNTED = 20  # up to so many classes a cell has room for its count
_MAX_NAMED = 60  # up to so many classes a row has room for its name
_MAX_BLOCKS = 100  # rows of a reduced matrix
_NUM_CONFUSIONS = 20  # bars beside a reduced matrix
_MAX_CHARACTERS = 26  # of a class name
_COLUMN_INCHES = 0.075  # of one character in the size of the labels, roughly
_LABEL_POINTS = 8
_GAMMA = 0.4  # an error of 1 % gets a sixth of the colour scale, not a hundredth
_FONT = "DejaVu Sans"  # comes with matplotlib
_CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "SimHei",
    "Microsoft YaHei",
    "PingFang SC",
    "Heiti SC",
    "Arial Unicode MS",
)


def save_curves(records: Sequence[Mapping[str, object]], path: Path) -> None:
    """Draw loss, accuracy and learning rate over epochs as a PNG.

    `records` are the lines of metrics.jsonl. Values that are null or not finite are left out.
    """
    epochs = [r for r in records if r["kind"] == "epoch"]
    intervals = [r for r in records if r["kind"] == "interval"]
    with _plain_text(_FONT):
        figure = Figure(figsize=(13, 4), layout="constrained")
        loss, accuracy, rate = figure.subplots(1, 3)
        _draw_loss(loss, epochs, intervals)
        for key, place, label in (
            ("train_accuracy_top1", _epoch_middle, "train top-1, mean of the epoch"),
            ("val_accuracy_top1", _epoch_end, "validation top-1"),
            ("val_accuracy_top5", _epoch_end, "validation top-5"),
        ):
            accuracy.plot(*_points(epochs, key, place), marker=".", label=label)
        accuracy.set_title("accuracy (%)")
        accuracy.legend()
        _draw_rate(rate, *_points(intervals, "learning_rate", _interval_end))
        ends = [*map(_epoch_end, epochs), *map(_interval_end, intervals)]
        for axes in (loss, accuracy, rate):
            axes.set_xlabel("epochs done")
            axes.set_xlim(0, 1.02 * max(ends, default=1))
            axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
            axes.grid(alpha=0.3)
        _save(figure, path)


def save_confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix as a PNG, coloured by the shares of each true class.

    `matrix` holds image counts, [true class][predicted class]. Up to 20 classes the counts stand
    in the cells, up to 60 the names beside them; above, blocks of classes are drawn together and
    the most frequent confusions listed. A class without a name that can be drawn appears as `#3`.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    num_images, num_correct = int(counts.sum()), int(counts.trace())
    top1 = f"top-1 {100 * num_correct / num_images:.3f} % of " if num_images else ""
    title = f"{top1}{num_images} image{'' if num_images == 1 else 's'}"
    labels = _labels(class_names, len(counts))
    with _plain_text(*labels.fonts):
        draw = _whole_matrix if len(counts) <= _MAX_NAMED else _reduced_matrix
        figure = draw(counts, labels.texts)
        figure.suptitle(title)
        _save(figure, path)


# Curves


def _number(value: object) -> float:
    """Return a record's value as a float; NaN for null, a missing key and infinity."""
    is_finite = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_finite else math.nan  # type: ignore[arg-type]


def _epoch_end(record: Mapping[str, object]) -> float:
    return _number(record["epoch"]) + 1


def _epoch_middle(record: Mapping[str, object]) -> float:
    """Return where the mean of an epoch belongs: at its end it would lag the weights it is of."""
    return _number(record["epoch"]) + 0.5


def _interval_end(record: Mapping[str, object]) -> float:
    steps_done = _number(record["step"]) + 1
    return _number(record["epoch"]) + steps_done / _number(record["num_steps"])


def _points(
    records: Sequence[Mapping[str, object]],
    key: str,
    place: Callable[[Mapping[str, object]], float],
) -> tuple[list[float], list[float]]:
    """Return (epochs done, values) of the records that have a finite value."""
    pairs = [(place(record), _number(record.get(key))) for record in records]
    pairs = [pair for pair in pairs if math.isfinite(pair[1])]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _interval_means(
    intervals: Sequence[Mapping[str, object]],
) -> tuple[list[float], list[float]]:
    """Return (epochs done, mean loss) of each log interval, placed at its middle."""
    middle, last_end = {}, 0.0
    for record in intervals:
        end = _interval_end(record)
        start = max(last_end, _number(record["epoch"]))  # an epoch starts an interval of its own
        middle[id(record)] = (min(start, end) + end) / 2
        last_end = end
    return _points(intervals, "loss", lambda record: middle[id(record)])


def _draw_loss(
    axes: Axes,
    epochs: Sequence[Mapping[str, object]],
    intervals: Sequence[Mapping[str, object]],
) -> None:
    steps = _interval_means(intervals)
    train = _points(epochs, "train_loss", _epoch_middle)
    val = _points(epochs, "val_loss", _epoch_end)
    marker = "." if len(steps[0]) == 1 else ""  # a line needs two points to be seen
    label = "train, mean of each log interval"
    axes.plot(*steps, color="0.7", linewidth=1, marker=marker, label=label)
    axes.plot(*train, marker=".", label="train, mean of the epoch")
    axes.plot(*val, marker=".", label="validation")
    axes.legend()
    values = [y for _, line in (steps, train, val) for y in line]
    top = _loss_limit(steps[1], train[1], val[1])
    num_above = sum(y > top for y in values)
    if num_above:
        bottom = min(values)
        axes.set_ylim(bottom - 0.05 * (top - bottom), top)
        points = "point" if num_above == 1 else "points"
        axes.set_title(f"loss ({num_above} {points} above {top:.3g} cut off)")
    else:
        axes.set_title("loss")


def _loss_limit(steps: list[float], train: list[float], val: list[float]) -> float:
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


# Confusion matrix


def _whole_matrix(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """Return a figure with a row a class, named, and with the counts where they fit."""
    num_classes = len(counts)
    is_counted = num_classes <= _MAX_COUNTED
    side = max(3.2, (0.45 if is_counted else 0.2) * num_classes)
    longest = max(map(_columns, labels), default=0) * _COLUMN_INCHES
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
            is_dark = shares[row, column] ** _GAMMA > 0.6
            colour = "white" if is_dark else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    return figure


def _reduced_matrix(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """Return a figure with block sums of the matrix and a list of the commonest confusions."""
    block = math.ceil(len(counts) / _MAX_BLOCKS)
    starts = np.arange(0, len(counts), block)
    blocks = np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)
    figure = Figure(figsize=(15, 6.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_shares(figure, left, blocks, unit=f"class, {block} a cell" if block > 1 else "class")
    tick_classes = MaxNLocator(8, steps=[1, 2, 5, 10], integer=True).tick_values(0, len(counts) - 1)
    inside = [int(c) for c in tick_classes if 0 <= c < len(counts)]
    for axis in (left.xaxis, left.yaxis):
        axis.set_ticks([(c + 0.5) / block - 0.5 for c in inside], [str(c) for c in inside])
    _draw_confusions(right, counts, labels)
    return figure


def _draw_shares(figure: Figure, axes: Axes, counts: np.ndarray, *, unit: str) -> np.ndarray:
    """Draw `counts` as shares of their rows, and return the shares."""
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    norm = PowerNorm(_GAMMA, vmin=0, vmax=1)
    image = axes.imshow(shares, norm=norm, cmap="Blues", interpolation="nearest")
    axes.set_xlabel(f"predicted {unit}")
    axes.set_ylabel(f"true {unit}")
    bar = figure.colorbar(image, ax=axes, aspect=30, label="share of the true class's images")
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    return shares


def _draw_confusions(axes: Axes, counts: np.ndarray, labels: Sequence[str]) -> None:
    """List the pairs of different classes with the most images, the largest on top."""
    wrong = counts - np.diag(counts.diagonal())
    largest = np.argsort(-wrong, axis=None, kind="stable")[:_NUM_CONFUSIONS]
    pairs = [divmod(int(index), len(counts)) for index in largest if wrong.flat[index]]
    axes.set_title("most frequent confusions (true → predicted)", fontsize=10)
    if not pairs:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
        return
    bars = axes.barh(range(len(pairs)), [int(wrong[pair]) for pair in pairs], color="tab:red")
    axes.bar_label(bars, padding=2, fontsize=_LABEL_POINTS)
    names = [f"{labels[true]} → {labels[predicted]}" for true, predicted in pairs]
    axes.set_yticks(range(len(pairs)), names, fontsize=_LABEL_POINTS)
    axes.set_ylim(_NUM_CONFUSIONS - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("images")


# Text


@dataclass(frozen=True)
class _Labels:
    texts: tuple[str, ...]  # by class
    fonts: tuple[str, ...]  # families that have all their characters between them


def _labels(class_names: Sequence[str], num_classes: int) -> _Labels:
    """Return what to call each class in a picture; `#3` where its name cannot be drawn."""
    names = [_shortened(name) for name in class_names[:num_classes]]
    names += [""] * (num_classes - len(names))
    fonts: tuple[str, ...] = (_FONT,)
    drawable = _characters(_FONT)
    if any(not drawable.issuperset(name) for name in names):
        installed = {entry.name for entry in font_manager.fontManager.ttflist}
        for font in [font for font in _CJK_FONTS if font in installed][:1]:
            fonts, drawable = (_FONT, font), drawable | _characters(font)
    texts = [
        name if name and drawable.issuperset(name) else f"#{index}"
        for index, name in enumerate(names)
    ]
    return _Labels(tuple(texts), fonts)


def _characters(font: str) -> frozenset[str]:
    """Return the characters that a font family has a glyph for."""
    family = font_manager.FontProperties(family=[font])  # a list: a string would be a pattern
    file = font_manager.get_font(font_manager.findfont(family))
    return frozenset(map(chr, file.get_charmap()))


def _shortened(name: str) -> str:
    """Return a name on one line; a long one keeps its beginning and its end."""
    name = " ".join(name.split())
    if len(name) <= _MAX_CHARACTERS:
        return name
    tail = _MAX_CHARACTERS // 3
    return f"{name[: _MAX_CHARACTERS - tail - 1]}…{name[-tail:]}"


def _columns(text: str) -> int:
    """Return the width of a text in characters of Latin script."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _plain_text(*fonts: str) -> AbstractContextManager[None]:
    """Return a context in which `$`, `_` and `\\` are characters like any other."""
    return matplotlib.rc_context(
        {"font.family": list(fonts), "text.parse_math": False, "text.usetex": False}
    )


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(buffer.getvalue(), path)
