"""lib/metrics/confusion.py and what is made of it, against a whole matrix."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.metrics.confusion import ConfusionCounts, answers_of
from lib.metrics.per_class import per_class_rows, write_per_class
from lib.metrics.predictions import Predictions
from lib.report.plots.confusion import save_confusion


def drawn(num_classes: int, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes; the last class has no images."""
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, num_classes - 1, (2, num_images))
    return true, np.where(generator.random(num_images) < 0.5, true, predicted)


@pytest.mark.parametrize("num_images", [0, 1, 400])
def test_counts_are_those_of_the_whole_matrix(num_images: int) -> None:
    true, predicted = drawn(9, num_images)
    whole = np.zeros((9, 9), int)
    for pair in zip(true, predicted, strict=True):
        whole[pair] += 1
    found = ConfusionCounts(true, predicted, 9)
    assert found.blocks(1).tolist() == whole.tolist()
    padded = np.pad(whole, (0, 3)).reshape(3, 4, 3, 4)
    assert found.blocks(4).tolist() == padded.sum(axis=(1, 3)).tolist()
    assert found.num_images.tolist() == whole.sum(axis=1).tolist()
    assert found.num_correct.tolist() == whole.diagonal().tolist()
    errors = whole - np.diag(whole.diagonal())
    taken_for = {row: int(errors[row].argmax()) for row in range(9) if errors[row].any()}
    assert found.taken_for() == taken_for  # the lowest of equally frequent ones
    order = np.argsort(-errors, axis=None, kind="stable")[: np.count_nonzero(errors)]
    assert (found.true[found.wrong] * 9 + found.predicted[found.wrong]).tolist() == order.tolist()
    names = [f"c{number}" for number in range(9)]
    assert per_class_rows(found, names) == [
        (
            names[row], whole[row].sum(), whole[row, row],
            round(100 * whole[row, row] / whole[row].sum(), 3),
            names[taken_for[row]] if row in taken_for else "",
        )
        for row in range(9)
        if whole[row].any()
    ]  # fmt: skip


def test_ten_thousand_classes_need_no_more_than_their_images(tmp_path: Path) -> None:
    """A whole matrix of them would be 800 MB."""
    true, predicted = map(torch.from_numpy, drawn(10_000, 50_000))
    made = Predictions(torch.arange(50_000), true, predicted[:, None], torch.ones(50_000, 1))
    names = [f"class {number}" for number in range(10_000)]
    tracemalloc.start()
    try:
        confusion = made.confusion(10_000)
        write_per_class(confusion, names, tmp_path / "per_class.csv")
        save_confusion(confusion, names, tmp_path / "confusion.png")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100e6
    assert (tmp_path / "per_class.csv").read_text().count("\n") > 9_900


def test_a_tie_for_the_first_place_is_no_right_answer() -> None:
    """Fault S7: whichever of the equal classes is asked for."""
    scores = np.array([[9, 9, 0], [9, 9, 0], [9, 9, 0], [1, 2, 3]])
    assert answers_of(scores, np.array([0, 1, 2, 2])).tolist() == [1, 0, 0, 2]
    flat = np.zeros((4, 5), np.float32)
    assert not (answers_of(flat, np.arange(4)) == np.arange(4)).any()
