"""One step of every optimizer, and of groups of parameters, against closed forms."""

import copy
import math

import pytest
import torch
from torch import nn

from lib.models.hrnet import build_hrnet
from lib.training.optim import (
    OPTIMIZERS,
    GroupRules,
    OptimizerOptions,
    build_optimizer,
    check_same_groups,
    set_learning_rate,
)

CPU = torch.device("cpu")


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


@pytest.fixture(scope="module")
def hrnet():
    """A small HRNet of five classes."""
    torch.manual_seed(0)
    return build_hrnet("hrnet_w18_small_v1", 5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_by_default_all_parameters_are_one_group_as_ever(name, hrnet):
    """Pitfall 15: checkpoints of earlier releases hold one group without further keys."""
    (group,) = optimizer_of(hrnet, name).param_groups
    assert group["params"] == list(hrnet.parameters())
    assert group.keys() == (optimizer_of(model(), name).defaults | {"params": 0}).keys()


def settings_of(network, optimizer):
    """{parameter name: (its rate, its weight decay)}."""
    name_of = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        name_of[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_norms_and_biases_can_go_without_weight_decay(name, hrnet):
    optimizer = optimizer_of(hrnet, name, rules=GroupRules(decays_vectors=False))
    decays = {name: decay for name, (_, decay) in settings_of(hrnet, optimizer).items()}
    assert decays == {
        name: 0.01 if parameter.dim() > 1 else 0.0 for name, parameter in hrnet.named_parameters()
    }
    assert decays["bn1.weight"] == decays["classifier.bias"] == decays["final_layer.0.bias"] == 0
    assert decays["conv1.weight"] == decays["classifier.weight"] == 0.01


def test_rates_fall_from_the_head_to_the_stem_and_the_classifiers_is_its_own(hrnet):
    rules = GroupRules(classifier_factor=10.0, layer_decay=0.5)
    optimizer = optimizer_of(hrnet, "sgd", rules=rules)
    set_learning_rate(optimizer, 0.32)
    rates = {name: rate for name, (rate, _) in settings_of(hrnet, optimizer).items()}
    assert rates.keys() == dict(hrnet.named_parameters()).keys()
    expected = {
        "conv1.weight": 0.01, "bn2.bias": 0.01, "layer1.0.conv1.weight": 0.02,
        "transition1.0.0.weight": 0.04, "stage2.0.branches.0.0.conv1.weight": 0.04,
        "transition2.2.0.0.weight": 0.08, "stage3.0.branches.2.0.bn1.weight": 0.08,
        "transition3.3.0.0.weight": 0.16, "stage4.0.branches.3.1.bn2.bias": 0.16,
        "incre_modules.0.0.conv1.weight": 0.32, "final_layer.1.weight": 0.32,
        "classifier.weight": 3.2, "classifier.bias": 3.2,
    }  # fmt: skip
    assert {name: rates[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert len(set(rates.values())) == 7


def test_a_step_of_groups_is_the_one_computed_by_hand(hrnet):
    """w - rate (g + decay w), with a gradient of 1 everywhere."""
    network = copy.deepcopy(hrnet)
    rules = GroupRules(decays_vectors=False, classifier_factor=2.0, layer_decay=0.5)
    optimizer = optimizer_of(network, "sgd", momentum=0.0, nesterov=False, rules=rules)
    set_learning_rate(optimizer, 0.1)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    after = dict(network.named_parameters())
    for name, rate, decay in (
        ("conv1.weight", 0.1 / 32, 0.01),
        ("bn1.weight", 0.1 / 32, 0.0),
        ("stage4.0.branches.0.0.conv1.weight", 0.05, 0.01),
        ("final_layer.0.bias", 0.1, 0.0),
        ("classifier.weight", 0.2, 0.01),
        ("classifier.bias", 0.2, 0.0),
    ):
        expected = before[name] - rate * (1 + decay * before[name])
        torch.testing.assert_close(after[name].detach(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_groups_saved_and_restored_continue_bit_by_bit(name):
    """Pitfall 15."""
    rules = GroupRules(decays_vectors=False)
    network = model()
    optimizer = optimizer_of(network, name, rules=rules)
    stepped(network, optimizer, gradient=1.0)
    twin, state = copy.deepcopy(network), copy.deepcopy(optimizer.state_dict())
    restored = optimizer_of(twin, name, rules=rules)
    check_same_groups(restored, state)
    restored.load_state_dict(state)
    for gradient in (0.5, -2.0):
        assert stepped(twin, restored, gradient) == stepped(network, optimizer, gradient)


def test_a_state_of_other_groups_is_refused_in_one_line_that_names_the_keys():
    saved = optimizer_of(model(), "sgd").state_dict()
    optimizer = optimizer_of(model(), "sgd", rules=GroupRules(decays_vectors=False))
    with pytest.raises(
        ValueError, match=r"groups of \[2\], this run's of \[1, 1\].*FREEZE"
    ) as error:
        check_same_groups(optimizer, saved)
    assert "\n" not in str(error.value)
