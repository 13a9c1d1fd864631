"""tools/train.py with schedules, parameter groups, clipping, averaged and frozen weights."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from conftest import TRAIN, VALID, RunScript, write_pictures
from simnpu.batch import sigterm_after

from lib.training import epochs, run_writer

NUM_STEPS = 7  # an epoch
EPOCHS = ("--train_epochs", 2)
RECIPE = (
    "PRINT_FREQ", 1, "TRAIN.SCHEDULE", "cosine", "TRAIN.WARMUP_EPOCHS", 0.5, "TRAIN.LR_MIN", 1e-5,
    "TRAIN.EMA_DECAY", 0.9, "TRAIN.CLIP_GRAD_NORM", 0.5, "TRAIN.HEAD_LR_FACTOR", 3,
    "TRAIN.LAYER_DECAY", 0.8, "TRAIN.WD_NORM_BIAS", "false", "TRAIN.ACCUM_STEPS", 2,
    "TRAIN.LR", 0.05, "TRAIN.LR_STEP", [30, 60, 90],
)  # fmt: skip
FILES = ("final_state.pth.tar", "model_best.pth.tar", "checkpoint.pth.tar")


def result_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "result.json").read_text()))


def records(folder: Path, kind: str) -> list[dict[str, object]]:
    """The lines of metrics.jsonl of one kind, without what depends on the clock."""
    clock = ("time_s", "images_per_s", "data_time_s", "decode_time_s")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in r.items() if k not in clock} for r in lines if r["kind"] == kind]


def flat(content: object, name: str = "") -> dict[str, object]:
    """Every leaf of nested mappings and lists by its path."""
    if isinstance(content, dict):
        pairs = [(f"{name}/{key}", value) for key, value in content.items()]
    elif isinstance(content, (list, tuple)):
        pairs = [(f"{name}/{index}", value) for index, value in enumerate(content)]
    else:
        return {name: content}
    return {path: leaf for path, value in pairs for path, leaf in flat(value, path).items()}


CLOCK = (  # what a report has of times: a stopped run warms up once more
    "images_per_s", "images_per_s_last_epoch", "step_time_ms", "train_time_s", "num_images_timed",
)  # fmt: skip


def assert_bit_equal(first: Path, second: Path, *, but: Collection[str] = ()) -> None:
    """Compare all that two runs have left; `but` are entries that may differ."""
    for name in FILES:
        ours, theirs = (flat(torch.load(f / name, weights_only=True)) for f in (first, second))
        timed = {key for key in ours if key.endswith((*CLOCK, *but))}
        assert ours.keys() == theirs.keys()
        differing = [
            key
            for key in ours.keys() - timed
            if not (
                torch.equal(ours[key], theirs[key])
                if isinstance(ours[key], torch.Tensor)
                else ours[key] == theirs[key]
            )
        ]
        assert differing == [], name
    for kind in ("interval", "epoch"):
        assert records(first, kind) == records(second, kind)


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    """Leave the curves out, which take longer than these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_writer, "save_curves", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def arguments(tiny_data: Path, tiny_yaml: Path) -> tuple[object, ...]:
    return (TRAIN, tiny_data, "--cfg", tiny_yaml)


