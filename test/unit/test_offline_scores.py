"""imagenet_acc_eval.py and lib/offline/scores.py: exact, complete or refused, and suspicious."""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import command, script_environment
from PIL import Image
from sklearn.metrics import top_k_accuracy_score

from lib.metrics.meter import Meter
from lib.metrics.per_class import per_class_rows
from lib.offline import ranking
from lib.offline.element_type import ELEMENT_TYPES, element_type
from lib.offline.label_order import better_label_order, could_not_tell
from lib.offline.prediction_files import write_prediction
from lib.offline.scores import confusion_of, read_labels, result_json, score_folder

SCRIPT = "imagenet_acc_eval.py"


def logits_for(labels, *, num_outputs: int, share_right=0.75, seed=0) -> np.ndarray:
    """Noise in which the right output stands out most of the time."""
    noise = np.random.default_rng(seed)
    logits = noise.normal(0, 3, (len(labels), num_outputs)).astype(np.float32)
    right = noise.random(len(labels)) < share_right
    logits[np.flatnonzero(right), np.asarray(labels)[right]] += 40
    return logits


def data_set(folder: Path, logits, labels, *, outfmt="BIN") -> tuple[Path, Path]:
    """Write predictions and a label file; return the arguments of the script."""
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(logits):
        write_prediction(row[None], results / f"val.{number:04d}_x_0", outfmt)
    label_file = folder / "val_label.txt"
    label_file.write_text(
        "".join(f"val.{number:04d}_x.JPEG {label}\n" for number, label in enumerate(labels))
    )
    return results, label_file


@pytest.fixture
def labels() -> list[int]:
    return np.random.default_rng(1).integers(0, 12, 90).tolist()


@pytest.fixture
def whole(tmp_path, labels):
    return data_set(tmp_path, logits_for(labels, num_outputs=12), labels)


def test_the_result_is_written_byte_for_byte(tmp_path, run_script):
    logits = np.full((8, 6), -1.0, np.float32)
    labels = [0, 1, 2, 3, 4, 5, 0, 1]
    for row, (label, place) in enumerate(zip(labels, (0, 0, 0, 1, 2, 4, 5, 0), strict=True)):
        others = [output for output in range(6) if output != label]
        logits[row, others[:place]] = 9 - np.arange(place) / 2
        logits[row, label] = 5
    arguments = data_set(tmp_path, logits, labels)
    done = run_script(SCRIPT, *arguments, tmp_path / "out" / "deeper", "result.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "deeper" / "result.json").read_text() == (
        '{"title": "Overall statistical evaluation", "value": [{"key": "Number of images", '
        '"value": "8"}, {"key": "Number of classes", "value": "6"}, {"key": "Top1 accuracy", '
        '"value": "50.0%"}, {"key": "Top2 accuracy", "value": "62.5%"}, {"key": "Top3 accuracy", '
        '"value": "75.0%"}, {"key": "Top4 accuracy", "value": "75.0%"}, {"key": "Top5 accuracy", '
        '"value": "87.5%"}]}'
    )
    assert done.stdout == (
        "8 images: top-1 50.00% (4), top-5 87.50% (7) of 6 outputs; "
        f"{tmp_path / 'out' / 'deeper' / 'result.json'}\n"
    )


def test_percents_are_rounded_to_two_places(tmp_path):
    scores = score_folder(*data_set(tmp_path, np.eye(3, dtype=np.float32), [0, 2, 2]))
    values = {entry["key"]: entry["value"] for entry in json.loads(result_json(scores, 5))["value"]}
    assert values["Top1 accuracy"] == "66.67%"
    assert list(values)[2:] == ["Top1 accuracy", "Top2 accuracy", "Top3 accuracy"]  # 3 outputs
    assert len(json.loads(result_json(scores, 1))["value"]) == 3


