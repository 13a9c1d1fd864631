"""lib/models/folding.py: less work, the same function and the same parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from export_samples import scatter_batch_norms
from published import PUBLISHED
from torch import nn

from lib.models.folding import checkpoint_activations, fold_batch_norms
from lib.models.hrnet import build_hrnet


def relative(ours: torch.Tensor, plain: torch.Tensor) -> float:
    """The largest difference, relative to the range of the plain network's values."""
    return float((ours - plain).abs().max() / (plain.max() - plain.min()))


@pytest.mark.parametrize("arch", PUBLISHED)
def test_logits_with_folded_batch_norms_are_those_of_the_plain_network(arch: str) -> None:
    torch.manual_seed(0)
    plain = scatter_batch_norms(build_hrnet(arch, 10)).eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        assert relative(fold_batch_norms(plain)(images), plain(images)) < 1e-5


def test_a_batch_norm_is_folded_into_the_convolution_before_it() -> None:
    network = scatter_batch_norms(build_hrnet("hrnet_w18_small_v1", 10))
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules()), "it is a copy"


def train_once(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, int]:
    """One backward pass; return the logits and how many values of maps were kept for it."""
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network.train()(images)
    logits.square().mean().backward()
    return logits.detach(), sum(kept.values())


@pytest.mark.parametrize("arch", PUBLISHED)
def test_activations_computed_again_change_nothing_but_the_memory(arch: str) -> None:
    torch.manual_seed(0)
    plain = build_hrnet(arch, 10)
    sparing = checkpoint_activations(copy.deepcopy(plain))
    images = torch.randn(2, 3, 64, 64)
    (expected, num_kept_plain), (found, num_kept) = (
        train_once(network, images) for network in (plain, sparing)
    )
    assert torch.equal(found, expected)
    for (name, ours), theirs in zip(sparing.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
    for (name, ours), theirs in zip(sparing.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs), f"{name}: the second forward pass counted too"
    assert num_kept < 0.5 * num_kept_plain
    with torch.inference_mode():
        assert torch.equal(sparing.eval()(images), plain.eval()(images))
