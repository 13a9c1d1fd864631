"""ReaL labels: all the classes that are right for a picture of ImageNet's validation set.

Beyer et al., Are we done with ImageNet?, arXiv 2006.07159. Pictures for which no label was found
to be right don't count.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.evaluation.classes import EvaluationSet
from lib.evaluation.measure import Measured
from lib.metrics.predictions import NO_CLASS, Predictions
from lib.runtime.checked import COUNT, read_json
from lib.runtime.text import shorten

NUM_PICTURES = 50_000
# In folders, tar shards and exports the name has more before or behind it.
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")
_NAME_FORM = "ILSVRC2012_val_00000001"


@dataclass(frozen=True)
class RealLabels:
    """The right outputs of each picture of an image list, none where it doesn't count."""

    right: tuple[frozenset[int], ...]
    found: EvaluationSet

    def measure(self, predictions: Predictions) -> Measured:
        """Tell of how many pictures the likeliest class is a right one."""
        num_images = num_correct = 0
        best = predictions.answers.tolist()
        for index, predicted in zip(predictions.indices.tolist(), best, strict=True):
            if self.right[index]:
                num_images += 1
                is_known = predicted != NO_CLASS
                num_correct += is_known and self.found.output(predicted) in self.right[index]
        accuracy = round(100 * num_correct / max(1, num_images), 3)
        record = {
            "accuracy_real": accuracy,
            "num_correct_real": num_correct,
            "num_images_real": num_images,
        }
        return Measured(record, f"ReaL labels: {accuracy:.3f} % of {num_images} images right")


def read_real_labels(path: Path, found: EvaluationSet, *, num_outputs: int) -> RealLabels:
    """Return the labels of the pictures that are evaluated, found by the numbers in their names.

    `path` is a real.json: a list of 50,000 lists of classes, picture 1 first.
    Raises FileNotFoundError, and ValueError for another form, classes that the network doesn't
    have, names without a number, or pictures of which none has a label.
    """
    labels = _read(path)
    largest = max(max(classes, default=0) for classes in labels)
    if largest >= num_outputs:
        raise ValueError(
            f"{path} has class {largest} and the network outputs 0..{num_outputs - 1}: ReaL "
            "labels are for networks with ImageNet's 1000 classes in their usual order"
        )
    numbers = _numbers(found.images.paths, path)
    right = tuple(frozenset(labels[number - 1]) for number in numbers)
    if not any(right):
        raise ValueError(f"{path} has no label for any of the {len(right)} pictures")
    return RealLabels(right, found)


def _read(path: Path) -> list[list[int]]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file of ReaL labels: {path}")
    content = read_json(path, [[COUNT]])
    if len(content) != NUM_PICTURES:
        raise ValueError(
            f"{path} has labels for {len(content)} pictures; a real.json has {NUM_PICTURES}, one "
            "for each of ImageNet's validation set"
        )
    return content


def _numbers(paths: Sequence[str], source: Path) -> list[int]:
    """Return each picture's number in the validation set, from 1."""
    numbers: list[int] = []
    without: list[str] = []
    for path in paths:
        name = os.path.basename(path)
        match = _NUMBER.search(name)
        if match and 1 <= int(match[1]) <= NUM_PICTURES:
            numbers.append(int(match[1]))
        else:
            without.append(name)
    if without:
        raise ValueError(
            f"{len(without)} of {len(paths)} pictures do not have their number in ImageNet's "
            f"validation set in their names, as {_NAME_FORM} has, to be looked up in {source}: "
            f"{shorten(without)}"
        )
    return numbers
