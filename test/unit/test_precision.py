"""fp32, hf32, fp16 and bf16 steps on the CPU, and apex against a stand-in of its interface."""

import contextlib
import copy
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lib.runtime import device as devices
from lib.runtime.precision import Precision
from lib.training.optim import OptimizerOptions, build_optimizer

CPU = torch.device("cpu")


def setting(name="fp16", optimizer="sgd"):
    """A precision, a tiny network and its optimizer."""
    torch.manual_seed(0)
    network = nn.Linear(4, 3)
    options = OptimizerOptions(optimizer, weight_decay=0.0)
    built = build_optimizer(network, options, learning_rate=0.01, device=CPU)
    return Precision(name, CPU), network, built


def step(precision, network, optimizer, factor=1e-3):
    """One training step whose gradients are in proportion to `factor`."""
    with precision.autocast():
        outputs = network(torch.ones(2, 4))
    take_step(precision, optimizer, outputs.float().mean() * factor)
    return outputs


def take_step(precision, optimizer, *losses):
    """One step on losses whose gradients add up; a loss may be a function that computes it."""
    precision.clear_gradients(optimizer)
    for loss in losses:
        precision.backward(loss() if callable(loss) else loss, optimizer)
    precision.step(optimizer)


def weights_of(network):
    return [p.detach().clone() for p in network.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Transfers(TorchDispatchMode):
    """Counts the operation by which one number leaves a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("fp32", torch.float32),
        ("hf32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
    ],
)
def test_the_forward_pass_has_the_types_dtype_and_weights_stay_float32(name, dtype):
    precision, network, optimizer = setting(name)
    assert step(precision, network, optimizer).dtype is dtype
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in network.parameters()} == {torch.float32}


def test_auto_is_fp32_on_the_cpu():
    assert Precision("auto", CPU).name == "fp32"


def test_an_unknown_precision_names_the_known_ones():
    """Pitfall 5."""
    with pytest.raises(ValueError, match="'int8' is not one of auto, fp32, hf32, fp16, bf16"):
        Precision("int8", CPU)


@pytest.mark.parametrize(("name", "allowed"), [("fp32", False), ("hf32", True)])
def test_fp32_forbids_hf32_and_hf32_allows_it(name, allowed, monkeypatch):
    """Pitfall 9: each of the two means what it says."""
    asked = []
    monkeypatch.setattr(devices, "allow_hf32", lambda device, allowed: asked.append(allowed))
    Precision(name, CPU)
    assert asked == [allowed]


def test_precisions_describe_themselves():
    words = {name: Precision(name, CPU).describe() for name in ("fp32", "hf32", "fp16", "bf16")}
    assert words["fp16"] == "fp16 (autocast, dynamic loss scale)"
    assert "this device has no hf32" in words["hf32"]
    assert words["fp32"] == "fp32" and words["bf16"] == "bf16 (autocast)"


def test_an_fp32_step_is_the_plain_step():
    precision, network, optimizer = setting("fp32")
    twin = copy.deepcopy(network)
    step(precision, network, optimizer)
    (twin(torch.ones(2, 4)).mean() * 1e-3).backward()
    expected = [p - 0.01 * 1.9 * p.grad for p in twin.parameters()]
    for got, wanted in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(got.detach(), wanted.detach())


def test_gradients_of_one_step_do_not_leak_into_the_next():
    precision, network, optimizer = setting("fp32")
    step(precision, network, optimizer, factor=1.0)
    first = [p.grad.clone() for p in network.parameters()]
    step(precision, network, optimizer, factor=1.0)
    assert same(first, [p.grad for p in network.parameters()])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_an_fp16_step_that_overflows_is_left_out_and_halves_the_scale(optimizer):
    """Pitfall 23: the loss scale is dynamic."""
    precision, network, built = setting("fp16", optimizer)
    step(precision, network, built)
    before, scale = weights_of(network), precision.loss_scale().item()
    assert scale == 65536.0
    step(precision, network, built, factor=1e30)
    assert same(before, weights_of(network))
    assert precision.loss_scale().item() == scale / 2
    step(precision, network, built)
    assert not same(before, weights_of(network))


def test_an_fp16_step_gives_the_weights_of_an_fp32_one_nearly():
    results = {}
    for name in ("fp16", "fp32"):
        precision, network, optimizer = setting(name)
        step(precision, network, optimizer)
        results[name] = weights_of(network)
    for half, full in zip(results["fp16"], results["fp32"], strict=True):
        torch.testing.assert_close(half, full, rtol=0, atol=1e-6)


def test_the_loss_scale_without_a_scaler_is_one():
    for name in ("fp32", "hf32", "bf16"):
        assert Precision(name, CPU).loss_scale().item() == 1.0


def test_the_state_of_the_loss_scale_survives_a_resume():
    """Pitfalls 15 and 23: its state is saved, in plain types, and continues where it was."""
    precision, network, optimizer = setting("fp16")
    for factor in (1e30, 1e30, 1e-3):
        step(precision, network, optimizer, factor)
    state = precision.state_dict()
    assert all(isinstance(v, (int, float)) for v in state["scaler"].values())
    resumed = Precision("fp16", CPU)
    resumed.load_state_dict(state)
    assert resumed.loss_scale().item() == 65536.0 / 4
    assert resumed.state_dict() == state
    assert state["scaler"]["_growth_tracker"] == 1


def test_a_state_saved_before_the_first_step_is_that_of_a_new_scaler():
    """Pitfall 15."""
    fresh = Precision("fp16", CPU)
    other = Precision("fp16", CPU)
    other.load_state_dict(fresh.state_dict())
    assert other.loss_scale().item() == 65536.0


@pytest.mark.parametrize(("saved", "present"), [("fp16", "fp32"), ("fp32", "fp16")])
def test_a_state_of_another_precision_is_left_aside(saved, present):
    precision = Precision(present, CPU)
    before = precision.state_dict()
    precision.load_state_dict(Precision(saved, CPU).state_dict())
    assert precision.state_dict() == before


def test_a_precision_without_a_scaler_has_no_state():
    assert Precision("bf16", CPU).state_dict() == {}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_scaled_step_with_a_fused_optimizer_never_waits_for_the_device(optimizer):
    """Pitfall 20: overflow is decided on the device, and the scale is read there."""
    precision, network, built = setting("fp16", optimizer)
    step(precision, network, built)
    with Transfers() as transfers:
        step(precision, network, built)
        step(precision, network, built, factor=1e30)
        precision.loss_scale()
    assert transfers.count == 0


def test_gradients_are_zeroed_in_place_where_the_optimizer_needs_it(monkeypatch):
    precision, network, optimizer = setting("fp32")
    step(precision, network, optimizer)
    kept = [p.grad for p in network.parameters()]
    monkeypatch.setattr(devices, "keeps_gradients", lambda optimizer: True)
    step(precision, network, optimizer)
    assert all(p.grad is g for p, g in zip(network.parameters(), kept, strict=True))


def clipped(name, max_grad_norm, factor, num_losses=1):
    """The gradients' norm and the weights after one step whose gradients are limited."""
    _, network, optimizer = setting(name)
    precision = Precision(name, CPU, max_grad_norm=max_grad_norm)

    def loss():
        with precision.autocast():
            outputs = network(torch.ones(2, 4))
        return outputs.float().mean() * factor / num_losses

    take_step(precision, optimizer, *[loss] * num_losses)
    norm = torch.stack([p.grad.norm() for p in network.parameters()]).norm().item()
    return norm, weights_of(network)


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16"])
def test_gradients_are_limited_to_the_norm_asked_for_after_the_loss_scale(name):
    """The gradient of a mean of 3 outputs over ones: 15 values of 1/3, norm sqrt(15) / 3."""
    norm, _ = clipped(name, 0.01, factor=1.0)
    assert norm == pytest.approx(0.01, rel=1e-3)
    norm, _ = clipped(name, 10.0, factor=1.0)
    assert norm == pytest.approx(15**0.5 / 3, rel=1e-2)


def test_a_limited_step_is_the_one_with_torchs_own_clipping():
    _, limited = clipped("fp32", 0.05, factor=3.0)
    _, network, optimizer = setting("fp32")
    (network(torch.ones(2, 4)).mean() * 3.0).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 0.05)
    optimizer.step()
    assert same(limited, weights_of(network))


