"""lib/evaluation/: whose classes, ReaL labels, calibration and the table, against hand counts."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import write_pictures

from lib.data.build import read_val
from lib.data.image_list import ImageList
from lib.data.packed.options import PackOptions
from lib.data.packed.packing import pack
from lib.evaluation.calibration import calibration_measure
from lib.evaluation.classes import ClassChoice, EvaluationSet, read_evaluation_set
from lib.evaluation.real_labels import read_real_labels
from lib.evaluation.table import write_predictions
from lib.metrics.predictions import Predictions


def folders(root: Path, *names: str) -> Path:
    """A data path whose val/ has one picture in each class folder."""
    for name in names:
        write_pictures(root / "val" / name, 1, size=(4, 4))
    return root


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(
    root: Path,
    *,
    names: tuple[str, ...] | None = None,
    num_outputs: int,
    class_map: Path | None = None,
    train_classes: Path | None = None,
    subset: bool = False,
) -> EvaluationSet:
    return read_evaluation_set(
        partial(read_val, root, val_set="val"),
        choice=ClassChoice(class_map, train_classes, subset),
        class_names=names,
        num_outputs=num_outputs,
    )


def output_of_each_folder(found: EvaluationSet) -> dict[str, int]:
    pairs = zip(found.images.paths, found.images.targets, strict=True)
    return {Path(path).parent.name: found.output(target) for path, target in pairs}


def predicted(classes: list[int], targets: list[int], confidences: list[float]) -> Predictions:
    best = torch.tensor(confidences)
    return Predictions(
        torch.arange(len(classes)),
        torch.tensor(targets),
        torch.stack([torch.tensor(classes), torch.zeros(len(classes), dtype=torch.int64)], dim=1),
        torch.stack([best, 1 - best], dim=1),
    )


def test_folders_named_by_numbers_are_outputs_in_the_order_of_numbers_not_of_text(
    tmp_path: Path,
) -> None:
    root = folders(tmp_path, *map(str, range(12)))
    found = read(root, num_outputs=12, class_map=Path("numbers"))
    assert output_of_each_folder(found) == {str(number): number for number in range(12)}
    assert found.images.class_names == tuple(map(str, range(12)))
    named = read(root, names=tuple("abcdefghijkl"), num_outputs=12, class_map=Path("numbers"))
    assert output_of_each_folder(named)["10"] == 10
    assert named.images.class_names == tuple("abcdefghijkl")


def test_folders_named_by_numbers_are_not_taken_in_the_order_of_text_unasked(
    tmp_path: Path,
) -> None:
    root = folders(tmp_path, *map(str, range(11)))
    with pytest.raises(ValueError, match="--class_map numbers folder 10 is output 10") as caught:
        read(root, num_outputs=11)
    assert "\n" not in str(caught.value)
    text_order = written(tmp_path / "names.txt", "\n".join(sorted(map(str, range(11)))))
    found = read(root, num_outputs=11, train_classes=text_order)
    assert output_of_each_folder(found)["10"] == 2
    few = folders(tmp_path / "few", *map(str, range(10)))
    assert read(few, num_outputs=10).images.targets == tuple(range(10))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.txt", "\ntabby cat 2\nkitten 2\ndog 0\nyak 3\n"),
        ("map.json", {"tabby cat": 2, "kitten": 2, "dog": 0, "yak": 3}),
    ],
)
def test_a_class_map_may_put_several_folders_onto_one_output(
    name: str, content: object, tmp_path: Path
) -> None:
    root = folders(tmp_path, "dog", "kitten", "tabby cat")
    found = read(root, num_outputs=5, class_map=written(tmp_path / name, content))
    assert output_of_each_folder(found) == {"tabby cat": 2, "kitten": 2, "dog": 0}
    assert found.images.class_names == ("dog", "#1", "kitten+tabby cat", "#3", "#4")
    assert found.outputs is None
    assert found.remarks == (f"class map {tmp_path / name}: 3 class folders are 2 outputs",)


def test_a_subset_keeps_the_outputs_that_have_pictures_under_their_names(tmp_path: Path) -> None:
    root, names = folders(tmp_path, "yak", "cat"), ("dog", "cat", "ant", "yak")
    found = read(root, names=names, num_outputs=4, subset=True)
    assert found.outputs == (1, 3)
    assert found.images.class_names == ("cat", "yak")
    assert output_of_each_folder(found) == {"cat": 1, "yak": 3}
    assert found.images.targets == (0, 1)
    assert found.remarks == ("subset: 2 of the network's 4 outputs are compared",)
    assert found.record == {"num_outputs_compared": 2}
    whole = read(root, names=names, num_outputs=4)
    assert (whole.outputs, whole.images.targets, whole.record) == (None, (1, 3), {})


def test_packed_pictures_get_the_outputs_of_class_folders(tmp_path: Path) -> None:
    root = folders(tmp_path / "data", "10", "2", "7")
    shutil.copytree(root / "val", root / "train")
    pack(root, tmp_path / "packed", PackOptions(num_workers=1))
    ours, theirs = (
        read(path, num_outputs=12, class_map=Path("numbers"), subset=True)
        for path in (tmp_path / "packed", root)
    )
    assert ours.outputs == theirs.outputs == (2, 7, 10)
    assert ours.images.targets == theirs.images.targets == (2, 0, 1)


def test_the_networks_class_names_may_come_from_a_folder_or_a_list(tmp_path: Path) -> None:
    root = folders(tmp_path, "cat", "yak")
    for name in ("yak", "ant", "cat"):
        (tmp_path / "train" / name).mkdir(parents=True)
    in_order = {"yak": 0, "cat": 1, "ant": 2}
    for source, expected in (
        (tmp_path / "train", {"cat": 1, "yak": 2}),
        (written(tmp_path / "classes.json", in_order), {"cat": 1, "yak": 0}),
        (written(tmp_path / "names.txt", "yak\ncat\n\nant\n"), {"cat": 1, "yak": 0}),
    ):
        found = read(root, names=("a", "b", "c"), num_outputs=3, train_classes=source)
        assert output_of_each_folder(found) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.txt", "cat one\nyak 2\n", r"line 1: 'cat one' is not of the form '<class folder> <"),
        ("m.txt", "cat 1\ncat 2\nyak 2\n", "line 2: 'cat' was output 1 before"),
        ("m.txt", "cat 1\n", "does not say which outputs 1 of the 2 class folders are: 'yak'"),
        ("m.txt", "cat 1\nyak 3\n", r"folder 'yak' is output 3, and the network's .* are 0\.\.2"),
        ("m.json", "{", "m.json is damaged or no JSON"),
        ("m.json", ["cat"], r"it is \['cat'\], and a mapping"),
        ("m.json", {"cat": 1, "yak": "2"}, "yak is '2', and a whole number"),
        ("m.json", {"cat": 1, "yak": True}, "yak is True, and a whole number"),
        ("m.json", {"cat": 1, "yak": -1}, "yak is -1, and a whole number"),
    ],
)
def test_a_class_map_that_does_not_fit_is_refused_in_one_line(
    name: str, content: object, message: str, tmp_path: Path
) -> None:
    root = folders(tmp_path, "cat", "yak")
    with pytest.raises(ValueError, match=message) as caught:
        read(root, num_outputs=3, class_map=written(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_a_class_map_needs_class_folders_that_it_can_name(tmp_path: Path) -> None:
    root = folders(tmp_path, "cat", "1")
    with pytest.raises(ValueError, match="1 class folders have names that are no numbers: 'cat'"):
        read(root, num_outputs=3, class_map=Path("numbers"))
    with pytest.raises(FileNotFoundError, match="no such class map: .*absent"):
        read(root, num_outputs=3, class_map=tmp_path / "absent")
    write_pictures(tmp_path / "flat" / "val", 1)
    with pytest.raises(ValueError, match="leave the class map out"):
        read(tmp_path / "flat", num_outputs=3, class_map=Path("numbers"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", {"cat": 0, "yak": 2, "ant": 3}, "the number 3 is there, among 3 classes"),
        ("c.txt", "cat\nyak\ncat\n", "has class names twice: 'cat'"),
        ("c.txt", "cat\nyak\n", "has 2 class names and the network 3 outputs"),
        ("c.json", [0], "'0' stands for the name of a class"),
    ],
)
def test_class_names_that_do_not_fit_are_refused_in_one_line(
    name: str, content: object, message: str, tmp_path: Path
) -> None:
    root = folders(tmp_path, "cat", "yak")
    with pytest.raises(ValueError, match=message):
        read(root, num_outputs=3, train_classes=written(tmp_path / name, content))
    with pytest.raises(FileNotFoundError, match="no such folder or list of class names"):
        read(root, num_outputs=3, train_classes=tmp_path / "absent")


def test_the_refusals_of_folders_that_do_not_fit_name_the_options_that_mend_it(
    tmp_path: Path,
) -> None:
    root = folders(tmp_path, "cat", "yak")
    with pytest.raises(ValueError, match="--train_classes names the outputs, --class_map says"):
        read(root, num_outputs=3)
    with pytest.raises(ValueError, match="--class_map says which output a folder is"):
        read(root, names=("cat", "dog"), num_outputs=2)


# ReaL labels


def validation_set(*numbers: int, outputs: tuple[int, ...] | None = None) -> EvaluationSet:
    """Pictures in the several ways in which their names are kept."""
    forms = (
        "/d/val/n01/ILSVRC2012_val_{:08d}.JPEG",
        "val/000000.tar/00000007_ILSVRC2012_val_{:08d}.jpg",
        "/d/val/ILSVRC2012_val_{:08d}_n01440764.JPEG",
    )
    paths = tuple(forms[i % 3].format(number) for i, number in enumerate(numbers))
    return EvaluationSet(ImageList(paths, (0,) * len(paths), ("a", "b", "c", "d")), outputs)


def real_json(path: Path, labels: dict[int, list[int]], num_pictures: int = 50_000) -> Path:
    """A file in the published form: `labels` by the picture's number from 1, others without."""
    return written(path, [labels.get(number + 1, []) for number in range(num_pictures)])


