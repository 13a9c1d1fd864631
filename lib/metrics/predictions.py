"""What an evaluation predicted for each image, gathered without a host sync a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lib.metrics.confusion import ConfusionCounts

NUM_KEPT = 5  # classes an image
NO_CLASS = -1  # of an image whose outputs are NaN or infinite


@dataclass(frozen=True)
class Predictions:
    """The best classes of N evaluated images, in the order of the image list.

    `indices` (N, int64) are places in that list: images that could not be decoded are missing.
    `targets` (N, int64) are the true classes. `classes` (N x k, int64) are the k = 5 (or all, if
    fewer) likeliest, the best first, and `probabilities` (N x k, float32) their softmax shares:
    NaN where outputs were NaN or infinite, whose classes mean nothing. All are CPU tensors.
    """

    indices: torch.Tensor
    targets: torch.Tensor
    classes: torch.Tensor
    probabilities: torch.Tensor

    @property
    def answers(self) -> torch.Tensor:
        """The likeliest class of each image (N, int64); NO_CLASS where outputs were not finite."""
        return torch.where(self.probabilities[:, 0].isnan(), NO_CLASS, self.classes[:, 0])

    @property
    def num_classes_met(self) -> int:
        """One more than the highest number of a class; 0 where nothing was predicted."""
        if not len(self.targets):
            return 0
        return 1 + max(int(self.targets.max()), int(self.classes.max()))

    def confusion(self, num_classes: int) -> ConfusionCounts:
        """Return how many images of a class were taken for which."""
        return ConfusionCounts(self.targets.numpy(), self.answers.numpy(), num_classes)


class PredictionRecorder:
    """Collects the predictions of one rank's batches, on the device."""

    def __init__(self) -> None:
        self._indices: list[int] = []
        self._kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def add(
        self,
        indices: Sequence[int],
        logits: torch.Tensor,
        targets: torch.Tensor,
        *,
        sound: torch.Tensor,
    ) -> None:
        """Add a batch: places in the image list, logits N x C (float32), targets N (int64).

        `sound` (N, bool) is False where outputs are NaN or infinite.
        """
        assert len(indices) == len(targets), "each image of a batch has a place in the list"
        scores, classes = logits.topk(min(NUM_KEPT, logits.shape[1]), dim=1)
        shares = logits.softmax(dim=1).gather(1, classes)
        shares = torch.where(sound.unsqueeze(1), shares, torch.nan)
        self._indices += indices
        self._kept.append((targets, _tied_ones_first(classes, scores, targets), shares))

    def read(self) -> Predictions | None:
        """Return this rank's predictions; None where there are none."""
        if not self._kept:
            return None
        targets, classes, shares = (torch.cat(c).cpu() for c in zip(*self._kept, strict=True))
        return Predictions(torch.tensor(self._indices), targets, classes, shares)


def _tied_ones_first(
    classes: torch.Tensor, scores: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return `classes` with the right one in second place where it shares the first with another.

    It is counted as wrong then, see `lib.metrics.meter`.
    """
    if classes.shape[1] < 2:
        return classes
    is_shared = (scores[:, 0] == scores[:, 1]) & (classes[:, 0] == targets)
    first_two = torch.where(is_shared.unsqueeze(1), classes[:, :2].flip(1), classes[:, :2])
    return torch.cat([first_two, classes[:, 2:]], dim=1)


class UnsoundPlaces:
    """Collects on the device which images of one rank's batches got outputs that are not finite."""

    def __init__(self) -> None:
        self._batches: list[tuple[Sequence[int], torch.Tensor]] = []

    def add(self, indices: Sequence[int], sound: torch.Tensor) -> None:
        """Add a batch: places in the image list, and N bools that are False for such images."""
        self._batches.append((indices, sound))

    def read(self) -> list[int]:
        """Return their places."""
        return [
            place
            for indices, sound in self._batches
            for place, is_sound in zip(indices, sound.tolist(), strict=False)
            if not is_sound
        ]


def merged(shares: Sequence[Predictions | None]) -> Predictions | None:
    """Return the predictions of all ranks in the order of the image list; None: there are none."""
    present = [share for share in shares if share is not None]
    if not present:
        return None
    order = torch.cat([share.indices for share in present]).argsort()
    columns = ("indices", "targets", "classes", "probabilities")
    return Predictions(*(torch.cat([getattr(s, name) for s in present])[order] for name in columns))