def test_gradients_below_the_limit_give_the_very_step_without_one():
    _, limited = clipped("fp32", 1e6, factor=1.0)
    _, free = clipped("fp32", 0.0, factor=1.0)
    assert same(limited, free)


def test_the_limit_is_on_the_sum_of_the_parts_of_a_batch():
    """TRAIN.ACCUM_STEPS: the whole batch's gradient is limited, once."""
    whole_norm, whole = clipped("fp32", 0.1, factor=2.0)
    norm, in_parts = clipped("fp32", 0.1, factor=2.0, num_losses=4)
    assert norm == pytest.approx(whole_norm, rel=1e-5)
    for ours, theirs in zip(in_parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_fp16_step_that_overflows_is_left_out_with_a_limit_too():
    """Pitfall 23."""
    _, network, optimizer = setting("fp16")
    precision = Precision("fp16", CPU, max_grad_norm=1.0)
    step(precision, network, optimizer)
    before = weights_of(network)
    step(precision, network, optimizer, factor=1e30)
    assert same(before, weights_of(network))
    assert precision.loss_scale().item() == 65536.0 / 2
    step(precision, network, optimizer)
    assert not same(before, weights_of(network))


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_limiting_gradients_never_waits_for_the_device(name):
    """Pitfall 20."""
    _, network, optimizer = setting(name)
    precision = Precision(name, CPU, max_grad_norm=0.1)
    step(precision, network, optimizer)
    with Transfers() as transfers:
        step(precision, network, optimizer, factor=10.0)
    assert transfers.count == 0


@pytest.fixture
def apex(monkeypatch):
    """A stand-in with the part of apex.amp's published interface that is used here."""
    amp = ModuleType("apex.amp")
    amp.scale, amp.calls = 128.0, []

    def initialize(models, optimizers, *, opt_level, loss_scale, verbosity):
        amp.calls.append((opt_level, loss_scale))

        def new_zero_grad():  # like apex's, it takes no argument
            for group in optimizers.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

        optimizers.zero_grad = new_zero_grad
        return models, optimizers

    @contextlib.contextmanager
    def scale_loss(loss, optimizers):
        amp.calls.append("scale_loss")
        yield loss * amp.scale
        for group in optimizers.param_groups:
            for parameter in group["params"]:
                parameter.grad.div_(amp.scale)

    def master_params(optimizer):
        for group in optimizer.param_groups:
            yield from group["params"]

    amp.initialize, amp.scale_loss, amp.master_params = initialize, scale_loss, master_params
    amp.state_dict = lambda: {"loss_scaler0": {"loss_scale": amp.scale, "unskipped": 7}}
    amp.load_state_dict = lambda state: setattr(amp, "scale", state["loss_scaler0"]["loss_scale"])
    package = ModuleType("apex")
    package.amp = amp
    monkeypatch.setitem(sys.modules, "apex", package)
    monkeypatch.setitem(sys.modules, "apex.amp", amp)
    return amp


def test_apex_takes_the_place_of_autocast_and_scaler(apex):
    """Pitfall 23: the dynamic loss scale is apex's own then."""
    _, network, optimizer = setting("fp32")
    expected = copy.deepcopy(network)
    precision = Precision("fp16", CPU, backend="apex")
    model, optimizer = precision.prepare(network, optimizer)
    assert model is network
    assert apex.calls == [("O2", "dynamic")]
    assert isinstance(precision.autocast(), contextlib.nullcontext)
    for p in network.parameters():
        p.grad = torch.full_like(p, 9.0)
    step(precision, network, optimizer, factor=1.0)
    expected(torch.ones(2, 4)).mean().backward()
    for got, wanted in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad)
        torch.testing.assert_close(got.detach(), (wanted - 0.01 * 1.9 * wanted.grad).detach())
    assert precision.describe() == "fp16 (apex O2, dynamic loss scale)"


