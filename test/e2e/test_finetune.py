"""tools/finetune.py: from a folder of class folders to a run folder, in one command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TRAIN, RunScript, write_pictures

from lib.models.weights.load import read_weights

SCRIPT = "tools/finetune.py"
SMALL = (
    "--arch", "hrnet_w18_small_v1", "--device", "cpu", "--workers", 0, "--bs", 4,
    "--train_epochs", 1, "MODEL.IMAGE_SIZE", "[64, 64]",
)  # fmt: skip


@pytest.fixture(scope="module")
def scratch_run(tiny_data: Path, run_script: RunScript, tmp_path_factory) -> Path:
    """A run from random weights on a folder that holds nothing but class folders."""
    out = tmp_path_factory.mktemp("finetune") / "scratch"
    done = run_script(
        SCRIPT, tiny_data / "train", *SMALL, "--pretrained", "none", "--out", out, "--lr", 0.02
    )
    assert done.returncode == 0, done.stderr
    (out / "said.txt").write_text(done.stdout)
    return out


def test_the_folder_it_leaves_has_all_that_is_promised(scratch_run: Path) -> None:
    names = {path.name for path in scratch_run.iterdir()}
    assert names >= {
        "model_best.pth.tar", "classes.json", "config.yaml", "curves.png", "per_class.csv",
        "confusion.png", "report.html", "split.tsv", "result.json",
    }  # fmt: skip
    assert json.loads((scratch_run / "classes.json").read_text()) == {"c0": 0, "c1": 1, "c2": 2}
    rows = (scratch_run / "per_class.csv").read_text().splitlines()
    assert len(rows) == 4 and rows[0].startswith("class,num_images,num_correct")
    assert "from scratch" in (scratch_run / "said.txt").read_text()


def test_it_begins_with_what_the_folder_holds(scratch_run: Path) -> None:
    lines = (scratch_run / "said.txt").read_text().splitlines()
    assert lines[0] == "your pictures: 3 classes, 21 to train on, 6 to validate with"
    assert lines[1] == "pictures to train on a class: 6 ('c2') to 8 ('c1'), 7 in the middle"


def test_weights_of_other_classes_get_a_new_head_and_tell_their_network(
    scratch_run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Three classes here and there, but not the same."""
    for number, name in enumerate(("oak", "elm", "ash")):
        write_pictures(tmp_path / "trees" / name, 4, channel=number, seed=number)
    weights, out = scratch_run / "model_best.pth.tar", tmp_path / "run"
    done = run_script(
        SCRIPT, tmp_path / "trees", *SMALL[2:], "--pretrained", weights, "--out", out,
        "MODEL.FREEZE", "[backbone]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "classifier of 3 classes is replaced by a new one of 3" in done.stdout
    before = read_weights(weights).weights
    after = read_weights(out / "model_best.pth.tar").weights
    assert torch.equal(after["conv1.weight"], before["conv1.weight"])
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


def test_the_same_classes_keep_their_head(
    scratch_run: Path, tiny_data: Path, run_script: RunScript, tmp_path: Path
) -> None:
    weights = scratch_run / "model_best.pth.tar"
    done = run_script(
        SCRIPT, tiny_data, *SMALL[2:], "--pretrained", weights, "--out", tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    assert "pretrained weights: " in done.stdout and "is replaced" not in done.stdout
    assert not (tmp_path / "run" / "split.tsv").exists()  # the folder has val/


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no data path: give the folder"),
        (["nowhere"], "no such data folder: nowhere"),
        ([".", "--pretrained", "hrnet_w19"], "no such weight file: hrnet_w19"),
        ([".", "--pretrained", "none", "--arch", "hrnet_w19", "--out", "../run"], "hrnet_w19"),
        ([".", "--pretrained", "none", "--out", "/proc/x"], "folder /proc/x cannot be written"),
        ([".", "--pretrained", "none"], "the run folder output/"),
        ([".", "--pretrained", "none", "--out", "runs"], "the run folder runs lies in ."),
    ],
)
def test_bad_input_is_one_line(run_script: RunScript, tmp_path: Path, words, said) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 3)
    done = run_script(SCRIPT, *words, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert "your pictures" not in done.stdout  # no file was opened before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_run_folder_among_the_class_folders_of_a_part_is_refused(
    run_script: RunScript, tiny_data: Path
) -> None:
    for script, words in ((SCRIPT, ("--pretrained", "none")), (TRAIN, ())):
        for part in ("train", "val"):
            out = tiny_data / part / "run"
            done = run_script(script, tiny_data, *SMALL[2:], *words, "--out", out)
            assert done.returncode == 2 and not out.exists()
            (line,) = done.stderr.splitlines()
            assert f"the run folder {out} lies in {tiny_data / part}" in line


def test_a_validation_part_that_is_named_takes_the_place_of_the_share(
    run_script: RunScript, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    for part, name in (("train", "train"), ("val", "holdout")):
        (tmp_path / "data" / name).symlink_to(tiny_data / part)
    words = (*SMALL, "--pretrained", "none", "DATASET.TEST_SET", "holdout")
    done = run_script(SCRIPT, tmp_path / "data", *words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "27 to train on, 11 to validate with" in done.stdout
    assert "is not used" not in done.stdout
    words += ("DATASET.VAL_SHARE", 0.3, "--stop_step", 1, "DATASET.ROOT", tmp_path / "data")
    done = run_script(SCRIPT, *words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'data' / 'holdout'} is not used: DATASET.VAL_SHARE 0.3" in done.stdout
    assert (tmp_path / "run" / "performance" / "result.json").is_file()


@pytest.mark.parametrize("part", ["train", "val"])
def test_one_bad_file_does_not_end_a_small_run(
    part: str, run_script: RunScript, tiny_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    bad = tmp_path / "data" / part / "c0" / "1.png"
    bad.write_bytes(b"no picture")
    words = (*SMALL, "--pretrained", "none", "--out", tmp_path / "run")
    done = run_script(SCRIPT, tmp_path / "data", *words)
    assert done.returncode == 0, done.stderr
    assert f"[Warning] 1 file cannot be opened and will be left out: '{bad}'" in done.stdout
    assert str(bad) in (tmp_path / "run" / "bad_images.tsv").read_text()


def test_a_run_goes_on_without_being_told_its_network_or_weights_again(
    scratch_run: Path, run_script: RunScript, tiny_data: Path, tmp_path: Path
) -> None:
    words = (
        tiny_data / "train", *SMALL[2:8], "--pretrained", tmp_path / "deleted.pth",
        "--train_epochs", 2, "--lr", 0.02, "MODEL.IMAGE_SIZE", "[64, 64]",
    )  # fmt: skip
    shutil.copytree(scratch_run, tmp_path / "own")
    own = run_script(SCRIPT, *words, "--out", tmp_path / "own", "--auto_resume")
    assert own.returncode == 0, own.stderr
    assert "resumed: " in own.stdout and str(tmp_path / "own" / "checkpoint") in own.stdout
    given = scratch_run / "checkpoint.pth.tar"
    other = run_script(SCRIPT, *words, "--out", tmp_path / "other", "--resume", given)
    assert other.returncode == 0, other.stderr
    assert "resumed: " in other.stdout and str(given) in other.stdout
    assert "NAME: hrnet_w18_small_v1" in (tmp_path / "other" / "config.yaml").read_text()


def test_a_network_alone_begins_with_its_published_weights(
    run_script: RunScript, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not on this machine, and nothing may be downloaded: the refusal names them."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    done = run_script(SCRIPT, tiny_data, *SMALL, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "hrnet_w18_small_v1.timm is not in the cache" in done.stderr
