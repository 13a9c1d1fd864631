"""Curves and confusion matrices as PNG files."""

import numpy as np
import pytest
from PIL import Image

from lib.plots import save_confusion, save_curves


def interval(epoch, step, **changes):
    """A line of metrics.jsonl after a log interval."""
    line = {"kind": "interval", "epoch": epoch, "step": step, "num_steps": 2}
    return {**line, "loss": 1.0 / (1 + epoch + step), "learning_rate": 0.1, **changes}


def epoch_line(epoch, **changes):
    """A line of metrics.jsonl after an epoch."""
    line = {"kind": "epoch", "epoch": epoch, "train_loss": 1.0, "val_loss": 0.9}
    accuracies = {
        "train_accuracy_top1": 50.0, "val_accuracy_top1": 40.0, "val_accuracy_top5": 90.0,
    }  # fmt: skip
    return {**line, **accuracies, **changes}


def pixels(path):
    """The decoded picture; a PNG that is cut short would not decode."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L"))


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    """A machine without a screen."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MPLBACKEND", "TkAgg")


def test_curves_are_drawn_and_drawn_over(tmp_path):
    path = tmp_path / "curves.png"
    save_curves([interval(0, 0), interval(0, 1), epoch_line(0)], path)
    first = pixels(path)
    save_curves([interval(0, 0), interval(0, 1), epoch_line(0), interval(1, 0)], path)
    second = pixels(path)
    assert first.shape == second.shape
    assert (first != second).any()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "records",
    [
        [],
        [interval(0, 0)],
        [interval(0, 0, loss=None), epoch_line(0, val_loss=None, train_loss=None)],
        [interval(0, 0), epoch_line(0, val_loss=None), epoch_line(1)],
    ],
    ids=["no records", "no epoch yet", "only NaN", "a NaN among numbers"],
)
def test_curves_of_any_run_can_be_drawn(records, tmp_path):
    """Pitfall 19: the shortest runs too, and those that a NaN ended."""
    save_curves(records, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").std() > 0


def test_a_matrix_is_drawn_with_its_class_names(tmp_path):
    matrix = [[8, 2, 0], [0, 10, 0], [0, 0, 0]]
    save_confusion(matrix, ["cat", "dog", "class without pictures"], tmp_path / "named.png")
    save_confusion(matrix, ["", "", ""], tmp_path / "unnamed.png")
    named, unnamed = pixels(tmp_path / "named.png"), pixels(tmp_path / "unnamed.png")
    assert named.shape != unnamed.shape or (named != unnamed).any()


def test_a_large_matrix_is_drawn_without_its_names(tmp_path):
    names = [f"class {index}" for index in range(60)]
    matrix = np.eye(60, dtype=int).tolist()
    save_confusion(matrix, names, tmp_path / "large.png")
    height, width = pixels(tmp_path / "large.png").shape
    assert max(height, width) < 2000
