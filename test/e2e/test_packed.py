"""tools/train.py and tools/valid.py on a packed data set, from disk and over http."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import TRAIN, VALID, RunScript, run_until, write_pictures
from range_server import serving

from lib.data.packed.options import PackOptions
from lib.data.packed.packing import pack

EVERY_STEP = ("PRINT_FREQ", 1, "TRAIN.SAVE_EVERY_STEPS", 2)
SHARDS = PackOptions(shard_mb=0.05, num_workers=1)
SCORES = ("loss", "accuracy_top1", "accuracy_top5", "num_correct_top1", "num_images_used")


@pytest.fixture(scope="module")
def packed(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set in shards of a few pictures."""
    out = tmp_path_factory.mktemp("packed with a space") / "out"
    pack(tiny_data, out, SHARDS)
    assert len(list((out / "train").glob("*.tar"))) > 2
    return out


@pytest.fixture(scope="module")
def address(packed: Path) -> Iterator[str]:
    """The same over http."""
    with serving(packed) as server:
        yield server.url


@pytest.fixture(scope="module")
def alone(tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path_factory) -> Path:
    """A run on class folders that nothing interrupts."""
    folder = tmp_path_factory.mktemp("alone")
    done = run_script(TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", folder, *EVERY_STEP)
    assert done.returncode == 0, done.stderr
    return folder


def assert_same_run(first: Path, second: Path) -> None:
    """Equal weights to the bit, and equal losses at every step."""
    ours, theirs = (
        torch.load(f / "final_state.pth.tar", weights_only=True) for f in (first, second)
    )
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert losses(first) == losses(second) != []


def losses(folder: Path) -> list[tuple[object, ...]]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(r["epoch"], r["step"], r["loss"]) for r in records if r["kind"] == "interval"]


