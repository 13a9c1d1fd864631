"""tools/train.py with all that changes pictures, labels, losses, rates and weights at once.

On an npu: test_npu_training.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TRAIN, RunScript
from simnpu.batch import sigterm_after
from test_optimising import RECIPE, assert_bit_equal

from lib.config.load import load_config
from lib.models.build import build_model
from lib.models.hrnet import build_hrnet, find_spec
from lib.runtime.files import sha256_of
from lib.training.checkpoint import load_training_state
from lib.training.mixing import Mix, Mixing

EVERYTHING = (
    *RECIPE, "AUG.MIXUP", 0.4, "AUG.CUTMIX", 1.0, "AUG.MIX_PROB", 0.8, "AUG.AUTO", "randaugment",
    "AUG.ERASE", 0.5, "TRAIN.LABEL_SMOOTHING", 0.1, "TRAIN.CLASS_WEIGHTS", "balanced",
    "DISTILL.WEIGHT", 0.6, "DISTILL.TEMPERATURE", 2, "--train_epochs", 1,
)  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tiny_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for the same network as the student's, and others than it begins with."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("teacher") / "weights.pth"
    torch.save(build_model(load_config(tiny_yaml), 3).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def arguments(tiny_data: Path, tiny_yaml: Path, teacher: Path) -> tuple[object, ...]:
    return (TRAIN, tiny_data, "--cfg", tiny_yaml, *EVERYTHING, "DISTILL.TEACHER", teacher)


@pytest.fixture(scope="module")
def alone(arguments, run_script: RunScript, tmp_path_factory) -> Path:
    """The run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("alone")
    done = run_script(*arguments, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert f"tensors from {arguments[-1]}; loss js at temperature 2, weight 0.6" in done.stdout
    return folder


def test_a_run_with_everything_on_that_is_stopped_in_an_epoch_goes_on_bit_equal(
    arguments: tuple[object, ...],
    alone: Path,
    run_script: RunScript,
    tmp_path: Path,
) -> None:
    """Pitfall 13: mixes, RandAugment, erasing, rates and averages are those of the steps left.

    The stop comes after the third step; pictures then come from two workers.
    """
    with sigterm_after(3):
        stopped = run_script(*arguments, "--out", tmp_path)
    assert stopped.returncode == 143 and "Epoch: [0][2/7]" in stopped.stdout
    done = run_script(*arguments, "--out", tmp_path, "--auto_resume", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "goes on at epoch 0 step 3" in done.stdout and "[Warning]" not in done.stdout
    assert_bit_equal(tmp_path, alone, but=("/config",))  # which holds WORKERS


def test_every_step_of_every_epoch_draws_its_own_mix(
    arguments: tuple[object, ...],
    run_script: RunScript,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, asked = Mixing.draw, []

    def draw(self: Mixing, epoch: int, step: int, **size: int) -> Mix | None:
        asked.append((epoch, step))
        return plain(self, epoch, step, **size)

    monkeypatch.setattr(Mixing, "draw", draw)
    more = ("--train_epochs", 2, "--stop_step", 9, "DISTILL.TEACHER", "")
    done = run_script(*arguments, "--out", tmp_path, *more)
    assert done.returncode == 0, done.stderr
    assert asked == [*((0, step) for step in range(7)), (1, 0), (1, 1)]


def test_another_teacher_after_a_resume_is_remarked_by_the_sum_in_the_checkpoint(
    arguments: tuple[object, ...], alone: Path, teacher: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """It may be of another network than the student."""
    checkpoint, weights = alone / "checkpoint.pth.tar", tmp_path / "small.pth"
    assert load_training_state(checkpoint)["teacher"] == sha256_of(teacher)
    torch.save(build_hrnet(find_spec("hrnet_w18_small_v1"), 3).state_dict(), weights)
    done = run_script(
        *arguments[:-1], weights, "DISTILL.ARCH", "hrnet_w18_small_v1", "--resume", checkpoint,
        "--out", tmp_path / "out", "--train_epochs", 2, "--stop_step", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "teacher hrnet_w18_small_v1, " in done.stdout
    assert "[Warning] the checkpoint's run learned from another teacher" in done.stdout
    assert sha256_of(teacher)[:12] in done.stdout and sha256_of(weights)[:12] in done.stdout


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("DISTILL.TEACHER", "nowhere.pth"), "no such weight file: nowhere.pth"),
        (("DISTILL.ARCH", "hrnet_w19"), "hrnet_w19"),
        (("DISTILL.ARCH", "timm/test_resnet"), "is DISTILL.ARCH (timm/test_resnet) its network"),
        (("TRAIN.CLASS_WEIGHTS", "1, 2"), "2 numbers, and the data has 3 classes"),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(
    overrides: tuple[str, str],
    said: str,
    arguments: tuple[object, ...],
    run_script: RunScript,
    tmp_path: Path,
) -> None:
    done = run_script(*arguments, "--out", tmp_path / "out", *overrides)
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
