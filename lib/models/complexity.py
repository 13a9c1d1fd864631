"""How large a network is: parameters, multiply-adds and activations, beside published figures."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from lib.runtime.cli import needing

PUBLISHED_IMAGE_SIZE = 224
PUBLISHED_NUM_CLASSES = 1000
_NOT_PUBLISHED = "-"


@dataclass(frozen=True)
class ModelInfo:
    """Counts of one network for one image.

    `num_multiply_adds` covers convolutions and linear layers, a multiplication with its addition
    counting once; `num_activations` are the numbers that those same layers put out.
    """

    name: str
    num_parameters: int
    num_multiply_adds: int
    num_activations: int


@dataclass(frozen=True)
class PublishedInfo:
    """Figures of others for a 3 x 224 x 224 image and 1000 classes.

    official_*: README of https://github.com/HRNet/HRNet-Image-Classification. Its GFLOPs are the
    multiply-adds of convolutions and linear layers over 2**30 (lib/utils/modelsummary.py there).
    timm_*: results/benchmark-infer-*.csv of https://github.com/huggingface/pytorch-image-models;
    multiply-adds over 1e9, counting batch norm, upsampling and pooling too.
    """

    official_parameters_millions: float
    official_gflops: float
    timm_gmacs: float
    timm_activations_millions: float


PUBLISHED: Mapping[str, PublishedInfo] = MappingProxyType(
    {
        "hrnet_w18_small_v1": PublishedInfo(13.2, 1.49, 1.61, 5.72),
        "hrnet_w18_small_v2": PublishedInfo(15.6, 2.42, 2.62, 9.65),
        "hrnet_w18": PublishedInfo(21.3, 3.99, 4.32, 16.31),
        "hrnet_w30": PublishedInfo(37.7, 7.55, 8.15, 21.21),
        "hrnet_w32": PublishedInfo(41.2, 8.31, 8.97, 22.02),
        "hrnet_w40": PublishedInfo(57.6, 11.8, 12.75, 25.29),
        "hrnet_w44": PublishedInfo(67.1, 13.9, 14.94, 26.92),
        "hrnet_w48": PublishedInfo(77.5, 16.1, 17.34, 28.56),
        "hrnet_w64": PublishedInfo(128.1, 26.9, 28.97, 35.09),
    }
)

_LEGEND = """\
One image of 3 x {size} x {size}.
GMACs: 1e9 multiply-adds of convolutions and linear layers (a multiply-add counts once).
Activations: the outputs of those layers, in millions.
official: README of HRNet/HRNet-Image-Classification; its GFLOPs are multiply-adds / 2**30.
timm: its benchmark tables; its GMACs count batch norm, upsampling and pooling too.
"""
_HEADER = (
    ("network", "parameters", "GMACs", "activations", "official", "official", "timm", "timm"),
    ("", "", "", "(M)", "params (M)", "GFLOPs", "GMACs", "act. (M)"),
)


def measure_model(name: str, model: nn.Module, *, image_size: int) -> ModelInfo:
    """Count `model`'s parameters, and its work on one image of 3 x image_size x image_size.

    The model runs on the CPU in evaluation mode, and is left in the mode it was in.
    Raises ValueError if image_size is not a multiple of 32, or fvcore is not installed.
    """
    if image_size < 32 or image_size % 32:
        raise ValueError(f"image size {image_size}: a multiple of 32 is needed, such as 224")
    was_training = model.training
    model.eval()
    try:
        num_multiply_adds, num_activations = _count_work(
            model, torch.zeros(1, 3, image_size, image_size)
        )
    finally:
        model.train(was_training)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelInfo(name, num_parameters, num_multiply_adds, num_activations)


def _count_work(model: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    with warnings.catch_warnings():  # fvcore traces, and torch calls tracing deprecated
        warnings.simplefilter("ignore")
        with needing("pip install fvcore"):
            from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
        totals = []
        for analysis in (FlopCountAnalysis(model, image), ActivationCountAnalysis(model, image)):
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            counts = analysis.tracer_warnings("none").by_operator()
            totals.append(int(counts["conv"] + counts["linear"]))
    return totals[0], totals[1]


def info_table(infos: Sequence[ModelInfo], *, image_size: int, published: bool) -> str:
    """Return the lines to print: what the columns mean, then one row a network.

    `published` says whether the figures of others apply: 224 x 224, 1000 classes, no change of
    the network. Where they don't, their columns hold a dash.
    """
    rows = [_row(info, PUBLISHED.get(info.name) if published else None) for info in infos]
    widths = [max(map(len, column)) for column in zip(*_HEADER, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in (*_HEADER, *rows)
    ]
    return _LEGEND.format(size=image_size) + "\n" + "\n".join(lines)


def _row(info: ModelInfo, published: PublishedInfo | None) -> tuple[str, ...]:
    measured = (
        info.name,
        f"{info.num_parameters:,}",
        f"{info.num_multiply_adds / 1e9:.3f}",
        f"{info.num_activations / 1e6:.2f}",
    )
    if published is None:
        return (*measured, *[_NOT_PUBLISHED] * 4)
    return (
        *measured,
        f"{published.official_parameters_millions:.1f}",
        f"{published.official_gflops:.3g}",
        f"{published.timm_gmacs:.2f}",
        f"{published.timm_activations_millions:.2f}",
    )
