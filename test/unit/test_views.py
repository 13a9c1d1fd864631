"""wrappers: what a network gives through its mirror image and through some outputs."""

from __future__ import annotations

import torch
from torch import nn

from lib.models.wrappers import FlipAverage, SelectedOutputs


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 6, 7))


def test_mirrored_logits_are_the_mean_of_the_picture_and_its_mirror_image() -> None:
    plain, images = network(), torch.randn(5, 3, 4, 6)
    mirrored = torch.stack([image[:, :, [5, 4, 3, 2, 1, 0]] for image in images])
    expected = (plain(images) + plain(mirrored)) / 2
    torch.testing.assert_close(FlipAverage(plain)(images), expected)
    assert not torch.allclose(expected, plain(images))
    torch.testing.assert_close(FlipAverage(plain)(mirrored), expected)


def test_the_mean_is_computed_in_float32_whatever_the_network_gives() -> None:
    half = network().half()
    logits = FlipAverage(half)(torch.randn(2, 3, 4, 6).half())
    assert logits.dtype == torch.float32


def test_selected_outputs_come_in_the_order_named_and_leave_the_weights_as_they_are() -> None:
    plain, images = network(), torch.randn(5, 3, 4, 6)
    view = SelectedOutputs(plain, (6, 0, 3))
    assert torch.equal(view(images), plain(images)[:, [6, 0, 3]])
    assert set(view.state_dict()) == {f"network.{name}" for name in plain.state_dict()}
