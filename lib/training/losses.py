"""Losses of single pictures, by labels and by a teacher; training minimises their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CROSS_ENTROPY, BCE = "cross_entropy", "bce"
_NO_WEIGHTS, _BALANCED = "no", "balanced"


@dataclass(frozen=True)
class Labels:
    """What N pictures show: one class each, or two where each is mixed with a partner.

    Args:
        own: N classes (int64).
        partner: the partners' N classes; None: nothing is mixed.
        share: what a picture has of its own, the rest being its partner's.
    """

    own: Tensor
    partner: Tensor | None = None
    share: float = 1.0

    @property
    def main(self) -> Tensor:
        """The classes that have the larger share: those that an accuracy counts as right."""
        return self.own if self.partner is None or self.share >= 0.5 else self.partner

    def to(self, device: torch.device) -> Labels:
        """Return the labels on a device; those of mixed pictures are there already."""
        return replace(self, own=self.own.to(device, non_blocking=True))

    def split(self, num: int) -> list[Labels]:
        """Return the labels in pieces, as `torch.Tensor.tensor_split` cuts them."""
        own = self.own.tensor_split(num)
        if self.partner is None:
            return [Labels(piece) for piece in own]
        pairs = zip(own, self.partner.tensor_split(num), strict=True)
        return [Labels(piece, partner, self.share) for piece, partner in pairs]


@dataclass(frozen=True)
class LabelLoss:
    """N losses (float32) from N x C logits (float32) and N labels, without a host sync.

    Every loss is linear in the distribution over the classes that a label stands for. So the loss
    of a mixed picture is the mix of the losses, which is the soft target's to the last digits.

    Args:
        name: cross_entropy, or bce: the mean over the classes of binary cross-entropies, as in
            Wightman et al., ResNet strikes back, arXiv 2110.00476.
        smoothing: what of a label is spread over all C classes (Szegedy et al., arXiv 1512.00567).
        class_weights: C factors (float32, on the logits' device). With cross_entropy each class's
            term has its own, as in `torch.nn.functional.cross_entropy`; with bce a picture's loss
            has its class's. The mean is over the pictures, not over the weights of a batch.
    """

    name: str = CROSS_ENTROPY
    smoothing: float = 0.0
    class_weights: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Labels) -> Tensor:
        """Return the loss of each picture."""
        losses = self._of(logits, labels.own)
        if labels.partner is None:
            return losses
        return labels.share * losses + (1 - labels.share) * self._of(logits, labels.partner)

    def _of(self, logits: Tensor, classes: Tensor) -> Tensor:
        if self.name == BCE:
            return self._binary(logits, classes)
        return F.cross_entropy(
            logits,
            classes,
            weight=self.class_weights,
            label_smoothing=self.smoothing,
            reduction="none",
        )

    def _binary(self, logits: Tensor, classes: Tensor) -> Tensor:
        num_classes = logits.shape[1]
        # Compared, since one_hot reads the largest class on the host.
        is_class = classes.unsqueeze(1) == torch.arange(num_classes, device=logits.device)
        wanted = is_class.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / num_classes
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)
        if self.class_weights is None:
            return losses
        return losses * self.class_weights.index_select(0, classes)


@dataclass(frozen=True)
class Distillation:
    """The loss against a teacher: what a fixed network says of the same input.

    js is the Jensen-Shannon divergence of the two distributions, as SSLD takes it (Cui et al.,
    arXiv 2103.05959), kl the Kullback-Leibler divergence from the teacher's (Hinton et al., arXiv
    1503.02531). Both are of softmaxes at a temperature T, times T squared: gradients then keep
    their size when T changes.

    Args:
        loss: js or kl.
        temperature: what both networks' logits are divided by.
        weight: share of the divergence in the loss, the rest being the labels'; 1: it alone.
    """

    loss: str = "js"
    temperature: float = 1.0
    weight: float = 1.0

    def divergence(self, logits: Tensor, teachers: Tensor) -> Tensor:
        """Return the divergence of each picture: N losses from two N x C logits (float32)."""
        ours, theirs = (F.log_softmax(x / self.temperature, dim=1) for x in (logits, teachers))
        if self.loss == "js":
            mean = torch.logaddexp(ours, theirs) - torch.log(ours.new_full((), 2.0))
            both = _kullback_leibler(theirs, mean) + _kullback_leibler(ours, mean)
            return both * (self.temperature**2 / 2)
        return _kullback_leibler(theirs, ours) * self.temperature**2


def _kullback_leibler(first: Tensor, second: Tensor) -> Tensor:
    """Return KL(first || second) of each row, both given as logarithms."""
    return F.kl_div(second, first, reduction="none", log_target=True).sum(dim=1)


@dataclass(frozen=True)
class Teacher:
    """A network in evaluation mode that takes what the student takes, and where it comes from."""

    network: nn.Module
    distillation: Distillation
    sha256: str  # of its weight file
    said: str  # one line for the log


def class_weights(setting: str, counts: Sequence[int]) -> Tensor | None:
    """Return the factors that TRAIN.CLASS_WEIGHTS means (float32, on the CPU); None for 'no'.

    Their mean over the training pictures is 1, so that the rate keeps its meaning.

    Args:
        setting: no, balanced (inverse to the number of pictures), or a number a class.
        counts: training pictures of each class.

    Raises:
        ValueError: neither a known word nor as many numbers above 0 as there are classes.
    """
    if setting == _NO_WEIGHTS:
        return None
    if setting == _BALANCED:
        weights = [1 / count if count else 0.0 for count in counts]
    else:
        weights = _numbers(setting, num_classes=len(counts))
    total = sum(weight * count for weight, count in zip(weights, counts, strict=True))
    return torch.tensor(weights, dtype=torch.float64).mul(sum(counts) / total).float()


def _numbers(setting: str, *, num_classes: int) -> list[float]:
    words = setting.strip("[]() ").replace(",", " ").split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        raise ValueError(
            f"TRAIN.CLASS_WEIGHTS: {setting!r} is none of no, balanced, and a number above 0 for "
            'each class, such as "1, 2.5, 1"'
        )
    if len(numbers) != num_classes:
        raise ValueError(
            f"TRAIN.CLASS_WEIGHTS: {len(numbers)} numbers, and the data has {num_classes} classes: "
            "give one for each, in the sorted order of their names, or say balanced"
        )
    return numbers
