"""Mixup and CutMix: what is mixed, how often, and with which shares."""

from __future__ import annotations

import pytest
import torch

from lib.data.normalize import Normalize
from lib.training.mixing import Mix, Mixing, mixed, partners

SIDE, NUM_DRAWS = 224, 20_000


def pictures(num_images: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_images, 12, 10, 3), dtype=torch.uint8, generator=generator)


def draws(mixing: Mixing, num_draws: int = NUM_DRAWS, side: int = SIDE) -> list[Mix]:
    drawn = (mixing.draw(0, step, height=side, width=side) for step in range(num_draws))
    return [mix for mix in drawn if mix is not None]


def test_mixup_is_share_times_a_plus_the_rest_times_b_of_what_is_normalised() -> None:
    images, normalize = pictures(), Normalize()
    found = normalize(mixed(images, Mix(0.3)))
    for number in range(5):
        own, partner = normalize(images)[number], normalize(images)[4 - number]
        assert torch.allclose(found[number], 0.3 * own + 0.7 * partner, atol=1e-5)


def test_cutmix_takes_the_box_from_the_partner_and_leaves_the_rest() -> None:
    images = pictures()
    found = mixed(images, Mix(0.5, (2, 3, 7, 11)))
    assert found.dtype == torch.uint8
    inside = torch.zeros(12, 10, dtype=torch.bool)
    inside[3:11, 2:7] = True
    for number in range(5):
        assert torch.equal(found[number][inside], images[4 - number][inside])
        assert torch.equal(found[number][~inside], images[number][~inside])


@pytest.mark.parametrize("mix", [Mix(0.3), Mix(0.5, (2, 3, 7, 11))])
def test_the_batch_itself_is_left_as_it_is(mix: Mix) -> None:
    images = pictures()
    mixed(images, mix)
    assert torch.equal(images, pictures())


def test_partners_classes_are_those_of_the_pictures_mixed_in() -> None:
    images, targets = pictures(4), torch.tensor([3, 1, 4, 2])
    whole = mixed(images, Mix(0.0, (0, 0, 10, 12)))
    for number, target in enumerate(partners(targets).tolist()):
        source = targets.tolist().index(target)
        assert torch.equal(whole[number], images[source])


def test_a_mix_depends_on_seed_epoch_step_and_rank_and_on_nothing_else() -> None:
    """Pitfall 13: a resume in mid-epoch draws what an uninterrupted run draws."""
    mixing = Mixing(mixup=1.0)
    first = mixing.draw(3, 7, height=SIDE, width=SIDE)
    torch.rand(5)
    assert Mixing(mixup=1.0).draw(3, 7, height=SIDE, width=SIDE) == first
    others = [
        mixing.draw(4, 7, height=SIDE, width=SIDE),
        mixing.draw(3, 8, height=SIDE, width=SIDE),
        Mixing(mixup=1.0, seed=1).draw(3, 7, height=SIDE, width=SIDE),
        Mixing(mixup=1.0, rank=1).draw(3, 7, height=SIDE, width=SIDE),
    ]
    assert len({first, *others}) == 5


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_of_mixup_have_the_betas_mean_and_variance(alpha: float) -> None:
    shares = torch.tensor([mix.share for mix in draws(Mixing(mixup=alpha))])
    variance = 1 / (4 * (2 * alpha + 1))
    assert float(shares.mean()) == pytest.approx(0.5, abs=4 * (variance / NUM_DRAWS) ** 0.5)
    assert float(shares.var()) == pytest.approx(variance, rel=0.05)


def test_a_share_of_cutmix_is_exactly_the_area_outside_its_box() -> None:
    for mix in draws(Mixing(cutmix=1.0), 500, side=33):
        left, top, right, bottom = mix.box
        assert 0 <= left <= right <= 33 and 0 <= top <= bottom <= 33
        assert mix.share == 1 - (right - left) * (bottom - top) / 33**2


def test_cutmixs_areas_have_the_mean_that_beta_and_the_edges_give() -> None:
    """A side of s x the picture's loses s^2 / 4 of it at the edges in the mean.

    With s^2 uniform, as Beta(1, 1) is: the mean of (s - s^2 / 4)^2 is 1/2 - 1/5 + 1/48.
    """
    areas = [1 - mix.share for mix in draws(Mixing(cutmix=1.0))]
    assert sum(areas) / NUM_DRAWS == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.006)


def test_so_many_batches_are_mixed_as_the_probability_says() -> None:
    num_mixed = len(draws(Mixing(mixup=0.2, prob=0.3)))
    assert num_mixed / NUM_DRAWS == pytest.approx(0.3, abs=0.015)
    assert draws(Mixing(mixup=0.2, cutmix=1.0, prob=0.0)) == []


@pytest.mark.parametrize("prob", [0.0, 0.25, 1.0])
def test_where_both_are_on_cutmix_comes_with_the_switching_probability(prob: float) -> None:
    mixes = draws(Mixing(mixup=0.2, cutmix=1.0, switch_prob=prob))
    assert len(mixes) == NUM_DRAWS
    by_box = sum(mix.box is not None for mix in mixes) / NUM_DRAWS
    assert by_box == pytest.approx(prob, abs=0.013 if 0 < prob < 1 else 0)


def test_where_one_is_on_the_switching_probability_means_nothing() -> None:
    assert all(mix.box is None for mix in draws(Mixing(mixup=0.2, switch_prob=1.0), 50))
    assert all(mix.box is not None for mix in draws(Mixing(cutmix=0.2, switch_prob=0.0), 50))


def test_nothing_is_mixed_by_default() -> None:
    assert draws(Mixing(), 50) == []
