"""Losses by labels and by a teacher, against torch's own and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.training.losses import Distillation, LabelLoss, Labels, class_weights

CLASSES = torch.tensor([2, 0, 4, 4, 1, 3, 2])
PARTNERS = torch.tensor([1, 1, 4, 0, 3, 3, 0])


def logits(seed: int = 0) -> Tensor:
    return 3 * torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))


def soft_targets(share: float) -> Tensor:
    own, partner = (F.one_hot(classes, 5).float() for classes in (CLASSES, PARTNERS))
    return share * own + (1 - share) * partner


def test_the_plain_loss_is_torchs_cross_entropy_to_the_bit() -> None:
    """What training has minimised so far."""
    expected = F.cross_entropy(logits(), CLASSES, reduction="none")
    assert torch.equal(LabelLoss()(logits(), Labels(CLASSES)), expected)


def test_smoothing_mixes_the_loss_with_the_mean_over_all_classes() -> None:
    found = LabelLoss(smoothing=0.1)(logits(), Labels(CLASSES))
    log_shares = logits().log_softmax(1)
    chosen = log_shares.gather(1, CLASSES[:, None])[:, 0]
    assert torch.allclose(found, -(0.9 * chosen + 0.1 * log_shares.mean(1)))
    expected = F.cross_entropy(logits(), CLASSES, label_smoothing=0.1, reduction="none")
    assert torch.equal(found, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_a_mixed_picture_is_that_of_its_soft_target(
    smoothing: float, weighted: bool
) -> None:
    weights = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0]) if weighted else None
    loss = LabelLoss(smoothing=smoothing, class_weights=weights)
    expected = F.cross_entropy(
        logits(), soft_targets(0.7), weight=weights, label_smoothing=smoothing, reduction="none"
    )
    found = loss(logits(), Labels(CLASSES, PARTNERS, 0.7))
    assert torch.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("share", "smoothing"), [(1.0, 0.0), (0.7, 0.0), (0.7, 0.1)])
def test_bce_is_torchs_over_all_classes_of_the_soft_target(share: float, smoothing: float) -> None:
    labels = Labels(CLASSES, None if share == 1 else PARTNERS, share)
    wanted = soft_targets(share) * (1 - smoothing) + smoothing / 5
    expected = F.binary_cross_entropy_with_logits(logits(), wanted)
    losses = LabelLoss("bce", smoothing)(logits(), labels)
    assert losses.shape == (7,)
    assert torch.allclose(losses.mean(), expected)


def test_class_weights_multiply_the_losses_of_their_class() -> None:
    weights = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0])
    for name in ("cross_entropy", "bce"):
        plain, weighted = (
            LabelLoss(name, class_weights=w)(logits(), Labels(CLASSES)) for w in (None, weights)
        )
        assert torch.allclose(weighted, plain * weights[CLASSES])


def test_an_accuracy_counts_the_class_with_the_larger_share() -> None:
    assert torch.equal(Labels(CLASSES).main, CLASSES)
    assert torch.equal(Labels(CLASSES, PARTNERS, 0.6).main, CLASSES)
    assert torch.equal(Labels(CLASSES, PARTNERS, 0.4).main, PARTNERS)


def test_balanced_weights_give_every_class_the_same_say_and_have_mean_1_over_the_pictures() -> None:
    counts = [10, 40, 50]
    weights = class_weights("balanced", counts)
    assert torch.allclose(weights, torch.tensor([100 / 30, 100 / 120, 100 / 150]))
    says = [float(weight) * count for weight, count in zip(weights, counts, strict=True)]
    assert says == pytest.approx([100 / 3] * 3)


@pytest.mark.parametrize("setting", ["1, 2.5, 1", "1 2.5 1", "[1, 2.5, 1]", "10, 25, 10"])
def test_weights_by_hand_keep_their_ratios_and_get_mean_1_over_the_pictures(setting: str) -> None:
    weights = class_weights(setting, [10, 40, 50])
    assert torch.allclose(weights / weights[0], torch.tensor([1.0, 2.5, 1.0]))
    assert float((weights * torch.tensor([10, 40, 50])).sum()) == pytest.approx(100)


def test_no_weights_are_none() -> None:
    assert class_weights("no", [1, 2]) is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("ballanced", "'ballanced' is none of no, balanced, and a number above 0 for each class"),
        ("1, 0", "'1, 0' is none of"),
        ("1, inf", "'1, inf' is none of"),
        ("1, nan", "'1, nan' is none of"),
        ("", "'' is none of"),
        ("1, 2, 3", "3 numbers, and the data has 2 classes"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_in_a_line(setting: str, said: str) -> None:
    with pytest.raises(ValueError, match="TRAIN.CLASS_WEIGHTS") as error:
        class_weights(setting, [3, 4])
    assert said in str(error.value) and "\n" not in str(error.value)


def entropy(shares: list[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_js_is_the_mixtures_entropy_less_the_mean_of_the_entropies(temperature: float) -> None:
    ours, theirs = logits(0), logits(1)
    found = Distillation("js", temperature).divergence(ours, theirs)
    for row in range(7):
        p, q = ((x[row] / temperature).softmax(0).tolist() for x in (ours, theirs))
        mean = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        expected = entropy(mean) - (entropy(p) + entropy(q)) / 2
        assert float(found[row]) == pytest.approx(temperature**2 * expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_is_the_sum_of_the_teachers_shares_times_the_log_of_the_ratios(
    temperature: float,
) -> None:
    ours, theirs = logits(0), logits(1)
    found = Distillation("kl", temperature).divergence(ours, theirs)
    for row in range(7):
        q, p = ((x[row] / temperature).softmax(0).tolist() for x in (ours, theirs))
        expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        assert float(found[row]) == pytest.approx(temperature**2 * expected, rel=1e-4)


def test_divergences_are_zero_for_equal_logits_and_finite_for_certain_ones() -> None:
    """Softmaxes of 0 and 1: js comes to its largest value, log 2."""
    certain = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
    for loss in ("js", "kl"):
        same = Distillation(loss).divergence(logits(), logits())
        assert torch.allclose(same, torch.zeros(7), atol=1e-6)
    ours = certain.clone().requires_grad_()
    losses = Distillation("js").divergence(ours, certain.flip(0))
    assert torch.allclose(losses, torch.full((2,), math.log(2)))
    losses.sum().backward()
    assert torch.isfinite(ours.grad).all()
    against = Distillation("kl").divergence(certain, certain.flip(0))
    assert torch.allclose(against, torch.full((2,), 200.0))


def test_kls_gradient_keeps_its_size_at_another_temperature() -> None:
    """Hinton et al., section 2.1: at high temperatures it tends to the difference of the logits."""
    ours, theirs = 0.1 * logits(0), 0.1 * logits(1)
    ours.requires_grad_()
    Distillation("kl", 50.0).divergence(ours, theirs).sum().backward()
    centred = [x - x.mean(1, keepdim=True) for x in (ours.detach(), theirs)]
    assert torch.allclose(ours.grad, (centred[0] - centred[1]) / 5, atol=2e-3)
