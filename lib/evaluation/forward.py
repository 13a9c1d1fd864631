"""The forward pass: from a batch to logits, in the precision of the run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from yacs.config import CfgNode

from lib.config.recipe import USUAL, Recipe
from lib.data.loading import Batch
from lib.data.normalize import Normalize
from lib.runtime import device as devices
from lib.runtime.distributed import Processes
from lib.runtime.precision import Precision


@dataclass(frozen=True)
class Computing:
    """What both loops compute with."""

    processes: Processes
    precision: Precision
    normalize: nn.Module  # uint8 N x H x W x 3 on the device -> float32 N x 3 x H x W
    num_parts: int = 1  # in which a training batch is computed, to need less memory

    def logits(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits N x C (float32) and targets N (int64), both on the device."""
        images = self.normalize(self.on_device(batch.images))
        return self.forward(model, images), self.on_device(batch.targets)

    def forward(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Return logits N x C (float32) of normalised pictures, computed in the run's precision."""
        with self.precision.autocast():
            logits = model(images)
        return logits.float()

    def on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor on the device; the host does not wait where its memory is pinned."""
        return tensor.to(self.processes.device, non_blocking=True)


def build_computing(
    config: CfgNode, processes: Processes, *, amp_backend: str, recipe: Recipe = USUAL
) -> Computing:
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
    return Computing(processes, precision, normalize, config.TRAIN.ACCUM_STEPS)
