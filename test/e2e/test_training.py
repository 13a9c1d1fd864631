"""tools/train.py and tools/valid.py as a user runs them, on one process."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import (
    REPO,
    TRAIN,
    VALID,
    RunScript,
    command,
    script_environment,
    write_pictures,
)

AWK_FPS = "grep -a Fps_Avg {log} | awk '{{print $7}}' | awk 'END{{print}}'"
AWK_ACCURACY = "grep -a 'Accuracy@1' {log} | awk '{{print $11}}' | awk 'END{{print}}'"
AWK_LOSS = "grep Epoch: {log} | grep -v Test | awk -F Loss '{{print $NF}}' | awk '{{print $1}}'"


def awk(line: str, log: Path) -> list[str]:
    shell = ["bash", "-c", line.format(log=f"'{log}'")]
    return subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()


def result_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def run(tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path_factory) -> Path:
    """The folder of a whole run, with what it printed in `log`."""
    folder = tmp_path_factory.mktemp("run") / "folder"
    done = run_script(TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", folder)
    assert done.returncode == 0, done.stderr
    (folder / "log").write_text(done.stdout)
    return folder


def test_a_run_learns_and_leaves_every_file_it_promises(run: Path) -> None:
    promised = [
        "checkpoint.pth.tar",
        "model_best.pth.tar",
        "final_state.pth.tar",
        "classes.json",
        "config.yaml",
        "metrics.jsonl",
        "result.json",
        "curves.png",
        "tensorboard",
    ]
    assert [name for name in promised if not (run / name).exists()] == []
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((run / "classes.json").read_text()) == {"c0": 0, "c1": 1, "c2": 2}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [r for r in records if r["kind"] == "epoch"]
    assert [r["epoch"] for r in epochs] == [0, 1]
    assert epochs[1]["train_loss"] < epochs[0]["train_loss"]


def test_the_parsers_of_the_log_give_the_figures_of_result_json(run: Path) -> None:
    result, log = result_of(run), run / "log"
    assert awk(AWK_FPS, log) == [f"{result['images_per_s_last_epoch']:.1f}"]
    assert awk(AWK_ACCURACY, log) == [f"{result['accuracy_top1']:.3f}"]
    assert awk(AWK_LOSS, log)[-1] == f"{result['train_loss']:.5f}"
    lines = log.read_text().splitlines()
    steps = [line for line in lines if line.startswith("step_time = ")]
    assert len(steps) == 2
    assert sum(float(line.split()[2]) for line in steps) == pytest.approx(
        result["compile_time_s"], abs=2e-4
    )
    # Fault S15: the speed in result.json is the run's, but for the two first steps of 4 images.
    assert result["num_images_timed"] == 2 * 27 - 2 * 4
    speed = result["num_images_timed"] / result["train_time_s"]
    assert result["images_per_s"] == pytest.approx(speed, rel=0.01)
    last = max(i for i, line in enumerate(lines) if line.startswith("Test:"))
    assert not any("Accuracy@1" in line or "Test" in line for line in lines[last + 1 :])
    assert lines[last].split("\t")[0].startswith("Test: Time ")


def test_a_checkpoint_holds_everything_in_plain_types_and_the_others_are_bare(run: Path) -> None:
    """Pitfall 15."""
    state = torch.load(run / "checkpoint.pth.tar", weights_only=True)
    assert state["position"]["epoch"] == 2 and state["position"]["step"] == 0
    assert state["class_names"] == ["c0", "c1", "c2"]
    assert state["class_to_idx"] == {"c0": 0, "c1": 1, "c2": 2}
    for part in ("state_dict", "optimizer", "precision", "rng", "seed", "best_accuracy", "config"):
        assert part in state
    assert len(state["optimizer"]["state"]) > 100  # a momentum buffer for each parameter
    final = torch.load(run / "final_state.pth.tar", weights_only=True)
    assert final.keys() == state["state_dict"].keys()
    assert all(torch.equal(final[name], state["state_dict"][name]) for name in final)
    best = torch.load(run / "model_best.pth.tar", weights_only=True)
    assert best.keys() == final.keys()


@pytest.mark.parametrize("cards", [1, 2])
def test_valid_repeats_the_best_accuracy_exactly_on_one_and_on_two_processes(
    cards: int,
    run: Path,
    tiny_data: Path,
    tiny_yaml: Path,
    run_separately: RunScript,
    tmp_path: Path,
) -> None:
    """Pitfall 18: 11 pictures, which 2 does not divide."""
    out = tmp_path / "eval"
    done = run_separately(
        VALID, tiny_data, "--cfg", tiny_yaml, "--testModel", run / "model_best.pth.tar",
        "--out", out, "--cards", cards, "--per_class", "--confusion",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trained, evaluated = result_of(run), result_of(out)
    assert evaluated["kind"] == "eval"
    assert evaluated["accuracy_top1"] == trained["best_accuracy_top1"]
    assert evaluated["num_images_used"] == evaluated["num_images_expected"] == 11
    (out / "log").write_text(done.stdout)
    assert awk(AWK_ACCURACY, out / "log") == [f"{evaluated['accuracy_top1']:.3f}"]
    rows = (out / "per_class.csv").read_text().splitlines()
    assert rows[0] == "class,num_images,num_correct,accuracy_top1,most_confused_with"
    assert [row.split(",")[:2] for row in rows[1:]] == [["c0", "5"], ["c1", "3"], ["c2", "3"]]
    assert sum(int(row.split(",")[2]) for row in rows[1:]) == evaluated["num_correct_top1"]
    assert (out / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_padded_widths_train_a_network_of_the_published_shapes(
    run: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """TRAIN.WIDTH_MULTIPLE; later losses of so small batches differ by more than rounding."""
    words = (TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", tmp_path)
    done = run_script(*words, "TRAIN.WIDTH_MULTIPLE", 16)
    assert done.returncode == 0, done.stderr
    (tmp_path / "log").write_text(done.stdout)
    ours, plain = (awk(AWK_LOSS, folder / "log")[:2] for folder in (tmp_path, run))
    assert [float(loss) for loss in ours] == pytest.approx(
        [float(loss) for loss in plain], abs=1e-3
    )
    ours, plain = (
        torch.load(folder / "final_state.pth.tar", weights_only=True) for folder in (tmp_path, run)
    )
    shapes = [{name: value.shape for name, value in state.items()} for state in (ours, plain)]
    assert shapes[0] == shapes[1]
    resumed = run_script(*words, "--auto_resume", "TRAIN.END_EPOCH", 3)
    assert resumed.returncode == 0, f"the checkpoint fits no plain network:\n{resumed.stderr}"


@pytest.mark.parametrize("multiple", [1, 8])
def test_folded_batch_norms_change_nothing_but_the_last_digits(
    multiple: int,
    run: Path,
    tiny_data: Path,
    tiny_yaml: Path,
    run_script: RunScript,
    tmp_path: Path,
) -> None:
    done = run_script(
        VALID, tiny_data, "--cfg", tiny_yaml, "--testModel", run / "model_best.pth.tar",
        "--out", tmp_path, "TEST.FOLD_BN", "true", "TRAIN.WIDTH_MULTIPLE", multiple,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert result_of(tmp_path)["accuracy_top1"] == result_of(run)["best_accuracy_top1"]


def test_a_flat_val_folder_with_labels_gives_the_numbers_of_class_folders(
    run: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    flat, labels = tmp_path / "data" / "val", []
    flat.mkdir(parents=True)
    for path in sorted((tiny_data / "val").glob("*/*.png")):
        name = f"{path.parent.name}_{path.name}"
        (flat / name).write_bytes(path.read_bytes())
        labels.append(f"{name} {path.parent.name[1]}")
    (tmp_path / "data" / "val_label.txt").write_text("\n".join(labels) + "\n")
    best, results = run / "model_best.pth.tar", []
    for data, out in ((tiny_data, tmp_path / "a"), (tmp_path / "data", tmp_path / "b")):
        done = run_script(VALID, data, "--cfg", tiny_yaml, "--testModel", best, "--out", out)
        assert done.returncode == 0, done.stderr
        results.append(result_of(out))
    for key in ("loss", "num_correct_top1", "num_correct_top5", "num_images_used"):
        assert results[0][key] == results[1][key]


def test_a_second_run_neither_continues_nor_overwrites_the_first(
    run: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript
) -> None:
    """Pitfalls 4 and 25."""
    before = (run / "final_state.pth.tar").read_bytes()
    common = (TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", run)
    done = run_script(*common, "--train_epochs", 1, "--seed", 5)
    assert done.returncode == 0, done.stderr
    assert "from scratch" in done.stdout and "Epoch: [0][0/7]" in done.stdout
    assert (run / "previous_1" / "final_state.pth.tar").read_bytes() == before
    assert (run / "final_state.pth.tar").read_bytes() != before
    for path in (run / "previous_1").iterdir():  # as other tests expect it
        if path.is_file():
            path.replace(run / path.name)


def test_pretrained_loads_that_file_and_resume_that_checkpoint(
    run: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 3: a rate of 0 leaves the loaded weights as they are."""
    best = torch.load(run / "model_best.pth.tar", weights_only=True)
    out = tmp_path / "p"
    done = run_script(
        TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", out, "--lr", 0, "--train_epochs", 1,
        "--pretrained", run / "model_best.pth.tar", "TRAIN.WD", 0.0,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"pretrained weights: 444 tensors from {run / 'model_best.pth.tar'}" in done.stdout
    final = torch.load(out / "final_state.pth.tar", weights_only=True)
    trained = [name for name in best if "running_" not in name and "num_batches" not in name]
    assert all(torch.equal(final[name], best[name]) for name in trained)
    done = run_script(
        TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", tmp_path / "r", "--train_epochs", 3,
        "--resume", run / "checkpoint.pth.tar",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "goes on at epoch 2 step 0" in done.stdout
    assert "Epoch: [2][0/7]" in done.stdout and "Epoch: [1]" not in done.stdout


def test_a_performance_run_takes_exactly_its_steps_and_writes_no_weights(
    tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 2; 10 steps are more than the 7 of an epoch."""
    for stop_step, num_lines, num_steps in ((3, 2, 3), (10, 6, 10)):
        done = run_script(
            TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", tmp_path, "--stop_step", stop_step
        )
        assert done.returncode == 0, done.stderr
        assert "Test:" not in done.stdout
        assert sum(line.startswith("Epoch:") for line in done.stdout.splitlines()) == num_lines
        folder = tmp_path / "performance"
        assert result_of(folder)["num_steps"] == num_steps
        assert not list(tmp_path.rglob("*.pth.tar"))
        (folder / "log").write_text(done.stdout)
        speed = result_of(folder)["images_per_s_last_epoch"]
        assert awk(AWK_FPS, folder / "log") == [f"{speed:.1f}"]
        accuracy = f"{result_of(folder)['accuracy_top1']:.3f}"
        assert awk(AWK_ACCURACY, folder / "log") == [accuracy]


@pytest.mark.parametrize("precision", ["hf32", "fp16", "bf16"])
def test_every_precision_trains_and_is_said(
    precision: str, tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    done = run_script(
        TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", tmp_path, "--precision", precision,
        "--stop_step", 5,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"precision {precision} (" in done.stdout
    assert result_of(tmp_path / "performance")["precision"] == precision


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop"])
def test_every_optimizer_trains_and_resumes(
    optimizer: str, tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    common = (TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", tmp_path, "--lr", 0.001)
    keys = ("TRAIN.OPTIMIZER", optimizer)
    for epochs in (1, 2):
        done = run_script(*common, "--train_epochs", epochs, "--auto_resume", *keys)
        assert done.returncode == 0, done.stderr
    assert "goes on at epoch 1 step 0" in done.stdout


def test_a_resume_keeps_to_its_decoder_unless_told_otherwise_and_then_says_so(
    tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 13: with other pixels a resume would not be that of the same run."""
    pytest.importorskip("simplejpeg", reason="the fast decoder is not installed")
    common = (TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", tmp_path, "--auto_resume")
    wanted = (("pillow", "pillow"), ("auto", "pillow"), ("fast", "fast"), ("auto", "fast"))
    for epochs, (setting, used) in enumerate(wanted, start=1):
        done = run_script(*common, "--train_epochs", epochs, "DATASET.DECODER", setting)
        assert done.returncode == 0, done.stderr
        assert f"decoder of training pictures: {used}\n" in done.stdout
        warns = "[Warning] the checkpoint's run decoded training pictures with" in done.stdout
        assert warns == (setting == "fast")


def test_workers_do_not_change_the_result_and_any_working_directory_will_do(
    run: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 10."""
    done = run_script(
        TRAIN, tiny_data, "--cfg", tiny_yaml, "--workers", 2, "DATASET.DATASET", "other",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "output" / "other" / "tiny"
    ours, theirs = (torch.load(f / "final_state.pth.tar", weights_only=True) for f in (folder, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_bad_picture_is_skipped_counted_and_listed_or_fatal_as_the_setting_says(
    tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    for channel in range(2):
        write_pictures(tmp_path / "data/train" / str(channel), 6, channel=channel)
        write_pictures(tmp_path / "data/val" / str(channel), 4, channel=channel)
    (tmp_path / "data/val/1/broken.jpg").write_bytes(b"\xff\xd8 no picture")
    for name in ("train/lost", "val/lost"):
        (tmp_path / "data" / name).mkdir()
        (tmp_path / "data" / name / "a.jfif").write_bytes(b"no picture")
    common = (TRAIN, tmp_path / "data", "--cfg", tiny_yaml, "--train_epochs", 1)
    skipped = run_script(*common, "--out", tmp_path / "s", "DATASET.BAD_IMAGES_MAX_SHARE", 0.2)
    assert skipped.returncode == 0, skipped.stderr
    result = result_of(tmp_path / "s")
    assert (result["num_images_used"], result["num_images_expected"]) == (8, 10)
    listed = (tmp_path / "s" / "bad_images.tsv").read_text().splitlines()
    names = sorted(Path(line.split("\t")[0]).name for line in listed)
    assert names == ["a.jfif", "a.jfif", "broken.jpg"]
    lost = "[Warning] 1 class has no picture that can be read: 'lost'\n"
    assert skipped.stdout.count(lost) == 2  # to train on, to validate with
    again = run_script(
        VALID, tmp_path / "data", "--cfg", tiny_yaml, "--out", tmp_path / "v",
        "--testModel", tmp_path / "s/model_best.pth.tar", "DATASET.BAD_IMAGES_MAX_SHARE", 0.2,
    )  # fmt: skip
    assert lost in again.stdout, again.stderr
    for settings in (("DATASET.BAD_IMAGES", "fail"), ("DATASET.BAD_IMAGES_MAX_SHARE", "0.01")):
        failed = run_script(*common, "--out", tmp_path / "f", *settings)
        assert failed.returncode == 2
        assert failed.stderr.count("\n") == 1 and failed.stderr.startswith("[Error] ")


def test_bad_training_pictures_met_by_any_rank_are_said_listed_once_and_counted(
    tiny_data: Path, tiny_yaml: Path, run_separately: RunScript, tmp_path: Path
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    for name in ("a", "b"):
        (tmp_path / "data/train/c1" / f"broken_{name}.png").write_bytes(b"no picture")
    done = run_separately(
        TRAIN, tmp_path / "data", "--cfg", tiny_yaml, "--out", tmp_path / "o", "--cards", 2,
        "--bs", 2, "DATASET.BAD_IMAGES_MAX_SHARE", 0.1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 images to train cannot be read" in done.stdout
    listed = (tmp_path / "o" / "bad_images.tsv").read_text().splitlines()
    assert sorted(Path(line.split("\t")[0]).name for line in listed) == [
        "broken_a.png",
        "broken_b.png",
    ]
    result = result_of(tmp_path / "o")
    assert (result["num_train_images"], result["num_bad_images"]) == (29, 2)


def test_an_evaluation_replaces_the_files_of_the_one_before_and_nan_is_null_and_wrong(
    run: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Fault S8."""
    weights = torch.load(run / "model_best.pth.tar", weights_only=True)
    weights["classifier.bias"][0] = float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    common = (VALID, tiny_data, "--cfg", tiny_yaml, "--out", tmp_path / "e", "--testModel")
    assert run_script(*common, run / "model_best.pth.tar", "--per_class").returncode == 0
    done = run_script(*common, tmp_path / "nan.pth")
    assert done.returncode == 1
    assert done.stderr.startswith("[Error] the outputs for 11 of 11 images are NaN or infinite")
    lines = done.stdout.splitlines()
    assert "the outputs for 11 of 11 images are NaN" in done.stdout and "c0/0.png" in done.stdout
    assert lines[-1].startswith("Test: ") and lines[-1].endswith("\tAccuracy@5 0.000")
    result = result_of(tmp_path / "e")
    assert result["loss"] is None and result["num_images_not_finite"] == 11
    assert result["num_correct_top1"] == result["num_correct_top5"] == 0
    assert not (tmp_path / "e" / "per_class.csv").exists()


def test_the_run_folders_config_repeats_the_run(
    run: Path, tiny_data: Path, run_script: RunScript, tmp_path: Path
) -> None:
    done = run_script(TRAIN, tiny_data, "--cfg", run / "config.yaml", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        torch.load(f / "final_state.pth.tar", weights_only=True) for f in (tmp_path, run)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "arguments", [("--device", "cuda"), ("MODEL.NUM_CLASSES", "7"), ("--resume", "absent.pth.tar")]
)
def test_bad_input_with_two_cards_is_one_line_and_exit_code_2_too(
    arguments: tuple[str, str], tiny_data: Path, run_separately: RunScript, tmp_path: Path
) -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    done = run_separately(TRAIN, tiny_data, "--out", tmp_path, "--cards", 2, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("[Error] ") and done.stderr.count("\n") == 1, done.stderr


def test_a_nan_loss_stops_the_run_with_step_rate_and_scale_and_keeps_the_checkpoint(
    run: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 23."""
    out = tmp_path / "nan"
    common = (TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", out)
    assert run_script(*common, "--train_epochs", 1).returncode == 0
    before = (out / "checkpoint.pth.tar").read_bytes()
    done = run_script(*common, "--auto_resume", "--lr", "1e30")
    assert done.returncode == 2
    assert "NaN or infinite at step" in done.stderr and "learning rate" in done.stderr
    assert (out / "checkpoint.pth.tar").read_bytes() == before


@pytest.mark.parametrize(("start", "is_traced"), [("3", True), ("4", False)])
def test_a_profiler_that_would_start_after_the_epochs_end_is_said_to_record_nothing(
    tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, start: str, is_traced: bool,
) -> None:  # fmt: skip
    monkeypatch.setenv("PROFILE_TYPE", "1")
    monkeypatch.setenv("PROFILE_START_STEP", start)
    done = run_script(
        TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", tmp_path, "--stop_step", 5, "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stdout.splitlines() if "nothing is profiled" in line]
    assert len(warnings) == int(not is_traced)
    assert (tmp_path / "performance/profile").exists() is is_traced
    if warnings:
        assert "PROFILE_START_STEP=4 and its warm-up take 5 steps" in warnings[0]
        assert "first epoch has 5; give less" in warnings[0]


def test_help_names_every_option_with_its_default(run_script: RunScript) -> None:
    """Pitfall 1."""
    text = run_script(TRAIN, "--help").stdout
    documented = [
        "--cfg",
        "--addr",
        "--nproc",
        "--lr",
        "--workers",
        "--train_epochs",
        "--bs",
        "--device_id",
        "--stop_step",
        "--dn",
        "--hf32",
        "--fp32",
        "--resume",
        "--auto_resume",
        "--pretrained",
        "--seed",
        "--device",
        "--cards",
    ]
    assert [option for option in documented if option not in text] == []
    assert "(default: 127.0.0.1)" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["TRAIN.LERNING_RATE", "1"], "TRAIN.LERNING_RATE"),
        (["LR", "1"], "TRAIN.LR"),
        (["MODEL.NAME", "hrnet_w81"], "hrnet_w18"),
        (["MODEL.IMAGE_SIZE", "[100, 100]"], "multiples of 32"),
        (["--hf32", "--fp32"], "choose one"),
        (["--dn", "2", "--nproc", "2"], "--dn 2"),
        (["--device", "cuda"], "--device"),
        (["--device", "npu"], "torch_npu"),
        (["--stop_step", "abc"], "abc"),
        (["--stop_step", "0"], "--stop_step 0"),
        (["--resume", "absent.pth.tar"], "absent.pth.tar"),
        (["--pretrained", "absent.pth"], "absent.pth"),
        (["--cfg", "absent.yaml"], "absent.yaml"),
        (["MODEL.NUM_CLASSES", "5"], "MODEL.NUM_CLASSES 5"),
        (["MODEL.IMAGE_SIZE", "[32, 32]", "--bs", "2"], "take another --bs"),
        (["--no_such_option"], "--no_such_option"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], named: str, tiny_data: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfalls 5, 9 and 10."""
    if arguments[0] == "--device" and torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    out = ["--out", str(tmp_path / "out")]
    done = run_script(TRAIN, tiny_data, *out, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("[Error] ") and done.stderr.count("\n") == 1
    assert named in done.stderr


def test_weights_of_another_network_are_refused_by_train_and_valid(
    run: Path, tiny_data: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 27."""
    best = run / "model_best.pth.tar"
    for script, option, said in (
        (TRAIN, "--pretrained", ("missing", "unexpected")),
        (VALID, "--testModel", ("MODEL.NAME is of hrnet_w18", "weights in", "are of a network")),
    ):
        done = run_script(
            script, tiny_data, option, best, "--out", tmp_path, "MODEL.NAME", "hrnet_w18"
        )
        assert done.returncode == 2
        assert all(words in done.stderr for words in said)
        assert done.stderr.count("\n") == 1


def test_a_data_path_that_is_not_there_is_told_at_once(run_script: RunScript) -> None:
    done = run_script(TRAIN, REPO / "no" / "such")
    assert done.returncode == 2 and "no such data folder" in done.stderr
    assert run_script(TRAIN).returncode == 2


def test_overrides_may_come_without_a_data_path(
    tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    done = run_script(
        TRAIN, "--cfg", tiny_yaml, "--out", tmp_path, "--stop_step", 1, "DATASET.ROOT", tiny_data
    )
    assert done.returncode == 0, done.stderr


def test_whoever_reads_the_output_may_leave(
    tiny_data: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    arguments = [tiny_data, "--cfg", tiny_yaml, "--out", tmp_path]
    process = subprocess.Popen(
        command(TRAIN, arguments),
        env=script_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 141


def test_it_learns_real_photos_and_valid_repeats_the_best_accuracy(
    class_photos: Path, run_script: RunScript, run_separately: RunScript, tmp_path: Path
) -> None:
    recipe = "experiments/cls_hrnet_w18_small_v1_sgd_lr5e-2_wd1e-4_bs32_x100.yaml"
    common = (class_photos, "--cfg", REPO / recipe)
    size = ("MODEL.IMAGE_SIZE", "[64, 64]")
    done = run_script(
        TRAIN, *common, "--out", tmp_path, "--bs", 16, "--lr", 0.001, "--train_epochs", 6, *size,
        "TRAIN.OPTIMIZER", "adamw", "TRAIN.LR_STEP", "[5]", "AUG.CROP_SCALE", "[0.5, 1.0]",
        "TEST.BATCH_SIZE_PER_GPU", 16,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trained = result_of(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    epochs = [r for r in records if r["kind"] == "epoch"]
    assert epochs[-1]["train_loss"] < 0.85 * math.log(10)
    assert trained["best_accuracy_top1"] > 20  # chance is 10
    for cards, batch_size, run in ((1, 16, run_script), (2, 7, run_separately)):
        out = tmp_path / str(cards)
        done = run(
            VALID, *common, "--testModel", tmp_path / "model_best.pth.tar", "--out", out, *size,
            "--cards", cards, "--bs", batch_size,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert result_of(out)["accuracy_top1"] == trained["best_accuracy_top1"]
        assert result_of(out)["num_images_used"] == 100


def test_a_validation_part_is_set_aside_written_down_and_evaluated_again(
    tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """As the data of people who only have a folder of class folders."""
    out, settings = tmp_path / "run", ("DATASET.TRAIN_SET", ".", "DATASET.VAL_SHARE", 0.3)
    done = run_script(TRAIN, tiny_data / "train", "--cfg", tiny_yaml, "--out", out, *settings)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in (out / "split.tsv").read_text().splitlines()[1:]]
    aside = {Path(path) for part, path in rows if part == "val"}
    assert [sum(path.parent.name == f"c{n}" for path in aside) for n in range(3)] == [3, 3, 2]
    assert {Path(path) for _, path in rows} == set((tiny_data / "train").rglob("*.png"))
    done = run_script(
        VALID, tiny_data / "train", "--cfg", out / "config.yaml", "--out", tmp_path / "eval",
        "--testModel", out / "model_best.pth.tar",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "eval" / "result.json").read_text())
    best = json.loads((out / "result.json").read_text())["best_accuracy_top1"]
    assert (again["num_images_expected"], again["accuracy_top1"]) == (8, best)