@pytest.mark.parametrize("outfmt", ["BIN", "NPY", "TXT"])
def test_accuracies_equal_an_oracles_and_evaluations_in_every_format(tmp_path, labels, outfmt):
    logits = logits_for(labels, num_outputs=12, share_right=0.4)
    scores = score_folder(*data_set(tmp_path, logits, labels, outfmt=outfmt))
    for place in range(1, 6):
        expected = top_k_accuracy_score(labels, logits, k=place, labels=range(12), normalize=False)
        assert scores.num_hits(place) == expected
    meter = Meter(torch.device("cpu"))
    targets = torch.tensor(labels)
    meter.add(torch.from_numpy(logits), targets, torch.zeros(len(labels)), step=0)
    metrics = meter.read().metrics
    assert metrics.num_correct_top1 == scores.num_hits(1)
    assert metrics.num_correct_top5 == scores.num_hits(5)


@pytest.mark.parametrize("outfmt", ["BIN", "TXT"])
def test_a_collapsed_network_looks_collapsed(tmp_path, run_script, outfmt):
    """Fault S7: equal outputs are no answer, whichever of them is the right one."""
    arguments = data_set(tmp_path, np.zeros((5, 6), np.float32), [0, 1, 2, 3, 4], outfmt=outfmt)
    scores = score_folder(*arguments)
    assert scores.ranks.tolist() == [5] * 5 and scores.num_ties == 5
    assert not (scores.answers == scores.labels).any()
    done = run_script(SCRIPT, *arguments, tmp_path, "result.json")
    assert done.stdout.startswith("5 images: top-1 0.00% (0), top-5 0.00% (0) of 6 outputs, ")
    assert ", 5 with several highest outputs counted as wrong; " in done.stdout
    assert "[Warning] 5 of 5 predictions have several highest outputs" in done.stderr
    assert "in 5 of them all outputs are equal: the network has collapsed" in done.stderr
    assert done.stderr.count("\n") == 1  # nothing on the labels, of which no answer tells


def test_a_tie_counts_as_wrong_here_and_in_evaluation(tmp_path):
    """Fault S7: the chain compares the two counts."""
    logits = np.random.default_rng(0).integers(0, 4, (200, 9)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 9, 200)
    scores = score_folder(*data_set(tmp_path, logits, labels))
    theirs = logits[np.arange(200), labels][:, None]
    places = (logits >= theirs).sum(axis=1)
    assert [scores.num_hits(k) for k in (1, 5)] == [int((places <= k).sum()) for k in (1, 5)]
    assert (scores.answers == scores.labels).sum() == scores.num_hits(1)
    meter = Meter(torch.device("cpu"))
    meter.add(torch.from_numpy(logits), torch.from_numpy(labels), torch.zeros(200), step=0)
    metrics = meter.read().metrics
    assert (metrics.num_correct_top1, metrics.num_correct_top5) == (
        scores.num_hits(1), scores.num_hits(5),
    )  # fmt: skip


def test_one_answer_for_all_pictures_is_pointed_out(tmp_path, labels):
    """Fault S7: a network whose outputs don't depend on the picture."""
    logits = np.tile(np.random.default_rng(0).normal(0, 3, 12), (90, 1))
    scores = score_folder(*data_set(tmp_path, logits, labels))
    assert f"all 90 predictions are of class {scores.answers[0]}" in scores.warnings()[-1]
    assert scores.num_ties == 0


def written_as(folder: Path, logits: np.ndarray, labels, dtype: str) -> tuple[Path, Path]:
    """Predictions in .bin files of an element type."""
    arguments = data_set(folder, logits, labels)
    for number, row in enumerate(logits):
        row.astype(dtype).tofile(arguments[0] / f"val.{number:04d}_x_0.bin")
    return arguments


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_files_of_another_element_type_are_known_by_size_and_values(
    tmp_path, run_script, labels, dtype
):
    """Fault S6: read as float32 they would score nothing."""
    logits = logits_for(labels, num_outputs=12)
    expected = score_folder(*data_set(tmp_path, logits, labels)).num_hits(1)
    arguments = written_as(tmp_path, logits, labels, dtype)
    done = run_script(SCRIPT, *arguments, tmp_path, "result.json")
    assert done.returncode == 0, done.stderr
    assert f" of 12 outputs, .bin files read as {dtype}; " in done.stdout
    assert f"({expected})" in done.stdout
    for options in (("--dtype", dtype), ("--num_outputs", 12)):
        assert (
            f"({expected})" in run_script(SCRIPT, *arguments, tmp_path, "r.json", *options).stdout
        )


