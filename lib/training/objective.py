"""What is computed of a batch: logits, and the losses that training minimises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.data.image_list import ImageList
from lib.data.loading import Batch
from lib.evaluation.forward import ForwardPass
from lib.models.build import build_model, place
from lib.models.hrnet import build_hrnet, find_spec
from lib.runtime.distributed import Processes
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

    def mixed_batch(
        self, batch: Batch, forward_pass: ForwardPass, *, epoch: int, step: int
    ) -> tuple[Tensor, Labels]:
        """Return the pictures before their normalization, and labels; mixed on the device.

        The whole batch is mixed, so that micro-batches change neither pairs nor shares.
        """
        _, height, width, _ = batch.images.shape
        mix = self.mixing.draw(epoch, step, height=height, width=width)
        if mix is None:
            return batch.images, Labels(batch.targets)
        images, targets = (forward_pass.on_device(x) for x in (batch.images, batch.targets))
        return mixed(images, mix), Labels(targets, partners(targets), mix.share)

    def losses(
        self, logits: Tensor, labels: Labels, images: Tensor, forward_pass: ForwardPass
    ) -> Tensor:
        """Return N losses from N x C logits; `images` is the normalized input they come from."""
        if self.teacher is None:
            return self.label_loss(logits, labels)
        with torch.no_grad():
            theirs = forward_pass.logits(self.teacher.network, images)
        distillation = self.teacher.distillation
        losses = distillation.divergence(logits, theirs)
        if distillation.weight == 1:
            return losses
        own = self.label_loss(logits, labels)
        return distillation.weight * losses + (1 - distillation.weight) * own


PLAIN = Objective()


def split_batch(images: Tensor, labels: Labels, num: int) -> list[tuple[Tensor, Labels]]:
    """Return a batch in `num` micro-batches, or one for each picture where there are fewer.

    Raises ValueError for a batch without pictures.
    """
    if not len(images):
        raise ValueError("none of a batch's pictures can be read: repair the files that are listed")
    num = max(1, min(num, len(images)))
    return list(zip(images.tensor_split(num), labels.split(num), strict=True))


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
