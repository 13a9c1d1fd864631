"""Where the network looks: Grad-CAM on its last maps.

Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization, 2017, section 3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lib.cli import needing


def check_installed() -> None:
    """Raise ValueError, which names the package to install, where it is missing."""
    with needing("pip install captum, or leave --cam out"):
        import captum.attr  # noqa: F401  optional, and slow to import


def class_activations(
    network: nn.Module, images: torch.Tensor, classes: torch.Tensor
) -> np.ndarray:
    """Return what speaks for class `classes[n]` in image n: float32 N x H x W, 0..1.

    `images` are float32 N x 3 x H x W, as the network takes them, on its device.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    explain = LayerGradCam(network, network.final_layer)
    maps = explain.attribute(images, target=classes, relu_attributions=True)
    sized = LayerAttribution.interpolate(maps.detach(), tuple(images.shape[2:]), "bilinear")
    heat = sized[:, 0].float().cpu().numpy()
    most = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.where(most > 0, most, 1)
