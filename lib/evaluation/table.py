"""A table of what was predicted for each picture."""

from __future__ import annotations

import csv
import io
import math
import os
from pathlib import Path

from lib.data import ImageList
from lib.files import write_atomically
from lib.predictions import Predictions


def write_predictions(
    predictions: Predictions, images: ImageList, path: Path, *, root: Path | str
) -> None:
    """Write a CSV line for each picture: file, true class, the likeliest classes and how likely.

    Files are named from the data path `root`; the order is that of the image list. Where the
    outputs were not finite, no class is likely and its fields are empty. Raises OSError.
    """
    num_kept = predictions.classes.shape[1]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    ranks = range(1, num_kept + 1)
    table.writerow(
        ("file", "class", *(f"{what}_{r}" for r in ranks for what in ("predicted", "probability")))
    )
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
        table.writerow((_name(images, index, root), names[target], *pairs))
    write_atomically(text.getvalue().encode(errors="surrogateescape"), path)


def _name(images: ImageList, index: int, root: Path | str) -> str:
    path = images.paths[index]
    return os.path.relpath(path, root) if images.contents is None else path
