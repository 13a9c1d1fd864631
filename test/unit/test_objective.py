"""What a training step minimises: mixed pictures, a teacher's word, and batches in parts."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.data.loading import Batch
from lib.data.normalize import Normalize
from lib.evaluation.forward import ForwardPass
from lib.runtime.distributed import Processes
from lib.runtime.environment import RankInfo
from lib.runtime.precision import Precision
from lib.training.losses import Distillation, LabelLoss, Labels, Teacher
from lib.training.mixing import Mix, Mixing, mixed
from lib.training.objective import Objective, split_batch

CPU, AT = torch.device("cpu"), (2, 5)
MIXUP, CUTMIX = Mixing(mixup=0.8), Mixing(cutmix=1.0)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 6, 5))


def batch(num_images: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (num_images, 8, 6, 3), dtype=torch.uint8, generator=generator)
    return Batch(pictures, torch.randint(0, 5, (num_images,), generator=generator), [])


def setting(precision: str = "fp32") -> ForwardPass:
    return ForwardPass(Processes(RankInfo(), CPU), Precision(precision, CPU), Normalize())


def teacher(loss: str = "js", weight: float = 1.0, temperature: float = 1.0) -> Teacher:
    fixed = network(1).requires_grad_(False).eval()
    return Teacher(fixed, Distillation(loss, temperature, weight), "ab", "")


@dataclass
class Step:
    """What a batch comes to in each of its micro-batches, and the gradient of its mean loss."""

    targets: list[torch.Tensor] = field(default_factory=list)  # those that count as right
    losses: list[torch.Tensor] = field(default_factory=list)
    gradient: torch.Tensor | None = None


def step(objective: Objective, *, num_micro_batches: int = 1, precision: str = "fp32") -> Step:
    """The batch, computed by a network of seed 0 in the loop's order."""
    model, forward_pass, done = network(0), setting(precision), Step()
    whole = objective.mixed_batch(batch(), forward_pass, epoch=AT[0], step=AT[1])
    for images, labels in split_batch(*whole, num_micro_batches):
        images = forward_pass.normalized(images)
        logits = forward_pass.logits(model, images)
        losses = objective.losses(logits, labels, images, forward_pass)
        losses.sum().div(7).backward()
        done.targets.append(labels.main)
        done.losses.append(losses.detach())
    done.gradient = model[1].weight.grad
    return done


def of_pictures(done: Step) -> torch.Tensor:
    return torch.cat(done.losses)


def mix_of(mixing: Mixing) -> Mix:
    mix = mixing.draw(*AT, height=8, width=6)
    assert mix is not None and 0 < mix.share < 1
    return mix


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX])
def test_the_loss_of_a_mixed_batch_is_the_soft_targets_on_the_mixed_pictures(
    mixing: Mixing,
) -> None:
    mix = mix_of(mixing)
    targets = batch().targets
    soft = mix.share * F.one_hot(targets, 5) + (1 - mix.share) * F.one_hot(targets.flip(0), 5)
    logits = network(0)(Normalize()(mixed(batch().images, mix)))
    expected = F.cross_entropy(logits, soft, reduction="none")
    assert torch.allclose(of_pictures(step(Objective(mixing=mixing))), expected, rtol=1e-5)


@pytest.mark.parametrize("mixing", [Mixing(), MIXUP, CUTMIX])
@pytest.mark.parametrize("taught", [False, True])
def test_micro_batches_learn_what_the_whole_batch_does(mixing: Mixing, taught: bool) -> None:
    """TRAIN.ACCUM_STEPS: partners come from the whole batch, and the share is one."""
    objective = Objective(LabelLoss(smoothing=0.1), mixing, teacher("kl", 0.4) if taught else None)
    whole, in_pieces = step(objective), step(objective, num_micro_batches=3)
    assert len(in_pieces.losses) == 3
    assert torch.allclose(of_pictures(in_pieces), of_pictures(whole), rtol=1e-5)
    assert torch.allclose(in_pieces.gradient, whole.gradient, atol=1e-6)
    assert torch.equal(torch.cat(whole.targets), torch.cat(in_pieces.targets))


def test_accuracy_counts_the_partners_class_where_its_share_is_the_larger() -> None:
    for mixing in (MIXUP, Mixing(mixup=0.8, seed=3), Mixing(mixup=0.8, seed=4)):
        (counted,) = step(Objective(mixing=mixing)).targets
        is_own = mix_of(mixing).share >= 0.5
        assert torch.equal(counted, batch().targets if is_own else batch().targets.flip(0))
    shares = [mix_of(Mixing(mixup=0.8, seed=seed)).share for seed in (0, 3, 4)]
    assert min(shares) < 0.5 < max(shares), "seeds that show both cases"


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("loss", ["js", "kl"])
def test_a_teachers_word_has_its_weight_beside_the_labels(loss: str, weight: float) -> None:
    """On the very pictures that the student sees, mixed ones too."""
    mix = mix_of(MIXUP)
    images = Normalize()(mixed(batch().images, mix))
    logits, theirs = network(0)(images), network(1)(images)
    soft = Distillation(loss, 2.0).divergence(logits, theirs)
    targets = batch().targets
    hard = LabelLoss()(logits, Labels(targets, targets.flip(0), mix.share))
    found = step(Objective(mixing=MIXUP, teacher=teacher(loss, weight, 2.0)))
    assert torch.allclose(of_pictures(found), weight * soft + (1 - weight) * hard, rtol=1e-5)


def test_a_teacher_stays_as_it_is_and_keeps_no_graph() -> None:
    seen: list[torch.Tensor] = []
    taught = teacher()
    before = copy.deepcopy(taught.network.state_dict())
    taught.network.register_forward_hook(lambda *call: seen.append(call[2]))
    step(Objective(teacher=taught), num_micro_batches=2)
    assert len(seen) == 2 and not any(logits.requires_grad for logits in seen)
    after = taught.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_teacher_computes_in_the_precision_of_the_run() -> None:
    dtypes: list[torch.dtype] = []
    taught = teacher()
    taught.network.register_forward_hook(lambda *call: dtypes.append(call[2].dtype))
    step(Objective(teacher=taught), precision="bf16")
    assert dtypes == [torch.bfloat16]


def test_an_equal_teacher_leaves_nothing_to_learn() -> None:
    same = Teacher(network(0).requires_grad_(False), Distillation("js"), "ab", "")
    found = step(Objective(teacher=same))
    assert torch.allclose(of_pictures(found), torch.zeros(7), atol=1e-6)
    assert torch.allclose(found.gradient, torch.zeros_like(found.gradient), atol=1e-6)


def test_the_sum_that_a_checkpoint_keeps_is_the_teachers() -> None:
    assert Objective().teacher_sum == ""
    assert Objective(teacher=teacher()).teacher_sum == "ab"
