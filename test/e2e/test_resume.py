"""A run that is killed or stopped anywhere and resumed ends bit-equal to one left alone."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TRAIN, RunScript, command, run_until, script_environment

from lib.data import loading
from lib.training import checkpoint, epochs

TWO_CARDS = ("--cards", 2, "--bs", 2)
EVERY_STEP = ("PRINT_FREQ", 1)


def weights_of(folder: Path, name: str = "final_state.pth.tar") -> dict[str, torch.Tensor]:
    return torch.load(folder / name, weights_only=True)


def assert_bit_equal(first: Path, second: Path) -> None:
    for name in ("final_state.pth.tar", "model_best.pth.tar"):
        ours, theirs = weights_of(first, name), weights_of(second, name)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    keys = ("best_accuracy_top1", "best_epoch", "loss", "accuracy_top1", "train_loss")
    ours, theirs = (json.loads((f / "result.json").read_text()) for f in (first, second))
    assert {key: ours[key] for key in keys} == {key: theirs[key] for key in keys}
    assert losses(first) == losses(second)
    epochs = [
        [{k: v for k, v in r.items() if k != "images_per_s"} for r in records(f, "epoch")]
        for f in (first, second)
    ]
    assert epochs[0] == epochs[1]


def losses(folder: Path) -> list[tuple[object, ...]]:
    """Every training line of metrics.jsonl: none twice, none lost."""
    return [(r["epoch"], r["step"], r["loss"]) for r in records(folder, "interval")]


def records(folder: Path, kind: str) -> list[dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def environment_of(process: str) -> bytes:
    """The environment that a process was started with; empty where it has ended by now."""
    try:
        return Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return b""


def ranks_of(launcher: subprocess.Popen[str], *, at_least: int = 2) -> list[int]:
    """Return the process ids of the ranks that a launcher has started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = [int(child) for child in children if b"LOCAL_RANK=" in environment_of(child)]
    assert len(ranks) >= at_least
    return ranks


@pytest.fixture(scope="module")
def arguments(tiny_data: Path, tiny_yaml: Path) -> tuple[object, ...]:
    return (tiny_data, "--cfg", tiny_yaml)


@pytest.fixture(scope="module")
def alone(arguments, run_script: RunScript, tmp_path_factory) -> Path:
    """The run that nothing interrupts, on one process."""
    folder = tmp_path_factory.mktemp("alone")
    done = run_script(TRAIN, *arguments, "--out", folder, *EVERY_STEP)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def alone_on_two(arguments, run_separately: RunScript, tmp_path_factory) -> Path:
    """The run that nothing interrupts, on two processes."""
    folder = tmp_path_factory.mktemp("alone_on_two")
    done = run_separately(TRAIN, *arguments, "--out", folder, *TWO_CARDS, *EVERY_STEP)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("number", "line", "exit_code"),
    [
        (signal.SIGKILL, "Epoch: [0][4/7]", -9),
        (signal.SIGKILL, "Epoch: [1][1/7]", -9),
        (signal.SIGTERM, "Epoch: [0][2/7]", 143),
        (signal.SIGINT, "Epoch: [1][3/7]", 130),
    ],
)
def test_one_process(
    number: signal.Signals,
    line: str,
    exit_code: int,
    arguments: tuple[object, ...],
    alone: Path,
    run_script: RunScript,
    tmp_path: Path,
) -> None:
    """Pitfall 13: also inside an epoch; a SIGKILL loses the steps since the last save only."""
    common = (*arguments, "--out", tmp_path, *EVERY_STEP, "TRAIN.SAVE_EVERY_STEPS", 2)
    process = run_until(TRAIN, *common, line=line, log=tmp_path / "log")
    process.send_signal(number)
    assert process.wait(60) == exit_code
    done = run_script(TRAIN, *common, "--auto_resume")
    assert done.returncode == 0, done.stderr
    assert "goes on at epoch" in done.stdout and "from scratch" not in done.stdout
    assert_bit_equal(tmp_path, alone)


