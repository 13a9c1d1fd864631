"""The pieces of an export: folding, changes to the graph, its promises, the comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import write_pictures
from export_samples import (
    NUM_CLASSES,
    SIZE,
    kinds,
    logits,
    random_images,
    run_file,
    save_checkpoint,
    tiny_network,
)
from onnx import TensorProto, helper
from torch import nn

from lib.config.recipe import Recipe
from lib.data.rgb import open_rgb
from lib.data.transforms import eval_pixels, normalize
from lib.export import verify
from lib.export.graph import (
    broken_promises,
    drop_identities,
    name_batch_axis,
    replace_resizes,
    signature,
)
from lib.export.options import ExportOptions, parse_batch
from lib.export.run import export_onnx
from lib.export.verify import read_pictures
from lib.models.folding import fold_batch_norms


@pytest.fixture(scope="module")
def network(tiny_yaml: Path) -> nn.Module:
    return tiny_network(tiny_yaml)


@pytest.fixture(scope="module")
def checkpoint(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(network, tmp_path_factory.mktemp("weights") / "model_best.pth.tar")


@pytest.fixture(scope="module")
def default_file(
    checkpoint: Path, tiny_yaml: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    return export_onnx(checkpoint, output, cfg=tiny_yaml).onnx


def test_folding_leaves_no_batch_norm_and_the_same_function(network: nn.Module) -> None:
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    images = random_images(4)
    with torch.inference_mode():
        exact = network.double()(torch.from_numpy(images).double()).numpy()
        network.float()
    assert np.abs(logits(folded, images) - exact).max() <= 1e-6 * np.ptp(exact)


def upsampling_model(factor: int) -> onnx.ModelProto:
    """Nearest upsampling of a N x 2 x 3 x 5 map as PyTorch's exporter writes it."""
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, factor, factor])
    relu = helper.make_node("Relu", ["image"], ["x"])
    resize = helper.make_node(
        "Resize",
        ["x", "", "scales"],
        ["class"],
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )
    graph = helper.make_graph(
        [relu, resize],
        "upsampling",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, 3, 5])],
        [helper.make_tensor_value_info("class", TensorProto.FLOAT, ["batch", 2, None, None])],
        [scales],
    )
    return helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)])


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_without_resize_is_the_same_to_the_bit(factor: int, tmp_path: Path) -> None:
    model = upsampling_model(factor)
    onnx.save(model, str(tmp_path / "resize.onnx"))
    replace_resizes(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(tmp_path / "expand.onnx"))
    images = np.random.default_rng(0).standard_normal((3, 2, 3, 5), dtype=np.float32)
    expected = run_file(tmp_path / "resize.onnx", images)
    repeated = np.maximum(images, 0).repeat(factor, axis=2).repeat(factor, axis=3)
    np.testing.assert_array_equal(expected, repeated)
    np.testing.assert_array_equal(run_file(tmp_path / "expand.onnx", images), expected)
    assert kinds(tmp_path / "expand.onnx") == {"Relu", "Reshape", "Expand"}
    assert "scales" not in {tensor.name for tensor in model.graph.initializer}


def test_a_free_batch_axis_has_its_name_whatever_the_exporter_called_it() -> None:
    model = upsampling_model(2)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "s0"
    name_batch_axis(model)
    assert signature(model.graph.input) == [("image", ["batch", 2, 3, 5])]
    assert signature(model.graph.output)[0][1][0] == "batch"