@pytest.mark.parametrize("kind", ["logits", "float16's", "probabilities", "rectified", "whole"])
@pytest.mark.parametrize(("num_outputs", "num_files"), [(10, 20), (1000, 5)])
def test_the_element_type_is_found_or_asked_for_and_never_mistaken(kind, num_outputs, num_files):
    """Fault S6: whatever a network's scores look like, labels of all or of half its classes."""
    x = np.random.default_rng(0).normal(0, 3, (num_files, num_outputs))
    values = {
        "logits": x,
        "float16's": x.astype(np.float16),
        "probabilities": np.exp(x) / np.exp(x).sum(axis=1, keepdims=True),
        "rectified": np.maximum(x, 0),
        "whole": np.round(x),
    }[kind]
    for dtype in ELEMENT_TYPES:
        contents = [row.astype(dtype).tobytes() for row in values]
        for num_classes in (num_outputs, num_outputs // 2):
            try:
                found = element_type(contents, num_classes=num_classes)
            except ValueError as error:
                assert "--dtype" in str(error) and dtype != "float32"
            else:
                assert found == dtype
        assert element_type(contents, num_classes=2, num_outputs=num_outputs) == dtype


def test_values_that_hardly_are_a_networks_are_pointed_out(tmp_path, labels):
    """Fault S6: as float32 in big-endian order is, which has the size of float32."""
    logits = logits_for(labels, num_outputs=12)
    scores = score_folder(*written_as(tmp_path, logits, labels, ">f4"))
    assert "hardly are a network's outputs" in scores.warnings()[-1]
    for dtype in ELEMENT_TYPES:
        arguments = written_as(tmp_path / dtype, logits, labels, dtype)
        assert score_folder(*arguments).warnings() == []


def test_an_element_type_that_cannot_be_told_is_asked_for(tmp_path, run_script):
    """Fault S6: scores that are close together look alike in halves and in whole."""
    labels = [0, 1, 2, 3] * 8
    logits = np.random.default_rng(0).normal(9, 0.1, (32, 4))
    arguments = written_as(tmp_path, logits, labels, "float16")
    done = run_script(SCRIPT, *arguments, tmp_path, "result.json")
    assert done.returncode == 2 and "--dtype" in done.stderr
    assert "2 of float32, 4 of float16, and the labels have 4 classes" in done.stderr
    done = run_script(SCRIPT, *arguments, tmp_path, "result.json", "--dtype", "float16")
    assert done.returncode == 0 and " of 4 outputs, .bin files" in done.stdout
    done = run_script(SCRIPT, *arguments, tmp_path, "result.json", "--num_outputs", 5)
    assert done.returncode == 2 and "8 bytes, which are no 5 outputs" in done.stderr


def test_what_several_devices_computed_alike_counts_once(tmp_path, run_script, labels, whole):
    """Fault A1: without --divide_input each of ais_bench's devices computes all pictures."""
    alone = score_folder(*whole)
    results = whole[0]
    files = sorted(results.iterdir())
    for folder in ("device0_0", "device0_1", "device3_2"):
        (results / folder).mkdir()
        for path in files:
            shutil.copy(path, results / folder)
    for path in files:
        path.unlink()
    scores = score_folder(*whole)
    np.testing.assert_array_equal(scores.ranks, alone.ranks)
    done = run_script(SCRIPT, *whole, tmp_path, "result.json")
    assert " of 12 outputs, 180 equal ones of other devices left out; " in done.stdout
    np.zeros(12, np.float32).tofile(results / "device3_2" / files[7].name)
    done = run_script(SCRIPT, *whole, tmp_path, "result.json")
    pair = f"'device3_2/{files[7].name}' beside 'device0_0/{files[7].name}'"
    assert done.returncode == 1
    assert f"1 that differ from another device's: {pair}. Mend them" in done.stderr
    assert "missing" not in done.stderr.partition("whole")[0]
    done = run_script(SCRIPT, *whole, tmp_path, "result.json", "--allow-missing")
    assert done.returncode == 0 and done.stdout.startswith("89 images")


def test_a_pipe_or_a_device_among_the_predictions_is_named(tmp_path, run_script, whole):
    """Fault R7."""
    for number, make in ((3, os.mkfifo), (4, lambda p: p.symlink_to("/dev/zero"))):
        path = whole[0] / f"val.{number:04d}_x_0.bin"
        path.unlink()
        make(path)
    done = run_script(SCRIPT, *whole, tmp_path, "result.json")
    assert done.returncode == 1
    assert "2 that can't be read or are no regular files: 'val.0003_x_0.bin'" in done.stderr


def test_several_processes_and_mixed_formats_give_the_same(tmp_path, monkeypatch, labels):
    logits = logits_for(labels, num_outputs=12)
    arguments = data_set(tmp_path, logits, labels)
    alone = score_folder(*arguments, num_workers=1)
    for number in range(0, 90, 3):
        path = arguments[0] / f"val.{number:04d}_x_0.bin"
        path.unlink()
        write_prediction(logits[number], path.with_suffix(""), "NPY" if number % 2 else "TXT")
    (arguments[0] / "val.0001_x_0.bin").write_bytes(b"")
    monkeypatch.setattr(ranking, "_FILES_A_JOB", 7)
    monkeypatch.setattr(ranking, "_FILES_A_BATCH", 3)
    mixed = score_folder(*arguments, num_workers=2)
    assert mixed.problems == {"empty": ["val.0001_x_0.bin"]}
    rest = np.arange(90) != 1
    np.testing.assert_array_equal(mixed.ranks, alone.ranks[rest])
    np.testing.assert_array_equal(mixed.labels, alone.labels[rest])


def test_with_1001_outputs_labels_are_one_higher(tmp_path):
    labels = [0, 500, 999, 3]
    logits = logits_for([label + 1 for label in labels], num_outputs=1001, share_right=1)
    logits[3, 0] = 99  # the background
    scores = score_folder(*data_set(tmp_path, logits, labels))
    assert (scores.num_outputs, scores.num_hits(1), scores.num_hits(2)) == (1001, 3, 4)
    assert '"Number of classes", "value": "1001"' in result_json(scores, 5)
    assert scores.answers.tolist() == [0, 500, 999, -1]
    matrix = confusion_of(scores).blocks(1)
    assert matrix[500, 500] == matrix[3, 1000] == 1 and matrix.sum() == 4


BROKEN = {
    "missing": ("1 missing: 'val.0003_x'", lambda p: p.unlink()),
    "empty": ("1 empty: 'val.0003_x_0.bin'", lambda p: p.write_bytes(b"")),
    "short": ("1 of a wrong size: 'val.0003_x_0.bin'", lambda p: p.write_bytes(b"1234" * 11)),
    "odd": ("1 of a wrong size: 'val.0003_x_0.bin'", lambda p: p.write_bytes(b"12345")),
    "nan": (
        "1 with NaN or inf: 'val.0003_x_0.bin'",
        lambda p: p.write_bytes(np.full(12, np.nan, np.float32).tobytes()),
    ),
    "extra": (
        "1 without a label: 'other_0.bin'",
        lambda p: (p.parent / "other_0.bin").write_bytes(bytes(48)),
    ),
    "double": (
        "1 second ones of a picture: 'val.0003_x_1.bin' beside 'val.0003_x_0.bin'",
        lambda p: (p.parent / "val.0003_x_1.bin").write_bytes(bytes(48)),
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_set_that_is_not_whole_is_refused_and_the_fault_is_named(
    tmp_path, run_script, whole, fault
):
    """Pitfall 34: not computed silently, and no older result stays to be taken for this one's."""
    expected, damage = BROKEN[fault]
    (tmp_path / "result.json").write_text("older")
    damage(whole[0] / "val.0003_x_0.bin")
    done = run_script(SCRIPT, *whole, tmp_path, "result.json")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("[Error]") and done.stderr.count("\n") == 1
    assert expected in done.stderr and "--allow-missing" in done.stderr
    assert not (tmp_path / "result.json").exists()
    done = run_script(SCRIPT, *whole, tmp_path, "result.json", "--allow-missing")
    assert done.returncode == 0 and f"[Warning] {expected}" in done.stderr
    num_images = json.loads((tmp_path / "result.json").read_text())["value"][0]["value"]
    assert num_images == ("90" if fault in ("extra", "double") else "89")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda text: text[:-3], "1 damaged: 'val.0003_x_0.txt'"),
        (lambda text: text[:-20], "1 of a wrong size: 'val.0003_x_0.txt'"),
        (lambda text: b"nan " + text.split(b" ", 1)[1], "1 with NaN or inf: 'val.0003_x_0.txt'"),
        (lambda text: b"x" + text, "1 damaged: 'val.0003_x_0.txt'"),
        (lambda text: b"\n", "1 empty: 'val.0003_x_0.txt'"),
    ],
)
def test_broken_text_is_refused_too(tmp_path, run_script, labels, content, expected):
    """Pitfall 34: also where only the last value is cut."""
    arguments = data_set(tmp_path, logits_for(labels, num_outputs=12), labels, outfmt="TXT")
    path = arguments[0] / "val.0003_x_0.txt"
    path.write_bytes(content(path.read_bytes()))
    done = run_script(SCRIPT, *arguments, tmp_path, "result.json")
    assert done.returncode == 1 and expected in done.stderr