@pytest.fixture(scope="module")
def alone(arguments, run_script: RunScript, tmp_path_factory) -> tuple[Path, str]:
    """The whole recipe without an interruption: the run folder, and what was printed."""
    folder = tmp_path_factory.mktemp("alone")
    done = run_script(*arguments, "--out", folder, *EPOCHS, *RECIPE)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_recipe_stopped_within_an_epoch_and_resumed_is_the_whole_run(
    arguments, alone: tuple[Path, str], run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfalls 12, 13 and 15: rate, groups, clipping and the averaged weights go on to the bit."""
    common = (*arguments, "--out", tmp_path, *EPOCHS, *RECIPE)
    with sigterm_after(NUM_STEPS + 4):
        stopped = run_script(*common)
    assert stopped.returncode == 143
    done = run_script(*common, "--auto_resume")
    assert done.returncode == 0, done.stderr
    assert "goes on at epoch 1 step 4" in done.stdout
    assert "[Warning]" not in done.stdout
    assert_bit_equal(tmp_path, alone[0])


def test_a_recipe_stopped_while_the_averaged_weights_are_evaluated_is_the_whole_run(
    arguments, alone: tuple[Path, str], run_script: RunScript, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Pitfall 13."""
    common = (*arguments, "--out", tmp_path, *EPOCHS, *RECIPE)
    plain, calls = epochs.evaluate, count(1)

    def signalled(*positional: object, **named: object) -> object:
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*positional, **named)

    with monkeypatch.context() as patch:
        patch.setattr(epochs, "evaluate", signalled)
        assert run_script(*common).returncode == 143
    assert run_script(*common, "--auto_resume").returncode == 0
    assert_bit_equal(tmp_path, alone[0])


def test_the_rate_of_every_step_is_the_closed_form(alone: tuple[Path, str]) -> None:
    """Pitfall 12."""

    def expected(epoch: float) -> float:
        if epoch < 0.5:
            return 0.05 * (0.01 + 0.99 * epoch / 0.5)
        return 1e-5 + (0.05 - 1e-5) * (1 + math.cos(math.pi * (epoch - 0.5) / 1.5)) / 2

    rates = [record["learning_rate"] for record in records(alone[0], "interval")]
    epochs = [step / NUM_STEPS for step in range(2 * NUM_STEPS)]
    assert rates == pytest.approx([expected(epoch) for epoch in epochs], rel=1e-9)


def test_a_run_says_how_it_optimises(alone: tuple[Path, str]) -> None:
    assert (
        "learning rate 0.05 x 1 card(s), rising from 0.01 of it over 0.5 epochs, then along a "
        "cosine to 1e-05\noptimising: no weight decay on norms and biases; the classifier's rate "
        "x 3; each earlier part's rate x 0.8; gradients up to norm 0.5; weights averaged with "
        "decay 0.9\n"
    ) in alone[1]


def test_the_test_line_comes_last_and_is_of_the_averaged_weights(alone: tuple[Path, str]) -> None:
    folder, printed = alone
    lines, result = printed.splitlines(), result_of(folder)
    last = max(index for index, line in enumerate(lines) if line.startswith("Test:"))
    assert lines[last - 1].startswith("without averaging: loss ")
    assert not any("Accuracy@1" in line or "Test" in line for line in lines[last + 1 :])
    fields = lines[last].split()
    assert (fields[4], fields[10]) == (f"{result['loss']:.4f}", f"{result['accuracy_top1']:.3f}")
    shown = [float(word.strip(",")) for word in lines[last - 1].split()[3::2]]
    keys = ("loss_without_ema", "accuracy_top1_without_ema", "accuracy_top5_without_ema")
    assert shown == [result[key] for key in keys]
    epoch = records(folder, "epoch")[-1]
    assert (epoch["val_loss"], epoch["loss_without_ema"]) != (epoch["val_loss"],) * 2
    assert epoch["accuracy_top1_without_ema"] == result["accuracy_top1_without_ema"]


