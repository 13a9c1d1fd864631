"""The parts of an HRNet: each parameter is in one, and frozen ones stay as they are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lib.models.folding import checkpoint_activations
from lib.models.hrnet import HRNet, build_hrnet
from lib.models.layer_groups import (
    PARTS,
    begin_training,
    depth_below_head,
    freeze,
    is_of_classifier,
)

ARCH = "hrnet_w18_small_v1"


@pytest.fixture(scope="module")
def network() -> HRNet:
    torch.manual_seed(0)
    return build_hrnet(ARCH, 5)


def trained(network: HRNet, names: list[str]) -> tuple[HRNet, HRNet]:
    """The network frozen in `names` before and after two steps of SGD."""
    before = copy.deepcopy(network)
    freeze(before, names)
    after = copy.deepcopy(before)
    optimizer = torch.optim.SGD([p for p in after.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):
        begin_training(after)
        optimizer.zero_grad()
        after(torch.randn(2, 3, 64, 64)).square().mean().backward()
        optimizer.step()
    return before, after


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    """The top modules of which a weight, an average or a counter has changed."""
    pairs = zip(before.state_dict().items(), after.state_dict().values(), strict=True)
    return {name.split(".")[0] for (name, old), new in pairs if not torch.equal(old, new)}


def test_every_parameter_has_a_part_and_every_part_parameters(network: HRNet) -> None:
    depths = {depth_below_head(name) for name, _ in network.named_parameters()}
    assert depths == set(range(6))
    assert depth_below_head("conv1.weight") == depth_below_head("bn2.bias") == 5
    assert depth_below_head("transition2.2.0.0.weight") == 2
    assert depth_below_head("classifier.weight") == depth_below_head("final_layer.0.bias") == 0


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        (["stem"], PARTS["stem"]),
        (["stem", "stage1"], (*PARTS["stem"], "layer1")),
        (["layer1", "stage2"], ("layer1", "transition1", "stage2")),
        (["stage3", "stage4"], ("transition2", "stage3", "transition3", "stage4")),
    ],
)
def test_frozen_parts_do_not_move_nor_do_the_averages_of_their_batch_norms(
    names: list[str], frozen: tuple[str, ...], network: HRNet
) -> None:
    everything = {name.split(".")[0] for name in network.state_dict()}
    assert changed(*trained(network, names)) == everything - set(frozen)


def test_a_frozen_backbone_leaves_the_classifier_alone_to_train(network: HRNet) -> None:
    before, after = trained(network, ["backbone"])
    assert changed(before, after) == {"classifier"}
    assert {name for name, p in after.named_parameters() if p.requires_grad} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_nothing_frozen_is_plain_training_mode(network: HRNet) -> None:
    plain = copy.deepcopy(network).eval()
    begin_training(plain)
    assert all(module.training for module in plain.modules())


@pytest.mark.parametrize("names", [["stem", "layer1"], ["stem", "stage2"], ["backbone"]])
def test_frozen_parts_go_with_maps_that_are_computed_again(
    names: list[str], network: HRNet
) -> None:
    """TRAIN.CHECKPOINT_ACTIVATIONS: the same gradients."""
    plain = copy.deepcopy(network)
    freeze(plain, names)
    sparing = checkpoint_activations(copy.deepcopy(plain))
    images = torch.randn(2, 3, 64, 64)
    for one in (plain, sparing):
        begin_training(one)
        one(images).square().mean().backward()
    assert changed(plain, sparing) == set()
    for (name, ours), theirs in zip(sparing.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None) == (not ours.requires_grad), name
        assert ours.grad is None or torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_only_the_classifiers_own_parameters_are_the_classifiers() -> None:
    assert is_of_classifier("classifier.bias")
    assert not is_of_classifier("final_layer.0.weight")


def test_an_unknown_part_names_the_known_ones(network: HRNet) -> None:
    """Pitfall 5."""
    with pytest.raises(
        ValueError, match="MODEL.FREEZE: 'stage5' is not one of stem, layer1, "
    ) as e:
        freeze(network, ["stem", "stage5"])
    assert "\n" not in str(e.value)