@pytest.mark.parametrize("outfmt", ["TXT", "NPY"])
def test_predictions_of_a_whole_batch_are_refused(tmp_path, run_script, labels, outfmt):
    """Fault S: their rows one after another would be a network of twice as many outputs."""
    arguments = data_set(tmp_path, logits_for(labels, num_outputs=12), labels, outfmt=outfmt)
    for number in range(len(labels)):
        rows = logits_for(labels, num_outputs=12)[[number, number - 1]]
        write_prediction(rows, arguments[0] / f"val.{number:04d}_x_0", outfmt)
    done = run_script(SCRIPT, *arguments, tmp_path, "result.json")
    assert done.returncode == 1 and "90 with several rows, as of a whole batch" in done.stderr
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("shape", [(12, 1), (1, 12, 1, 1)])
@pytest.mark.parametrize("outfmt", ["TXT", "NPY"])
def test_a_value_a_line_is_one_row(tmp_path, labels, outfmt, shape):
    logits = logits_for(labels, num_outputs=12)
    results, label_file = data_set(tmp_path, logits, labels, outfmt=outfmt)
    expected = score_folder(results, label_file).num_hits(1)
    for number, row in enumerate(logits):
        write_prediction(row.reshape(shape), results / f"val.{number:04d}_x_0", outfmt)
    scores = score_folder(results, label_file)
    assert (scores.num_images, scores.num_hits(1)) == (len(labels), expected)