def test_apexs_state_is_saved_and_put_back(apex):
    """Pitfalls 15 and 23."""
    precision = Precision("fp16", CPU, backend="apex")
    state = copy.deepcopy(precision.state_dict())
    assert precision.loss_scale().item() == 128.0
    apex.scale = 1.0
    precision.load_state_dict(state)
    assert precision.loss_scale().item() == apex.scale == 128.0
    precision.load_state_dict(Precision("fp16", CPU).state_dict())
    assert apex.scale == 128.0


def test_torchs_mixed_precision_leaves_model_and_optimizer_as_they_are():
    precision, network, optimizer = setting("fp16")
    assert precision.prepare(network, optimizer) == (network, optimizer)


def test_torch_takes_over_where_apex_is_not_installed_and_says_so(monkeypatch):
    """Pitfall 11: apex is imported only where it is asked for."""
    monkeypatch.setitem(sys.modules, "apex", None)
    precision = Precision("fp16", CPU, backend="apex")
    assert not precision.uses_apex and "scaler" in precision.state_dict()
    assert precision.describe().endswith("; apex is not installed")
    assert "apex" not in Precision("fp16", CPU).describe()


def test_apexs_master_gradients_are_limited_after_it_has_unscaled_them(apex):
    _, network, optimizer = setting("fp32")
    precision = Precision("fp16", CPU, backend="apex", max_grad_norm=0.05)
    network, optimizer = precision.prepare(network, optimizer)
    step(precision, network, optimizer, factor=3.0)
    norm = torch.stack([p.grad.norm() for p in network.parameters()]).norm().item()
    assert norm == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("name", ["fp32", "hf32", "bf16"])
