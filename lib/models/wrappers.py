"""A network seen otherwise: together with its mirror image, or through some of its outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FlipAverage(nn.Module):
    """Logits (float32) averaged over each picture and its mirror image."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return N x C for N x 3 x H x W."""
        mirrored = images.flip(-1)
        return (self.network(images).float() + self.network(mirrored).float()) / 2


class SelectedOutputs(nn.Module):
    """Some of the outputs, in the order in which they are named."""

    def __init__(self, network: nn.Module, outputs: Sequence[int]):
        super().__init__()
        self.network = network
        self.register_buffer("outputs", torch.tensor(outputs), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return N x len(outputs) for N x 3 x H x W."""
        return self.network(images).index_select(1, self.outputs)
