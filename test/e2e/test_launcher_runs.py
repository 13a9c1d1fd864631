"""The launchers' runs: the files and lines they leave, their exit codes, and signals."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from launcher_sandbox import LAUNCHERS, Repository, only_error_line, only_line
from PIL import Image


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """A fresh copy of the scripts."""
    return Repository(tmp_path)


# ---- the files and the closing block ----


def test_a_full_run_leaves_its_log_its_case_log_and_its_losses(repo: Repository) -> None:
    result = repo.run("train_full_8p.sh")
    name = "HRNet_ID1780_for_PyTorch_bs256_8p_acc"
    output = repo.root / "test/output/0"
    files = sorted(path.name for path in output.iterdir() if not path.name.startswith("."))
    assert files == [f"{name}.log", "train_0.log", f"train_{name}_loss.txt"]
    assert (output / f"train_{name}_loss.txt").read_text() == "6.90776\n5.50000\n"
    case_log = dict(line.split(" = ") for line in (output / f"{name}.log").read_text().splitlines())
    assert case_log["TrainingTime"] == "3447.81"
    assert case_log["TrainAccuracy"] == "76.650"
    lines = result.stdout.splitlines()
    assert lines[-4:-1] == [
        "------------------ Final result ------------------",
        "Final Performance images/sec : 594.0",
        "Final Train Accuracy : 76.650",
    ]
    assert lines[-1].startswith("E2E Training Duration sec : ")
    assert int(lines[-1].split()[-1]) == int(case_log["E2ETrainingTime"])


def test_the_case_name_follows_batch_cards_and_machines(repo: Repository) -> None:
    """Pitfall 36: RankSize counts all cards."""
    repo.run("train_performance_8p.sh", "--bs=16", "--cards=2", "--nproc=3")
    text = (repo.root / "test/output/0/HRNet_ID1780_for_PyTorch_bs16_6p_perf.log").read_text()
    assert "RankSize = 6\n" in text
    assert "TrainingTime = 161.62\n" in text  # 16 * 6 * 1000 / 594
    assert text.endswith("CompileTime = 12.7777\n")


def test_stdout_before_the_report_is_in_the_log_and_the_other_way_round(repo: Repository) -> None:
    result = repo.run("train_full_1p.sh")
    log = (repo.root / "test/output/0/train_0.log").read_text()
    assert log in result.stdout
    assert log.startswith("step_time = ")
    assert log.splitlines()[-1].startswith("Test: ")


LAST_FPS = "grep -a Fps_Avg LOG | awk '{print $7}' | awk 'END{print}'"
LAST_ACCURACY = "grep -a 'Accuracy@1' LOG | awk '{print $11}' | awk 'END{print}'"
LOSSES = "grep Epoch: LOG | grep -v Test | awk -F Loss '{print $NF}' | awk '{print $1}'"


@pytest.mark.parametrize(
    ("launcher", "pipeline", "expected"),
    [
        ("full", LAST_FPS, "594.0"),
        ("full", "grep -a Test LOG | awk '{print $5}' | awk 'END{print}'", "1.2500"),
        ("full", LAST_ACCURACY, "76.650"),
        ("performance", LAST_ACCURACY, "0.391"),
        ("full", LOSSES, "6.90776\n5.50000"),
    ],
)
def test_the_known_one_liners_read_the_log(
    repo: Repository, launcher: str, pipeline: str, expected: str
) -> None:
    assert repo.run(f"train_{launcher}_1p.sh").returncode == 0
    found = repo.run_words(["bash", "-c", pipeline.replace("LOG", "test/output/0/train_0.log")])
    assert found.stdout == f"{expected}\n"


def test_each_run_starts_with_an_empty_folder_of_its_own_device(repo: Repository) -> None:
    """Pitfall 25: nothing of an earlier run is mixed into a later one."""
    for device in ("0", "1"):
        (repo.root / "test/output" / device).mkdir(parents=True)
        (repo.root / "test/output" / device / "rank_1.log").write_text("old")
    assert repo.run("train_full_1p.sh").returncode == 0
    assert not (repo.root / "test/output/0/rank_1.log").exists()
    assert (repo.root / "test/output/1/rank_1.log").exists()
    assert repo.run("train_full_1p.sh").returncode == 0
    assert (repo.root / "test/output/0/train_0.log").read_text().count("Data Average") == 1


# ---- evaluation ----


def test_an_evaluation_takes_the_best_weights_of_its_yaml(repo: Repository) -> None:
    (repo.root / "w48.yaml").touch()
    result = repo.run("train_eval_1p.sh", "--cfg=w48.yaml", ASCEND_DEVICE_ID="2")
    assert result.returncode == 0, result.stderr
    assert repo.record["script"] == "tools/valid.py"
    assert repo.words == [
        str(repo.data), "--testModel", "output/imagenet/w48/model_best.pth.tar",
        "--log_dir", "test/output/2",
        "--cfg", str(repo.root / "w48.yaml"), "--out", "output/imagenet/w48/eval",
        "--cards", "1", "--bs", "256", "--device_id", "2",
    ]  # fmt: skip
    output = repo.root / "test/output/2"
    assert (output / "eval_2.log").read_text().startswith("Test: ")
    case_log = (output / "HRNet_ID1780_for_PyTorch_bs256_1p_eval.log").read_text()
    assert "ActualFPS" not in case_log
    assert "Final Performance" not in result.stdout
    assert result.stdout.splitlines()[-2] == "Final Train Accuracy : 76.650"


@pytest.mark.parametrize("name", ["checkpoint", "testModel"])
def test_weights_to_evaluate_have_two_names(repo: Repository, name: str) -> None:
    """Pitfall 37."""
    (repo.root / "test/my best.tar").touch()
    result = repo.run("train_eval_1p.sh", f"--{name}", "my best.tar", cwd=repo.root / "test")
    assert result.returncode == 0
    assert repo.passed("--testModel") == str(repo.root / "test/my best.tar")


def test_training_options_of_an_evaluation_are_said_to_be_left_out(repo: Repository) -> None:
    result = repo.run("train_eval_1p.sh", "--lr=0.1", "--train_epochs", "3")
    assert result.returncode == 0
    assert "--lr means nothing for an evaluation and is left out\n" in result.stdout
    assert "--lr" not in repo.words
    assert "--train_epochs" not in repo.words


# ---- failures and signals ----


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failing_program_fails_its_launcher(repo: Repository, launcher: str) -> None:
    """Pitfall 35. Faults M5, R7: the program's error line is not told a second time."""
    result = repo.run(launcher, MODE="fail:2:[Error] no train/ in /x")
    assert result.returncode == 2
    assert only_line(result).startswith("the run failed with exit code 2 (whole log: test/output/")
    assert "[Error] no train/ in /x\n" in result.stdout
    assert "Final" not in result.stdout