def test_a_run_leaves_its_averaged_weights_and_a_checkpoint_has_both(
    alone: tuple[Path, str], tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    folder, _ = alone
    state = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
    final = torch.load(folder / "final_state.pth.tar", weights_only=True)
    averaged, last = state["state_dict_ema"], state["state_dict"]
    assert state["num_ema_updates"] == 2 * NUM_STEPS
    assert all(torch.equal(final[name], averaged[name]) for name in final)
    assert not torch.equal(averaged["conv1.weight"], last["conv1.weight"])
    for name in ("final_state.pth.tar", "checkpoint.pth.tar"):
        done = run_script(
            VALID, tiny_data, "--cfg", tiny_yaml, "--testModel", folder / name, "--out", tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert result_of(tmp_path)["loss"] == result_of(folder)["loss"]


def test_averaged_weights_change_nothing_of_the_training(
    arguments, alone: tuple[Path, str], run_script: RunScript, tmp_path: Path
) -> None:
    done = run_script(*arguments, "--out", tmp_path, *EPOCHS, *RECIPE, "TRAIN.EMA_DECAY", 0)
    assert done.returncode == 0, done.stderr
    theirs = torch.load(alone[0] / "checkpoint.pth.tar", weights_only=True)
    ours = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)
    assert "state_dict_ema" not in ours
    assert all(torch.equal(ours["state_dict"][k], v) for k, v in theirs["state_dict"].items())
    assert records(tmp_path, "interval") == records(alone[0], "interval")
    assert result_of(tmp_path)["loss"] == result_of(alone[0])["loss_without_ema"]


def test_a_resume_that_begins_or_drops_the_average_says_so(
    arguments, alone: tuple[Path, str], run_script: RunScript, tmp_path: Path
) -> None:
    """A checkpoint without averaged weights is read as ever."""
    resume = ("--resume", alone[0] / "checkpoint.pth.tar", "--train_epochs", 3, *RECIPE)
    dropped = run_script(*arguments, "--out", tmp_path / "a", *resume, "TRAIN.EMA_DECAY", 0)
    assert dropped.returncode == 0, dropped.stderr
    assert "[Warning] the checkpoint's averaged weights are dropped" in dropped.stdout
    begun = run_script(
        *arguments, "--out", tmp_path / "b", "--resume", tmp_path / "a" / "checkpoint.pth.tar",
        "--train_epochs", 4, *RECIPE,
    )  # fmt: skip
    assert begun.returncode == 0, begun.stderr
    assert "[Warning] the checkpoint has no averaged weights" in begun.stdout
    state = torch.load(tmp_path / "b" / "checkpoint.pth.tar", weights_only=True)
    assert state["num_ema_updates"] == NUM_STEPS


@pytest.mark.parametrize(
    "settings", [("TRAIN.WD_NORM_BIAS", "true"), ("MODEL.FREEZE", "stem"), ("TRAIN.LAYER_DECAY", 1)]
)
def test_a_resume_with_other_groups_is_refused_in_one_line(
    settings, arguments, alone: tuple[Path, str], run_script: RunScript, tmp_path: Path
) -> None:
    resume = ("--resume", alone[0] / "checkpoint.pth.tar", "--train_epochs", 3, *RECIPE)
    done = run_script(*arguments, "--out", tmp_path / "out", *resume, *settings)
    assert done.returncode == 2
    assert "resume needs the same MODEL.FREEZE, TRAIN.WD_NORM_BIAS" in done.stderr
    assert done.stderr.count("\n") == 1


def test_factors_of_the_rate_are_those_of_the_present_configuration(
    arguments, run_script: RunScript, tmp_path: Path
) -> None:
    """A resume takes its settings from the command line: also where a factor is no longer set."""
    common = (*arguments, "--out", tmp_path, "MODEL.FREEZE", "backbone", "PRINT_FREQ", 100)
    first = run_script(*common, "--train_epochs", 1, "TRAIN.HEAD_LR_FACTOR", 10)
    assert first.returncode == 0, first.stderr
    assert "[Warning] MODEL.FREEZE keeps random weights" in first.stdout
    second = run_script(*common, "--train_epochs", 2, "--auto_resume")
    assert second.returncode == 0, second.stderr
    (group,) = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)["optimizer"][
        "param_groups"
    ]
    assert "rate_factor" not in group and group["lr"] == pytest.approx(1e-4)


