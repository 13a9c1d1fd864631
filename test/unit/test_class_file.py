"""lib/data/class_file.py: class names beside weights, in the forms that there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lib.data.class_file import read_class_file
from lib.evaluation.classes import read_class_names
from lib.models.weights.load import read_weights

# In the order of their names, of their text and of their numbers these are not the same.
NAMES = ("zebra", "yak", *(f"c{number}" for number in range(9, 0, -1)))


def written(folder: Path, text: str) -> Path:
    path = folder / "classes.json"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "{" + ", ".join(f'"{n}": {i}' for i, n in reversed(list(enumerate(NAMES)))) + "}",
        "{" + ", ".join(f'"{i}": "{n}"' for i, n in sorted(enumerate(NAMES), key=str)) + "}",
        "[" + ", ".join(f'"{n}"' for n in NAMES) + "]",
    ],
    ids=["name: number", "number: name", "names"],
)
def test_every_usual_form_gives_the_names_in_the_order_of_the_outputs(
    text: str, tmp_path: Path
) -> None:
    path = written(tmp_path, "\ufeff" + text)
    assert read_class_file(path) == NAMES
    assert read_class_names(path, num_outputs=len(NAMES)) == NAMES
    torch.save({"classifier.weight": torch.ones(len(NAMES), 4)}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").class_names == NAMES


def test_names_that_are_numbers_are_names_in_a_runs_own_form(tmp_path: Path) -> None:
    assert read_class_file(written(tmp_path, '{"0": 1, "1": 0}')) == ("1", "0")
    assert read_class_file(written(tmp_path, '{"0": "1", "1": "0"}')) == ("1", "0")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"0": ["n01440764", "tench"]}', "'n01440764', 'tench'.* stands for the number"),
        ('{"a": 0, "b": 0}', "the number 0 is there 2 times"),
        ('{"a": 10, "b": 11}', "the number 11 is there, among 2 classes"),
        ('{"a": -1, "b": 0}', "'-1' stands for the number"),
        ('{"a": 0, "b": true}', "'True' stands for the number"),
        ('{"a": 0, "b": 1.0}', "'1.0' stands for the number"),
        ('{"a": 0, "b": "1"}', "'1' stands for the number"),
        ('{"a": "x", "b": 1}', "'x' stands for the number"),
        ('{"a": "x"}', "'a' stands for the number"),
        ('{"a": 0, "b": 1, "a": 2}', "the name 'a' is there 2 times"),
        ('{"0": "a", "1": "a"}', "the name 'a' is there 2 times"),
        ('{"0": "a", "2": "b"}', "the number 2 is there, among 2 classes"),
        ('["a", "b", "a"]', "the name 'a' is there 2 times"),
        ('["a", 3]', "'3' stands for the name"),
        ("{}", "it is empty"),
        ("[]", "it is empty"),
        ("7", "it holds a single value"),
        ('{"a": 0, "b"', "Expecting ':'"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_another_form_is_one_line_with_file_fault_and_what_is_wanted(
    text: str, fault: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    torch.save({"classifier.weight": torch.ones(2, 4)}, tmp_path / "w.pth")
    for read in (
        lambda: read_class_file(path),
        lambda: read_weights(tmp_path / "w.pth"),
        lambda: read_class_names(path, num_outputs=2),
    ):
        with pytest.raises(ValueError, match=fault) as raised:
            read()
        said = str(raised.value)
        assert said.startswith(f"{path} is no list of class names") and "\n" not in said
        assert 'wanted is {"name": number}' in said


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file of class names: .*classes\.json"):
        read_class_file(tmp_path / "classes.json")