def test_a_prediction_within_the_real_labels_is_right_and_a_picture_without_any_does_not_count(
    tmp_path: Path,
) -> None:
    path = real_json(tmp_path / "real.json", {1: [2], 50_000: [0, 3], 7: [], 30: [1], 31: [3]})
    found = validation_set(50_000, 7, 1, 30, 31)
    labels = read_real_labels(path, found, num_outputs=4)
    measured = labels.measure(predicted([3, 0, 2, 2, 0], [0] * 5, [1.0] * 5))
    assert measured.record == {
        "accuracy_real": 50.0,
        "num_correct_real": 2,
        "num_images_real": 4,
    }
    assert measured.line == "ReaL labels: 50.000 % of 4 images right"


def test_pictures_that_could_not_be_decoded_do_not_shift_the_real_labels(tmp_path: Path) -> None:
    path = real_json(tmp_path / "real.json", {1: [1], 2: [2], 3: [3]})
    labels = read_real_labels(path, validation_set(1, 2, 3), num_outputs=4)
    all_predicted = predicted([1, 3], [0, 0], [1.0, 1.0])
    without_second = Predictions(
        torch.tensor([0, 2]),
        all_predicted.targets,
        all_predicted.classes,
        all_predicted.probabilities,
    )
    assert labels.measure(without_second).record["num_correct_real"] == 2


