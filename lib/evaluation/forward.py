"""The forward pass: from a batch to logits, in the precision of the run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from yacs.config import CfgNode

from lib.config.recipe import USUAL, Recipe
from lib.data.normalize import Normalize
from lib.runtime import device as devices
from lib.runtime.distributed import Processes
from lib.runtime.precision import Precision


@dataclass(frozen=True)
class ForwardPass:
    """From a batch in host memory to logits on the device, in the precision of the run."""

    processes: Processes
    precision: Precision
    normalize: nn.Module  # uint8 N x H x W x 3 on the device -> float32 N x 3 x H x W

    def logits(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Return logits N x C (float32) of normalized pictures."""
        with self.precision.autocast():
            logits = model(images)
        return logits.float()

    def normalized(self, images: torch.Tensor) -> torch.Tensor:
        """Return N x 3 x H x W (float32) on the device, from N x H x W x 3 levels anywhere."""
        return self.normalize(self.on_device(images))

    def on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor on the device; the host does not wait where its memory is pinned."""
        return tensor.to(self.processes.device, non_blocking=True)


def build_forward_pass(
    config: CfgNode, processes: Processes, *, amp_backend: str = "torch", recipe: Recipe = USUAL
) -> ForwardPass:
    """Set the device up and return precision and normalisation for it.

    Raises ValueError for an unknown precision, or a layout that the device does not have.
    """
    device = processes.device
    devices.configure(
        device,
        cudnn_benchmark=config.CUDNN.BENCHMARK,
        cudnn_deterministic=config.CUDNN.DETERMINISTIC,
    )
    precision = Precision(
        config.TRAIN.PRECISION,
        device,
        backend=amp_backend,
        max_grad_norm=config.TRAIN.CLIP_GRAD_NORM,
    )
    layout = devices.memory_format(device, config.TRAIN.MEMORY_FORMAT)
    normalize = Normalize(recipe, channels_last=layout is torch.channels_last).to(device)
    return ForwardPass(processes, precision, normalize)
