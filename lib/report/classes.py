"""What was taken for what: figures of each class, and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lib.evaluation import per_class_rows
from lib.plots.confusion import GAMMA, MAX_BLOCKS, MAX_COUNTED, MAX_NAMED
from lib.predictions import Predictions
from lib.report.images import data_uri

NUM_CONFUSIONS = 20
_HEAT = (0x4A, 0x86, 0xC5)  # stands on white and on black


@dataclass(frozen=True)
class ClassRow:
    """One class of the images that were evaluated."""

    name: str
    num_images: int
    num_correct: int
    confused_with: str  # what its images were most often taken for; empty: all are right

    @property
    def percent(self) -> float:
        """Of its images, how many were right."""
        return 100 * self.num_correct / self.num_images


@dataclass(frozen=True)
class Confusion:
    """How often images of one class were taken for another."""

    true: str
    predicted: str
    num_images: int
    percent: float  # of the true class's images


@dataclass(frozen=True)
class Cell:
    """One field of the matrix; `shade` is 0..100."""

    count: int
    shade: int
    is_right: bool


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix: in full (`rows`), or as an image of its blocks (`image`)."""

    names: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    has_counts: bool = False  # there is room for them
    image: str = ""  # data URI, a pixel a block
    block: int = 1  # classes a pixel


class ClassFigures:
    """What a page says of the classes."""

    def __init__(self, predictions: Predictions, class_names: Sequence[str]) -> None:
        self._names = class_names
        self._confusion = predictions.confusion(len(class_names))

    def rows(self) -> list[ClassRow]:
        """Return the classes that have images, the least accurate first."""
        rows = [
            ClassRow(name, num_images, num_correct, confused_with)
            for name, num_images, num_correct, _, confused_with in per_class_rows(
                self._confusion, self._names
            )
        ]
        return sorted(rows, key=lambda row: (row.percent, -row.num_images))

    def confusions(self) -> list[Confusion]:
        """Return the commonest pairs of different classes."""
        counted = self._confusion
        return [
            Confusion(
                self._names[counted.true[pair]],
                self._names[counted.predicted[pair]],
                int(counted.counts[pair]),
                100 * int(counted.counts[pair]) / int(counted.num_images[counted.true[pair]]),
            )
            for pair in counted.wrong[:NUM_CONFUSIONS].tolist()
        ]

    def matrix(self) -> Matrix:
        """Return the matrix, in full where its classes have room for their names."""
        num = len(self._names)
        if num > MAX_NAMED:
            block = math.ceil(num / MAX_BLOCKS)
            return Matrix(image=_heat(self._confusion.blocks(block)), block=block)
        counts = self._confusion.blocks(1)
        shades = np.rint(100 * _shares(counts) ** GAMMA).astype(int)
        rows = [
            [
                Cell(int(counts[i, j]), int(shades[i, j]), is_right=i == j)
                for j in range(num)
            ]
            for i in range(num)
        ]  # fmt: skip
        return Matrix(self._names, rows, has_counts=num <= MAX_COUNTED)


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(1, counts.sum(axis=1, keepdims=True))


def _heat(counts: np.ndarray) -> str:
    """Return an image of one colour, the more opaque the larger the share of the row."""
    pixels = np.empty((*counts.shape, 4), np.uint8)
    pixels[..., :3] = _HEAT
    pixels[..., 3] = np.rint(255 * _shares(counts) ** GAMMA)
    return data_uri(Image.fromarray(pixels), "PNG")