def test_a_run_with_a_frozen_backbone_moves_the_classifier_alone_resumed_too(
    arguments, alone: tuple[Path, str], run_script: RunScript, tmp_path: Path
) -> None:
    """Averages of frozen batch norms and their counters stay, with maps computed again too."""
    pretrained = alone[0] / "final_state.pth.tar"
    common = (
        *arguments, "--pretrained", pretrained, "--out", tmp_path, "MODEL.FREEZE", "backbone",
        "TRAIN.CHECKPOINT_ACTIVATIONS", "true",
    )  # fmt: skip
    with sigterm_after(4):
        assert run_script(*common).returncode == 143
    done = run_script(*common, "--auto_resume")
    assert done.returncode == 0, done.stderr
    assert "optimising: frozen: backbone\n" in done.stdout and "[Warning]" not in done.stdout
    before, after = (torch.load(p, weights_only=True) for p in (pretrained, tmp_path / FILES[0]))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"classifier.weight", "classifier.bias"}


def test_two_processes_with_a_frozen_backbone_give_the_averaged_weights_of_one(
    arguments, run_script: RunScript, run_separately: RunScript, tmp_path: Path
) -> None:
    """Frozen batch norms see no batch, so it is the same which images a process has.

    Gradients are limited by the norm of their mean, and each rank averages the same weights.
    """
    for part, channel in ((part, channel) for part in ("train", "val") for channel in range(3)):
        folder = tmp_path / "data" / part / str(channel)
        write_pictures(folder, 4, channel=channel)  # batches as large on each rank
    common = (
        TRAIN, tmp_path / "data", *arguments[2:], "--train_epochs", 1, "MODEL.FREEZE", "backbone",
        "TRAIN.EMA_DECAY", 0.9, "TRAIN.CLIP_GRAD_NORM", 0.1,
    )  # fmt: skip
    one = run_script(*common, "--out", tmp_path / "one", "--bs", 4, "--lr", 0.1)
    two = run_separately(
        *common, "--out", tmp_path / "two", "--bs", 2, "--lr", 0.05, "--cards", 2
    )  # fmt: skip
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    ours, theirs = (torch.load(tmp_path / n / FILES[0], weights_only=True) for n in ("two", "one"))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-7)


STALLED = ("TRAIN.LR", 0, "TRAIN.EARLY_STOP", 1, "--train_epochs", 9, "PRINT_FREQ", 100)
FROZEN = ("MODEL.FREEZE", "backbone")  # else averages of batch norms change the accuracy


def test_a_run_without_a_better_top1_ends_early_and_says_what_ended_it(
    arguments, run_script: RunScript, tmp_path: Path
) -> None:
    """The best is that of epoch 0, since nothing moves.

    The same after a stop and a resume; with more patience a run that had ended goes on.
    """
    common = (*arguments, *STALLED, *FROZEN, "--out")
    done = run_script(*common, tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    result = result_of(tmp_path / "whole")
    assert (result["num_epochs"], result["best_epoch"]) == (2, 0)
    assert result["ended_by"] == "TRAIN.EARLY_STOP"
    assert "the run ends after epoch 1: no better top-1 in 1 epoch (TRAIN.EARLY_STOP)" in (
        done.stdout
    )
    assert (tmp_path / "whole" / "final_state.pth.tar").is_file()
    with sigterm_after(NUM_STEPS + 3):
        assert run_script(*common, tmp_path / "halves").returncode == 143
    done = run_script(*common, tmp_path / "halves", "--auto_resume")
    assert done.returncode == 0, done.stderr
    resumed = result_of(tmp_path / "halves")
    assert (resumed["num_epochs"], resumed["ended_by"]) == (2, "TRAIN.EARLY_STOP")
    again = run_script(*common, tmp_path / "halves", "--auto_resume")
    assert again.returncode == 0 and "nothing is left to train" in again.stdout
    assert result_of(tmp_path / "halves") == resumed
    more = run_script(*common, tmp_path / "whole", "--auto_resume", "TRAIN.EARLY_STOP", 2)
    assert more.returncode == 0, more.stderr
    assert result_of(tmp_path / "whole")["num_epochs"] == 3


def test_a_run_that_ends_at_its_last_epoch_says_so(alone: tuple[Path, str]) -> None:
    assert result_of(alone[0])["ended_by"] == "TRAIN.END_EPOCH"
