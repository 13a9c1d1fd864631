"""A table of the figures of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib.metrics.confusion import ConfusionCounts
from lib.runtime.csv_text import csv_text
from lib.runtime.files import write_atomically


def per_class_rows(
    confusion: ConfusionCounts, class_names: Sequence[str]
) -> list[tuple[str, int, int, float, str]]:
    """Return (class, images, correct, percent correct, most frequent wrong class) by class.

    Classes without images are left out; the last field is empty where nothing was wrong.
    """
    rows, taken_for = [], confusion.taken_for()
    for index in confusion.num_images.nonzero()[0].tolist():
        num_images = int(confusion.num_images[index])
        num_correct = int(confusion.num_correct[index])
        worst = class_names[taken_for[index]] if index in taken_for else ""
        percent = round(100 * num_correct / num_images, 3)
        rows.append((class_names[index], num_images, num_correct, percent, worst))
    return rows


def write_per_class(confusion: ConfusionCounts, class_names: Sequence[str], path: Path) -> None:
    """Write the rows of `per_class_rows`; names as `lib.runtime.csv_text` says. Raises OSError."""
    header = ("class", "num_images", "num_correct", "accuracy_top1", "most_confused_with")
    text = csv_text([header, *per_class_rows(confusion, class_names)])
    write_atomically(text.encode(errors="surrogateescape"), path)
