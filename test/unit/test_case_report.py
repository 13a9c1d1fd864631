"""lib/report/launcher_report.py: the texts that other people's scripts read after a launcher."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lib.report.launcher_report import (
    case_log,
    final_result,
    read_figures,
    read_losses,
    write_report,
)

TRAIN = {
    "kind": "train",
    "cards": 8,
    "batch_size": 256,
    "images_per_s": 594.0,
    "train_loss": 0.9,
    "loss": 0.95,
    "accuracy_top1": 76.65,
    "best_accuracy_top1": 76.7,
    "compile_time_s": 12.5,
}
PERFORMANCE = TRAIN | {"kind": "performance", "cards": 1, "accuracy_top1": 0.391}
EVAL = {
    "kind": "eval",
    "cards": 1,
    "batch_size": 64,
    "images_per_s": 900.0,
    "loss": 0.95,
    "accuracy_top1": 76.51,
}


def write_run(folder: Path, result: dict[str, object], losses: tuple[float, ...] = ()) -> Path:
    """Make a run folder with this result.json and an `Epoch:` record a loss."""
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))
    records: list[dict[str, object]] = [
        {"kind": "interval", "epoch": 0, "step": step, "loss": loss}
        for step, loss in enumerate(losses)
    ]
    records.append({"kind": "epoch", "epoch": 0, "train_loss": 5.0, "val_loss": 6.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    return folder


def log_of(result: dict[str, object], tmp_path: Path, e2e_time_s: int = 12345) -> dict[str, str]:
    """The case log as a mapping, in the order of its lines."""
    figures = read_figures(write_run(tmp_path / "run", result))
    text = case_log(figures, e2e_time_s=e2e_time_s, device_type="aarch64")
    return dict(line.split(" = ") for line in text.splitlines())


def test_the_case_log_of_a_training_run_has_every_key_in_order_and_format(tmp_path: Path) -> None:
    """Pitfall 36: TrainingTime is that of 8 cards' images, 256 * 8 * 1000 / 594 ms."""
    assert list(log_of(TRAIN, tmp_path).items()) == [
        ("Network", "HRNet_ID1780_for_PyTorch"),
        ("RankSize", "8"),
        ("BatchSize", "256"),
        ("DeviceType", "aarch64"),
        ("CaseName", "HRNet_ID1780_for_PyTorch_bs256_8p_acc"),
        ("ActualFPS", "594.0"),
        ("TrainingTime", "3447.81"),
        ("TrainAccuracy", "76.650"),
        ("ActualLoss", "0.90000"),
        ("E2ETrainingTime", "12345"),
    ]


def test_a_performance_run_adds_the_compile_time(tmp_path: Path) -> None:
    log = log_of(PERFORMANCE, tmp_path)
    assert list(log)[-1] == "CompileTime"
    assert log["CompileTime"] == "12.5000"
    assert log["CaseName"] == "HRNet_ID1780_for_PyTorch_bs256_1p_perf"
    assert log["TrainingTime"] == "430.98"


def test_an_evaluation_reports_no_speed(tmp_path: Path) -> None:
    log = log_of(EVAL, tmp_path)
    assert {"ActualFPS", "TrainingTime", "CompileTime"}.isdisjoint(log)
    assert log["CaseName"] == "HRNet_ID1780_for_PyTorch_bs64_1p_eval"
    assert log["ActualLoss"] == "0.9500"  # as in the `Test:` line


def test_the_closing_block_has_a_speed_line_except_for_an_evaluation(tmp_path: Path) -> None:
    train = final_result(read_figures(write_run(tmp_path / "train", TRAIN)), e2e_time_s=7)
    assert train.splitlines() == [
        "------------------ Final result ------------------",
        "Final Performance images/sec : 594.0",
        "Final Train Accuracy : 76.650",
        "E2E Training Duration sec : 7",
    ]
    evaluated = final_result(read_figures(write_run(tmp_path / "eval", EVAL)), e2e_time_s=7)
    assert evaluated.splitlines() == [
        train.splitlines()[0],
        "Final Train Accuracy : 76.510",
        "E2E Training Duration sec : 7",
    ]


def test_the_losses_are_those_of_the_epoch_lines_in_order(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TRAIN, (6.9, 6.8, 6.85))
    assert read_losses(run) == [6.9, 6.8, 6.85]


def test_a_step_done_again_after_a_resume_counts_once_with_its_last_loss(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TRAIN, (6.9, 6.8))
    again = {"kind": "interval", "epoch": 0, "step": 1, "loss": 6.7}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    assert read_losses(run) == [6.9, 6.7]


def test_a_metrics_line_cut_short_by_a_kill_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault L5, R6."""
    run = write_run(tmp_path / "run", TRAIN, (6.9,))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "interv\n5\nnull\n[]\n{}\n')
    assert read_losses(run) == [6.9]
    assert "[Warning] left out: " in (said := capsys.readouterr().err)
    assert "metrics.jsonl line 3 is damaged or no JSON" in said
    assert "metrics.jsonl line 4: it is 5, and a mapping is needed" in said
    assert len(said.splitlines()) == 5


def test_write_report_writes_the_case_log_and_the_loss_list(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TRAIN, (6.9, 0.9))
    block = write_report(run, tmp_path / "output", e2e_time_s=60)
    name = "HRNet_ID1780_for_PyTorch_bs256_8p_acc"
    assert (tmp_path / f"output/train_{name}_loss.txt").read_text() == "6.90000\n0.90000\n"
    log = (tmp_path / f"output/{name}.log").read_text()
    assert f"DeviceType = {platform.machine()}\n" in log
    assert block.endswith("E2E Training Duration sec : 60")


def test_an_evaluation_needs_no_metrics_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", EVAL)
    (run / "metrics.jsonl").unlink()
    write_report(run, tmp_path, e2e_time_s=60)
    loss_file = tmp_path / "train_HRNet_ID1780_for_PyTorch_bs64_1p_eval_loss.txt"
    assert loss_file.read_text() == "0.9500\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged or no JSON"),
        ("[]", "it is [], and a mapping is needed"),
        (json.dumps(TRAIN | {"kind": "test"}), "kind is 'test', and \"train\" or"),
        (
            json.dumps(TRAIN | {"accuracy_top1": None}),
            "accuracy_top1 is None, and a number is needed",
        ),
        (json.dumps(TRAIN | {"cards": True}), "cards is True, and a number is needed"),
        (json.dumps(TRAIN | {"images_per_s": 0.0}), "images_per_s is 0.0, a number above 0"),
        ("5", "it is 5, and a mapping is needed"),
        ("[" * 100_000, "it is nested too deeply"),
        (json.dumps(EVAL | {"kind": "performance"}), "it has no 'train_loss'"),
    ],
)
def test_a_result_that_cannot_be_reported_says_what_is_wrong(
    tmp_path: Path, text: str, message: str
) -> None:
    """Fault R6."""
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json") as error:
        read_figures(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"result\.json is missing"):
        read_figures(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl is missing"):
        read_losses(tmp_path)


def test_nothing_is_written_where_the_losses_are_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TRAIN)
    (run / "metrics.jsonl").unlink()
    with pytest.raises(FileNotFoundError):
        write_report(run, tmp_path / "output", e2e_time_s=60)
    assert not (tmp_path / "output").exists()


def test_the_report_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, lib.report.launcher_report; "
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
