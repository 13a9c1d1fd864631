"""Smaller ONNX models: what they lose is measured and stated, and too much is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import REPO, RunScript, script_environment, write_pictures
from export_samples import kinds, run_file, save_checkpoint, tiny_network
from onnx import numpy_helper
from PIL import Image

from lib.config.recipe import Recipe
from lib.data.rgb import open_rgb
from lib.data.transforms import eval_pixels, normalize
from lib.export.atc_rules import PROBLEM, check_model
from lib.export.onnx_metadata import metadata_of, opset_of, recipe_of
from lib.export.quantize import convert, half, run, sessions
from lib.export.quantize.comparison import Comparison, compare
from lib.export.quantize.pictures import (
    Picture,
    PictureSet,
    calibration_pictures,
    comparison_pictures,
    spread,
)
from lib.runtime.cli import PartlyFailed

QUANTIZE = "tools/quantize_onnx.py"


def export(yaml: Path, folder: Path, opset: int, run_script: RunScript) -> Path:
    checkpoint = save_checkpoint(tiny_network(yaml), folder / "c.pth")
    model = folder / f"{opset}.onnx"
    done = run_script(
        "hrnet_pth2onnx.py", "--cfg", yaml, "--input", checkpoint, "--output", model,
        "--opset", opset,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return model


@pytest.fixture(scope="module")
def model(tiny_yaml: Path, run_script: RunScript, tmp_path_factory) -> Path:
    return export(tiny_yaml, tmp_path_factory.mktemp("onnx"), 13, run_script)


@pytest.fixture(scope="module")
def flat(tiny_data: Path, tmp_path_factory) -> Path:
    """The training pictures in one folder, without labels."""
    folder = tmp_path_factory.mktemp("flat")
    for path in (tiny_data / "train").glob("*/*.png"):
        (folder / f"{path.parent.name}_{path.name}").write_bytes(path.read_bytes())
    return folder


def test_int8_is_per_channel_qdq_smaller_and_agrees(
    model: Path, flat: Path, run_script: RunScript, tmp_path: Path
) -> None:
    small = tmp_path / "int8.onnx"
    done = run_script(
        QUANTIZE, "--onnx", model, "--output", small, "--calibration", flat, "--max_drop", 50
    )
    assert done.returncode == 0, done.stderr
    assert small.stat().st_size < 0.4 * model.stat().st_size
    graph = onnx.load(small).graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}
    scales = {t.name: t for t in graph.initializer if t.name.endswith("_scale")}
    assert any(len(t.dims) == 1 and t.dims[0] > 1 for t in scales.values()), "not per channel"
    metadata = {entry.key: entry.value for entry in onnx.load(small).metadata_props}
    assert metadata["hrnet.profile"] == "int8"
    assert recipe_of(metadata, small) == Recipe.for_crop(64)
    onnx.checker.check_model(str(small), full_check=True)
    cost = compare(model, small, calibration_pictures(flat))
    assert f"same class for {cost.num_agreeing} of 27 pictures" in done.stdout


def test_layers_are_kept_in_float_where_asked(
    model: Path, flat: Path, run_script: RunScript, tmp_path: Path
) -> None:
    small = tmp_path / "int8.onnx"
    done = run_script(
        QUANTIZE, "--onnx", model, "--output", small, "--calibration", flat, "--max_drop", 100,
        "--num_calibration", 4, "--keep_float", "first", "classifier",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    nodes = onnx.load(small).graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    first = next(node for node in nodes if node.op_type == "Conv")
    assert first.input[0] == "image" and makers.get(first.input[1]) is None
    last = [node for node in nodes if node.op_type in ("Gemm", "MatMul")][-1]
    assert makers.get(last.input[1]) != "DequantizeLinear"


@pytest.fixture(scope="module")
def half_model(model: Path, flat: Path, run_script: RunScript, tmp_path_factory) -> Path:
    small = tmp_path_factory.mktemp("fp16") / "fp16.onnx"
    done = run_script(QUANTIZE, "--onnx", model, "--output", small, "--calibration", flat, "--fp16")
    assert done.returncode == 0, done.stderr
    assert ("float32 arithmetic" in done.stdout) is not half.computes_in_float16()
    return small


def test_fp16_halves_the_file_and_keeps_float32_at_its_ends(model: Path, half_model: Path) -> None:
    assert half_model.stat().st_size < 0.6 * model.stat().st_size
    graph = onnx.load(half_model).graph
    ends = (*graph.input, *graph.output)
    assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}


def test_fp16_is_valid_onnx_of_the_same_opset_and_metadata(model: Path, half_model: Path) -> None:
    """The converter puts its casts last, behind the nodes that read them."""
    onnx.checker.check_model(str(half_model), full_check=True)
    small, original = onnx.load(half_model), onnx.load(model)
    assert opset_of(small) == opset_of(original) == 13
    assert metadata_of(small) == metadata_of(original) | {"hrnet.profile": "fp16"}
    operators = [node.op_type for node in small.graph.node]
    assert operators.count("Cast") == 2 and "Cast" in (operators[0], operators[-1])


def test_atc_takes_fp16_as_it_takes_the_original(half_model: Path) -> None:
    assert "Resize" in kinds(half_model)
    assert not [row for row in check_model(half_model) if row.verdict == PROBLEM]


def test_an_invalid_model_does_not_get_its_name(
    model: Path,
    flat: Path,
    run_script: RunScript,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(convert, "sort_nodes", lambda model: None)
    arguments = ("--output", tmp_path / "x.onnx", "--calibration", flat, "--fp16")
    done = run_script(QUANTIZE, "--onnx", model, *arguments)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "x.onnx is not written: ONNX's checker says: Nodes in a graph must be" in done.stderr
    assert list(tmp_path.iterdir()) == []


def scaled(model: Path, path: Path, *, weight: str, factor: float) -> Path:
    """Write the model with one weight multiplied."""
    changed = onnx.load(model)
    (tensor,) = (t for t in changed.graph.initializer if t.name == weight)
    values = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(changed, path)
    return path


def test_fp16_is_refused_where_an_activation_or_a_weight_overflows(
    model: Path, flat: Path, run_script: RunScript, tmp_path: Path
) -> None:
    first = onnx.load(model).graph.node[0]
    assert first.op_type == "Conv"
    large = scaled(model, tmp_path / "large.onnx", weight=first.input[1], factor=1e5)
    huge = scaled(model, tmp_path / "huge.onnx", weight=first.input[1], factor=1e9)
    assert np.isfinite(run_file(large, np.ones((1, 3, 64, 64), np.float32))).all()
    for path, said in ((large, f"but {first.output[0]} for {flat}"), (huge, "but the weight")):
        arguments = ("--output", tmp_path / "x.onnx", "--calibration", flat, "--fp16")
        done = run_script(QUANTIZE, "--onnx", path, *arguments)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert f"float16 ends at 65504, {said}" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["huge.onnx", "large.onnx"]


def test_what_float16_holds_is_seen_in_a_fixed_batch_too(
    model: Path, flat: Path, tmp_path: Path
) -> None:
    fixed = onnx.load(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(fixed, tmp_path / "fixed.onnx")
    pictures = calibration_pictures(flat)[:1]
    half.check_ranges(tmp_path / "fixed.onnx", pictures)
    weight = fixed.graph.node[0].input[1]
    scaled(tmp_path / "fixed.onnx", tmp_path / "fixed.onnx", weight=weight, factor=1e5)
    with pytest.raises(PartlyFailed, match="float16 ends at 65504"):
        half.check_ranges(tmp_path / "fixed.onnx", pictures)


def test_an_output_that_is_no_number_is_refused_and_its_picture_named(
    model: Path, flat: Path, tmp_path: Path
) -> None:
    """max(0.0, nan) is 0.0, which looks like a perfect agreement."""
    broken = scaled(model, tmp_path / "b.onnx", weight="classifier.bias", factor=float("nan"))
    pictures = calibration_pictures(flat)
    said = f"smaller model's output for {pictures[0].path} is not finite"
    with pytest.raises(PartlyFailed, match=said):
        compare(model, broken, pictures)
    with pytest.raises(PartlyFailed, match="original model's output"):
        compare(broken, model, pictures)


def test_a_model_that_loses_too_much_is_refused_and_not_written(
    model: Path, flat: Path, run_script: RunScript, tmp_path: Path
) -> None:
    small = tmp_path / "int8.onnx"
    done = run_script(
        QUANTIZE, "--onnx", model, "--output", small, "--calibration", flat, "--max_drop", -1
    )
    assert done.returncode == 1
    assert "points are lost where --max_drop -1 is allowed" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_accuracy_before_and_after_counts_the_labelled_pictures() -> None:
    cost = Comparison(200, 190, 0.5, num_correct_before=150, num_correct_after=147)
    assert cost.agreement == 95.0 and cost.drop == 1.5
    unlabelled = Comparison(200, 190, 0.5, None, None)
    assert unlabelled.drop == 5.0


def test_right_answers_are_counted_for_each_model(
    model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """The other model answers with the last class, whatever it sees; the first may not."""
    changed = onnx.load(model)
    (bias,) = (t for t in changed.graph.initializer if t.name == "classifier.bias")
    for path, answer in ((tmp_path / "first.onnx", 0), (tmp_path / "last.onnx", 2)):
        values = np.eye(3, dtype=np.float32)[answer] * np.float32(1e4)
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))
        onnx.save(changed, path)
    found = comparison_pictures(tiny_data / "val", classifier(3))
    first, last = tmp_path / "first.onnx", tmp_path / "last.onnx"
    cost = compare(first, last, found.pictures)
    assert (cost.num_correct_before, cost.num_correct_after) == (5, 3)  # of c0, and of c2
    assert (cost.num_agreeing, cost.num_images) == (0, 11)
    assert cost.drop == pytest.approx(100 * 2 / 11)
    assert cost.lines()[1] == "top-1 before 45.45 %, after 27.27 % (11 pictures)"


def classifier(num_outputs: int | None = 3, names: list[str] | None = None) -> onnx.ModelProto:
    """A model of which only the outputs and the names matter."""
    value = onnx.helper.make_tensor_value_info
    output = value("class", onnx.TensorProto.FLOAT, ["batch", num_outputs])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [output]))
    if names is not None:
        onnx.helper.set_model_props(model, {"hrnet.class_names": json.dumps(names)})
    return model


def classes(found: PictureSet) -> list[tuple[str, int | None]]:
    return sorted({(p.path.parent.name, p.target) for p in found.pictures})


def test_labelled_folders_take_their_classes_from_the_models_names(tiny_data: Path) -> None:
    model = classifier(4, ["z", "c2", "c1", "c0"])
    found = comparison_pictures(tiny_data / "val", model)
    assert classes(found) == [("c0", 3), ("c1", 2), ("c2", 1)]
    with pytest.raises(ValueError, match="no class 'c0'; it knows 'c1', 'c2'"):
        comparison_pictures(tiny_data / "val", classifier(2, ["c1", "c2"]))


@pytest.mark.parametrize("num_outputs", [2, 4, 1000, None])
def test_folders_in_another_number_than_the_nameless_outputs_give_no_labels(
    num_outputs: int | None, tiny_data: Path
) -> None:
    """Labelled all the same, the accuracy is 0 before and after, and no loss is ever seen."""
    found = comparison_pictures(tiny_data / "val", classifier(num_outputs))
    assert classes(found) == [("c0", None), ("c1", None), ("c2", None)]
    assert "records no class names" in found.remark and "3 class folders" in found.remark
    as_many = comparison_pictures(tiny_data / "val", classifier(3))
    assert classes(as_many) == [("c0", 0), ("c1", 1), ("c2", 2)] and not as_many.remark


def test_the_guard_holds_for_folders_without_known_classes(
    model: Path, tiny_data: Path, run_script: RunScript, tmp_path: Path
) -> None:
    nameless = onnx.load(model)
    kept = {k: v for k, v in metadata_of(nameless).items() if k != "hrnet.class_names"}
    del nameless.metadata_props[:]
    onnx.helper.set_model_props(nameless, kept)
    onnx.save(nameless, tmp_path / "m.onnx")
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.png").symlink_to(tiny_data / "val" / "c0" / "0.png")
    arguments = ("--calibration", tmp_path / "data", "--max_drop", -1, "--fp16")
    done = run_script(
        QUANTIZE, "--onnx", tmp_path / "m.onnx", "--output", tmp_path / "s", *arguments
    )
    assert done.returncode == 1 and "points are lost" in done.stderr
    assert "records no class names and has 3 outputs for 2 class folders" in done.stdout
    assert "top-1" not in done.stdout


def test_every_picture_of_a_folder_is_found_whatever_it_is_called(
    tiny_data: Path, tmp_path: Path
) -> None:
    """Behind a link, of another ending, in a folder of a folder: as the other scripts find them."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").symlink_to(tiny_data / "val" / "c0")
    write_pictures(data / "b" / "deep", 1)
    (data / "b" / "deep" / "0.png").rename(data / "b" / "another.JFIF")
    names = [str(p.path.relative_to(data)) for p in calibration_pictures(data)]
    assert names == [*(f"a/{n}.png" for n in range(5)), "b/another.JFIF"]
    found = comparison_pictures(data, classifier(2))
    assert [picture.target for picture in found.pictures] == [0, 0, 0, 0, 0, 1]