@pytest.mark.parametrize(
    ("code", "spoken", "reason"),
    [
        (1, "Traceback:|  File x|RuntimeError: no memory|gone", "RuntimeError: no"),
        (1, "Trace:|[rank1]: a.MemoryError: x \x1b[31m y", "[rank1]: a.MemoryError: x ?[31m y"),
        (3, "it broke| ", "it broke"),
        (255, "it broke", "it broke"),
        (1, "", "it printed nothing"),
    ],
)
def test_the_reason_of_a_failure_is_the_first_that_the_log_gives(
    repo: Repository, code: int, spoken: str, reason: str
) -> None:
    result = repo.run("train_full_1p.sh", MODE=f"fail:{code}:{spoken}")
    assert result.returncode == code
    assert f"the run failed with exit code {code}: {reason}" in only_error_line(result)


def test_a_program_that_is_killed_fails_its_launcher(repo: Repository) -> None:
    result = repo.run("train_full_1p.sh", MODE="die")
    assert result.returncode == 137
    assert "ended by SIGKILL" in result.stderr.splitlines()[-1]
    assert "Final" not in result.stdout


def test_a_result_of_an_earlier_run_is_not_reported_as_this_ones(repo: Repository) -> None:
    assert repo.run("train_full_1p.sh").returncode == 0
    result = repo.run("train_full_1p.sh", MODE="no result")
    assert result.returncode == 1
    assert "wrote no output/imagenet" in only_error_line(result)
    assert "Final" not in result.stdout


def test_another_machine_ends_well_without_a_result(repo: Repository) -> None:
    result = repo.run("train_full_8p.sh", "--nproc=2", "--dn=1", "--addr=10.0.0.1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "machine 1 of 2 is done; node 0 has the results"
    assert repo.passed("--dn") == "1"
    assert repo.passed("--addr") == "10.0.0.1"


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)],
)
def test_a_signal_is_forwarded_and_the_launcher_ends_with_the_programs_code(
    repo: Repository, sent: signal.Signals, code: int
) -> None:
    """The program's last words, said after the signal, still reach the console and the log."""
    process = repo.start("train_full_1p.sh")
    process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == code
    assert "state saved\n" in stdout
    assert "state saved\n" in (repo.root / "test/output/0/train_0.log").read_text()
    assert "Final" not in stdout
    assert f"exit code {code}" in stderr
    assert "[Error]" not in stderr, "it was asked for"


def test_a_launcher_does_not_empty_the_folder_of_one_that_runs(repo: Repository) -> None:
    """Fault L: the log of a training was deleted by an evaluation beside it."""
    process = repo.start("train_full_1p.sh")
    second = repo.run("train_eval_1p.sh")
    assert second.returncode == 2
    assert "another launcher is running with test/output/0" in only_error_line(second)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    log = (repo.root / "test/output/0/train_0.log").read_text()
    assert "ready\n" in log and "state saved\n" in log
    assert repo.run("train_full_1p.sh").returncode == 0, "it is free again"


