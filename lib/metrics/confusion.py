"""What was taken for what: how often each pair of a true and a predicted class occurs.

Only pairs that occur are counted, so that tens of thousands of classes need no more than their
images.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def answers_of(scores: npt.NDArray[np.generic], targets: Indices) -> Indices:
    """Return the class that comes first in each row of scores, N x C; of equal ones the lowest.

    Where the right one, of `targets`, shares the first place, it is another: a tie is no right
    answer, whatever the order of the classes.
    """
    answers = scores.argmax(axis=1)
    is_first = scores == scores[np.arange(len(scores)), answers][:, None]
    is_shared = np.count_nonzero(is_first, axis=1) > 1
    for row in np.flatnonzero(is_shared & (answers == targets)):
        answers[row] = np.flatnonzero(is_first[row])[1]
    return answers


class ConfusionCounts:
    """P pairs (true class, predicted class) in ascending order, and how many images each has.

    `true`, `predicted` and `counts` are P long; `num_images`, `num_correct` and `num_predicted`
    (images taken for it) have an entry a class; `wrong` are the places of the pairs of different
    classes, the commonest first. An image without a predicted class (-1) is in no pair, and in
    `num_images` alone.
    """

    def __init__(self, true: Indices, predicted: Indices, num_classes: int) -> None:
        self.num_images = np.bincount(true, minlength=num_classes)
        true, predicted = (c[predicted >= 0] for c in (true, predicted))
        pairs, self.counts = np.unique(true * num_classes + predicted, return_counts=True)
        self.num_classes = num_classes
        self.true, self.predicted = np.divmod(pairs, num_classes)
        is_right = self.true == self.predicted
        self.num_correct = self._sums(self.true, self.counts * is_right)
        self.num_predicted = self._sums(self.predicted, self.counts)
        wrong = np.flatnonzero(~is_right)
        self.wrong = wrong[np.argsort(-self.counts[wrong], kind="stable")]

    def taken_for(self) -> dict[int, int]:
        """Return what each class was most often taken for; a class that is always right is not in.

        Of equally frequent ones it is the lowest.
        """
        answer_of: dict[int, int] = {}
        for pair in self.wrong.tolist():
            answer_of.setdefault(int(self.true[pair]), int(self.predicted[pair]))
        return answer_of

    def blocks(self, size: int) -> Indices:
        """Return the counts [true][predicted] of blocks of `size` classes; 1: the whole matrix."""
        side = math.ceil(self.num_classes / size)
        sums = np.zeros((side, side), np.int64)
        np.add.at(sums, (self.true // size, self.predicted // size), self.counts)
        return sums

    def _sums(self, classes: Indices, counts: Indices) -> Indices:
        sums = np.zeros(self.num_classes, np.int64)
        np.add.at(sums, classes, counts)
        return sums
