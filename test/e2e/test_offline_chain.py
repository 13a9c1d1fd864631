"""From a checkpoint to scored predictions: every way gets as many pictures right as valid.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPO, VALID, RunScript, script_environment

from lib.config.load import load_config
from lib.models.build import build_model

CLASSES = ("c1", "c2", "c0")  # not the sorted order: labels have to go by name


@pytest.fixture(scope="module")
def checkpoint(tiny_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights beside their yaml, as in a run folder."""
    folder = tmp_path_factory.mktemp("run folder")
    shutil.copy(tiny_yaml, folder / "config.yaml")
    torch.manual_seed(0)
    network = build_model(load_config(tiny_yaml), len(CLASSES))
    state = {"state_dict": network.state_dict(), "class_names": list(CLASSES)}
    torch.save(state, folder / "model_best.pth.tar")
    return folder / "model_best.pth.tar"


@pytest.fixture(scope="module")
def named_data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The validation pictures under names of their own, in class folders; two are of one class."""
    root = tmp_path_factory.mktemp("named")
    for path in (tiny_data / "val").glob("*/*.png"):
        copy = root / "val" / path.parent.name / f"{path.parent.name}.{path.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return root


def run_chain(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(REPO / "test/offline_chain.sh"), *map(str, words)],
        env={**script_environment(), "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def counts_of_valid(result: Path) -> tuple[int, int, int]:
    found = json.loads(result.read_text())
    return tuple(found[key] for key in ("num_images_used", "num_correct_top1", "num_correct_top5"))


def test_one_command_takes_a_checkpoint_through_the_chain(
    named_data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Fault S4: with a size before the crop that is not the usual one, all the way through."""
    out = tmp_path / "the chain"
    words = (f"--data_path={named_data}", f"--checkpoint={checkpoint}", f"--out={out}")
    done = run_chain(*words, "--", "TEST.RESIZE", "90")
    assert done.returncode == 0, done.stderr
    num_images, top1, top5 = counts_of_valid(out / "eval/result.json")
    counts = f"{{'images': {num_images}, 'top-1': {top1}, 'top-5': {top5}}}"
    assert done.stdout.splitlines()[-2:] == [f"offline chain  {counts}", f"tools/valid.py {counts}"]
    made = json.loads((out / "bins/preprocess.json").read_text())["recipe"]
    assert made["resize"] == 90
    assert 0 < top1 < num_images == top5 == 11, "three classes: the fifth place is always right"
    labels = dict(line.split() for line in (out / "val_label.txt").read_text().splitlines())
    assert labels["c0.0.png"] == "2" and labels["c1.0.png"] == "0"
    assert len(list((out / "results/run").glob("*_0.txt"))) == 11


LYING_PYTHON = """#!/bin/sh
case "$1" in
  *valid.py) echo "{\\"num_images_used\\": 2, \\"num_correct_top1\\": 1, \\"num_correct_top5\\": 2}" \\
    >"$OUT/eval/result.json" ;;
  hrnet_pth2onnx.py) mkdir "$OUT/eval"; echo '{"input_shape": [1, 3, 8, 8]}' >"$OUT/hrnet.receipt.json" ;;
  *onnx_infer.py) mkdir -p "$OUT/results/run"
    for name in a b; do echo "0.1 0.9 " >"$OUT/results/run/${name}_0.txt"; done ;;
  -|-c) exec %s "$@" ;;
  "$FAILING") echo '[Error] so it is' >&2; exit 7 ;;
esac
"""  # noqa: E501


