"""What was taken for what: figures of each class, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from lib.metrics.predictions import Predictions
from lib.report.plots.confusion import confusion_svg

NUM_CONFUSIONS = 20


@dataclass(frozen=True)
class ClassRow:
    """One class of the images that were evaluated; shares are in percent."""

    name: str
    num_images: int
    num_correct: int
    num_predicted: int  # images of any class that were taken for it
    confused_with: str  # what its images were most often taken for; empty: all are right

    @property
    def recall(self) -> float:
        """Of its images, how many were right: the top-1 accuracy of the class."""
        return 100 * self.num_correct / self.num_images

    @property
    def precision(self) -> float | None:
        """Of the images that were taken for it, how many were right; None where none was."""
        return 100 * self.num_correct / self.num_predicted if self.num_predicted else None

    @property
    def f1(self) -> float:
        """The harmonic mean of both; 0 where nothing was right."""
        return 200 * self.num_correct / (self.num_images + self.num_predicted)


@dataclass(frozen=True)
class Means:
    """Means over the classes, each as heavy as the others; one never predicted has precision 0."""

    recall: float
    precision: float
    f1: float


@dataclass(frozen=True)
class Confusion:
    """How often images of one class were taken for another."""

    true: str
    predicted: str
    num_images: int
    percent: float  # of the true class's images


class ClassFigures:
    """What a page says of the classes."""

    def __init__(self, predictions: Predictions, class_names: Sequence[str]) -> None:
        self._names = class_names
        self._confusion = predictions.confusion(len(class_names))

    def rows(self) -> list[ClassRow]:
        """Return the classes that have images, the least accurate first."""
        counted, taken_for = self._confusion, self._confusion.taken_for()
        rows = [
            ClassRow(
                self._names[number],
                int(counted.num_images[number]),
                int(counted.num_correct[number]),
                int(counted.num_predicted[number]),
                self._names[taken_for[number]] if number in taken_for else "",
            )
            for number in counted.num_images.nonzero()[0].tolist()
        ]
        return sorted(rows, key=lambda row: (row.recall, -row.num_images))

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

    def matrix(self, shown: Callable[[str], str]) -> str:
        """Return the confusion matrix as an SVG element; `shown` makes a name fit to be shown."""
        return confusion_svg(self._confusion, [shown(name) for name in self._names])


def means_of(rows: Sequence[ClassRow]) -> Means | None:
    """Return the classes' means; None where no class has images."""
    if not rows:
        return None
    return Means(
        fmean(row.recall for row in rows),
        fmean(row.precision or 0.0 for row in rows),
        fmean(row.f1 for row in rows),
    )
