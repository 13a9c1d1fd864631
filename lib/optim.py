"""Optimizers, and the learning rate as a pure function of progress."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lib import device as devices

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")


@dataclass(frozen=True)
class StepSchedule:
    """`base` times `factor` for each milestone (in epochs) already reached.

    Depends on nothing but the epoch, so a resumed run and an uninterrupted one agree at every step.
    """

    base: float
    milestones: tuple[int, ...]
    factor: float

    def learning_rate(self, epoch: float) -> float:
        """Return the rate at `epoch`, whole or with the fraction of the epoch that is done."""
        return self.base * self.factor ** bisect_right(self.milestones, epoch)


@dataclass(frozen=True)
class OptimizerOptions:
    """Settings of the optimizer; momentum and nesterov serve sgd, momentum also rmsprop."""

    name: str
    weight_decay: float
    momentum: float = 0.9
    nesterov: bool = True


def build_optimizer(
    model: nn.Module,
    options: OptimizerOptions,
    *,
    learning_rate: float,
    device: torch.device,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Return the optimizer over all of the model's parameters, weight decay applied to each.

    With `fused` it is the fused one where the device has one.

    Raises ValueError for an unknown name, or nesterov without momentum.
    """
    if options.name not in OPTIMIZERS:
        raise ValueError(f"optimizer {options.name!r} is not one of {', '.join(OPTIMIZERS)}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if options.name == "sgd":
        if options.nesterov and options.momentum <= 0:
            raise ValueError("TRAIN.NESTEROV true needs TRAIN.MOMENTUM above 0")
        return devices.sgd(
            parameters,
            device,
            lr=learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            nesterov=options.nesterov,
            fused=fused,
        )
    if options.name == "rmsprop":
        return torch.optim.RMSprop(
            parameters,
            lr=learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
    adam = torch.optim.Adam if options.name == "adam" else torch.optim.AdamW
    return adam(
        parameters,
        lr=learning_rate,
        weight_decay=options.weight_decay,
        fused=(fused and devices.has_fused_optimizers(device)) or None,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group this rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def step_schedule(
    base: float, *, num_cards: int, milestones: Sequence[int], factor: float
) -> StepSchedule:
    """Return the schedule of a run on `num_cards` cards: the rate of one card times the cards."""
    return StepSchedule(base * num_cards, tuple(milestones), factor)
