"""Smaller ONNX models: what they lose is measured and stated, and too much is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import RunScript
from export_samples import save_checkpoint, tiny_network

from lib import quantize
from lib.onnx_file import crop_of

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
    assert crop_of(metadata, small) == (73, 64)
    cost = quantize.compare(model, small, quantize.find_pictures(flat))
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


def test_fp16_halves_the_file_and_keeps_float32_at_its_ends(
    model: Path, flat: Path, run_script: RunScript, tmp_path: Path
) -> None:
    small = tmp_path / "fp16.onnx"
    done = run_script(QUANTIZE, "--onnx", model, "--output", small, "--calibration", flat, "--fp16")
    assert done.returncode == 0, done.stderr
    assert small.stat().st_size < 0.6 * model.stat().st_size
    graph = onnx.load(small).graph
    ends = (*graph.input, *graph.output)
    assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}


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
    cost = quantize.Comparison(200, 190, 0.5, num_correct_before=150, num_correct_after=147)
    assert cost.agreement == 95.0 and cost.drop == 1.5
    unlabelled = quantize.Comparison(200, 190, 0.5, None, None)
    assert unlabelled.drop == 5.0


def test_labelled_folders_take_their_classes_from_the_models_names(tiny_data: Path) -> None:
    pictures = quantize.find_pictures(tiny_data / "val", ["z", "c2", "c1", "c0"])
    assert sorted({(p.path.parent.name, p.target) for p in pictures}) == [
        ("c0", 3),
        ("c1", 2),
        ("c2", 1),
    ]
    with pytest.raises(ValueError, match="no class c0"):
        quantize.find_pictures(tiny_data / "val", ["c1", "c2"])


def test_calibration_pictures_are_spread_over_the_classes() -> None:
    pictures = [quantize.Picture(Path(str(number))) for number in range(100)]
    assert [int(p.path.name) for p in quantize.spread(pictures, 4)] == [0, 25, 50, 75]
    assert quantize.spread(pictures, 1000) == pictures


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
        (model, tmp_path / "empty", "no pictures"),
        (model, tmp_path / "absent", "no such picture folder"),
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


def test_a_fixed_batch_is_filled_up(model: Path, flat: Path) -> None:
    images = np.random.default_rng(0).standard_normal((5, 3, 64, 64), dtype=np.float32)

    class Fixed:
        """A session of a model of batch 2 whose logits are the images' means."""

        def get_inputs(self) -> list[object]:
            return [type("Spec", (), {"name": "image", "shape": [2, 3, 64, 64]})]

        def run(self, outputs: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            assert feed["image"].shape[0] == 2
            return [feed["image"].mean(axis=(2, 3))]

    assert np.array_equal(quantize._run(Fixed(), images), images.mean(axis=(2, 3)))


def test_calibration_fills_a_fixed_batch_with_pictures_of_its_own(model: Path, flat: Path) -> None:
    """27 pictures in batches of 8: each once, the last batch filled up with its first."""
    fixed = onnx.load(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    pictures = quantize.find_pictures(flat)
    reader = quantize._CalibrationReader(model, fixed, pictures)
    batches = list(iter(reader.get_next, None))
    assert [len(batch["image"]) for batch in batches] == [8, 8, 8, 8]
    images = np.concatenate([batch["image"] for batch in batches])
    expected = np.stack([quantize._load(picture, (73, 64)) for picture in pictures])
    assert np.array_equal(images[:27], expected)
    assert all(np.array_equal(image, images[24]) for image in images[27:])
