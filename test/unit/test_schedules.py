"""The learning rate at every step, against closed forms and torch's own schedulers."""

import math
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from lib.config.load import load_config
from lib.config.schedules import (
    SCHEDULES,
    ScheduleOptions,
    StepSchedule,
    build_schedule,
    run_schedule,
)

PUBLISHED = StepSchedule(0.05, (30, 60, 90), 0.1)
NUM_STEPS = 7  # an epoch


def schedule(name="cosine", num_cards=1, **settings):
    """A schedule over 10 epochs from a rate of 0.4."""
    options = {"rate": 0.4, "num_epochs": 10, "milestones": [3, 6], **settings}
    return build_schedule(ScheduleOptions(name, **options), num_cards=num_cards)


def every_step(rates, num_epochs=10):
    """The rate of each step of a run."""
    steps = range(num_epochs * NUM_STEPS)
    return [rates.learning_rate(step // NUM_STEPS + step % NUM_STEPS / NUM_STEPS) for step in steps]


def rates_of_torch(make, num_epochs=10):
    """The rate of each step that a scheduler of torch gives, stepped after every step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler, rates = make(optimizer), []
    for _ in range(num_epochs * NUM_STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


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


def test_the_defaults_are_the_step_schedule_alone():
    """Pitfall 12: to the bit, as before there were others."""
    assert run_schedule(load_config(), 4) == StepSchedule(0.05 * 4, (30, 60, 90), 0.1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_of_one_card_are_multiplied_by_the_cards(name):
    one = schedule(name, least=0.01, warmup_epochs=2.0)
    eight = schedule(name, num_cards=8, least=0.01, warmup_epochs=2.0)
    assert every_step(eight) == pytest.approx([8 * rate for rate in every_step(one)], rel=1e-12)


@pytest.mark.parametrize("least", [0.0, 0.03])
def test_a_cosine_is_torchs_at_every_step(least):
    expected = rates_of_torch(
        lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10 * NUM_STEPS, eta_min=least)
    )
    assert every_step(schedule(least=least)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.9])
def test_a_polynomial_is_torchs_at_every_step(power):
    expected = rates_of_torch(
        lambda o: lr_scheduler.PolynomialLR(o, total_iters=10 * NUM_STEPS, power=power)
    )
    assert every_step(schedule("poly", power=power)) == pytest.approx(expected, rel=1e-9)


def test_a_polynomial_ends_at_the_least_rate():
    rates = schedule("poly", least=0.1, power=2.0)
    assert rates.learning_rate(5) == pytest.approx(0.1 + 0.3 * 0.25)
    assert rates.learning_rate(10) == pytest.approx(0.1)


def test_warm_up_and_cosine_are_torchs_one_after_the_other():
    warm_steps = 2 * NUM_STEPS

    def both(optimizer):
        rising = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=warm_steps)
        falling = lr_scheduler.CosineAnnealingLR(optimizer, T_max=8 * NUM_STEPS)
        return lr_scheduler.SequentialLR(optimizer, [rising, falling], milestones=[warm_steps])

    with warnings.catch_warnings():  # of the order in which SequentialLR calls its own
        warnings.simplefilter("ignore")
        expected = rates_of_torch(both)
    found = every_step(schedule(warmup_epochs=2.0, warmup_factor=0.01))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_rises_evenly_at_every_step_and_ends_without_a_jump(name):
    rates = every_step(schedule(name, warmup_epochs=1.5, warmup_factor=0.1))
    num_warm = math.ceil(1.5 * NUM_STEPS)
    expected = [0.4 * (0.1 + 0.9 * step / (1.5 * NUM_STEPS)) for step in range(num_warm)]
    assert rates[:num_warm] == pytest.approx(expected, rel=1e-12)
    assert rates[num_warm] == pytest.approx(0.4, rel=0.01)
    assert max(rates) <= 0.4


def test_a_step_schedule_drops_at_the_runs_epochs_with_a_warm_up_too():
    rates = schedule("step", warmup_epochs=2.0)
    assert [rates.learning_rate(e) for e in (2, 2.9, 3, 6)] == pytest.approx([0.4, 0.4, 0.04, 4e-3])


@pytest.mark.parametrize("name", ["cosine", "poly"])
def test_the_rate_changes_at_every_step_and_never_leaves_its_bounds(name):
    rates = every_step(schedule(name, least=0.02, power=1.5))
    assert all(later < earlier for earlier, later in zip(rates, rates[1:], strict=False))
    assert rates[0] == pytest.approx(0.4) and rates[-1] > 0.02
    assert schedule(name, least=0.02, power=1.5).learning_rate(99) == pytest.approx(0.02)


def test_a_run_shorter_than_its_warm_up_only_warms_up():
    """As a performance run of one epoch does with the recipe of a long one."""
    rates = [schedule(warmup_epochs=20.0, num_epochs=1).learning_rate(e) for e in (0, 0.5, 0.9)]
    assert rates == pytest.approx([0.0, 0.4 * 0.5 / 20, 0.4 * 0.9 / 20])


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("step", {}, "times 0.1 at epochs [3, 6]"),
        ("cosine", {"least": 0.01}, "along a cosine to 0.01"),
        ("poly", {"power": 2.0}, "as a polynomial of power 2 to 0"),
        (
            "cosine",
            {"warmup_epochs": 1.5, "warmup_factor": 0.1},
            "rising from 0.1 of it over 1.5 epochs, then along a cosine to 0",
        ),
        (
            "cosine",
            {"warmup_epochs": 1.0, "warmup_factor": 0.1},
            "rising from 0.1 of it over 1 epoch, then along a cosine to 0",
        ),
    ],
)
def test_a_schedule_says_what_it_does(name, settings, words):
    assert schedule(name, **settings).describe() == words


def test_an_unknown_schedule_names_the_known_ones():
    """Pitfall 5."""
    with pytest.raises(ValueError, match="'linear' is not one of step, cosine, poly"):
        schedule("linear")
