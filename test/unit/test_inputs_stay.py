"""Whatever the command line says, no script writes over what it reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from conftest import RunScript, write_pictures

from lib.config.load import load_config
from lib.data.image_list import ImageList
from lib.evaluation.run import EvalRequest, _check_outputs
from lib.models.weights.torch_file import save_atomically


@pytest.fixture
def inputs(tiny_yaml: Path, tmp_path: Path) -> Path:
    """Pictures in class folders, their labels, predictions, weights, all of which must stay."""
    write_pictures(tmp_path / "val" / "cat", 2)
    (tmp_path / "predictions").mkdir()
    for name in ("0", "1"):
        (tmp_path / "predictions" / f"{name}_0.txt").write_text("1 2 3")
    (tmp_path / "labels.txt").write_text("0.png 2\n1.png 2\n")
    (tmp_path / "config.yaml").write_text(load_config(tiny_yaml).dump())
    save_atomically({"classifier.weight": torch.ones(3, 8)}, tmp_path / "w.pth")
    os.link(tmp_path / "w.pth", tmp_path / "w.onnx")
    (tmp_path / "link.txt").symlink_to("labels.txt")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("imagenet_acc_eval.py predictions labels.txt . labels.txt", "NAME 'labels.txt' is a file"),
        ("imagenet_acc_eval.py predictions labels.txt . link.txt", "NAME 'link.txt' is a file to"),
        ("imagenet_acc_eval.py predictions labels.txt predictions 0_0.txt", "NAME 'predictions/0_"),
        (
            "imagenet_acc_eval.py predictions labels.txt . r.json --per_class labels.txt",
            "--per_class 'labels.txt' is a file to read",
        ),
        ("tools/make_labels.py val val/cat/0.png", "LABELS 'val/cat/0.png' is a file to read"),
        ("imagenet_torch_preprocess.py hrnet val val", "val is the folder of the pictures"),
        ("imagenet_torch_preprocess.py hrnet val val/../val/", "is the folder of the pictures"),
        (
            "hrnet_pth2onnx.py --cfg config.yaml --input w.pth --output w.onnx",
            "--output 'w.onnx' is",
        ),
        ("tools/weights.py convert w.pth w.pth", "OUTPUT 'w.pth' is a file to read"),
    ],
)
def test_no_script_writes_over_what_it_reads(
    inputs: Path, run_script: RunScript, words: str, said: str
) -> None:
    """Fault L1."""
    before = {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()}
    done = run_script(*words.split(), cwd=inputs)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1
    assert before == {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()}


def test_an_evaluation_replaces_neither_its_input_nor_a_training_runs_results(
    tmp_path: Path,
) -> None:
    """Fault L0, L1."""
    images = ImageList((str(tmp_path / "0.png"),), (0,), ("cat",))
    (tmp_path / "0.png").write_text("a photo")
    folder = tmp_path / "eval"
    request = EvalRequest(tmp_path, tmp_path / "w.pth", folder, "x")
    _check_outputs(request, images, "val")
    request = EvalRequest(tmp_path, tmp_path / "w.pth", folder, "x", predictions=tmp_path / "0.png")
    with pytest.raises(ValueError, match="--predictions '.*0.png' is a file to read"):
        _check_outputs(request, images, "val")
    (tmp_path / "metrics.jsonl").write_text("{}")
    request = EvalRequest(tmp_path, tmp_path / "w.pth", tmp_path, "x")
    with pytest.raises(ValueError, match="training run, .* another --out, such as .*/eval"):
        _check_outputs(request, images, "val")
