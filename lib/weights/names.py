"""Other projects' names of HRNet's parameters, brought to ours.

mmpretrain's: models/backbones/hrnet.py, necks/hr_fuse.py and heads/linear_head.py of 1.2.0.
PaddleClas's: ppcls/arch/backbone/legendary_models/hrnet.py of 2.6.0. Neither has a bias in the
head's convolutions, whose batch norm makes one needless; ours, the official network's, are zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MMPRETRAIN, PADDLE = "mmpretrain", "PaddleClas"
_BIASED = re.compile(r"(downsamp_modules\.\d+|final_layer)\.0\.weight")

_MMPRETRAIN_RULES = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"backbone\.(.+)", r"\1"),
        # Where the configuration lists several necks, theirs have numbers.
        (r"neck\.(?:\d+\.)?increase_layers\.(.+)", r"incre_modules.\1"),
        (r"neck\.(?:\d+\.)?downsample_layers\.(\d+)\.conv\.(.+)", r"downsamp_modules.\1.0.\2"),
        (r"neck\.(?:\d+\.)?downsample_layers\.(\d+)\.bn\.(.+)", r"downsamp_modules.\1.1.\2"),
        (r"neck\.(?:\d+\.)?final_layer\.conv\.(.+)", r"final_layer.0.\1"),
        (r"neck\.(?:\d+\.)?final_layer\.bn\.(.+)", r"final_layer.1.\1"),
        (r"head\.fc\.(.+)", r"classifier.\1"),
    )
)

# A convolution with its batch norm stands as one layer in PaddleClas. A rule gives our name of the
# layer, in which {} stands for `conv` or `bn` where ours have names, and for 0 or 1 elsewhere.
_NAMED, _NUMBERED = ("conv", "bn"), ("0", "1")
_PADDLE_RULES = tuple(
    (re.compile(pattern), ours, kinds)
    for pattern, ours, kinds in (
        (r"conv_layer1_([12])", r"{}\1", _NAMED),
        (r"layer1\.(\d+)\.conv([123])", r"layer1.\1.{}\2", _NAMED),
        (r"layer1\.(\d+)\.conv_down", r"layer1.\1.downsample.{}", _NUMBERED),
        (r"conv_tr1_1", r"transition1.0.{}", _NUMBERED),
        (r"conv_tr1_2", r"transition1.1.0.{}", _NUMBERED),
        (r"conv_tr([23])", r"transition\1.\1.0.{}", _NUMBERED),
        (
            r"st([234])\.stage_func_list\.(\d+)\.basic_block_list\.(\d+)\.(\d+)\.conv([12])",
            r"stage\1.\2.branches.\3.\4.{}\5",
            _NAMED,
        ),
        (r"last_cls\.func_list\.(\d)\.conv([123])", r"incre_modules.\1.0.{}\2", _NAMED),
        (r"last_cls\.func_list\.(\d)\.conv_down", r"incre_modules.\1.0.downsample.{}", _NUMBERED),
        (r"cls_head_conv_list\.(\d)", r"downsamp_modules.\1.{}", _NUMBERED),
        (r"conv_last", r"final_layer.{}", _NUMBERED),
    )
)
_PADDLE_FUSION = re.compile(
    r"st([234])\.stage_func_list\.(\d+)\.fuse_func\.residual_func_list\.(\d+)"
)
_PADDLE_STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}


def converted(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return the weights under our names, and whose names they had; '' where they were ours.

    A name that no rule knows stays as it is, so that loading says what is left over.
    Raises ValueError for an SE-HRNet, and where two names would become one.
    """
    if "backbone.conv1.weight" in weights:
        ours, project = _renamed(weights, _from_mmpretrain), MMPRETRAIN
    elif "conv_layer1_1.conv.weight" in weights:
        if any(".se." in name for name in weights):
            raise ValueError("these are weights of an SE-HRNet, which is not among the networks")
        ours, project = _renamed(weights, _from_paddle), PADDLE
        if "fc.weight" in weights:  # inputs x outputs there
            ours["classifier.weight"] = weights["fc.weight"].t().contiguous()
    else:
        return dict(weights), ""
    for name in list(ours):
        bias = name.replace(".weight", ".bias")
        if _BIASED.fullmatch(name) and bias not in ours:
            ours[bias] = ours[name].new_zeros(ours[name].shape[0])
    return ours, project


def _renamed(weights: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for name, value in weights.items():
        if rename(name) in ours:
            raise ValueError(f"two of its weights would be {rename(name)}, one of them {name}")
        ours[rename(name)] = value
    return ours


def _from_mmpretrain(name: str) -> str:
    for pattern, ours in _MMPRETRAIN_RULES:
        match = pattern.fullmatch(name)
        if match:
            return match.expand(ours)
    return name


def _from_paddle(name: str) -> str:
    layer, _, leaf = name.rpartition(".")
    if layer == "fc":
        return f"classifier.{leaf}"
    layer, _, part = layer.rpartition(".")  # `conv` or `bn`
    if part not in _NAMED:
        return name
    leaf = _PADDLE_STATISTICS.get(leaf, leaf)
    fusion = _PADDLE_FUSION.fullmatch(layer)
    if fusion:
        stage, module, index = map(int, fusion.groups())
        path = _fusion_paths(stage)[index]
        return f"stage{stage}.{module}.fuse_layers.{path}.{_NUMBERED[part == 'bn']}.{leaf}"
    for pattern, ours, kinds in _PADDLE_RULES:
        match = pattern.fullmatch(layer)
        if match:
            return f"{match.expand(ours).format(kinds[part == 'bn'])}.{leaf}"
    return name


def _fusion_paths(num_branches: int) -> list[str]:
    """Our paths below fuse_layers, in the order of PaddleClas's one list of a module's layers."""
    paths = []
    for target in range(num_branches):
        for source in range(num_branches):
            if source > target:
                paths.append(f"{target}.{source}")
            paths += [f"{target}.{source}.{step}" for step in range(target - source)]
    return paths
