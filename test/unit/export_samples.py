"""A small network, its images and its logits, shared by the tests of the export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from lib.config.load import load_config
from lib.models.build import build_model

SIZE, NUM_CLASSES = 64, 3


def scatter_batch_norms(network: nn.Module) -> nn.Module:
    """Give the batch norms statistics of their own, as training does; return the network."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return network


def tiny_network(yaml: Path) -> nn.Module:
    """Return the experiment's network, the same each time, ready for evaluation."""
    torch.manual_seed(0)
    return scatter_batch_norms(build_model(load_config(yaml), NUM_CLASSES)).eval()


def save_checkpoint(network: nn.Module, path: Path) -> Path:
    """Write what a training run's best file holds, as far as an export reads it."""
    torch.save({"state_dict": network.state_dict(), "class_names": ["a", "ü", "c"]}, path)
    return path


def random_images(batch: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((batch, 3, size, size), dtype=np.float32)


def logits(network: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(images)).numpy()


def run_file(path: Path, images: np.ndarray) -> np.ndarray:
    """Return what ONNX Runtime makes of the images."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["class"], {"image": images})[0]


def relative_error(path: Path, network: nn.Module, images: np.ndarray) -> float:
    """Return the largest error of the file's logits, relative to the range of the network's."""
    expected = logits(network, images)
    got = run_file(path, images)
    assert got.dtype == np.float32 and got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.ptp(expected))


def kinds(path: Path) -> set[str]:
    """Return the operators of a file."""
    return {node.op_type for node in onnx.load(str(path)).graph.node}