def test_a_stray_picture_beside_class_folders_is_named(tmp_path: Path) -> None:
    """It must not be the only one that is used."""
    write_pictures(tmp_path / "c0", 2)
    write_pictures(tmp_path, 1)
    with pytest.raises(ValueError, match=r"1 pictures beside its class folders: '0.png'"):
        comparison_pictures(tmp_path, classifier(1))
    assert len(calibration_pictures(tmp_path)) == 3


def test_pictures_are_what_evaluation_feeds_the_network_to_the_bit(tiny_data: Path) -> None:
    pictures = calibration_pictures(tiny_data / "val")
    expected = [normalize(eval_pixels(open_rgb(p.path), Recipe.for_crop(64))) for p in pictures]
    assert np.array_equal(sessions.load(pictures, Recipe.for_crop(64)), np.stack(expected))


def cut_short(path: Path) -> None:
    write_pictures(path.parent, 1, size=(90, 90))
    (path.parent / "0.png").rename(path)
    path.write_bytes(path.read_bytes()[:5000])


def too_many_pixels(path: Path) -> None:
    Image.new("1", (20000, 20000)).save(path)


@pytest.mark.parametrize(
    "damage, said",
    [(cut_short, "truncated"), (too_many_pixels, "DecompressionBomb")],
    ids=["cut short", "too many pixels"],
)
def test_a_picture_that_cannot_be_read_is_named(
    damage: Callable[[Path], None],
    said: str,
    model: Path,
    run_script: RunScript,
    tmp_path: Path,
) -> None:
    (tmp_path / "pictures").mkdir()
    damage(tmp_path / "pictures" / "bad.one.png")
    for extra in ((), ("--fp16",)):
        arguments = ("--output", tmp_path / "o.onnx", "--calibration", tmp_path / "pictures")
        done = run_script(QUANTIZE, "--onnx", model, *arguments, *extra)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "bad.one.png' can't be read" in done.stderr and said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_leaves_no_debris(
    number: int,
    code: int,
    model: Path,
    flat: Path,
    run_script: RunScript,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    seen = []

    def stop(*arguments: object) -> None:
        seen.extend(path.name for path in tmp_path.iterdir())
        os.kill(os.getpid(), number)

    monkeypatch.setattr(run, "compare", stop)
    arguments = ("--output", tmp_path / "o.onnx", "--calibration", flat, "--fp16")
    done = run_script(QUANTIZE, "--onnx", model, *arguments)
    assert seen == [".o.onnx.tmp"] and list(tmp_path.iterdir()) == []
    assert done.returncode == code
    assert done.stderr.startswith("stopped by") and done.stderr.count("\n") == 1


def test_calibration_pictures_are_spread_over_the_classes() -> None:
    pictures = [Picture(Path(str(number))) for number in range(100)]
    assert [int(p.path.name) for p in spread(pictures, 4)] == [0, 25, 50, 75]
    assert spread(pictures, 1000) == pictures


def test_bad_input_is_one_line_and_exit_code_2(
    model: Path, flat: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    old = export(tiny_yaml, tmp_path, 11, run_script)
    bare = tmp_path / "bare.onnx"
    stripped = onnx.load(model)
    del stripped.metadata_props[:]
    onnx.save(stripped, bare)
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty").mkdir()
    for onnx_file, pictures, expected in (
        (old, flat, "--opset 13"),
        (bare, flat, "records no preprocessing"),
        (tmp_path / "text.onnx", flat, "no ONNX model"),
        (tmp_path / "absent.onnx", flat, "no such ONNX file"),
        (model, tmp_path / "empty", "holds no pictures"),
        (model, tmp_path / "absent", "no such folder of pictures"),
    ):
        done = run_script(
            QUANTIZE,
            "--onnx",
            onnx_file,
            "--output",
            tmp_path / "o.onnx",
            "--calibration",
            pictures,
        )
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(
    "extra, said",
    [
        (("--max_drop", "nan"), "--max_drop nan"),
        (("--max_drop", "inf"), "100 allows everything"),
        (("--num_calibration", 0), "--num_calibration 0: 1 or more is needed"),
        (("--keep_float", "second"), "'second' is not one of first, classifier"),
    ],
)
def test_values_that_switch_a_guard_off_are_refused(
    extra: tuple[object, ...],
    said: str,
    model: Path,
    flat: Path,
    run_script: RunScript,
    tmp_path: Path,
) -> None:
    arguments = ("--output", tmp_path / "o.onnx", "--calibration", flat, *extra)
    done = run_script(QUANTIZE, "--onnx", model, *arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert said in done.stderr and list(tmp_path.iterdir()) == []


def test_a_folder_as_output_is_refused_up_front(run_script: RunScript, tmp_path: Path) -> None:
    """Before the model is even looked for, let alone calibrated."""
    arguments = ("--onnx", tmp_path / "absent.onnx", "--calibration", tmp_path / "absent")
    done = run_script(QUANTIZE, *arguments, "--output", tmp_path)
    assert done.returncode == 2 and f"--output {tmp_path} is a folder" in done.stderr


def test_a_session_computes_on_this_processs_cores(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "num_cores", lambda: 3)
    options = sessions.open_session(model).get_session_options()
    assert options.intra_op_num_threads == 3


def test_a_fixed_batch_is_filled_up(model: Path, flat: Path) -> None:
    images = np.random.default_rng(0).standard_normal((5, 3, 64, 64), dtype=np.float32)

    class Fixed:
        """A session of a model of batch 2 whose logits are the images' means."""

        def get_inputs(self) -> list[object]:
            return [type("Spec", (), {"name": "image", "shape": [2, 3, 64, 64]})]

        def run(self, outputs: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            assert feed["image"].shape[0] == 2
            return [feed["image"].mean(axis=(2, 3))]

    assert np.array_equal(sessions.run(Fixed(), images)[0], images.mean(axis=(2, 3)))


def test_calibration_fills_a_fixed_batch_with_pictures_of_its_own(model: Path, flat: Path) -> None:
    """27 pictures in batches of 8: each once, the last batch filled up with its first."""
    fixed = onnx.load(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    pictures = calibration_pictures(flat)
    reader = convert._CalibrationReader(model, fixed, pictures)
    batches = list(iter(reader.get_next, None))
    assert [len(batch["image"]) for batch in batches] == [8, 8, 8, 8]
    images = np.concatenate([batch["image"] for batch in batches])
    expected = sessions.load(pictures, Recipe.for_crop(64))
    assert np.array_equal(images[:27], expected)
    assert all(np.array_equal(image, images[24]) for image in images[27:])


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "numpy"])
def test_a_missing_package_is_explained(package: str, model: Path, flat: Path) -> None:
    arguments = ["x", "--onnx", str(model), "--output", "o.onnx", "--calibration", str(flat)]
    code = (
        f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv = {arguments!r}; "
        f"sys.path.insert(0, {str(REPO / 'tools')!r}); "
        f"runpy.run_path({str(REPO / QUANTIZE)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=flat.parent,
        env=script_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert package in done.stderr and "pip install -r requirement_for_infer.txt" in done.stderr