def test_apex_concerns_fp16_alone(name, apex):
    assert not Precision(name, CPU, backend="apex").uses_apex


def test_an_overflow_on_the_first_step_leaves_no_trace_in_the_momentum():
    """Pitfall 23: torch's fused SGD makes its buffers of uninitialised memory in that step."""
    linear = torch.nn.Linear(64, 64)
    optimizer = devices.sgd(
        linear.parameters(), CPU, lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=True
    )
    plain = torch.optim.SGD(
        (copy.deepcopy(p) for p in linear.parameters()), lr=0.1, momentum=0.9, nesterov=True
    )
    precision = Precision("fp16", CPU)
    take_step(precision, optimizer, linear(torch.ones(1, 64)).sum() * float("inf"))
    for _ in range(3):
        for ours, theirs in zip(linear.parameters(), plain.param_groups[0]["params"], strict=True):
            theirs.grad = torch.full_like(ours, 0.5)
        take_step(precision, optimizer, sum(p.sum() for p in linear.parameters()) * 0.5)
        plain.step()
    for ours, theirs in zip(linear.parameters(), plain.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_npu_takes_the_scaler_of_its_own_library(monkeypatch):
    """Pitfall 23: on Ascend 910A only that scaler sees an overflow."""
    scaler = SimpleNamespace(state_dict=lambda: {"scale": 2.0, "dynamic": True})
    monkeypatch.setattr(devices, "grad_scaler", lambda device: scaler)
    assert Precision("fp16", CPU).state_dict() == {"scaler": {"scale": 2.0, "dynamic": True}}