def test_real_labels_are_outputs_of_the_network_where_only_some_are_compared(
    tmp_path: Path,
) -> None:
    path = real_json(tmp_path / "real.json", {1: [3], 2: [0]})
    found = validation_set(1, 2, outputs=(1, 3))
    labels = read_real_labels(path, found, num_outputs=4)
    assert labels.measure(predicted([1, 1], [0, 0], [1.0, 1.0])).record["num_correct_real"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[1], [", "is damaged or no JSON"),
        ({"1": [1]}, "it is .*, and a list is needed"),
        ([1, 2], r"\[0\] is 1, and a list is needed"),
        ([["1"]], r"\[0\]\[0\] is '1', and a whole number"),
        ([[1], []], "has labels for 2 pictures; a real.json has 50000"),
        ([[999]] + [[]] * 49_999, r"has class 999 and the network outputs 0\.\.3"),
        ([[]] * 50_000, "has no label for any of the 1 pictures"),
    ],
)
def test_real_labels_that_do_not_fit_are_refused_in_one_line(
    content: object, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "real.json", content)
    with pytest.raises(ValueError, match=message) as caught:
        read_real_labels(path, validation_set(1), num_outputs=4)
    assert "\n" not in str(caught.value)


def test_pictures_without_their_number_in_their_names_are_named(tmp_path: Path) -> None:
    path = real_json(tmp_path / "real.json", {1: [1]})
    for name in ("0.png", "ILSVRC2012_val_1.JPEG", "ILSVRC2012_val_00050001.JPEG"):
        found = EvaluationSet(ImageList(("/d/val/a/" + name,), (0,), ("a",)))
        with pytest.raises(ValueError, match=f"1 of 1 pictures do not have .*: '{name}'$"):
            read_real_labels(path, found, num_outputs=4)
    with pytest.raises(FileNotFoundError, match="no such file of ReaL labels"):
        read_real_labels(tmp_path / "absent.json", validation_set(1), num_outputs=4)