def test_a_stop_during_evaluation_keeps_the_epoch_that_was_trained(
    arguments: tuple[object, ...],
    alone: Path,
    run_script: RunScript,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pitfall 13: the resumed run evaluates first, and reports the speed that was measured."""
    common = (TRAIN, *arguments, "--out", tmp_path, *EVERY_STEP)
    plain = epochs.evaluate

    def signalled(*positional: object, **named: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(*positional, **named)

    with monkeypatch.context() as patch:
        patch.setattr(epochs, "evaluate", signalled)
        stopped = run_script(*common)
    assert stopped.returncode == 143
    assert "Epoch: [0][6/7]" in stopped.stdout and "Test:" not in stopped.stdout
    done = run_script(*common, "--auto_resume")
    assert done.returncode == 0, done.stderr
    assert "goes on at epoch 0 step 7" in done.stdout
    averages = [line for line in (stopped.stdout + done.stdout).splitlines() if "Fps_Avg" in line]
    assert averages[0] == averages[1]
    assert_bit_equal(tmp_path, alone)


@pytest.mark.parametrize(
    ("number", "num_workers", "exit_code", "said"),
    [
        (
            signal.SIGKILL,
            1,
            1,
            "[Error] a loading process was ended by SIGKILL, most often",
        ),
        (signal.SIGTERM, 0, 143, "stopped by SIGTERM"),
    ],
    ids=["a worker is killed", "a stop while a batch is waited for"],
)
def test_what_ends_the_loading_loses_no_step(
    number: signal.Signals,
    num_workers: int,
    exit_code: int,
    said: str,
    arguments: tuple[object, ...],
    alone: Path,
    run_script: RunScript,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Faults R5, M1 and L3: the state at the last step is saved, and the run goes on from there."""
    common = (TRAIN, *arguments, "--out", tmp_path, "--workers", num_workers, *EVERY_STEP)
    plain, num_decoded = loading.decode, 0

    def struck(*positional: object) -> object:
        nonlocal num_decoded
        num_decoded += 1
        if num_decoded == 14:
            os.kill(os.getpid(), number)
        return plain(*positional)

    with monkeypatch.context() as patch:
        patch.setattr(loading, "decode", struck)
        stopped = run_script(*common)
    assert stopped.returncode == exit_code
    assert stopped.stderr.splitlines()[-1].startswith(said)
    saved = re.search(r"the state at (epoch 0 step [0-3]) is saved in", stopped.stderr)
    assert saved, stopped.stderr
    done = run_script(*common, "--auto_resume")
    assert done.returncode == 0, done.stderr
    assert f"goes on at {saved[1]}\n" in done.stdout
    assert_bit_equal(tmp_path, alone)


def test_two_processes(
    arguments: tuple[object, ...],
    alone_on_two: Path,
    run_separately: RunScript,
    tmp_path: Path,
) -> None:
    """Pitfall 13: both ranks stop at the same step, and the state is whole when they end.

    Ranks that are killed: test_launcher_runs.py.
    """
    common = (*arguments, "--out", tmp_path, *TWO_CARDS, *EVERY_STEP, "TRAIN.SAVE_EVERY_STEPS", 2)
    process = run_until(TRAIN, *common, line="Epoch: [0][4/7]", log=tmp_path / "log")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    log = (tmp_path / "log").read_text()
    (said,) = [line for line in log.splitlines() if line.startswith("stopped by")]
    assert said.startswith("stopped by SIGTERM; the state at epoch 0 step ")
    assert log.count("SIGTERM: finishing this step, then saving\n") == 1 and "[Error]" not in log
    assert "go on with the same command and --auto_resume" in said
    done = run_separately(TRAIN, *common, "--auto_resume")
    assert done.returncode == 0, done.stderr
    assert "goes on at epoch 0 step" in done.stdout
    assert_bit_equal(tmp_path, alone_on_two)


def test_ranks_end_with_their_launcher_and_save_first(
    arguments: tuple[object, ...], alone_on_two: Path, run_separately: RunScript, tmp_path: Path
) -> None:
    common = (*arguments, "--out", tmp_path, *TWO_CARDS, *EVERY_STEP, "--train_epochs", 50)
    process = run_until(TRAIN, *common, line="Epoch: [0][2/7]", log=tmp_path / "log")
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while "stopped by SIGTERM" not in (tmp_path / "log").read_text():
        assert time.monotonic() < deadline, "the ranks went on without their launcher"
        time.sleep(0.1)
    assert (tmp_path / "checkpoint.pth.tar").exists()


def test_only_rank_0_writes(alone_on_two: Path) -> None:
    """Pitfall 17: one TensorBoard file, each line once; the other rank has a log of its own."""
    assert len(list((alone_on_two / "tensorboard").iterdir())) == 1
    steps = [(epoch, step) for epoch, step, _ in losses(alone_on_two)]
    assert steps == [(epoch, step) for epoch in range(2) for step in range(7)]
    assert "rank 1 of 2" in (alone_on_two / "logs" / "rank_1.log").read_text()


def test_an_elastic_restart_resumes_by_itself(
    arguments: tuple[object, ...], alone_on_two: Path, tmp_path: Path
) -> None:
    common = (*arguments, "--out", tmp_path, *TWO_CARDS, *EVERY_STEP, "TRAIN.SAVE_EVERY_STEPS", 2)
    process = run_until(
        TRAIN, *common, "--max_restarts", 1, line="Epoch: [1][3/7]", log=tmp_path / "log"
    )
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    assert process.wait(120) == 0, (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    assert "from scratch" in log and "goes on at epoch 1 step" in log
    assert_bit_equal(tmp_path, alone_on_two)


def test_two_machines_of_one_process_equal_two_processes_of_one_machine(
    arguments: tuple[object, ...], alone_on_two: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = (*arguments, "--out", tmp_path, "--bs", 2, "--nproc", 2, "--port", port, *EVERY_STEP)
    machines = [
        subprocess.Popen(
            command(TRAIN, [*common, "--dn", rank]),
            env=script_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [machine.communicate(timeout=120)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], printed
    assert "Epoch: [1][6/7]" in printed[0] and "Epoch:" not in printed[1]
    assert_bit_equal(tmp_path, alone_on_two)


def test_the_best_model_survives_a_resume_and_a_worse_one_never_replaces_it(
    arguments: tuple[object, ...], alone: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 14."""
    best = json.loads((alone / "result.json").read_text())["best_accuracy_top1"]
    for name in ("checkpoint.pth.tar", "model_best.pth.tar", "metrics.jsonl"):
        (tmp_path / name).write_bytes((alone / name).read_bytes())
    before = weights_of(tmp_path, "model_best.pth.tar")
    done = run_script(
        TRAIN, *arguments, "--out", tmp_path, "--auto_resume", "--train_epochs", 3, "--lr", 5
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["accuracy_top1"] < best == result["best_accuracy_top1"]
    after = weights_of(tmp_path, "model_best.pth.tar")
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("epochs_before", [1, 2, 3])
def test_the_rate_decays_at_its_epoch_resumed_before_at_or_after_it(
    epochs_before: int, arguments: tuple[object, ...], run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 12: LR_STEP 2, resumed after epochs 1, 2 and 3 of 4."""
    common = (TRAIN, *arguments, "--out", tmp_path, "PRINT_FREQ", 100, "TRAIN.LR_STEP", "[2]")
    assert run_script(*common, "--train_epochs", epochs_before).returncode == 0
    assert run_script(*common, "--train_epochs", 4, "--auto_resume").returncode == 0
    rates = [record["learning_rate"] for record in records(tmp_path, "epoch")]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


def test_a_resume_in_another_folder_brings_the_best_model_along(
    arguments: tuple[object, ...], alone: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 14."""
    checkpoint_path = alone / "checkpoint.pth.tar"
    common = (TRAIN, *arguments, "--train_epochs", 3, "--lr", 5)
    done = run_script(*common, "--out", tmp_path / "a", "--resume", checkpoint_path)
    assert done.returncode == 0, done.stderr
    ours, theirs = (weights_of(folder, "model_best.pth.tar") for folder in (tmp_path / "a", alone))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    lonely = tmp_path / "lonely.pth.tar"
    lonely.write_bytes(checkpoint_path.read_bytes())
    done = run_script(*common, "--out", tmp_path / "b", "--resume", lonely)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "b" / "result.json").read_text())
    assert result["best_epoch"] == 2, "the best of what is still there"
    assert (tmp_path / "b" / "model_best.pth.tar").is_file()


def test_a_resume_takes_seed_from_the_checkpoint_and_settings_from_the_command_line(
    arguments: tuple[object, ...], alone: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 15: the random generators of each rank are in the checkpoint and are put back."""
    done = run_script(
        TRAIN, *arguments, "--out", tmp_path, "--resume", alone / "checkpoint.pth.tar",
        "--train_epochs", 3, "--seed", 9, "TRAIN.WD", 0.5, "TRAIN.MOMENTUM", 0.7,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = (
        checkpoint.load_training_state(folder / "checkpoint.pth.tar")
        for folder in (alone, tmp_path)
    )
    assert after["seed"] == before["seed"] == 0
    assert torch.equal(after["rng"][0]["torch"], before["rng"][0]["torch"])
    (group,) = after["optimizer"]["param_groups"]
    assert (group["weight_decay"], group["momentum"]) == (0.5, 0.7)


def test_the_loss_scale_survives_a_resume(
    arguments: tuple[object, ...], run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 23: fp16's scaler goes on with the steps it had counted."""
    common = (TRAIN, *arguments, "--out", tmp_path, "--precision", "fp16", "--auto_resume")
    counted = []
    for num_epochs in (1, 2):
        assert run_script(*common, "--train_epochs", num_epochs).returncode == 0
        state = checkpoint.load_training_state(tmp_path / "checkpoint.pth.tar")
        counted.append(state["precision"]["scaler"]["_growth_tracker"])
    assert counted[1] == counted[0] + 7


def test_a_performance_run_without_a_step_to_take_is_refused(
    arguments: tuple[object, ...], alone: Path, run_script: RunScript, tmp_path: Path
) -> None:
    resume = ("--resume", alone / "checkpoint.pth.tar", "--out", tmp_path)
    for more in (("--stop_step", 3), ("--train_epochs", 1)):
        done = run_script(TRAIN, *arguments, *resume, *more)
        assert done.returncode == 2 and "raise --train_epochs" in done.stderr


def test_a_restart_never_continues_an_older_launchs_run(
    arguments: tuple[object, ...], alone: Path, tmp_path: Path
) -> None:
    """Pitfall 4: a rank dies before its launch has taken the folder over."""
    for name in ("checkpoint.pth.tar", "model_best.pth.tar", "metrics.jsonl", ".launch"):
        (tmp_path / name).write_bytes((alone / name).read_bytes())
    common = (*arguments, "--out", tmp_path, *TWO_CARDS, "--max_restarts", 1, "--train_epochs", 1)
    process = subprocess.Popen(
        command(TRAIN, common),
        env=script_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (ranks := ranks_of(process, at_least=0)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(ranks[-1], signal.SIGKILL)
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 0, printed
    assert "from scratch" in printed and "resumed" not in printed
    assert (tmp_path / "previous_1" / "checkpoint.pth.tar").is_file()


def test_a_resumed_run_that_is_done_says_its_results_again(
    arguments: tuple[object, ...], alone: Path, run_script: RunScript
) -> None:
    before = json.loads((alone / "result.json").read_text())
    done = run_script(TRAIN, *arguments, "--out", alone, "--auto_resume", *EVERY_STEP)
    assert done.returncode == 0, done.stderr
    after = json.loads((alone / "result.json").read_text())
    for key in ("accuracy_top1", "best_accuracy_top1", "images_per_s", "train_loss"):
        assert after[key] == before[key]


def test_a_full_disk_is_said_and_the_run_goes_on_with_the_previous_checkpoint(
    arguments: tuple[object, ...],
    run_script: RunScript,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pitfall 16: the run ends, but with exit code 1, and the older checkpoint still loads."""
    common = (TRAIN, *arguments, "--out", tmp_path)
    assert run_script(*common, "--train_epochs", 1).returncode == 0
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > 10_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    done = run_script(*common, "--auto_resume", "--train_epochs", 3)
    assert done.returncode == 1
    assert done.stdout.count("checkpoint.pth.tar could not be written (No space left") == 2
    assert "Epoch: [2][6/7]" in done.stdout
    state = checkpoint.load_training_state(tmp_path / "checkpoint.pth.tar")
    assert state["position"]["epoch"] == 1


def test_a_run_folder_takes_one_run_at_a_time(
    arguments: tuple[object, ...], run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 25."""
    common = (*arguments, "--out", tmp_path, *EVERY_STEP)
    first = run_until(TRAIN, *common, line="Epoch: [0][0/7]", log=tmp_path / "log")
    second = run_script(TRAIN, *common)
    first.kill()
    first.wait()
    assert second.returncode == 2 and "another run is writing" in second.stderr


@pytest.fixture
def split_run(tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path):
    """Run on class folders of which a part is set aside; the rows of its split.tsv come back."""
    shutil.copytree(tiny_data / "train", tmp_path / "data")

    def run(out: str, *more: object) -> dict[str, set[str]]:
        done = run_script(
            TRAIN, tmp_path / "data", "--cfg", tiny_yaml, "--out", tmp_path / out,
            "DATASET.TRAIN_SET", ".", *more,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (tmp_path / out / "said.txt").write_text(done.stdout)
        text = (tmp_path / out / "split.tsv").read_text(errors="surrogateescape")
        rows = [line.split("\t") for line in text.splitlines()[1:]]
        return {part: {path for p, path in rows if p == part} for part in ("train", "val")}

    return run


@pytest.mark.parametrize("how", ["the run folder's", "a file, into a new folder"])
def test_a_resumed_run_keeps_its_validation_pictures(how: str, split_run, tmp_path: Path) -> None:
    """Whatever seed and share are asked for, and whichever pictures have come or gone."""
    data = tmp_path / "data"
    (data / "c1" / "0.png").rename(data / "c1" / "a\nname\tof two lines\udcff.png")
    first = split_run("a", "--train_epochs", 1, "DATASET.VAL_SHARE", 0.3)
    gone, renamed = sorted(first["val"])[:2]
    Path(gone).rename(tmp_path / "aside.png")
    Path(renamed).rename(data / "c0" / "renamed.png")
    for number in range(8):
        shutil.copyfile(data / "c2" / "0.png", data / "c2" / f"new_{number}.png")
    out, words = "a", ["--auto_resume"]
    if how != "the run folder's":
        out, words = "b", ["--resume", tmp_path / "a" / "checkpoint.pth.tar"]
    words += ["--train_epochs", 2, "DATASET.VAL_SHARE", 0.5, "DATASET.SPLIT_SEED", 7]
    second = split_run(out, *words)
    assert second["val"] == first["val"] - {gone, renamed}
    assert second["train"] > first["train"] and len(second["train"]) == len(first["train"]) + 9
    said = (tmp_path / out / "said.txt").read_text()
    assert "DATASET.SPLIT_SEED 7 has no effect in a resume" in said
    assert "[Warning] 2 of the 8 pictures that the run has set aside are gone" in said
    config = yaml.safe_load((tmp_path / out / "config.yaml").read_text())["DATASET"]
    assert (config["VAL_SHARE"], config["SPLIT_SEED"]) == (0.3, 0), "what valid.py goes by"
    (tmp_path / "aside.png").rename(gone)
    third = split_run(out, "--auto_resume", "--train_epochs", 3, "DATASET.VAL_SHARE", 0.3)
    assert third["val"] == first["val"] - {renamed}, "what was gone came back"


def test_a_resume_of_a_run_before_names_were_saved_splits_as_it_did(
    split_run, tmp_path: Path
) -> None:
    first = split_run("a", "--train_epochs", 1, "DATASET.VAL_SHARE", 0.3)
    path = tmp_path / "a" / "checkpoint.pth.tar"
    state = checkpoint.load_training_state(path)
    del state["names_aside"], state["names_sum"]
    torch.save(state, path)
    again = ("--auto_resume", "DATASET.VAL_SHARE", 0.5, "DATASET.SPLIT_SEED", 7, "--train_epochs")
    assert split_run("a", *again, 2) == first
    assert "does not name" not in (tmp_path / "a" / "said.txt").read_text()


def test_setting_pictures_aside_neither_begins_nor_ends_in_a_resume(
    arguments: tuple[object, ...], alone: Path, run_script: RunScript, split_run, tmp_path: Path
) -> None:
    resume = ("--train_epochs", 3, "--out", tmp_path / "c", "--resume")
    done = run_script(
        TRAIN, *arguments, *resume, alone / "checkpoint.pth.tar", "DATASET.VAL_SHARE", 0.2
    )
    assert done.returncode == 2
    assert "DATASET.VAL_SHARE 0.2 would validate with: say DATASET.VAL_SHARE 0" in done.stderr
    split_run("a", "--train_epochs", 1, "DATASET.VAL_SHARE", 0.3)
    done = run_script(TRAIN, *arguments, *resume, tmp_path / "a" / "checkpoint.pth.tar")
    assert done.returncode == 2 and "say DATASET.VAL_SHARE 0.3" in done.stderr


def test_a_resume_inside_an_epoch_wants_the_same_pictures(
    run_script: RunScript, tiny_data: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    """As many others would do: each has its place in the epoch's order."""
    shutil.copytree(tiny_data, tmp_path / "data")
    common = (tmp_path / "data", "--cfg", tiny_yaml, "--out", tmp_path / "run", *EVERY_STEP)
    process = run_until(TRAIN, *common, line="Epoch: [0][2/7]", log=tmp_path / "log")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    one = tmp_path / "data" / "train" / "c1" / "3.png"
    one.rename(one.with_name("renamed.png"))
    done = run_script(TRAIN, *common, "--auto_resume")
    assert done.returncode == 2 and "not all of these have the same names now" in done.stderr
    one.with_name("renamed.png").rename(one)
    assert run_script(TRAIN, *common, "--auto_resume").returncode == 0


def test_a_resume_with_other_classes_or_another_optimizer_is_refused(
    arguments: tuple[object, ...],
    alone: Path,
    run_script: RunScript,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    resume = ("--resume", alone / "checkpoint.pth.tar", "--out", tmp_path / "out")
    done = run_script(TRAIN, *arguments, *resume, "TRAIN.OPTIMIZER", "adam")
    assert done.returncode == 2 and "TRAIN.OPTIMIZER sgd" in done.stderr
    for part in ("train", "val"):
        for name, other in (("c0", "x0"), ("c1", "x1"), ("c2", "x2")):
            target = tmp_path / "data" / part / other
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(tiny_data / part / name)
    done = run_script(TRAIN, tmp_path / "data", *arguments[1:], *resume)
    assert done.returncode == 2 and "'c0', 'c1', 'c2'" in done.stderr and "x0" in done.stderr
