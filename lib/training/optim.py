"""Optimizers, and which parameters have a rate or a weight decay of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from lib.models.layer_groups import depth_below_head, is_of_classifier
from lib.runtime import device as devices

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
_RATE_FACTOR = "rate_factor"  # of a parameter group, where it is not 1


@dataclass(frozen=True)
class GroupRules:
    """Which of an HRNet's parameters differ from the rest; as it stands, none does."""

    decays_vectors: bool = True  # weight decay on norms and biases too
    classifier_factor: float = 1.0  # the classifier's rate in relation to the rest's
    layer_decay: float = 1.0  # a part's rate in relation to that of the part after it

    def rate_factor(self, name: str) -> float:
        """Return what the rate is multiplied with for a parameter of this name."""
        factor = self.classifier_factor if is_of_classifier(name) else 1.0
        if self.layer_decay == 1:
            return factor
        return factor * self.layer_decay ** depth_below_head(name)

    def is_decayed(self, parameter: nn.Parameter) -> bool:
        """Tell whether weight decay applies: norms and biases have one dimension."""
        return self.decays_vectors or parameter.dim() > 1


@dataclass(frozen=True)
class OptimizerOptions:
    """Settings of the optimizer; momentum and nesterov serve sgd, momentum also rmsprop."""

    name: str
    weight_decay: float
    momentum: float = 0.9
    nesterov: bool = True
    rules: GroupRules = GroupRules()


def build_optimizer(
    model: nn.Module,
    options: OptimizerOptions,
    *,
    learning_rate: float,
    device: torch.device,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Return the optimizer over the model's parameters that train.

    They are one group, with weight decay on each, unless `options.rules` make them several. With
    `fused` it is the fused one where the device has one.

    Raises ValueError for an unknown name, or nesterov without momentum.
    """
    if options.name not in OPTIMIZERS:
        raise ValueError(f"optimizer {options.name!r} is not one of {', '.join(OPTIMIZERS)}")
    parameters = parameter_groups(model, options)
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


def parameter_groups(model: nn.Module, options: OptimizerOptions) -> list[dict[str, object]]:
    """Return the groups of parameters that train, in the model's order.

    A group says only what differs from the optimizer's own settings: its `weight_decay`, and the
    `rate_factor` that `set_learning_rate` reads. Raises KeyError where the rules need the parts of
    an HRNet and the model is none.
    """
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = (options.rules.rate_factor(name), options.rules.is_decayed(parameter))
            members.setdefault(kind, []).append(parameter)
    groups = []
    for (factor, is_decayed), parameters in members.items():
        group: dict[str, object] = {"params": parameters}
        if not is_decayed:
            group["weight_decay"] = 0.0
        if factor != 1:
            group[_RATE_FACTOR] = factor
        groups.append(group)
    return groups


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group this rate, times its own factor, for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get(_RATE_FACTOR, 1.0)


def check_same_groups(optimizer: torch.optim.Optimizer, saved: Mapping[str, object]) -> None:
    """Raise ValueError where a saved optimizer state had its parameters grouped otherwise."""
    saved_groups: list[dict[str, list[int]]] = saved["param_groups"]  # type: ignore[assignment]
    theirs = [len(group["params"]) for group in saved_groups]
    ours = [len(group["params"]) for group in optimizer.param_groups]
    if ours != theirs:
        raise ValueError(
            f"the checkpoint's optimizer has parameters in groups of {theirs}, this run's of "
            f"{ours}: resume needs the same MODEL.FREEZE, TRAIN.WD_NORM_BIAS, TRAIN.LAYER_DECAY "
            "and TRAIN.HEAD_LR_FACTOR; to change them begin a new run with --pretrained"
        )


def check_state_sizes(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError where what is kept of a parameter has another size than the parameter."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, kept in optimizer.state.get(parameter, {}).items():
                if isinstance(kept, torch.Tensor) and kept.numel() not in (1, parameter.numel()):
                    raise ValueError(
                        f"{name} has the shape {tuple(kept.shape)} for a parameter of "
                        f"{tuple(parameter.shape)}"
                    )