# Calibration


def test_the_calibration_error_of_ten_pictures_is_what_a_hand_counts(tmp_path: Path) -> None:
    """Bins of 1/15: five of 0.93..1 (one of exactly 1), three of 0.53..0.6, two of 0.26..0.33."""
    pytest.importorskip("torchmetrics", reason="what measures the calibration is not installed")
    confidences = [0.95] * 4 + [1.0] + [0.55] * 3 + [0.3] * 2
    right = [1, 1, 1, 1, 0, 1, 0, 0, 1, 0]
    predictions = predicted([1] * 10, right, confidences)
    measured = calibration_measure(tmp_path / "reliability.png")(predictions)
    by_hand = 0.5 * abs(4.8 / 5 - 4 / 5) + 0.3 * abs(0.55 - 1 / 3) + 0.2 * abs(0.3 - 1 / 2)
    assert measured.record["calibration_error"] == pytest.approx(by_hand, abs=1e-5)
    assert measured.record["mean_confidence"] == pytest.approx(0.705, abs=1e-5)
    assert (tmp_path / "reliability.png").read_bytes()[:4] == b"\x89PNG"


def test_probabilities_that_are_no_numbers_have_no_calibration(tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics", reason="what measures the calibration is not installed")
    predictions = predicted([1, 1], [1, 0], [0.5, float("nan")])
    measured = calibration_measure(tmp_path / "reliability.png")(predictions)
    assert str(measured.record["calibration_error"]) == "nan"
    assert not (tmp_path / "reliability.png").exists()


def test_a_calibration_without_its_library_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torchmetrics", "torchmetrics.functional.classification"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match="torchmetrics.* is not installed: pip install torchm"):
        calibration_measure(tmp_path / "reliability.png")


# The table


def test_the_table_has_a_line_for_each_picture_with_names_and_probabilities(
    tmp_path: Path,
) -> None:
    images = ImageList(("/d/val/x/a, b.png", "/d/val/y/gone.png", "/d/val/y/c.png"), (0, 1, 1),
                       ("x", "y"))  # fmt: skip
    predictions = Predictions(
        torch.tensor([0, 2]),
        torch.tensor([0, 1]),
        torch.tensor([[1, 0], [1, 0]]),
        torch.tensor([[0.75, 0.25], [0.9, 0.1]]),
    )
    write_predictions(predictions, images, tmp_path / "p.csv", root="/d")
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["file", "class", "predicted_1", "probability_1", "predicted_2", "probability_2"],
        ["val/x/a, b.png", "x", "y", "0.750000", "x", "0.250000"],
        ["val/y/c.png", "y", "y", "0.900000", "x", "0.100000"],
    ]
