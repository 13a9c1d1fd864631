"""lib/models/padded.py: wider maps, the same function, gradients and averages; zeros stay zeros."""

from __future__ import annotations

import copy

import pytest
import torch
from export_samples import scatter_batch_norms
from published import PUBLISHED
from tiny_spec import TINY
from torch import nn

from lib.models.folding import checkpoint_activations, fold_batch_norms
from lib.models.hrnet import HRNet, build_hrnet
from lib.models.padded import PaddedBatchNorm2d, PaddedConv2d, pad_widths, widen

PADDED = ("hrnet_w18_small_v2", "hrnet_w18", "hrnet_w30", "hrnet_w44")  # to multiples of 8


def scattered(arch: str, dtype: torch.dtype = torch.float64) -> HRNet:
    torch.manual_seed(0)
    return scatter_batch_norms(build_hrnet(arch, 10)).to(dtype)


def images(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=dtype)


def relative_error(ours: torch.Tensor, plain: torch.Tensor) -> float:
    """The largest difference, relative to the range of the plain network's values."""
    return float((ours - plain).detach().abs().max() / (plain.max() - plain.min()).detach())


def assert_same_gradients(ours: nn.Module, plain: nn.Module) -> None:
    """Of each parameter; but that of a bias before a batch norm is zero, and what is left of it."""
    largest = max(float(parameter.grad.abs().max()) for parameter in plain.parameters())
    for (name, one), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        size = float(other.grad.abs().max())
        error = float((one.grad - other.grad).abs().max())
        assert error < 1e-10 * size or max(error, size) < 1e-14 * largest, name


@pytest.mark.parametrize("arch", sorted(set(PUBLISHED) - set(PADDED)))
def test_the_other_networks_have_no_width_to_pad(arch: str) -> None:
    with torch.device("meta"):
        network = build_hrnet(arch)
    widths = {m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)}
    assert not any(width % 8 for width in widths)


@pytest.mark.parametrize("arch", PADDED)
def test_a_training_step_is_that_of_the_plain_network(arch: str) -> None:
    """In float64, where no rounding hides a wrong gradient."""
    plain = scattered(arch)
    padded = pad_widths(copy.deepcopy(plain), 8)
    logits = [network.train()(images()) for network in (padded, plain)]
    assert relative_error(*logits) < 1e-10
    for output in logits:
        output.square().mean().backward()
    assert_same_gradients(padded, plain)
    for (name, ours), theirs in zip(padded.named_buffers(), plain.buffers(), strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=1e-10), name


@pytest.mark.parametrize("arch", PADDED)
def test_logits_in_float32_are_those_of_the_plain_network(arch: str) -> None:
    plain = scattered(arch, torch.float32).eval()
    padded = pad_widths(copy.deepcopy(plain), 8)
    served = widen(fold_batch_norms(plain), 8)
    with torch.inference_mode():
        expected = plain(images(torch.float32))
        assert relative_error(padded(images(torch.float32)), expected) < 1e-5
        assert relative_error(served(images(torch.float32)), expected) < 1e-5


def maps_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Run a step; return what each convolution and batch norm gave, with its gradient kept."""
    maps: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(module: nn.Module, args: object, output: torch.Tensor) -> None:
            output.retain_grad()
            # ReLU writes into this very memory, and a sum too; a copy stays what it was.
            maps[name], maps[f"{name} value"] = output, output.detach().clone()

        return hook

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(keep(name))
    network.train()(images()).square().mean().backward()
    return maps


@pytest.mark.parametrize("arch", PADDED)
def test_added_channels_are_zero_forward_and_backward(arch: str) -> None:
    padded = pad_widths(scattered(arch), 8)
    maps = maps_of(padded)
    num_added = 0
    for name, module in padded.named_modules():
        if not isinstance(module, PaddedConv2d | PaddedBatchNorm2d):
            continue
        of_conv = isinstance(module, PaddedConv2d)
        width = module.out_channels if of_conv else module.num_features
        value, gradient = maps[f"{name} value"], maps[name].grad
        assert value.shape[1] % 8 == 0 and value.shape[1] - width < 8, name
        assert gradient is not None and gradient[:, :width].any(), name
        assert not value[:, width:].any(), f"{name}: the map"
        assert not gradient[:, width:].any(), f"{name}: its gradient"
        num_added += value.shape[1] - width
    assert num_added > 0


def test_weights_keep_the_published_shapes() -> None:
    plain = scattered("hrnet_w18_small_v2")
    padded = pad_widths(copy.deepcopy(plain), 32)
    shapes = [{n: v.shape for n, v in net.state_dict().items()} for net in (padded, plain)]
    assert shapes[0] == shapes[1]
    plain.load_state_dict(padded.state_dict(), strict=True)


def test_a_network_that_is_wide_enough_is_left_as_it_is() -> None:
    plain = scattered("hrnet_w18_small_v1")
    assert pad_widths(plain, 1) is plain
    assert not any(isinstance(module, PaddedConv2d) for module in plain.modules())
    shapes = [parameter.shape for parameter in widen(fold_batch_norms(plain), 16).parameters()]
    assert shapes == [parameter.shape for parameter in fold_batch_norms(plain).parameters()]


def test_maps_that_are_computed_again_are_padded_too() -> None:
    plain = scattered("hrnet_w18_small_v2")
    sparing = pad_widths(checkpoint_activations(copy.deepcopy(plain)), 8)
    for network in (sparing, plain):
        network.train()(images()).square().mean().backward()
    assert_same_gradients(sparing, plain)
    for (name, ours), theirs in zip(sparing.named_buffers(), plain.buffers(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10), f"{name}: counted twice"


def test_a_padded_network_is_captured_as_one_graph() -> None:
    """For TRAIN.COMPILE: without a break, and equal to the bit before code is generated."""
    torch.manual_seed(0)
    plain = build_hrnet(TINY, 5).double()
    padded = pad_widths(copy.deepcopy(plain), 8)
    captured = torch.compile(padded, backend="aot_eager", fullgraph=True, dynamic=False)
    for network in (captured, plain):
        network.train()(images()).square().mean().backward()
    assert_same_gradients(padded, plain)
    for (name, ours), theirs in zip(padded.named_buffers(), plain.buffers(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10), name


def test_a_served_network_has_the_zeros_in_its_weights() -> None:
    served = widen(fold_batch_norms(scattered("hrnet_w18", torch.float32)), 8)
    convolutions = [module for module in served.modules() if isinstance(module, nn.Conv2d)]
    for conv in convolutions:
        assert conv.weight.shape[:2] == (conv.out_channels, conv.in_channels)
        assert conv.out_channels % 8 == 0
        assert conv.in_channels % 8 == 0 or conv is served.conv1


def test_channels_last_weights_stay_channels_last() -> None:
    padded = pad_widths(scattered("hrnet_w18_small_v2", torch.float32), 8)
    padded = padded.to(memory_format=torch.channels_last)
    maps = maps_of_layout(padded)
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in maps)


def maps_of_layout(network: nn.Module) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    for module in network.modules():
        if isinstance(module, PaddedConv2d):
            module.register_forward_hook(lambda module, args, output: outputs.append(output))
    batch = images(torch.float32).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        network.eval()(batch)
    return outputs
