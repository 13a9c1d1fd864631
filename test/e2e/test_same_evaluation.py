"""Training's own evaluation, valid.py, predict.py and report.py look at pictures alike."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from conftest import TRAIN, VALID, RunScript, write_pictures

from lib.metrics.predictions_file import read_predictions

KEYS = ("TEST.FLIP", "true", "TEST.IMAGE_SIZE", 96, "TEST.RESIZE", 128)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of which the size and the side of a mirror matter; classes are hardly told apart."""
    root = tmp_path_factory.mktemp("data")
    for part, num_images in (("train", 4), ("val", 6)):
        for number in range(3):
            seed = number + 10 * num_images
            write_pictures(root / part / f"c{number}", num_images, seed=seed, size=(90, 150))
    return root


@pytest.fixture(scope="module")
def run(data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path_factory) -> Path:
    """A run of one epoch, of which the last weights are the best, with the keys set."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = run_script(
        TRAIN, data, "--cfg", tiny_yaml, "--out", folder, "--train_epochs", 1, "--device", "cpu",
        *KEYS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


def last_test_line(said: str) -> list[str]:
    """The figures of the last `Test:` line, without what was measured by the clock."""
    return [line for line in said.splitlines() if line.startswith("Test: ")][-1].split("\t")[1:]


def table_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_keys_give_the_same_figures_and_classes_in_training_valid_and_predict(
    data: Path, run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    weights, config = run / "model_best.pth.tar", run / "config.yaml"
    assert "evaluation, image_size: 96\n" in (run / "said.txt").read_text()
    results = {"train": json.loads((run / "result.json").read_text())}
    for name, keys in (("same", ()), ("plain", ("TEST.FLIP", "false", "TEST.IMAGE_SIZE", 0))):
        done = run_script(
            VALID, data, "--cfg", config, "--testModel", weights, "--out", tmp_path / name,
            "--predictions", tmp_path / f"{name}.csv", "--device", "cpu", *keys,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results[name] = json.loads((tmp_path / name / "result.json").read_text())
        if name == "same":
            trained = (run / "said.txt").read_text()
            assert last_test_line(done.stdout) == last_test_line(trained)
    for key in ("flip", "image_size", "resize", "accuracy_top1"):
        assert results["same"][key] == results["train"][key], key
    assert results["same"]["loss"] != pytest.approx(results["plain"]["loss"], abs=1e-4)

    done = run_script(
        "tools/predict.py", data / "val", "--checkpoint", weights, "--device", "cpu",
        "--out", tmp_path / "predict.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "image_size: 96\n" in done.stdout
    same = table_of(tmp_path / "same.csv")
    for ours, theirs in zip(table_of(tmp_path / "predict.csv"), same, strict=True):
        assert ours["file"] == str(data / theirs["file"])
        assert ours["class_1"] == theirs["predicted_1"]
        assert float(ours["probability_1"]) == pytest.approx(
            float(theirs["probability_1"]), abs=2e-6
        )


def test_a_size_on_the_command_line_of_predict_wins(
    data: Path, run: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    weights = run / "model_best.pth.tar"
    for name, words in (("big", ("--image_size", 160)), ("yaml", ())):
        done = run_script(
            "tools/predict.py", data / "val" / "c0", "--checkpoint", weights, "--device", "cpu",
            "--out", tmp_path / f"{name}.csv", *words,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    done = run_script(
        VALID, data, "--cfg", run / "config.yaml", "--testModel", weights, "--out", tmp_path / "e",
        "--predictions", tmp_path / "valid.csv", "TEST.IMAGE_SIZE", 160, "TEST.RESIZE", 0,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = [float(row["probability_1"]) for row in table_of(tmp_path / "valid.csv")[:6]]
    big, other = (
        [float(row["probability_1"]) for row in table_of(tmp_path / f"{name}.csv")]
        for name in ("big", "yaml")
    )
    assert big == pytest.approx(expected, abs=2e-6)
    assert big != pytest.approx(other, abs=1e-5)


def test_a_report_evaluates_again_what_training_evaluated(
    data: Path, run: Path, run_script: RunScript
) -> None:
    before = read_predictions(run / "predictions.npz").predictions
    (run / "predictions.npz").unlink()
    done = run_script("tools/report.py", run, "--data_path", data, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    after = read_predictions(run / "predictions.npz").predictions
    assert torch.equal(after.classes, before.classes)
    torch.testing.assert_close(after.probabilities, before.probabilities)


def test_an_evaluation_writes_over_nothing_that_it_reads_and_not_into_the_data(
    run: Path, data: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Fault L1."""
    common = (VALID, data, "--testModel", run / "model_best.pth.tar", "--device", "cpu")
    for name in ("config.yaml", "metrics.jsonl", "checkpoint.pth.tar", "classes.json"):
        before = (run / name).read_bytes()
        done = run_script(*common, "--out", tmp_path / "e", "--predictions", run / name)
        assert done.returncode == 2 and "is a file to read" in done.stderr
        assert (run / name).read_bytes() == before
    result = tmp_path / "e" / "result.json"
    done = run_script(*common, "--out", tmp_path / "e", "--predictions", result)
    assert done.returncode == 2 and "is the file of --out result.json:" in done.stderr
    for inside in ("val/eval", "val/c0/eval"):
        done = run_script(*common, "--out", data / inside)
        assert done.returncode == 2 and "whose folders are the classes" in done.stderr
        assert not (data / inside).exists()


def test_pictures_that_all_are_damaged_are_no_evaluation_and_no_training(
    run: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Fault S10: exit code 0 after nothing was evaluated; a traceback in training."""
    for split in ("train", "val"):
        for name in ("c0", "c1", "c2"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(2):
                (tmp_path / split / name / f"{number}.png").write_text("x")
    share = ("DATASET.BAD_IMAGES_MAX_SHARE", 1)
    common = ("--device", "cpu", "--workers", 0, *share)
    weights = ("--testModel", run / "model_best.pth.tar", "--out", tmp_path / "e")
    done = run_script(VALID, tmp_path, *weights, *common)
    assert done.returncode == 1
    assert done.stderr.endswith("none of the 6 images can be read: nothing was evaluated\n")
    done = run_script(TRAIN, tmp_path, "--cfg", tiny_yaml, "--out", tmp_path / "r", *common)
    assert done.returncode == 2 and "none of a batch's pictures can be read" in done.stderr
