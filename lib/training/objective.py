"""What is computed of a batch: logits, and the losses that training minimises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from yacs.config import CfgNode

from lib.data.image_list import ImageList
from lib.data.loading import Batch
from lib.evaluation.forward import Computing
from lib.models.build import build_model, place
from lib.models.hrnet import build_hrnet, find_spec
from lib.runtime.distributed import Processes, whole_gradients
from lib.training.distill import load_teacher
from lib.training.losses import Distillation, LabelLoss, Labels, Teacher, class_weights
from lib.training.mixing import Mixing, mixed, partners


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


def build_objective(
    config: CfgNode, processes: Processes, images: ImageList, *, seed: int
) -> Objective:
    """Return what the run minimises, with what it computes with on the device.

    Raises ValueError and FileNotFoundError for class weights or a teacher that do not fit.
    """
    train, aug = config.TRAIN, config.AUG
    counts = np.bincount(images.targets, minlength=images.num_classes).tolist()
    weights = class_weights(train.CLASS_WEIGHTS, counts)
    if weights is not None:
        weights = weights.to(processes.device)
    teacher = _teacher(config, images.class_names) if config.DISTILL.TEACHER else None
    if teacher is not None:
        place(teacher.network, processes.device, config.TRAIN.MEMORY_FORMAT)
    return Objective(
        LabelLoss(train.LOSS, train.LABEL_SMOOTHING, weights),
        Mixing(
            aug.MIXUP, aug.CUTMIX, aug.MIX_PROB, aug.MIX_SWITCH_PROB, seed, processes.ranks.rank
        ),
        teacher,
    )


def _teacher(config: CfgNode, class_names: tuple[str, ...]) -> Teacher:
    distill = config.DISTILL

    def build(num_classes: int) -> nn.Module:
        if distill.ARCH:
            return build_hrnet(find_spec(distill.ARCH), num_classes)
        return build_model(config, num_classes)

    return load_teacher(
        distill.TEACHER,
        distill.ARCH or config.MODEL.NAME,
        Distillation(distill.LOSS, distill.TEMPERATURE, distill.WEIGHT),
        build=build,
        class_names=class_names,
        image_size=config.MODEL.IMAGE_SIZE[0],
    )
