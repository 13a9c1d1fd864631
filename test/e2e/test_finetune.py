"""tools/finetune.py: from a folder of class folders to a run folder, in one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import RunScript, write_pictures

from lib.checkpoint import read_weights
from lib.data.lists import ImageList
from lib.finetuning import folder_settings, network_settings, survey

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
    assert lines[1] == "pictures to train on a class: 6 (c2) to 8 (c1), 7 in the middle"


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
    ("folders", "found"),
    [
        (["train", "val"], ["DATASET.TEST_SET", "val", "DATASET.VAL_SHARE", "0"]),
        (["train", "test", "valid"], ["DATASET.TEST_SET", "valid", "DATASET.VAL_SHARE", "0"]),
        (["train"], []),
        (["cats", "dogs"], ["DATASET.TRAIN_SET", "."]),
    ],
)
def test_the_parts_of_a_folder_are_found(tmp_path: Path, folders, found) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    assert folder_settings(str(tmp_path)) == ["DATASET.DATASET", tmp_path.name, *found]


def test_the_network_is_that_of_the_weights_unless_it_is_said() -> None:
    assert network_settings("hrnet_w48", None) == ["MODEL.NAME", "hrnet_w48"]
    assert network_settings("hrnet_w18.timm_ssld", None) == ["MODEL.NAME", "hrnet_w18"]
    assert network_settings(None, None) == []
    assert network_settings("none", "hrnet_w30") == [
        "MODEL.PRETRAINED",
        "",
        "MODEL.NAME",
        "hrnet_w30",
    ]


def test_unequal_classes_and_bad_files_are_said(tmp_path: Path) -> None:
    write_pictures(tmp_path, 12)
    (tmp_path / "3.png").write_bytes(b"no picture")
    paths = tuple(str(tmp_path / f"{number}.png") for number in range(12))
    images = ImageList(paths[:11], (0,) * 10 + (1,), ("many", "few"))
    lines = survey(images, ImageList(paths[11:], (0,), ("many", "few")), progress=list)
    assert lines[1] == "pictures to train on a class: 1 (few) to 10 (many), 10 in the middle"
    assert "TRAIN.CLASS_WEIGHTS balanced" in lines[2]
    assert lines[3].startswith("[Warning] 1 files cannot be opened") and "3.png" in lines[3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no data path: give the folder"),
        (["nowhere"], "no such data folder: nowhere"),
        ([".", "--pretrained", "hrnet_w19"], "no such weight file: hrnet_w19"),
        ([".", "--pretrained", "none", "--arch", "hrnet_w19"], "hrnet_w19"),
    ],
)
def test_bad_input_is_one_line(run_script: RunScript, tmp_path: Path, words, said) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 3)
    done = run_script(SCRIPT, *words, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