def test_many_faults_are_counted_and_the_first_few_named(tmp_path, run_script, whole):
    for number in range(20):
        (whole[0] / f"val.{number:04d}_x_0.bin").unlink()
    done = run_script(SCRIPT, *whole, tmp_path, "result.json")
    assert "20 missing: 'val.0000_x', 'val.0001_x'" in done.stderr and "15 more" in done.stderr
    for path in whole[0].iterdir():
        path.write_bytes(b"")
    done = run_script(SCRIPT, *whole, tmp_path, "result.json", "--allow-missing")
    assert done.returncode == 1 and "70 empty" in done.stderr  # nothing is left to score


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a.jpg 1\nb.jpg\n", "line 2: 'b.jpg' is not of the form"),
        ("a.jpg one\n", "line 1: 'a.jpg one'"),
        ("a.jpg -1\n", "line 1: class -1 of 'a.jpg': classes are numbered from 0"),
        ("a.jpg 1\nn/a.png 2\n", "line 2: a has a label already"),
        ("\n", "is empty"),
        ("a.jpg 12345678901234567890\n", "class 12345678901234567890 of 'a.jpg': class numbers"),
        (f"a.jpg {'9' * 6000}\n", "class numbers have up to 9 digits"),
        ("a.jpg \u0663\n", "is not of the form"),
    ],
)
def test_mistakes_in_the_label_file_are_told_by_line(tmp_path, run_script, content, expected):
    """Fault R6: numbers beyond all classes too."""
    (tmp_path / "labels.txt").write_text(content)
    done = run_script(SCRIPT, tmp_path, tmp_path / "labels.txt", tmp_path, "result.json")
    assert done.returncode == 2 and expected in done.stderr


