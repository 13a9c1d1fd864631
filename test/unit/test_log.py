"""Console lines byte by byte, and the awk one-liners that others read them with."""

import json
import os
import subprocess
import sys

import pytest
from tensorboardX import SummaryWriter

from lib.metrics.meter import Metrics
from lib.metrics.stats import EpochStats, EvalStats, IntervalStats
from lib.report import log
from lib.report.log import RunRecords
from lib.runtime.console import Console
from lib.runtime.files import write_json

# 256 pictures: 1 right, 4 among the first five, a mean loss of 6.90776.
METRICS = Metrics(256, 1, 4, round(6.90776 * 256 * 2**20))
INTERVAL = IntervalStats(
    step=100, num_steps=5005, time_s=0.43098, images_per_s=594.04, data_time_s=0.0014,
    decode_time_s=0.5, metrics=METRICS, learning_rate=0.05, loss_scale=65536.0,
)  # fmt: skip
EPOCH = EpochStats(METRICS, time_s=0.43098, images_per_s=594.04, num_steps_done=5005, last_loss=6.9)
EVALUATION = EvalStats(METRICS, num_expected=257, time_s=0.21, images_per_s=1000.0)

EPOCH_LINE = (
    "Epoch: [0][100/5005]\tTime 0.431s\tFPS 594.0\tData 0.001s\tLoss 6.90776\t"
    "Accuracy@1 0.391\tAccuracy@5 1.562"
)
AVERAGE_LINE = "Data Average :\tTime_Avg 0.431s\tFps_Avg 594.0\tLoss 6.90776\tAccuracy@1_Avg 0.391"
TEST_LINE = (
    "Test: Time 0.210\tLoss 6.9078\tError@1 99.609\tError@5 98.438\t"
    "Accuracy@1 0.391\tAccuracy@5 1.562"
)


def record(kind, epoch, step=0):
    """A line of metrics.jsonl."""
    return {"kind": kind, "epoch": epoch, "step": step, "num_steps": 2, "loss": 0.5}


@pytest.fixture
def records(tmp_path):
    """The growing files of a run folder."""
    opened = RunRecords(tmp_path / "run")
    yield opened
    opened.close()


def test_the_epoch_line_byte_by_byte():
    assert log.epoch_line(0, INTERVAL) == EPOCH_LINE


def test_the_average_line_byte_by_byte():
    assert log.average_line(EPOCH) == AVERAGE_LINE


def test_the_test_line_byte_by_byte():
    assert log.test_line(EVALUATION) == TEST_LINE


@pytest.fixture
def train_log(tmp_path):
    """A console log of two epochs with a perfect second one, as train.py prints it."""
    perfect = Metrics(256, 256, 256, 0)
    last = EpochStats(perfect, 0.1, 2560.0, num_steps_done=1, last_loss=0.0)
    lines = [
        "network hrnet_w18, 21,299,004 parameters, 1000 classes; from scratch",
        "step_time = 12.3456",
        "step_time = 0.4310",
        log.epoch_line(0, INTERVAL),
        log.average_line(EPOCH),
        log.test_line(EVALUATION),
        log.epoch_line(1, IntervalStats(0, 1, 0.1, 2560.0, 0.0, 0.0, perfect, 0.05, 1.0)),
        log.average_line(last),
        log.test_line(EvalStats(perfect, 256, 0.1, 2560.0)),
        "results, logs and weights are in output/imagenet/some recipe",
    ]
    path = tmp_path / "train 0.log"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("""grep -a Fps_Avg "$F" | awk '{print $7}' | awk 'END{print}'""", "2560.0"),
        ("""grep -a 'Accuracy@1' "$F" | awk '{print $11}' | awk 'END{print}'""", "100.000"),
        ("""grep -a Accuracy@1_Avg "$F" | awk '{print $11}' | awk 'END{print}'""", "100.000"),
        ("""grep -a Test: "$F" | awk '{print $5}' | awk 'END{print}'""", "0.0000"),
        ("""grep -a Test: "$F" | awk '{print $11}'""", "0.391\n100.000"),
        (
            """grep Epoch: "$F" | grep -v Test | awk -F Loss '{print $NF}' | awk '{print $1}'""",
            "6.90776\n0.00000",
        ),
        ("""grep step_time "$F" | awk '{sum+=$3} END{print sum}'""", "12.7766"),
    ],
)
def test_the_one_liners_used_outside_find_their_numbers(pipeline, expected, train_log):
    environment = {**os.environ, "F": str(train_log)}
    done = subprocess.run(
        ["bash", "-c", pipeline], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_a_loss_that_is_nan_keeps_the_fields_in_place():
    broken = Metrics(4, 0, 0, 0, num_not_finite=1)
    line = log.test_line(EvalStats(broken, 4, 0.1, 1.0))
    assert line.split()[4] == "nan"
    assert line.split()[10] == "0.000"


def test_console_metrics_and_result_round_alike():
    interval, evaluation = log.interval_record(0, INTERVAL), log.eval_record(EVALUATION)
    for name, text in (("loss", "6.90776"), ("accuracy_top1", "0.391"), ("time_s", "0.431")):
        assert str(interval[name]) == text
        assert f" {text}" in EPOCH_LINE
    for name, text in (("loss", "6.9078"), ("accuracy_top1", "0.391"), ("accuracy_top5", "1.562")):
        assert str(evaluation[name]) == text
        assert f" {text}" in TEST_LINE
    assert (interval["kind"], interval["epoch"], interval["step"]) == ("interval", 0, 100)
    assert (evaluation["num_images_used"], evaluation["num_images_expected"]) == (256, 257)


def test_a_console_prints_each_line_once_however_often_it_is_made(capsys):
    """Pitfall 25: re-creating the logger does not double lines."""
    for _ in range(3):
        console = Console(enabled=True)
    console.say("one line")
    assert capsys.readouterr().out == "one line\n"


def test_a_console_of_another_rank_is_silent(capsys):
    """Pitfall 17: one process speaks."""
    console = Console(enabled=False)
    console.say("nothing")
    console.start_bar("epoch 0", 3)
    console.advance_bar()
    console.end_bar()
    assert capsys.readouterr() == ("", "")


def test_no_progress_bar_goes_into_a_log_file(capsys):
    console = Console(enabled=True)
    console.start_bar("epoch 0", 3, first_step=1)
    console.advance_bar()
    console.say(EPOCH_LINE)
    console.end_bar()
    console.end_bar()
    assert capsys.readouterr() == (EPOCH_LINE + "\n", "")


def test_a_terminal_gets_a_progress_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console = Console(enabled=True)
    console.start_bar("epoch 0", 3)
    console.end_bar()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 0" in captured.err


def test_records_are_one_json_a_line(records):
    for epoch in (0, 1):
        records.write(record("interval", epoch), global_step=epoch)
    lines = records.path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record("interval", e) for e in (0, 1)]
    assert log.read_records(records.path)[0] == [record("interval", e) for e in (0, 1)]


