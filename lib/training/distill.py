"""Teachers of a knowledge distillation, from their weight files; `losses` has the loss."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.config.recipe import IMAGENET_MEAN, IMAGENET_STD
from lib.models.weights.load import load_weights, not_finite, read_weights
from lib.runtime.cli import needing
from lib.runtime.files import sha256_of
from lib.runtime.text import one_line, printable
from lib.training.losses import Distillation, Teacher

TIMM = "timm/"


class _OtherInput(nn.Module):
    """Gives a network pictures that are normalised as it was trained to have them."""

    factor: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        own_mean, own_std, mean_, std_ = (
            torch.tensor(values).view(1, -1, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD, mean, std)
        )
        self.register_buffer("factor", own_std / std_, persistent=False)
        self.register_buffer("offset", (own_mean - mean_) / std_, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images * self.factor + self.offset)


def load_teacher(
    source: Path | str,
    arch: str,
    distillation: Distillation,
    *,
    build: Callable[[int], nn.Module],
    class_names: tuple[str, ...],
    image_size: int,
) -> Teacher:
    """Return the teacher on the CPU, tried with one picture.

    Args:
        source: its weights: a file, a name of published ones, or their address.
        arch: its network, for messages; `timm/<name>` is made by timm.
        build: makes any other network, with so many classes.
        class_names: the student's classes.
        image_size: side in pixels of what the student takes.

    Raises:
        FileNotFoundError: there is no such file or name.
        ValueError: timm is missing or doesn't know the name, the weights don't fit, the classes
            aren't the student's, or the network can't take such pictures.
    """
    file = read_weights(source)
    if file.class_names is not None and file.class_names != class_names:
        raise ValueError(
            f"DISTILL.TEACHER: {file.path} knows {len(file.class_names)} classes "
            f"({', '.join(file.class_names[:3])}, ...), the data has {len(class_names)} "
            f"({', '.join(class_names[:3])}, ...): a teacher must know the same, in that order"
        )
    num_classes = len(class_names)
    is_timms = arch.startswith(TIMM)
    network = _timms_network(arch, num_classes) if is_timms else build(num_classes)
    hint = f"is DISTILL.ARCH ({arch}) its network, and are {num_classes} classes what it knows?"
    loaded = load_weights(network, file, hint=hint)
    broken = not_finite(file.weights)
    if broken:
        raise ValueError(f"DISTILL.TEACHER: {printable(str(file.path))} teaches nothing: {broken}")
    network.requires_grad_(False).eval()
    teacher = _with_own_input(network) if is_timms else network
    _try(teacher, arch, num_classes=num_classes, image_size=image_size)
    digest = sha256_of(file.path)
    said = (
        f"teacher {arch}, {loaded}; loss {distillation.loss} at temperature "
        f"{distillation.temperature:g}, weight {distillation.weight:g}"
    )
    return Teacher(teacher, distillation, digest, said)


def _timms_network(arch: str, num_classes: int) -> nn.Module:
    name = arch.removeprefix(TIMM)
    with needing(f"pip install timm, for DISTILL.ARCH {arch}"):
        timm = importlib.import_module("timm")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:5]
        raise ValueError(
            f"DISTILL.ARCH: timm has no network {name!r}"
            + (f"; it has {', '.join(near)}, ..." if near else "")
        )
    return timm.create_model(name, pretrained=False, num_classes=num_classes)


def _with_own_input(network: nn.Module) -> nn.Module:
    """Return a network of timm's as one that takes our normalisation."""
    config = getattr(network, "pretrained_cfg", {})
    mean, std = (
        tuple(config.get(key) or ours)
        for key, ours in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    if (mean, std) == (IMAGENET_MEAN, IMAGENET_STD):
        return network
    return _OtherInput(network, mean, std)


def _try(network: nn.Module, arch: str, *, num_classes: int, image_size: int) -> None:
    """Raise ValueError where the network doesn't make N x C logits of such pictures."""
    with torch.no_grad():
        try:
            shape = tuple(network(torch.zeros(1, 3, image_size, image_size)).shape)
        except Exception as error:  # a network of any kind may raise anything
            reason = one_line(error)
            raise ValueError(
                f"DISTILL.ARCH {arch} does not take pictures of {image_size} x {image_size} "
                f"(MODEL.IMAGE_SIZE): {reason}"
            ) from None
    if shape != (1, num_classes):
        raise ValueError(
            f"DISTILL.ARCH {arch} gives {shape} for one picture, and {(1, num_classes)} is needed"
        )