def test_label_files_may_have_folders_spaces_and_no_endings(tmp_path):
    text = "\ufeffn01/a.b.JPEG 1\r\nwith a space.png\t2\n\nbare 3\nc.d 4\n"
    (tmp_path / "labels.txt").write_text(text)
    assert read_labels(tmp_path / "labels.txt") == {
        "a.b": 1,
        "with a space": 2,
        "bare": 3,
        "c.d": 4,
    }


@pytest.mark.parametrize("missing", ["folder", "labels", "predictions"])
def test_missing_input_is_told(tmp_path, run_script, whole, missing):
    results, labels = whole
    if missing == "folder":
        results = tmp_path / "gone"
    elif missing == "labels":
        labels = tmp_path / "gone.txt"
    else:
        results = tmp_path / "empty"
        results.mkdir()
    (tmp_path / "result.json").write_text("older")
    done = run_script(SCRIPT, results, labels, tmp_path, "result.json")
    assert done.returncode == 2 and done.stderr.startswith("[Error]")
    assert not (tmp_path / "result.json").exists(), "it would be taken for this one's"
    done = run_script(SCRIPT, *whole, tmp_path, "r.json", "--per_class", tmp_path)
    assert done.returncode == 2 and "is a folder: give the name of a file" in done.stderr
    assert run_script(SCRIPT, *whole, tmp_path, "r.json", "--topk", 0).returncode == 2


def permuted(num: int) -> np.ndarray:
    return np.random.default_rng(5).permutation(num)


@pytest.mark.parametrize(
    ("num_outputs", "output_of", "offset", "advice"),
    [
        (30, lambda label: label - 1, 0, "subtract 1 from every label"),
        (30, lambda label: label + 1, 0, "add 1 to every label"),
        (1001, lambda label: label, 1, "take the labels as they are"),
        (30, lambda label: sorted(range(30), key=str).index(label), 0, "the network's classes are"),
        (30, lambda label: sorted(range(30), key=str)[label], 0, "the labels are numbered"),
        (30, lambda label: int(permuted(30)[label]), 0, "renumber 29 classes (0 as"),
    ],
)
def test_labels_that_are_numbered_otherwise_are_found(num_outputs, output_of, offset, advice):
    labels = np.random.default_rng(0).integers(1, 29, 1500)
    outputs = np.array([output_of(label) for label in labels.tolist()])
    wrong = np.random.default_rng(1).random(1500) < 0.3
    outputs[wrong] = np.random.default_rng(2).integers(0, 30, int(wrong.sum()))
    found = better_label_order(labels, outputs, num_outputs=num_outputs, offset=offset)
    assert found is not None and advice.split("29")[0] in found.advice
    assert 60 < found.accuracy < 80


@pytest.mark.parametrize("case", ["good", "poor", "chance", "one answer", "one picture a class"])
def test_labels_that_are_right_raise_no_suspicion(case):
    noise = np.random.default_rng(0)
    num = 1000 if case == "one picture a class" else 30
    labels = noise.permutation(1000) % num
    outputs = noise.integers(0, num, 1000)
    if case in ("good", "poor"):
        share = {"good": 0.9, "poor": 0.1}[case]
        outputs = np.where(noise.random(1000) < share, labels, outputs)
    elif case == "one answer":
        outputs[:] = 7
    assert better_label_order(labels, outputs, num_outputs=num, offset=0) is None


