"""What is computed of a batch: logits, and the losses that training minimises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from lib.data import Batch
from lib.distributed import Processes, whole_gradients
from lib.losses import LabelLoss, Labels, Teacher
from lib.mixing import Mixing, mixed, partners
from lib.precision import Precision


@dataclass(frozen=True)
class Computing:
    """What both loops compute with."""

    processes: Processes
    precision: Precision
    normalize: nn.Module  # uint8 N x H x W x 3 on the device -> float32 N x 3 x H x W
    num_parts: int = 1  # in which a training batch is computed, to need less memory

    def logits(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits N x C (float32) and targets N (int64), both on the device."""
        images = self.normalize(self.on_device(batch.images))
        return self.forward(model, images), self.on_device(batch.targets)

    def forward(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Return logits N x C (float32) of normalised pictures, computed in the run's precision."""
        with self.precision.autocast():
            logits = model(images)
        return logits.float()

    def on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor on the device; the host does not wait where its memory is pinned."""
        return tensor.to(self.processes.device, non_blocking=True)


@dataclass(frozen=True)
class Objective:
    """What training minimises, on which mixtures of pictures, and whom it learns from."""

    label_loss: LabelLoss = LabelLoss()
    mixing: Mixing = Mixing()
    teacher: Teacher | None = None

    @property
    def teacher_sum(self) -> str:
        """The SHA-256 sum of the teacher's weight file; '' where there is none."""
        return "" if self.teacher is None else self.teacher.sha256

    def losses(
        self, computing: Computing, logits: torch.Tensor, labels: Labels, images: torch.Tensor
    ) -> torch.Tensor:
        """Return N losses from N x C logits; `images` is the normalised input they come from."""
        if self.teacher is None:
            return self.label_loss(logits, labels)
        with torch.no_grad():
            theirs = computing.forward(self.teacher.network, images)
        distillation = self.teacher.distillation
        losses = distillation.divergence(logits, theirs)
        if distillation.weight == 1:
            return losses
        own = self.label_loss(logits, labels)
        return distillation.weight * losses + (1 - distillation.weight) * own


PLAIN = Objective()


class LossesOfParts:
    """The loss of one batch, computed in `computing.num_parts` parts one after the other.

    The gradients of the parts add up to that of the whole batch; batch norms see each part alone.
    Pictures are mixed within the whole batch: the number of parts changes neither pairs nor shares.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        computing: Computing,
        objective: Objective,
        at: tuple[int, int],  # epoch and step
    ):
        self._model, self._computing, self._objective = model, computing, objective
        self._num_images = len(batch.targets)
        num_parts = max(1, min(computing.num_parts, self._num_images))
        images, labels = self._whole(batch, at)
        self._parts = list(
            zip(images.tensor_split(num_parts), labels.split(num_parts), strict=True)
        )
        self.done: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield each part's share of the mean loss; `done` gets its logits, targets and losses."""
        for number, (images, labels) in enumerate(self._parts, start=1):
            # Between cards gradients travel once a step, with the last part.
            with whole_gradients(self._model, travel=number == len(self._parts)):
                losses = self._losses(images, labels)
                share = len(labels.own) / self._num_images
                yield losses.mean() if share == 1 else losses.mean() * share

    def _losses(self, images: torch.Tensor, labels: Labels) -> torch.Tensor:
        """Return a part's losses; on its own, so that what they do not need is freed by then."""
        computing = self._computing
        images = computing.normalize(computing.on_device(images))
        labels = replace(labels, own=computing.on_device(labels.own))
        logits = computing.forward(self._model, images)
        losses = self._objective.losses(computing, logits, labels, images)
        self.done.append((logits.detach(), labels.main, losses.detach()))
        return losses

    def _whole(self, batch: Batch, at: tuple[int, int]) -> tuple[torch.Tensor, Labels]:
        """Return the pictures before their normalisation, and labels; mixed on the device."""
        _, height, width, _ = batch.images.shape
        mix = self._objective.mixing.draw(*at, height=height, width=width)
        if mix is None:
            return batch.images, Labels(batch.targets)
        images, targets = (self._computing.on_device(x) for x in (batch.images, batch.targets))
        return mixed(images, mix), Labels(targets, partners(targets), mix.share)
