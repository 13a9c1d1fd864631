"""A table of the figures of each class."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from lib.files import write_atomically


def per_class_rows(
    confusion: Sequence[Sequence[int]], class_names: Sequence[str]
) -> list[tuple[str, int, int, float, str]]:
    """Return (class, images, correct, percent correct, most frequent wrong class) by class.

    Classes without images are left out; the last field is empty where nothing was wrong.
    """
    rows = []
    for index, counts in enumerate(confusion):
        num_images, num_correct = sum(counts), counts[index]
        if not num_images:
            continue
        wrong = [0 if other == index else count for other, count in enumerate(counts)]
        worst = class_names[wrong.index(max(wrong))] if max(wrong, default=0) else ""
        percent = round(100 * num_correct / num_images, 3)
        rows.append((class_names[index], num_images, num_correct, percent, worst))
    return rows


def write_per_class(
    confusion: Sequence[Sequence[int]], class_names: Sequence[str], path: Path
) -> None:
    """Write the rows of `per_class_rows` as CSV. Raises OSError."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("class", "num_images", "num_correct", "accuracy_top1", "most_confused_with"))
    table.writerows(per_class_rows(confusion, class_names))
    write_atomically(text.getvalue().encode(errors="surrogateescape"), path)
