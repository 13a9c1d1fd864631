"""The learning rate at every step, and one step of every optimizer, against closed forms."""

import copy
import math

import pytest
import torch
from torch import nn

from lib.optim import (
    OPTIMIZERS,
    OptimizerOptions,
    StepSchedule,
    build_optimizer,
    set_learning_rate,
    step_schedule,
)

CPU = torch.device("cpu")
PUBLISHED = StepSchedule(0.05, (30, 60, 90), 0.1)


def model():
    """A tiny network with fixed float64-representable weights of both signs."""
    network = nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.5, -0.25]]))
        network.bias.fill_(2.0)
    return network


def optimizer_of(network, name, **settings):
    """An optimizer with learning rate 0.1."""
    options = OptimizerOptions(name, **{"weight_decay": 0.01, **settings})
    return build_optimizer(network, options, learning_rate=0.1, device=CPU)


def stepped(network, optimizer, gradient=0.0):
    """The weights after one step in which each gradient is `gradient`."""
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()
    return [weight for p in network.parameters() for weight in p.detach().flatten().tolist()]


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 0.05), (0.5, 0.05), (29, 0.05), (29.99, 0.05),
        (30, 0.005), (30.01, 0.005), (59.99, 0.005),
        (60, 0.0005), (89.999, 0.0005),
        (90, 0.00005), (99.99, 0.00005), (1000, 0.00005),
    ],
)  # fmt: skip
def test_the_rate_drops_exactly_at_its_epochs(epoch, rate):
    """Pitfall 12."""
    assert PUBLISHED.learning_rate(epoch) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("num_steps", [1, 3, 11, 1251, 5005])
def test_the_rate_follows_the_closed_form_at_every_step(num_steps):
    """Pitfall 12: decay at epochs 30, 60 and 90, not a step earlier or later."""
    for epoch in (0, 29, 30, 59, 60, 89, 90, 99):
        expected = 0.05 / 10 ** (epoch // 30)
        for step in range(num_steps):
            rate = PUBLISHED.learning_rate(epoch + step / num_steps)
            assert math.isclose(rate, expected, rel_tol=1e-12)


@pytest.mark.parametrize("resumed_at", [29, 30, 31, 60, 90])
def test_a_resumed_run_has_the_rates_of_an_uninterrupted_one(resumed_at):
    """Pitfall 12: resumed before, at or after a drop; a new schedule remembers nothing."""
    whole = [PUBLISHED.learning_rate(epoch) for epoch in range(100)]
    resumed = StepSchedule(0.05, (30, 60, 90), 0.1)
    assert [resumed.learning_rate(e) for e in range(resumed_at, 100)] == whole[resumed_at:]


def test_a_schedule_without_milestones_is_constant():
    assert StepSchedule(0.3, (), 0.1).learning_rate(500) == 0.3


def test_the_rate_of_one_card_is_multiplied_by_the_cards():
    schedule = step_schedule(0.1, num_cards=8, milestones=[2], factor=0.5)
    assert [schedule.learning_rate(epoch) for epoch in (0, 1.9, 2)] == [0.8, 0.8, 0.4]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_starts_with_the_same_rate_and_decays_every_parameter(name):
    """Pitfall 7: one learning rate for every optimizer; weight decay reaches all of them."""
    network = model()
    optimizer = optimizer_of(network, name)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)
    assert group["params"] == list(network.parameters())


@pytest.mark.parametrize(
    ("name", "settings", "after"),
    [
        # A zero gradient leaves the decay g = 0.01 w alone; see each optimizer's definition.
        ("sgd", {"nesterov": False}, lambda w: w - 0.1 * 0.01 * w),
        ("sgd", {"nesterov": True, "momentum": 0.9}, lambda w: w - 0.1 * (1 + 0.9) * 0.01 * w),
        ("adam", {}, lambda w: w - 0.1 * 0.01 * w / (abs(0.01 * w) + 1e-8)),
        ("adamw", {}, lambda w: w * (1 - 0.1 * 0.01)),
        ("rmsprop", {}, lambda w: w - 0.1 * 0.01 * w / (math.sqrt(0.01) * abs(0.01 * w) + 1e-8)),
    ],
)
def test_weight_decay_alone_follows_its_closed_form(name, settings, after):
    """Pitfall 7: weight decay reaches adam too."""
    network = model()
    weights = stepped(network, optimizer_of(network, name, **settings))
    assert weights == pytest.approx([after(w) for w in (0.5, -0.25, 2.0)], rel=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_decay_a_zero_gradient_changes_nothing(name):
    network = model()
    weights = stepped(network, optimizer_of(network, name, weight_decay=0.0))
    assert weights == [0.5, -0.25, 2.0]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("sgd", 0.1 * (1 + 0.9) * 4.0),
        ("adam", 0.1),
        ("adamw", 0.1),
        ("rmsprop", 0.1 / math.sqrt(0.01)),
    ],
)
def test_a_first_step_without_decay_follows_its_closed_form(name, step):
    network = model()
    weights = stepped(network, optimizer_of(network, name, weight_decay=0.0), gradient=4.0)
    assert weights == pytest.approx([w - step for w in (0.5, -0.25, 2.0)], rel=1e-5)


@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.5), ("rmsprop", 0.5)])
def test_momentum_reaches_the_optimizers_that_have_one(name, momentum):
    network = model()
    optimizer = optimizer_of(network, name, momentum=momentum)
    assert optimizer.param_groups[0]["momentum"] == momentum


def test_frozen_parameters_are_left_out():
    network = model()
    network.bias.requires_grad_(False)
    (group,) = optimizer_of(network, "sgd").param_groups
    assert group["params"] == [network.weight]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_setting_the_rate_reaches_every_group(name):
    network = model()
    optimizer = optimizer_of(network, name)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_saved_and_restored_an_optimizer_continues_bit_by_bit(name):
    """Pitfall 15."""
    network = model()
    optimizer = optimizer_of(network, name)
    stepped(network, optimizer, gradient=1.0)
    twin, state = copy.deepcopy(network), copy.deepcopy(optimizer.state_dict())
    restored = optimizer_of(twin, name)
    restored.load_state_dict(state)
    for gradient in (0.5, -2.0):
        assert stepped(twin, restored, gradient) == stepped(network, optimizer, gradient)


def test_an_unknown_optimizer_names_the_known_ones():
    """Pitfall 5."""
    with pytest.raises(ValueError, match="'lion' is not one of sgd, adam, adamw, rmsprop"):
        optimizer_of(model(), "lion")


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ValueError, match="TRAIN.NESTEROV true needs TRAIN.MOMENTUM above 0"):
        optimizer_of(model(), "sgd", momentum=0.0)
    assert optimizer_of(model(), "adam", momentum=0.0)