def test_a_second_signal_does_not_make_the_launcher_leave_its_program(repo: Repository) -> None:
    process = repo.start("train_full_1p.sh")
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.03)
    stdout, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "state saved\n" in stdout


# ---- the real programs ----


def write_images(folder: Path, num_images: dict[str, int]) -> None:
    """Write 2 classes of 40 x 36 noise, so many of each class in train/ and val/."""
    rng = np.random.default_rng(0)
    for part, num in num_images.items():
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for number in range(num):
                pixels = rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")


def test_a_real_run_and_its_evaluation_agree_with_what_other_scripts_read(repo: Repository) -> None:
    """The figures of result.json in the case log are those that the one-liners find in the log."""
    repo.use_real_programs()
    write_images(repo.data, {"train": 5, "val": 3})
    recipe = "experiments/cls_hrnet_w18_small_v1_sgd_lr5e-2_wd1e-4_bs32_x100.yaml"
    options = [f"--cfg={recipe}", "--bs=4", "--workers=0", "--device=cpu"]
    overrides = ["--", "MODEL.IMAGE_SIZE", "[64, 64]"]
    epochs = ["--train_epochs=1", "--lr=0.001"]
    trained = repo.run("train_full_1p.sh", *options, *epochs, *overrides, "PRINT_FREQ", "1")
    assert trained.returncode == 0, trained.stdout + trained.stderr

    output = repo.root / "test/output/0"
    lines = (output / "HRNet_ID1780_for_PyTorch_bs4_1p_acc.log").read_text().splitlines()
    case_log = dict(line.split(" = ") for line in lines)
    read = {}
    for name, pipeline in {"fps": LAST_FPS, "accuracy": LAST_ACCURACY, "losses": LOSSES}.items():
        pipeline = pipeline.replace("LOG", "test/output/0/train_0.log")
        read[name] = repo.run_words(["bash", "-c", pipeline]).stdout.strip()
    assert read["fps"] == case_log["ActualFPS"]
    assert read["accuracy"] == case_log["TrainAccuracy"]
    assert read["losses"].splitlines()[-1] == case_log["ActualLoss"]
    losses = (output / "train_HRNet_ID1780_for_PyTorch_bs4_1p_acc_loss.txt").read_text()
    assert losses.strip() == read["losses"]
    assert losses.count("\n") == 3

    evaluated = repo.run("train_eval_1p.sh", *options, *overrides)
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert f"Final Train Accuracy : {case_log['TrainAccuracy']}\n" in evaluated.stdout


def processes_with(*words: str) -> list[int]:
    """Return the ids of the processes whose command line holds every word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if all(word in line for word in words) and "bash" not in line.split("\0")[0]:
            found.append(int(path.parent.name))
    return found


def test_a_killed_two_card_run_goes_on_and_ends_bit_equal_to_one_left_alone(
    repo: Repository, tiny_data: Path, tiny_yaml: Path
) -> None:
    """Pitfalls 13, 36: eight cards, two processes standing in for them; one log a rank."""
    repo.use_real_programs()
    shutil.copytree(tiny_data, repo.data, dirs_exist_ok=True)
    options = [f"--cfg={tiny_yaml}", "--cards=2", "--bs=2", "--device=cpu", "--lr=0.001"]
    options += ["--train_epochs=2", "--", "PRINT_FREQ", "1", "TRAIN.SAVE_EVERY_STEPS", "2"]
    alone = repo.run("train_full_8p.sh", "--out=alone", *options)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    output = repo.root / "test/output/0"
    assert "rank 1 of 2" in (output / "rank_1.log").read_text()
    assert "RankSize = 2" in (output / "HRNet_ID1780_for_PyTorch_bs2_2p_acc.log").read_text()

    with (repo.root / "console").open("w") as console:
        launcher = subprocess.Popen(
            repo.command("train_full_8p.sh", "--out=killed", *options),
            cwd=repo.root,
            env=repo.environment,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while "Epoch: [1][2/7]" not in (repo.root / "console").read_text():
            assert launcher.poll() is None
            time.sleep(0.05)
        for pid in processes_with(f"{repo.root}/killed", "tools/train.py"):
            os.kill(pid, signal.SIGKILL)
        assert launcher.wait(60) == 128 + signal.SIGKILL
    resumed = repo.run("train_full_8p.sh", "--out=killed", "--auto_resume", *options)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "goes on at epoch 1 step" in resumed.stdout
    names = ("final_state.pth.tar", "model_best.pth.tar")
    for name in names:
        ours, theirs = (
            torch.load(repo.root / run / name, weights_only=True) for run in ("killed", "alone")
        )
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    assert len(list((repo.root / "killed").glob("checkpoint*"))) == 1


def test_a_real_failure_is_one_line_and_code_2(repo: Repository) -> None:
    """Fault R7."""
    repo.use_real_programs()
    result = repo.run("train_full_1p.sh", "--device=cpu")
    assert result.returncode == 2
    assert only_line(result).startswith("the run failed with exit code 2 (whole log: ")
    assert str(repo.data) in result.stdout
