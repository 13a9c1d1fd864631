"""A table of what was predicted for each picture."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from lib.data.image_list import ImageList
from lib.metrics.predictions import Predictions
from lib.runtime.csv_text import csv_text
from lib.runtime.files import write_atomically


def write_predictions(
    predictions: Predictions, images: ImageList, path: Path, *, root: Path | str
) -> None:
    """Write a CSV line for each picture: file, true class, the likeliest classes and how likely.

    Files are named from the data path `root`; the order is that of the image list. Where the
    outputs were not finite, no class is likely and its fields are empty. A name that a spreadsheet
    would compute has an apostrophe in front, see `lib.runtime.csv_text`. Raises OSError.
    """
    ranks = range(1, predictions.classes.shape[1] + 1)
    pairs = (f"{what}_{rank}" for rank in ranks for what in ("predicted", "probability"))
    text = csv_text([("file", "class", *pairs), *_rows(predictions, images, root)])
    write_atomically(text.encode(errors="surrogateescape"), path)


def _rows(
    predictions: Predictions, images: ImageList, root: Path | str
) -> Iterator[tuple[str | float, ...]]:
    names = images.class_names
    for index, target, classes, shares in zip(
        predictions.indices.tolist(),
        predictions.targets.tolist(),
        predictions.classes.tolist(),
        predictions.probabilities.tolist(),
        strict=True,
    ):
        kept = zip(classes, shares, strict=True)
        pairs = [
            field
            for c, share in kept
            for field in ((names[c], f"{share:.6f}") if math.isfinite(share) else ("", ""))
        ]
        yield _name(images, index, root), names[target], *pairs


def _name(images: ImageList, index: int, root: Path | str) -> str:
    path = images.paths[index]
    return os.path.relpath(path, root) if images.contents is None else path