@pytest.mark.parametrize("source", ["packed", "address"])
def test_a_killed_run_on_shards_ends_as_one_on_class_folders_that_nothing_interrupts(
    source: str, request, tiny_yaml: Path, alone: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 13."""
    data = request.getfixturevalue(source)
    common = (data, "--cfg", tiny_yaml, "--out", tmp_path, "--workers", 1, *EVERY_STEP)
    process = run_until(TRAIN, *common, line="Epoch: [0][4/7]", log=tmp_path / "log")
    os.killpg(process.pid, signal.SIGKILL)  # its worker would hold the run folder for some seconds
    process.wait(60)
    done = run_script(TRAIN, *common, "--auto_resume")
    assert done.returncode == 0, done.stderr
    assert f"data {data}, packed (as they were): 27 images to train" in done.stdout
    assert "goes on at epoch" in done.stdout
    assert_same_run(tmp_path, alone)


def test_a_killed_run_on_two_processes_ends_as_one_on_class_folders(
    packed: Path, tiny_data: Path, tiny_yaml: Path, run_separately: RunScript, tmp_path: Path
) -> None:
    """Pitfall 13."""
    two = ("--cfg", tiny_yaml, "--cards", 2, "--bs", 2, "--workers", 1, "--train_epochs", 1)
    two += EVERY_STEP
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run_separately(TRAIN, tiny_data, *two, "--out", whole).returncode == 0
    out.mkdir()
    common = (packed, *two, "--out", out)
    launcher = run_until(TRAIN, *common, line="Epoch: [0][3/7]", log=tmp_path / "log")
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait(60)
    time.sleep(1)  # the ranks end with their launcher
    done = run_separately(TRAIN, *common, "--auto_resume")
    assert done.returncode == 0, done.stderr
    assert "goes on at epoch" in done.stdout
    assert_same_run(out, whole)


def test_a_run_begun_on_class_folders_goes_on_with_shards(
    packed: Path, tiny_data: Path, tiny_yaml: Path, alone: Path, run_script: RunScript, tmp_path
) -> None:
    common = ("--cfg", tiny_yaml, "--out", tmp_path, *EVERY_STEP)
    process = run_until(TRAIN, tiny_data, *common, line="Epoch: [1][1/7]", log=tmp_path / "log")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    done = run_script(TRAIN, packed, *common, "--auto_resume")
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path, alone)


def test_evaluation_on_shards_gives_the_scores_of_class_folders(
    packed: Path, address: str, tiny_data: Path, tiny_yaml: Path, alone: Path,
    run_script: RunScript, run_separately: RunScript, tmp_path: Path,
) -> None:  # fmt: skip
    """Pitfall 18: on two processes too."""
    common = ("--cfg", tiny_yaml, "--testModel", alone / "model_best.pth.tar", "--out", tmp_path)
    scores = []
    for run, data, cards in (
        (run_script, tiny_data, 1), (run_script, packed, 1), (run_script, address, 1),
        (run_separately, packed, 2),
    ):  # fmt: skip
        done = run(VALID, data, *common, "--cards", cards)
        assert done.returncode == 0, done.stderr
        assert (f"images of {data}, packed (as they were)" in done.stdout) == (data != tiny_data)
        result = json.loads((tmp_path / "result.json").read_text())
        scores.append({name: result[name] for name in SCORES})
    assert scores[1:3] == [scores[0]] * 2
    counts = ("num_correct_top1", "num_images_used")
    assert [scores[3][name] for name in counts] == [scores[0][name] for name in counts]


def test_other_pictures_than_the_checkpoints_are_refused_amid_an_epoch(
    packed: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    common = ("--cfg", tiny_yaml, "--out", out, *EVERY_STEP)
    process = run_until(TRAIN, packed, *common, line="Epoch: [0][2/7]", log=tmp_path / "log")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    for part in ("train", "val"):
        for channel in range(3):
            write_pictures(other / part / f"c{channel}", 3, channel=channel)
    pack(other, tmp_path / "packed", SHARDS)
    done = run_script(TRAIN, tmp_path / "packed", *common, "--auto_resume")
    assert done.returncode == 2 and "an epoch of 27 images, the data now has 9" in done.stderr


def test_bad_pictures_are_listed_by_shard_and_key(
    tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    for part in ("train", "val"):
        for channel in range(3):
            write_pictures(tmp_path / "data" / part / f"c{channel}", 5, channel=channel)
    (tmp_path / "data" / "train" / "c1" / "2.png").write_bytes(b"no picture")
    pack(tmp_path / "data", tmp_path / "packed", PackOptions(num_workers=1))
    done = run_script(
        TRAIN, tmp_path / "packed", "--cfg", tiny_yaml, "--out", tmp_path / "out",
        "DATASET.BAD_IMAGES_MAX_SHARE", "0.1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "bad_images.tsv").read_text().splitlines()
    assert lines == [
        "train/000000.tar/00000007_2.png\t"
        "UnidentifiedImageError: cannot identify image file 10 bytes"
    ]


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        ("ADDRESS/nowhere", "/nowhere/index.json can't be read: the server answers 404"),
        ("http://host:port/x", "is no address to read from"),
        ("FOLDER", "/000000.tar has 5 bytes and the index says"),
    ],
)
def test_an_address_or_a_shard_that_is_not_there_is_one_line(
    data: str, pattern: str, address: str, alone: Path, tiny_data: Path, tiny_yaml: Path,
    tmp_path: Path, run_script: RunScript,
) -> None:  # fmt: skip
    pack(tiny_data, tmp_path / "packed", SHARDS)
    for part in ("train", "val"):
        (tmp_path / "packed" / part / "000000.tar").write_bytes(b"short")
    path = data.replace("ADDRESS", address).replace("FOLDER", str(tmp_path / "packed"))
    common = (path, "--cfg", tiny_yaml, "--out", tmp_path / "out")
    for script, *words in ((TRAIN,), (VALID, "--testModel", alone / "model_best.pth.tar")):
        done = run_script(script, *common, *words)
        assert done.returncode == 2 and pattern in done.stderr
        assert done.stderr.count("\n") == 1