def test_opening_the_records_again_appends_and_doubles_nothing(tmp_path):
    """Pitfall 25: re-creating the logger does not double lines."""
    for epoch in range(2):
        for _ in range(2):
            opened = RunRecords(tmp_path)
            opened.close()
        opened = RunRecords(tmp_path)
        opened.write(record("epoch", epoch), global_step=epoch)
        opened.close()
    assert [r["epoch"] for r in log.read_records(tmp_path / "metrics.jsonl")[0]] == [0, 1]


def test_numbers_go_to_tensorboard_under_their_kind(tmp_path, monkeypatch):
    scalars = []
    monkeypatch.setattr(
        SummaryWriter, "add_scalar", lambda self, *scalar: scalars.append(tuple(scalar))
    )
    opened = RunRecords(tmp_path)
    opened.write({"kind": "epoch", "epoch": 3, "val_loss": 0.5, "train_loss": None}, 7)
    opened.close()
    assert scalars == [("epoch/val_loss", 0.5, 7)]
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("epoch", "step", "kept"),
    [
        (0, 0, 0),  # a new start
        (1, 0, 3),  # after the first epoch
        (1, 1, 4),  # inside the second
        (2, 0, 6),
    ],
)
def test_lines_written_after_the_checkpoint_are_dropped(epoch, step, kept, records):
    """Pitfall 13: a resumed run writes each step once."""
    written = [
        record("interval", 0, 0), record("interval", 0, 1), record("epoch", 0),
        record("interval", 1, 0), record("interval", 1, 1), record("epoch", 1),
    ]  # fmt: skip
    for line in written:
        records.write(line, 0)
    records.rewind(epoch, step)
    assert log.read_records(records.path)[0] == written[:kept]


def test_there_may_be_nothing_to_rewind(records):
    records.rewind(3, 0)
    assert not records.path.exists()


def test_a_line_cut_short_by_a_kill_is_left_out_and_mended(records):
    """Pitfall 16: what a kill left does not break the next run."""
    records.write(record("epoch", 0), 0)
    with open(records.path, "a") as file:
        file.write('{"kind": "epo')
    assert log.read_records(records.path)[0] == [record("epoch", 0)]
    records.rewind(1, 0)
    records.write(record("epoch", 1), 1)
    assert log.read_records(records.path)[0] == [record("epoch", 0), record("epoch", 1)]


def test_json_is_written_whole_and_readable(tmp_path):
    path = tmp_path / "result.json"
    write_json({"kind": "eval", "loss": 0.5}, path)
    write_json({"loss": 0.25, "nested": [float("nan")]}, path)
    assert path.read_text() == '{\n  "loss": 0.25,\n  "nested": [\n    null\n  ]\n}\n'
    assert list(path.parent.iterdir()) == [path]