def test_identities_before_shared_weights_are_dropped_but_an_output_keeps_its_name() -> None:
    nodes = [
        helper.make_node("Identity", ["w"], ["v"]),
        helper.make_node("Identity", ["v"], ["u"]),
        helper.make_node("Add", ["image", "u"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["class"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("image", TensorProto.FLOAT, [1])],
        [value("class", TensorProto.FLOAT, [1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])],
    )
    model = helper.make_model(graph)
    drop_identities(model)
    assert [(n.op_type, *n.input, *n.output) for n in model.graph.node] == [
        ("Add", "image", "w", "sum"),
        ("Identity", "sum", "class"),
    ]


def test_promises_are_read_from_the_file_itself(default_file: Path, tmp_path: Path) -> None:
    promised = {"image_size": SIZE, "num_classes": NUM_CLASSES}
    assert broken_promises(default_file, ExportOptions(), **promised) == []
    (broken,) = broken_promises(default_file, ExportOptions(opset=13), **promised)
    assert "opset" in broken and "11" in broken and "13" in broken
    assert len(broken_promises(default_file, ExportOptions(batch=4), **promised)) == 2
    wrong = broken_promises(default_file, ExportOptions(), image_size=SIZE, num_classes=4)
    assert len(wrong) == 1 and wrong[0].startswith("output")
    model = onnx.load(str(default_file))
    model.ir_version = 9
    onnx.save(model, str(tmp_path / "x.onnx"), save_as_external_data=True, size_threshold=0)
    broken = " ".join(broken_promises(tmp_path / "x.onnx", ExportOptions(), **promised))
    assert "weights in other files" in broken and "IR version 9" in broken


def test_logits_that_are_no_numbers_fail_the_check(
    default_file: Path, network: nn.Module, tmp_path: Path
) -> None:
    class Overflowing(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return network(images) * torch.inf

    checks = verify.verify_onnx(
        default_file, Overflowing(), ExportOptions(), image_size=SIZE, pictures=None
    )
    assert not any(check.passed for check in checks)
    assert checks[0].as_json()["max_abs_error"] is None
    assert not replace(checks[0], relative_error=float("nan")).passed


def test_pictures_are_prepared_as_for_evaluation_and_compared(
    checkpoint: Path, tiny_yaml: Path, network: nn.Module, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    for class_index in range(2):
        write_pictures(folder / f"c{class_index}", 3, channel=class_index, seed=class_index)
    first = open_rgb(folder / "c0" / "0.png")
    pictures = read_pictures(folder, Recipe.for_crop(SIZE))
    assert pictures.images.shape == (6, 3, SIZE, SIZE)
    expected = normalize(eval_pixels(first, Recipe.for_crop(SIZE)))
    np.testing.assert_array_equal(pictures.images[0], expected)
    report = export_onnx(
        checkpoint,
        tmp_path / "new folder" / "x.onnx",
        ExportOptions(batch=4),
        cfg=tiny_yaml,
        verify_images=folder,
    )
    assert [(c.batch, c.images, c.num_images, c.num_padding) for c in report.checks] == [
        (4, "random", 1, 3),
        (4, "random", 4, 0),
        (4, str(folder), 6, 2),
    ]
    assert "batch 4, 6 images" in str(report.checks[2])
    assert "and 2 of padding" in str(report.checks[2])
    assert report.checks[2].top1_agreement == 1.0 and report.checks[2].passed
    checks = verify.verify_onnx(
        report.onnx, network, ExportOptions(batch=4), image_size=SIZE, pictures=pictures
    )
    assert checks[2].max_abs_error == report.checks[2].max_abs_error


def test_pictures_behind_links_are_compared_files_without_ending_not(
    tmp_path: Path,
) -> None:
    write_pictures(tmp_path / "elsewhere", 2)
    write_pictures(tmp_path / "pictures" / "c1", 1)
    (tmp_path / "pictures" / "c1" / "0.png").rename(tmp_path / "pictures" / "c1" / "without")
    (tmp_path / "pictures" / "c0").symlink_to(tmp_path / "elsewhere")
    assert len(read_pictures(tmp_path / "pictures", Recipe.for_crop(SIZE)).images) == 2


@pytest.mark.parametrize(
    "batch, counts",
    [(1, (1,)), (2, (1, 2)), (4, (1, 4)), (16, (1, 4, 16)), (None, (1, 4, 3, 16))],
)
def test_one_and_four_images_are_compared_at_every_batch_that_holds_them(
    batch: int | None, counts: tuple[int, ...]
) -> None:
    assert ExportOptions(batch=batch).checked_batches == counts


def test_of_many_pictures_an_even_choice_is_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_pictures(tmp_path, 7)
    everything = read_pictures(tmp_path, Recipe.for_crop(32)).images
    monkeypatch.setattr(verify, "MAX_PICTURES", 3)
    np.testing.assert_array_equal(
        read_pictures(tmp_path, Recipe.for_crop(32)).images, everything[[0, 2, 4]]
    )


def test_pictures_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        read_pictures(tmp_path / "absent", Recipe.for_crop(SIZE))
    with pytest.raises(FileNotFoundError, match="holds no picture"):
        read_pictures(tmp_path, Recipe.for_crop(SIZE))
    (tmp_path / "broken.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"--verify_images: .*broken.jpg' can't be read") as error:
        read_pictures(tmp_path, Recipe.for_crop(SIZE))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: ExportOptions("onnx"), "atc, modern"),
        (lambda: ExportOptions(opset=20), "--opset 20 with --profile atc: 11 to 18"),
        (lambda: ExportOptions(opset=9), "11 to 18"),
        (lambda: ExportOptions("modern", opset=17), "18 to 23"),
        (lambda: ExportOptions(batch=0), "--batch 0"),
        (lambda: parse_batch("many"), "--batch many: a number, or dynamic"),
    ],
)
def test_options_that_no_exporter_can_do_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_a_batch_is_a_number_or_dynamic() -> None:
    assert parse_batch("dynamic") is None
    assert parse_batch("16") == 16


def test_real_pictures_agree(
    tmp_path: Path, tiny_yaml: Path, checkpoint: Path, natural_photos: Path
) -> None:
    report = export_onnx(
        checkpoint,
        tmp_path / "x.onnx",
        cfg=tiny_yaml,
        verify_images=natural_photos,
    )
    pictures = [check for check in report.checks if check.images != "random"]
    assert [(check.batch, check.num_images) for check in pictures] == [(1, 77), (4, 77)]
    assert all(check.passed and check.top1_agreement == 1.0 for check in pictures)
