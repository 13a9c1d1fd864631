"""The moving average of weights against its recurrence and torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode

from lib.training.ema import AveragedWeights


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def one_step(network: nn.Module) -> None:
    """Move weights, averages of batch norms, and their counter."""
    network.train()
    network(torch.randn(2, 3, 4, 4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))


def state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("decay", [0.05, 0.15, 0.9, 0.9999])
def test_the_average_follows_its_recurrence_with_a_decay_that_rises(decay: float) -> None:
    """average <- d average + (1 - d) weights, d = min(decay, (1 + n) / (10 + n)); in float64."""
    network = small_network()
    average = AveragedWeights(network, decay)
    expected = {name: value.double() for name, value in state_of(network).items()}
    for n in range(12):
        one_step(network)
        average.update()
        d = min(decay, (1 + n) / (10 + n))
        for name, value in network.state_dict().items():
            expected[name] = d * expected[name] + (1 - d) * value.double()
    found = average.network.state_dict()
    for name, value in network.state_dict().items():
        wanted = expected[name] if value.is_floating_point() else value.double()
        torch.testing.assert_close(found[name].double(), wanted, rtol=1e-5, atol=1e-6)
    assert average.num_updates == 12


def test_after_the_rise_the_average_is_torchs_own() -> None:
    network, decay = small_network(), 0.9
    average = AveragedWeights(network, decay)
    average.num_updates = 10_000
    theirs = AveragedModel(
        network, avg_fn=lambda old, new, n: decay * old + (1 - decay) * new, use_buffers=False
    )
    theirs.update_parameters(network)  # its first only copies
    for _ in range(5):
        one_step(network)
        average.update()
        theirs.update_parameters(network)
    for ours, other in zip(average.network.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)


def test_batch_norms_averages_are_averaged_and_their_counters_the_networks() -> None:
    network = small_network()
    average = AveragedWeights(network, 0.5)
    begun = network[1].running_mean.clone()
    one_step(network)
    average.update()
    expected = 0.1 * begun + 0.9 * network[1].running_mean
    torch.testing.assert_close(average.network[1].running_mean, expected)
    assert int(average.network[1].num_batches_tracked) == 1


def test_the_network_is_left_as_it_is() -> None:
    network = small_network()
    average = AveragedWeights(network, 0.9)
    one_step(network)
    before = state_of(network)
    average.update()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in average.network.parameters())


def test_the_averaged_network_stays_in_evaluation_mode() -> None:
    average = AveragedWeights(small_network().train(), 0.9)
    assert not any(module.training for module in average.network.modules())


def test_an_average_goes_on_bit_by_bit_from_what_was_saved() -> None:
    """Pitfall 15."""
    network = small_network()
    average = AveragedWeights(network, 0.9)
    for _ in range(3):
        one_step(network)
        average.update()
    twin = copy.deepcopy(network)
    resumed = AveragedWeights(twin, 0.9)
    resumed.load(state_of(average.network), average.num_updates)
    for seed in range(3):
        for one, its_average in ((network, average), (twin, resumed)):
            torch.manual_seed(seed)
            one_step(one)
            its_average.update()
    ours, theirs = resumed.network.state_dict(), average.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_network_in_half_precision_is_averaged_in_single() -> None:
    """As with apex's O2, which casts the network after the average is begun."""
    network = small_network()
    average = AveragedWeights(network, 0.9)
    begun = network[0].weight.clone()
    network[0].half()
    average.update()
    found = average.network[0].weight
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, 0.1 * begun + 0.9 * begun.half().float())


def test_an_average_follows_parameters_whose_memory_an_optimizer_exchanges() -> None:
    """NpuFusedSGD does so in its first step."""
    network = small_network()
    average = AveragedWeights(network, 0.9)
    weight = network[0].weight
    weight.data = torch.full_like(weight, 7.0)
    begun = average.network[0].weight.clone()
    average.update()
    torch.testing.assert_close(average.network[0].weight, 0.1 * begun + 0.9 * 7.0)


class Transfers(TorchDispatchMode):
    """Counts what makes the host wait for a device, or sends something there."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waiting = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten._to_copy.default)
        self.count += function in waiting
        return function(*args, **(kwargs or {}))


def test_an_update_never_waits_for_the_device() -> None:
    """Pitfall 20."""
    average = AveragedWeights(small_network(), 0.9)
    with Transfers() as transfers:
        average.update()
        average.update()
    assert transfers.count == 0


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"TRAIN.EMA_DECAY: .* must be within \[0, 1\)"):
        AveragedWeights(small_network(), decay)
