"""The report that tools/train.py leaves, and tools/report.py."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TRAIN, RunScript

from lib.metrics.predictions_file import read_predictions
from lib.report.run_files import read_run
from lib.training import run_report

REPORT = "tools/report.py"


@pytest.fixture(scope="module")
def run(tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path_factory) -> Path:
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("run") / "folder"
    done = run_script(TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"the report is {folder / 'report.html'}\n")
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of that folder to change."""
    return shutil.copytree(run, tmp_path / "copy")


def test_a_run_leaves_a_report_of_its_best_weights(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"{result['best_accuracy_top1']:.2f} %" in page
    environment = json.loads((run / "environment.json").read_text())
    assert environment["device"].startswith("cpu") and environment["torch"] == torch.__version__
    assert environment["torch"] in page
    assert re.fullmatch(r"python \S*train.py .* --out \S*folder", environment["command"])
    kept = read_predictions(run / "predictions.npz")
    right = kept.predictions.classes[:, 0] == kept.predictions.targets
    assert 100 * right.float().mean().item() == pytest.approx(
        result["best_accuracy_top1"], abs=1e-3
    )
    assert kept.epoch == result["best_epoch"] and len(kept.paths) == 11
    assert page.count("data:image/jpeg") == int((~right).sum())


def test_predictions_that_are_missing_are_made_again_from_the_best_weights(
    copy: Path, tiny_data: Path, run_script: RunScript
) -> None:
    before = read_predictions(copy / "predictions.npz")
    for name in ("predictions.npz", "report.html"):
        (copy / name).unlink()
    measured = ("result.json", "per_class.csv", "confusion.png", "reliability.png")
    (copy / "eval").mkdir()
    for name in measured:
        (copy / "eval" / name).write_text(f"the user's {name}")
    done = run_script(REPORT, copy)
    assert done.returncode == 0, done.stderr
    assert "[Warning] predictions.npz is not there: give --data_path" in done.stdout
    assert "predictions are not here" in (copy / "report.html").read_text()
    done = run_script(REPORT, copy, "--data_path", tiny_data, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    after = read_predictions(copy / "predictions.npz")
    assert after.paths == before.paths and after.epoch == before.epoch
    assert torch.equal(after.predictions.classes, before.predictions.classes)
    torch.testing.assert_close(after.predictions.probabilities, before.predictions.probabilities)
    assert "Accuracy of each class" in (copy / "report.html").read_text()
    assert f"results are in {copy / 'predictions.npz'}\n" in done.stdout
    left = {path.name: path.read_text() for path in (copy / "eval").iterdir()}
    assert left == {name: f"the user's {name}" for name in measured}


def test_predictions_that_are_damaged_are_made_again_too(
    copy: Path, tiny_data: Path, run_script: RunScript
) -> None:
    before = read_predictions(copy / "predictions.npz")
    (copy / "predictions.npz").write_bytes(b"PK")
    done = run_script(REPORT, copy)
    assert done.returncode == 0, done.stderr
    assert "[Warning] " in done.stdout and "predictions.npz is damaged" in done.stdout
    done = run_script(REPORT, copy, "--data_path", tiny_data, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "predictions.npz is damaged" in done.stdout
    after = read_predictions(copy / "predictions.npz")
    assert torch.equal(after.predictions.classes, before.predictions.classes)


def test_too_few_class_names_are_one_line(copy: Path, run_script: RunScript) -> None:
    (copy / "classes.json").write_text('{"c0": 0}')
    done = run_script(REPORT, copy)
    assert done.returncode == 2 and "has 1 class names" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_report_is_made_again_of_the_same_files(copy: Path, run_script: RunScript) -> None:
    before = (copy / "report.html").read_text().split("<footer>")[0]
    (copy / "report.html").unlink()
    done = run_script(REPORT, copy)
    assert (done.returncode, done.stdout) == (0, f"the report is {copy / 'report.html'}\n")
    after = (copy / "report.html").read_text().split("<footer>")[0]
    assert after.replace("folder", "copy") == before.replace("folder", "copy")


def test_a_resume_in_another_folder_takes_the_predictions_along(
    run: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """The epoch that follows learns nothing, so that the best weights stay the older ones."""
    done = run_script(
        TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", tmp_path / "on", "--train_epochs", 3,
        "--lr", 0, "--resume", run / "checkpoint.pth.tar", "TRAIN.WD", 0.0,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = read_run(tmp_path / "on")
    assert files.kept is not None and files.kept.epoch == files.best_epoch


def test_a_performance_run_makes_no_report(
    tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    done = run_script(TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", tmp_path, "--stop_step", 2)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "performance"
    made = {"report.html", "predictions.npz", "environment.json"}
    assert not made & {path.name for path in folder.iterdir()}
    done = run_script(REPORT, folder)
    assert done.returncode == 2 and "nothing to report" in done.stderr


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("a bug")])
def test_a_report_that_cannot_be_made_fails_no_run(
    error: Exception, copy: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(run_report, "write_report", fail)
    done = run_script(TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", copy, "--auto_resume")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    assert said.startswith("[Warning] report.html could not be made") and str(error) in said
    assert f"python tools/report.py {copy}" in said


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (("{}/nowhere",), "no such run folder: "),
        (("{}",), "has no config.yaml: give the folder that a run of tools/train.py wrote to"),
        (("{}/copy", "--data_path", "{}/nowhere"), "no such data folder: "),
        (("{}/copy", "--data_path", "{}"), "has no folder 'val'"),
    ],
)
def test_wrong_folders_are_one_line(
    words: tuple[str, ...], pattern: str, copy: Path, run_script: RunScript
) -> None:
    done = run_script(REPORT, *(word.format(copy.parent) for word in words))
    assert done.returncode == 2 and pattern in done.stderr
    assert done.stderr.count("\n") == 1
