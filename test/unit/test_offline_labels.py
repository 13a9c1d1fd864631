"""Label files made of class folders."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from conftest import RunScript, write_pictures

from lib.data.image_list import read_val
from lib.evaluation.classes import read_class_names as train_classes
from lib.export.onnx_metadata import CLASS_NAMES_KEY
from lib.offline.labels import labels_of_folder, read_class_names
from lib.offline.scores import read_labels

SCRIPT = "tools/make_labels.py"


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """Two classes, one with a picture in a folder of its own and one with a blank in its name."""
    write_pictures(tmp_path / "val/bee", 1)
    write_pictures(tmp_path / "val/ant/more", 1)
    (tmp_path / "val/ant/more/0.png").rename(tmp_path / "val/ant/more/my ant.png")
    return tmp_path / "val"


def onnx_file(path: Path, names: list[str] | None) -> Path:
    """A file with the class names in its metadata."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [result]))
    if names is not None:
        onnx.helper.set_model_props(model, {CLASS_NAMES_KEY: json.dumps(names)})
    onnx.save(model, path)
    return path


def test_without_class_names_the_sorted_folders_are_the_classes_as_in_training(val: Path) -> None:
    labels = labels_of_folder(val, None).labels
    assert labels == {"my ant.png": 0, "0.png": 1}
    images = read_val(val.parent, val_set="val", class_names=None, num_classes=2)
    names = [Path(path).name for path in images.paths]
    assert labels == dict(zip(names, images.targets, strict=True))


def test_the_network_says_which_output_is_which_class(
    val: Path, tmp_path: Path, run_script: RunScript
) -> None:
    (tmp_path / "classes.json").write_text('{"bee": 1, "cat": 0, "ant": 2}')
    for classes in (
        tmp_path / "classes.json",
        onnx_file(tmp_path / "m.onnx", ["cat", "bee", "ant"]),
    ):
        done = run_script(SCRIPT, val, tmp_path / "new/labels.txt", "--classes", classes)
        assert done.returncode == 0, done.stderr
        assert read_labels(tmp_path / "new/labels.txt") == {"my ant": 2, "0": 1}


def test_an_onnx_file_without_names_leaves_the_sorted_order_and_says_so(
    val: Path, tmp_path: Path, run_script: RunScript
) -> None:
    """Fault S13: it also says what is left out."""
    model = onnx_file(tmp_path / "m.onnx", None)
    (val / "notes.md").touch()
    assert read_class_names(model) is None
    done = run_script(SCRIPT, val, tmp_path / "labels.txt", "--classes", model)
    assert done.returncode == 0 and "records no class names" in done.stdout
    assert "1 file without a picture's ending ('notes.md')" in done.stdout


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ('{"bee": 0, "cat": 1}', "1 class folders that the network doesn't know: 'ant'"),
        ('{"bee": 0, "ant": 2}', "is no list of class names"),
        ('["bee", 1]', "is no list of class names"),
        ("MODEL:", "is no list of class names"),
        ("[" * 100_000, "is no list of class names"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(
    val: Path, tmp_path: Path, run_script: RunScript, classes: str, message: str
) -> None:
    (tmp_path / "classes.json").write_text(classes)
    labels = tmp_path / "labels.txt"
    done = run_script(SCRIPT, val, labels, "--classes", tmp_path / "classes.json")
    assert done.returncode == 2 and message in done.stderr
    assert not labels.exists()


def test_a_text_of_names_is_taken_as_evaluation_takes_it(
    val: Path, tmp_path: Path, run_script: RunScript
) -> None:
    """Fault A7: the file of valid.py's --train_classes."""
    names = tmp_path / "names.txt"
    names.write_text("\ufeffcat\r\nbee\n\nant\n")
    assert read_class_names(names) == train_classes(names, num_outputs=3) == ("cat", "bee", "ant")
    done = run_script(SCRIPT, val, tmp_path / "labels.txt", "--classes", names)
    assert done.returncode == 0, done.stderr
    assert read_labels(tmp_path / "labels.txt") == {"my ant": 2, "0": 1}
    for text, said in (
        ("cat\nbee\ncat\n", "has class names twice: 'cat'"),
        ("\n", "no class names"),
    ):
        names.write_text(text)
        done = run_script(SCRIPT, val, tmp_path / "labels.txt", "--classes", names)
        assert done.returncode == 2 and said in done.stderr
    done = run_script(SCRIPT, val, tmp_path / "labels.txt", "--classes", tmp_path)
    assert done.returncode == 2 and "no such file of class names" in done.stderr


@pytest.mark.parametrize("text", ["5", "null", '{"a": 0}', '["a", 1]', '["a", "a"]', "[" * 100_000])
def test_class_names_of_wrong_types_in_a_model_are_one_line(
    text: str, val: Path, tmp_path: Path, run_script: RunScript
) -> None:
    """Fault R6."""
    model = onnx.load(onnx_file(tmp_path / "m.onnx", None))
    onnx.helper.set_model_props(model, {"hrnet.class_names": text})
    onnx.save(model, tmp_path / "m.onnx")
    done = run_script(SCRIPT, val, tmp_path / "labels.txt", "--classes", tmp_path / "m.onnx")
    assert done.returncode == 2 and "m.onnx: its metadata hrnet.class_names" in done.stderr
    assert done.stderr.count("\n") == 1


def test_pictures_outside_of_class_folders_are_named(val: Path, run_script: RunScript) -> None:
    done = run_script(SCRIPT, val / "ant/more", val / "labels.txt")
    assert done.returncode == 2
    assert "1 pictures outside of class folders: 'my ant.png'" in done.stderr


def test_an_empty_folder_is_refused(tmp_path: Path, run_script: RunScript) -> None:
    done = run_script(SCRIPT, tmp_path, tmp_path / "labels.txt")
    assert done.returncode == 2 and "holds no pictures" in done.stderr
