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

# A convolution with its batch norm is one layer in PaddleClas, of a `conv` and a `bn`. Numbers that
# are named i count from 1 there, from 0 here; {kind} is `conv` or `bn` where our layers have names,
# and their number elsewhere. The older names are those of ppcls/modeling/architectures/hrnet.py.
_NAMED, _NUMBERED = ("conv", "bn"), ("0", "1")
_PADDLE_PARTS = {"conv": 0, "bn": 1, "_conv": 0, "_batch_norm": 1}
_PADDLE_STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}
_PADDLE_STEMS = frozenset(("conv_layer1_1.conv.weight", "conv_layer1_1._conv.weight"))
_PADDLE_HEADS = ("fc", "out")
_PADDLE_RULES = tuple(
    (re.compile(pattern), ours, kinds)
    for pattern, ours, kinds in (
        (r"conv_layer1_(?P<n>[12])", "{kind}{n}", _NAMED),
        (r"layer1\.(?P<b>\d+)\.conv(?P<n>[123])", "layer1.{b}.{kind}{n}", _NAMED),
        (r"la1\.bb_layer2_(?P<i>\d+)\.conv(?P<n>[123])", "layer1.{i}.{kind}{n}", _NAMED),
        (r"layer1\.(?P<b>\d+)\.conv_down", "layer1.{b}.downsample.{kind}", _NUMBERED),
        (r"la1\.bb_layer2_(?P<i>\d+)\.conv_down", "layer1.{i}.downsample.{kind}", _NUMBERED),
        (r"conv_tr1_1|tr1\.transition_tr1_layer_1", "transition1.0.{kind}", _NUMBERED),
        (r"conv_tr1_2|tr1\.transition_tr1_layer_2", "transition1.1.0.{kind}", _NUMBERED),
        (r"conv_tr2|tr2\.transition_tr2_layer_3", "transition2.2.0.{kind}", _NUMBERED),
        (r"conv_tr3|tr3\.transition_tr3_layer_4", "transition3.3.0.{kind}", _NUMBERED),
        (
            r"st(?P<s>\d)\.stage_func_list\.(?P<m>\d+)\."
            r"basic_block_list\.(?P<j>\d)\.(?P<b>\d+)\.conv(?P<n>[12])",
            "stage{s}.{m}.branches.{j}.{b}.{kind}{n}",
            _NAMED,
        ),
        (
            r"st(?P<s>\d)\.stage_st\d_(?P<i>\d+)\.branches_func\."
            r"bb_st\d_\d+_branch_layer_(?P<i2>\d)_(?P<i3>\d+)\.conv(?P<n>[12])",
            "stage{s}.{i}.branches.{i2}.{i3}.{kind}{n}",
            _NAMED,
        ),
        (
            r"st(?P<s>\d)\.stage_st\d_(?P<i>\d+)\.fuse_func\."
            r"residual_st\d_\d+_layer_(?P<i2>\d)_(?P<i3>\d)",
            "stage{s}.{i}.fuse_layers.{i2}.{i3}.{kind}",
            _NUMBERED,
        ),
        (
            r"st(?P<s>\d)\.stage_st\d_(?P<i>\d+)\.fuse_func\."
            r"residual_st\d_\d+_layer_(?P<i2>\d)_(?P<i3>\d)_(?P<i4>\d)",
            "stage{s}.{i}.fuse_layers.{i2}.{i3}.{i4}.{kind}",
            _NUMBERED,
        ),
        (r"last_cls\.func_list\.(?P<j>\d)\.conv(?P<n>\d)", "incre_modules.{j}.0.{kind}{n}", _NAMED),
        (
            r"last_cls\.conv_cls_head_conv_(?P<i>\d)\.conv(?P<n>\d)",
            "incre_modules.{i}.0.{kind}{n}",
            _NAMED,
        ),
        (
            r"last_cls\.func_list\.(?P<j>\d)\.conv_down",
            "incre_modules.{j}.0.downsample.{kind}",
            _NUMBERED,
        ),
        (
            r"last_cls\.conv_cls_head_conv_(?P<i>\d)\.conv_down",
            "incre_modules.{i}.0.downsample.{kind}",
            _NUMBERED,
        ),
        (r"cls_head_conv_list\.(?P<j>\d)", "downsamp_modules.{j}.{kind}", _NUMBERED),
        (r"cls_head_add(?P<i>\d)", "downsamp_modules.{i}.{kind}", _NUMBERED),
        (r"conv_last", "final_layer.{kind}", _NUMBERED),
    )
)
# All paths of a module's fusion are one list there: its numbers are looked up in _fusion_paths.
_PADDLE_FUSION = re.compile(
    r"st(?P<s>\d)\.stage_func_list\.(?P<m>\d+)\.fuse_func\.residual_func_list\.(?P<k>\d+)"
)


def converted(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return the weights under our names, and whose names they had; '' where they were ours.

    A name that no rule knows stays as it is, so that loading says what is left over.
    Raises ValueError for an SE-HRNet, and where two names would become one.
    """
    if "backbone.conv1.weight" in weights:
        ours, project = _renamed(weights, _from_mmpretrain), MMPRETRAIN
    elif not _PADDLE_STEMS.isdisjoint(weights):
        if any(".se." in name for name in weights):
            raise ValueError("these are weights of an SE-HRNet, which is not among the networks")
        ours, project = _renamed(weights, _from_paddle), PADDLE
        if "classifier.weight" in ours:  # inputs x outputs there
            ours["classifier.weight"] = ours["classifier.weight"].t().contiguous()
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
    if layer in _PADDLE_HEADS:
        return f"classifier.{leaf}"
    layer, _, part = layer.rpartition(".")
    if part not in _PADDLE_PARTS:
        return name
    leaf, kind = _PADDLE_STATISTICS.get(leaf, leaf), _PADDLE_PARTS[part]
    fusion = _PADDLE_FUSION.fullmatch(layer)
    if fusion:
        path = _fusion_paths(int(fusion["s"]))[int(fusion["k"])]
        return f"stage{fusion['s']}.{fusion['m']}.fuse_layers.{path}.{kind}.{leaf}"
    for pattern, ours, kinds in _PADDLE_RULES:
        match = pattern.fullmatch(layer)
        if match:
            numbers = {key: int(n) - key.startswith("i") for key, n in match.groupdict().items()}
            return f"{ours.format(kind=kinds[kind], **numbers)}.{leaf}"
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
