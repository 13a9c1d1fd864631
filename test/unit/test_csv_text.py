"""lib/runtime/csv_text.py: tables that a spreadsheet computes nothing from."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch

from lib.data.image_list import ImageList
from lib.evaluation.predict import writing
from lib.evaluation.table import write_predictions
from lib.metrics.confusion import ConfusionCounts
from lib.metrics.per_class import write_per_class
from lib.metrics.predictions import Predictions
from lib.runtime.csv_text import csv_text, name_of

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", "\n=1", "＝1", "'quoted", '=a,b"c')


@pytest.mark.parametrize("name", FORMULAS)
def test_a_name_that_would_be_a_formula_is_text_and_comes_back(name: str) -> None:
    """Fault R3."""
    [[cell, number, share]] = csv.reader(io.StringIO(csv_text([(name, -3, -0.5)])))
    assert cell == f"'{name}" and name_of(cell) == name
    assert (number, share) == ("-3", "-0.5")


@pytest.mark.parametrize("name", ["cat", "a=b", "dog, hot", "3-in-1", "", "ä", "a'b"])
def test_other_names_stay_as_they_are(name: str) -> None:
    [[cell, _]] = csv.reader(io.StringIO(csv_text([(name, 1)])))
    assert cell == name == name_of(cell)


def test_no_table_holds_a_formula(tmp_path) -> None:
    """Fault R3."""
    images = ImageList(("=0.png", "+1.png"), (0, 1), FORMULAS[:2])
    predictions = Predictions(
        torch.arange(2), torch.tensor([0, 1]), torch.tensor([[1, 0]] * 2), torch.full((2, 2), 0.5)
    )
    write_predictions(predictions, images, tmp_path / "a.csv", root="")
    write_per_class(
        ConfusionCounts(np.arange(2), 1 - np.arange(2), 2), FORMULAS[:2], tmp_path / "b.csv"
    )
    with writing.open_writer(tmp_path / "c.csv", 1) as writer:
        writer.write([writing.Row("=a.png", (writing.Guess("=1+1", 0, 0.5),))])
        writer.write([writing.Row("-b.png", error="@cut")])
    for name in "abc":
        with open(tmp_path / f"{name}.csv", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r"))]
        assert any(cell.startswith("'") for cell in cells)