@pytest.mark.parametrize(("num_classes", "a_class"), [(1000, 1), (100, 2), (20, 3)])
def test_labels_of_too_few_pictures_to_tell_are_said_to_be(num_classes, a_class):
    """Fault S14: one picture a class, in another order than the network's."""
    labels = np.repeat(np.arange(num_classes), a_class)
    outputs = permuted(num_classes)[labels]
    wrong = np.random.default_rng(1).random(len(labels)) < 0.6
    outputs[wrong] = np.random.default_rng(2).integers(0, num_classes, int(wrong.sum()))
    facts = {"num_outputs": num_classes, "offset": 0}
    found = better_label_order(labels, outputs, **facts)
    said = could_not_tell(labels, outputs, **facts)
    assert found is not None or "too few to tell whether the labels are numbered" in said
    assert could_not_tell(labels, labels, **facts) == ""
    many = np.tile(labels, 5)
    said = could_not_tell(many, np.zeros_like(many), **facts)
    assert "no other numbering of the labels does much better" in said


def test_the_script_says_where_it_could_not_tell(tmp_path, run_script):
    """Fault S14."""
    labels = list(range(40))
    logits = np.eye(40, dtype=np.float32)[permuted(40)]
    done = run_script(SCRIPT, *data_set(tmp_path, logits, labels), tmp_path, "result.json")
    assert done.returncode == 0
    assert "40 pictures of 40 classes are too few to tell" in done.stderr


def test_a_class_number_beyond_all_outputs_needs_no_memory(tmp_path):
    """Fault R6."""
    arguments = data_set(tmp_path, np.eye(4, dtype=np.float32), [0, 1, 2, 999_999_999])
    with pytest.raises(ValueError, match="classes up to 999999999, the predictions have 4 outputs"):
        score_folder(*arguments)


def test_the_script_says_which_numbering_would_fix_the_score(tmp_path, run_script, labels):
    arguments = data_set(
        tmp_path, logits_for(labels, num_outputs=13), [label + 1 for label in labels]
    )
    done = run_script(SCRIPT, *arguments, tmp_path, "result.json")
    assert done.returncode == 0 and "subtract 1 from every label" in done.stderr
    arguments = data_set(
        tmp_path, logits_for(labels, num_outputs=12), [label + 1 for label in labels]
    )
    done = run_script(SCRIPT, *arguments, tmp_path, "result.json")
    assert done.returncode == 2 and "classes up to 12, the predictions have 12" in done.stderr
    assert "subtract 1 from every label" in done.stderr


def test_the_table_of_classes_and_the_picture_are_written(tmp_path, run_script, whole, labels):
    table, drawn = tmp_path / "new" / "classes.csv", tmp_path / "drawn" / "confusion.png"
    done = run_script(
        SCRIPT, *whole, tmp_path, "r.json", "--per_class", table, "--confusion", drawn
    )
    assert done.returncode == 0
    scores = score_folder(*whole)
    confusion = confusion_of(scores)
    assert confusion.num_images.tolist() == np.bincount(labels, minlength=12).tolist()
    expected = per_class_rows(confusion, [str(label) for label in range(12)])
    rows = list(csv.DictReader(table.open()))
    for row, (name, num_images, num_correct, accuracy, _) in zip(rows, expected, strict=True):
        assert (row["class"], int(row["num_images"])) == (name, num_images)
        assert int(row["num_correct"]) == num_correct
        assert float(row["accuracy_top1"]) == accuracy <= float(row["accuracy_top5"])
    with Image.open(drawn) as image:
        assert image.format == "PNG"


def test_it_runs_where_torch_cannot_be_imported(tmp_path, whole):
    """Pitfall 11: scoring needs numpy alone; what draws is missed with one line."""
    for name in ("torch", "matplotlib"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text("raise ImportError('blocked')")
    environment = {**script_environment(), "PYTHONPATH": str(tmp_path / "blocked")}

    def run(*options):
        arguments = command(SCRIPT, [*whole, tmp_path, "r.json", *options])
        return subprocess.run(arguments, env=environment, capture_output=True, text=True)

    assert run().returncode == 0 and (tmp_path / "r.json").is_file()
    done = run("--confusion", tmp_path / "c.png")
    assert done.returncode == 2 and "can't be drawn" in done.stderr
