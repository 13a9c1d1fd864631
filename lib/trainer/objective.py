"""What a run minimises, from its configuration: the labels' loss, mixing, and a teacher."""

from __future__ import annotations

import numpy as np
from torch import nn
from yacs.config import CfgNode

from lib.assembly import place
from lib.data import ImageList
from lib.distill import load_teacher
from lib.distributed import Processes
from lib.losses import Distillation, LabelLoss, Teacher, class_weights
from lib.mixing import Mixing
from lib.models.build import build_model
from lib.models.hrnet import build_hrnet, find_spec
from lib.objective import Objective


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
