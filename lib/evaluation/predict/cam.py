"""Where the network looks: Grad-CAM on its last maps, or on a finer branch of its last stage.

Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization, 2017, section 3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lib.runtime.cli import needing

FINAL = "final"
FINEST = "branch1"
STRIDES = {FINAL: 32, FINEST: 4, "branch2": 8, "branch3": 16, "branch4": 32}
LAYERS = tuple(STRIDES)
_MIN_SIDE = 4  # a map of fewer places says little of where


def check_installed() -> None:
    """Raise ValueError, which names the package to install, where it is missing."""
    with needing("pip install captum, or leave --cam out"):
        import captum.attr  # noqa: F401  optional, and slow to import


def coarseness_remark(crop: int, layer: str) -> str:
    """Return a warning where a layer's maps of a `crop` pixels wide input are coarse; else ''."""
    side = crop // STRIDES[layer]
    if side >= _MIN_SIDE:
        return ""
    finest = crop // STRIDES[FINEST]
    return (
        f"the activation maps of --cam_layer {layer} are {side} x {side} places for pictures of "
        f"{crop} pixels, too coarse to say where: --cam_layer {FINEST} has {finest} x {finest}, or "
        "give a larger --image_size"
    )


def class_activations(
    network: nn.Module, images: torch.Tensor, classes: torch.Tensor, *, layer: str = FINAL
) -> np.ndarray:
    """Return what speaks for class `classes[n]` in image n: float32 N x H x W, 0..1.

    `images` are float32 N x 3 x H x W, as the network takes them, on its device. `layer` is one of
    LAYERS: the maps before the mean, or those of a branch of the last stage, of which the first is
    the finest.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    explain = LayerGradCam(network, module_of(network, layer))
    maps = explain.attribute(images, target=classes, relu_attributions=True)
    sized = LayerAttribution.interpolate(maps.detach(), tuple(images.shape[2:]), "bilinear")
    heat = sized[:, 0].float().cpu().numpy()
    most = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.where(most > 0, most, 1)


def module_of(network: nn.Module, layer: str) -> nn.Module:
    """Return the module whose output a layer's maps are."""
    name = "final_layer" if layer == FINAL else f"incre_modules.{int(layer[-1]) - 1}"
    return network.get_submodule(name)