@pytest.mark.parametrize(
    ("second_label", "failing", "code", "said"),
    [
        (0, "", 0, "tools/valid.py {'images': 2, 'top-1': 1, 'top-5': 2}"),
        (1, "", 1, "the counts differ"),
        (0, "imagenet_acc_eval.py", 7, "the chain stopped at: score (exit code 7)"),
    ],
)
def test_the_chain_fails_where_the_counts_differ_or_a_step_fails(
    checkpoint: Path, tmp_path: Path, second_label: int, failing: str, code: int, said: str
) -> None:
    python = tmp_path / "python"
    python.write_text(LYING_PYTHON % sys.executable)
    python.chmod(0o755)
    (tmp_path / "val").mkdir()
    (tmp_path / "val_label.txt").write_text(f"a.png 1\nb.png {second_label}\n")
    out = tmp_path / "out"
    done = run_chain(
        f"--data_path={tmp_path}",
        f"--checkpoint={checkpoint}",
        f"--out={out}",
        PYTHON=str(python),
        OUT=str(out),
        FAILING=failing,
        PYTHONPATH=os.fspath(REPO),
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data_path={data}"], "--checkpoint=FILE is needed"),
        (
            ["--data_path={data}", "--checkpoint=none.pth"],
            "--checkpoint none.pth: there is no such",
        ),
        (["--data_path=nowhere", "--checkpoint={checkpoint}"], "has no folder val"),
        (["--data_path={data}", "--checkpoint={checkpoint}", "--bs=many"], "--bs must be"),
    ],
)
def test_what_the_chain_cannot_start_with_is_one_line(
    checkpoint: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "val_label.txt").touch()
    done = run_chain(*(word.format(data=tmp_path, checkpoint=checkpoint) for word in words))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("[Error] ") and said in line


def test_the_chain_removes_no_results_but_its_own(checkpoint: Path, tmp_path: Path) -> None:
    """Fault L0."""
    mine = tmp_path / "out" / "results" / "mine.txt"
    for folder in (tmp_path / "val", mine.parent):
        folder.mkdir(parents=True)
    mine.write_text("mine")
    words = (f"--data_path={tmp_path}", f"--checkpoint={checkpoint}", f"--out={tmp_path}/out")
    done = run_chain(*words, PYTHON="false")
    assert done.returncode == 2 and "not of an earlier chain" in done.stderr
    assert mine.read_text() == "mine"


@pytest.fixture(scope="module")
def work(
    named_data: Path,
    checkpoint: Path,
    run_script: RunScript,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with bins, labels, valid.py's result and the ONNX file of an open batch."""
    folder = tmp_path_factory.mktemp("work")
    yaml = checkpoint.parent / "config.yaml"
    for words in (
        (
            "hrnet_pth2onnx.py", "--cfg", yaml, "--input", checkpoint, "--output",
            folder / "m.onnx", "--verify_images", named_data / "val",
        ),
        (
            "imagenet_torch_preprocess.py", "hrnet", named_data / "val", folder / "bins",
            "--image_size", 64, "--workers", 1,
        ),
        (
            "tools/make_labels.py", named_data / "val", folder / "labels.txt", "--classes",
            folder / "m.onnx",
        ),
        (VALID, named_data, "--cfg", yaml, "--testModel", checkpoint, "--out", folder / "eval"),
    ):  # fmt: skip
        done = run_script(*words)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("batch", [1, 7, 16])
@pytest.mark.parametrize("outfmt", ["TXT", "BIN", "NPY"])
@pytest.mark.parametrize("source", ["bins", "pictures"])
def test_every_way_counts_what_valid_counts(
    work: Path, named_data: Path, run_script: RunScript, tmp_path: Path, *, batch, outfmt, source
) -> None:
    """11 pictures: the last batch of 7 and of 16 is padded."""
    taken = {"bins": ("--input", work / "bins"), "pictures": ("--input_images", named_data / "val")}
    done = run_script(
        "tools/onnx_infer.py", "--model", work / "m.onnx", "--dymBatch", batch, *taken[source],
        "--output", tmp_path, "--output_dirname", "run", "--outfmt", outfmt,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_script(
        "imagenet_acc_eval.py", tmp_path / "run", work / "labels.txt", tmp_path, "r.json"
    )
    num_images, top1, top5 = counts_of_valid(work / "eval/result.json")
    assert done.stdout.startswith(f"{num_images} images: ")
    assert f"% ({top1})" in done.stdout and f"% ({top5})" in done.stdout
