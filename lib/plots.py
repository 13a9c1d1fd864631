"""Pictures of a run: curves and the confusion matrix, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.checkpoint import write_atomically

_MAX_LABELS = 40  # more class names than this are unreadable beside a matrix


def save_curves(records: Sequence[Mapping[str, object]], path: Path) -> None:
    """Draw loss, accuracy and learning rate over epochs from metrics.jsonl's records as a PNG."""
    epochs = [r for r in records if r["kind"] == "epoch"]
    intervals = [r for r in records if r["kind"] == "interval"]
    progress = [r["epoch"] + (r["step"] + 1) / r["num_steps"] for r in intervals]  # type: ignore[operator]
    ends = [r["epoch"] + 1 for r in epochs]  # type: ignore[operator]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    loss.plot(progress, [r["loss"] for r in intervals], color="0.75", label="train, by interval")
    loss.plot(ends, [r["train_loss"] for r in epochs], marker=".", label="train")
    loss.plot(ends, [r["val_loss"] for r in epochs], marker=".", label="validation")
    accuracy.plot(ends, [r["train_accuracy_top1"] for r in epochs], marker=".", label="train top-1")
    accuracy.plot(
        ends, [r["val_accuracy_top1"] for r in epochs], marker=".", label="validation top-1"
    )
    accuracy.plot(
        ends, [r["val_accuracy_top5"] for r in epochs], marker=".", label="validation top-5"
    )
    rate.plot(progress, [r["learning_rate"] for r in intervals], drawstyle="steps-post")
    for axes, title in ((loss, "loss"), (accuracy, "accuracy (%)"), (rate, "learning rate")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    loss.legend()
    accuracy.legend()
    _save(figure, path)


def save_confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix (rows: true class, as shares of the row) as a PNG."""
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    side = min(14.0, 3.0 + 0.3 * len(matrix))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(class_names) <= _MAX_LABELS:
        axes.set_xticks(range(len(class_names)), class_names, rotation=90)
        axes.set_yticks(range(len(class_names)), class_names)
    figure.colorbar(image, ax=axes, label="share of the true class")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(buffer.getvalue(), path)
