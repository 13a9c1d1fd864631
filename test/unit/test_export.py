"""ONNX files that say what the network says, and that Ascend's converter can read."""

from __future__ import annotations

import hashlib
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
import torch
from conftest import REPO, RunScript, script_environment
from export_samples import (
    NUM_CLASSES,
    SIZE,
    kinds,
    random_images,
    relative_error,
    run_file,
    save_checkpoint,
    scatter_batch_norms,
    tiny_network,
)
from torch import nn

from lib.config.recipe import Recipe
from lib.export import run, write
from lib.export.atc_rules import PROBLEM, check_model
from lib.export.options import ExportOptions
from lib.export.run import export_onnx
from lib.models.hrnet import build_hrnet
from lib.runtime.cli import PartlyFailed

SCRIPT = "hrnet_pth2onnx.py"
Export = Callable[..., Path]


@pytest.fixture(scope="module")
def network(tiny_yaml: Path) -> nn.Module:
    return tiny_network(tiny_yaml)


@pytest.fixture(scope="module")
def checkpoint(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(network, tmp_path_factory.mktemp("weights") / "model_best.pth.tar")


@pytest.fixture(scope="module")
def export(checkpoint: Path, tiny_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export the tiny network into a folder of its own."""

    def exported(options: ExportOptions | None = None, source: Path = checkpoint) -> Path:
        output = tmp_path_factory.mktemp("onnx") / "tiny.v1.onnx"
        export_onnx(source, output, options, cfg=tiny_yaml)
        return output

    return exported


@pytest.fixture(scope="module")
def default_file(export: Export) -> Path:
    return export()


def test_the_default_file_is_what_atc_reads(default_file: Path) -> None:
    model = onnx.load(str(default_file))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 11)]
    assert model.ir_version <= 8
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["class"]
    assert "Identity" not in kinds(default_file)
    assert not [row for row in check_model(default_file) if row.verdict == PROBLEM]
    folder = sorted(path.name for path in default_file.parent.iterdir())
    assert folder == ["tiny.v1.onnx", "tiny.v1.receipt.json"]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_dynamic_batch_runs_at_any_size(
    default_file: Path, network: nn.Module, batch: int
) -> None:
    """Pitfall 30."""
    assert relative_error(default_file, network, random_images(batch)) <= 1e-5


def test_the_file_says_how_its_pictures_are_prepared_and_whence_it_came(
    default_file: Path, checkpoint: Path
) -> None:
    said = {p.key: p.value for p in onnx.load(str(default_file)).metadata_props}
    assert json.loads(said.pop("hrnet.recipe")) == Recipe.for_crop(SIZE).as_json()
    assert json.loads(said.pop("hrnet.class_names")) == ["a", "ü", "c"]
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert said == {
        "hrnet.arch": "cls_hrnet",
        "hrnet.checkpoint_sha256": digest,
        "hrnet.profile": "atc",
    }


def test_the_receipt_holds_hashes_shapes_versions_and_errors(
    default_file: Path, checkpoint: Path
) -> None:
    receipt = json.loads(default_file.with_suffix(".receipt.json").read_text())
    checks = receipt.pop("checks")
    assert [(check["batch"], check["images"]) for check in checks] == [
        (batch, "random") for batch in (1, 4, 3, 16)
    ]
    assert all(0 <= check["relative_error"] <= 1e-5 for check in checks)
    assert all(check["top1_agreement"] == 1.0 for check in checks)
    assert receipt.pop("versions").keys() == {"torch", "onnx", "onnxruntime", "python"}
    assert receipt == {
        "onnx_sha256": hashlib.sha256(default_file.read_bytes()).hexdigest(),
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "arch": "cls_hrnet",
        "recipe": Recipe.for_crop(SIZE).as_json(),
        "profile": "atc",
        "opset": 11,
        "ir_version": onnx.load(str(default_file)).ir_version,
        "input_shape": ["batch", 3, SIZE, SIZE],
        "output_shape": ["batch", NUM_CLASSES],
        "tolerance": 1e-4,
    }


@pytest.mark.parametrize(
    "options",
    [
        ExportOptions(opset=13, batch=2, fold_bn=True, no_resize=True),
        ExportOptions(opset=18),
        ExportOptions(fold_bn=True, simplify=True),
        ExportOptions(batch=1, no_resize=True, simplify=True),
    ],
    ids=str,
)
def test_every_option_keeps_the_logits(
    options: ExportOptions, export: Export, network: nn.Module
) -> None:
    path = export(options)
    assert relative_error(path, network, random_images(options.batch or 5)) <= 1e-5
    assert onnx.load(str(path)).opset_import[0].version == options.opset_version
    assert ("Resize" in kinds(path)) is not options.no_resize
    assert not {"BatchNormalization", "Identity"} & kinds(path)


def test_a_fixed_batch_is_checked_full_and_filled_up_and_refuses_others(export: Export) -> None:
    path = export(ExportOptions(batch=2))
    receipt = json.loads(path.with_suffix(".receipt.json").read_text())
    names = ("batch", "num_images", "num_padding")
    assert [tuple(check[n] for n in names) for check in receipt["checks"]] == [(2, 1, 1), (2, 2, 0)]
    assert receipt["input_shape"] == [2, 3, SIZE, SIZE]
    with pytest.raises(Exception, match="Got: 3 Expected: 2"):
        run_file(path, random_images(3))


def test_the_modern_profile_is_one_file_with_a_dynamic_batch(
    export: Export, network: nn.Module
) -> None:
    """Pitfall 30, and the newer exporter's habit of a second file for the weights."""
    pytest.importorskip("onnxscript")
    path = export(ExportOptions("modern", fold_bn=True, no_resize=True))
    model = onnx.load(str(path), load_external_data=False)
    assert model.opset_import[0].version == 18
    assert len(list(path.parent.iterdir())) == 2
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert "Resize" not in kinds(path)
    for batch in (1, 3):
        assert relative_error(path, network, random_images(batch)) <= 1e-5
    problems = {row.subject for row in check_model(path) if row.verdict == PROBLEM}
    assert problems == {"IR version"}


def test_a_published_network_exports_for_atc(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = scatter_batch_norms(build_hrnet("hrnet_w18_small_v1"))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    report = export_onnx(
        tmp_path / "w.pth",
        tmp_path / "w18.onnx",
        cfg=REPO / "experiments/cls_hrnet_w18_small_v1_sgd_lr5e-2_wd1e-4_bs32_x100.yaml",
        overrides=["MODEL.IMAGE_SIZE", "[64, 64]"],
    )
    assert max(check.relative_error for check in report.checks) <= 1e-5
    assert json.loads(report.receipt.read_text())["arch"] == "hrnet_w18_small_v1"
    assert not [row for row in check_model(report.onnx) if row.verdict == PROBLEM]


@pytest.mark.parametrize("form", ["bare", "module.", "safetensors"])
def test_weights_of_every_form_are_exported(
    form: str, export: Export, network: nn.Module, default_file: Path, tmp_path: Path
) -> None:
    """Pitfall 28."""
    weights = network.state_dict()
    path = tmp_path / "x.safetensors"
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file({name: value.contiguous() for name, value in weights.items()}, path)
    elif form == "module.":
        weights = {f"module.{name}": value for name, value in weights.items()}
        torch.save({"epoch": 3, "state_dict": weights}, path := tmp_path / "x.pth.tar")
    else:
        torch.save(weights, path := tmp_path / "x.pth")
    images = random_images(1)
    got = run_file(export(ExportOptions(batch=1), path), images)
    np.testing.assert_allclose(got, run_file(default_file, images), atol=1e-6)


def damage(monkeypatch: pytest.MonkeyPatch, change: Callable[[onnx.ModelProto], None]) -> None:
    """Let exports go wrong between exporter and check."""
    write_graph = run.write_graph

    def damaged(
        network: nn.Module, path: Path, options: ExportOptions, *, image_size: int
    ) -> onnx.ModelProto:
        model = write_graph(network, path, options, image_size=image_size)
        change(model)
        return model

    monkeypatch.setattr(run, "write_graph", damaged)


def shift_classifier(model: onnx.ModelProto) -> None:
    (bias,) = (t for t in model.graph.initializer if t.name == "classifier.bias")
    values = onnx.numpy_helper.to_array(bias) + np.float32([0.01, 0, 0])
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))


def test_a_file_that_disagrees_does_not_get_its_name(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    damage(monkeypatch, shift_classifier)
    output = tmp_path / "tiny.onnx"
    output.write_text("an earlier export")
    with pytest.raises(PartlyFailed, match=r"is not written.*above 0.0001.*tiny.failed.onnx"):
        export_onnx(checkpoint, output, cfg=tiny_yaml)
    assert output.read_text() == "an earlier export"
    names = ["tiny.failed.onnx", "tiny.failed.receipt.json", "tiny.onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    receipt = json.loads((tmp_path / names[1]).read_text())
    assert receipt["checks"][0]["max_abs_error"] == pytest.approx(0.01, rel=1e-3)


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "images"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = "images" if name == "image" else name


def break_a_node(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOperator"


@pytest.mark.parametrize(
    "change, said", [(rename_input, "input .*images"), (break_a_node, "NoSuchOperator")]
)
def test_a_file_that_is_not_what_it_should_be_does_not_get_its_name(
    change: Callable[[onnx.ModelProto], None],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: Path,
    tiny_yaml: Path,
    tmp_path: Path,
) -> None:
    damage(monkeypatch, change)
    with pytest.raises(PartlyFailed, match=said):
        export_onnx(checkpoint, tmp_path / "x.onnx", ExportOptions(batch=1), cfg=tiny_yaml)
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(
    "options, said",
    [
        (ExportOptions("modern"), "--profile modern needs onnxscript: pip install onnxscript"),
        (ExportOptions(simplify=True), "--simplify needs onnxslim: pip install onnxslim"),
    ],
)
def test_a_missing_optional_package_is_named_before_any_work(
    options: ExportOptions, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(write.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=said):
        export_onnx(tmp_path / "absent.pth", tmp_path / "x.onnx", options)


def test_a_name_without_the_suffix_and_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in .onnx"):
        export_onnx(tmp_path / "absent.pth", tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        export_onnx(tmp_path / "absent.pth", tmp_path / "x.onnx")


def test_a_folder_as_output_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(ValueError, match=r"--output .*x.onnx is a folder"):
        export_onnx(tmp_path / "absent.pth", tmp_path / "x.onnx")


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_leaves_no_debris(
    number: int,
    code: int,
    checkpoint: Path,
    tiny_yaml: Path,
    run_script: RunScript,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Fault R7: what a killed export left is removed too."""
    seen = []
    (tmp_path / ".x.onnx.tmp.onnx").write_bytes(b"half a model")

    def stop(model: onnx.ModelProto) -> None:
        scratch = tmp_path / ".x.onnx.tmp.onnx"
        seen.append(scratch.exists())
        os.kill(os.getpid(), number)

    damage(monkeypatch, stop)
    arguments = ("--cfg", tiny_yaml, "--input", checkpoint, "--output", tmp_path / "x.onnx")
    done = run_script(SCRIPT, *arguments)
    assert seen == [True] and list(tmp_path.iterdir()) == []
    assert done.returncode == code
    assert done.stderr.startswith("stopped by") and done.stderr.count("\n") == 1


def test_the_script_works_from_any_directory_and_is_quiet(
    checkpoint: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    """Pitfall 29, with relative paths and the image size of the configuration."""
    arguments = ["--cfg", os.path.relpath(tiny_yaml, tmp_path), "--output", "out/x.onnx"]
    arguments += ["--input", os.path.relpath(checkpoint, tmp_path), "--batch", "1"]
    done = subprocess.run(
        [sys.executable, str(REPO / SCRIPT), *arguments, "MODEL.IMAGE_SIZE", "[96, 96]"],
        cwd=tmp_path,
        env=script_environment(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    said = ["network", "input", "classes", "weights:", "batch", "written:"]
    assert [line.split()[0] for line in lines] == said
    assert run_file(tmp_path / "out" / "x.onnx", random_images(1, 96)).shape == (1, NUM_CLASSES)


def test_the_script_says_with_its_exit_code_what_went_wrong(
    checkpoint: Path,
    tiny_yaml: Path,
    run_script: RunScript,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    common = ("--cfg", tiny_yaml, "--output", tmp_path / "x.onnx", "--batch", 1, "--input")
    done = run_script(SCRIPT, *common, tmp_path / "absent.pth")
    assert done.returncode == 2 and done.stderr.startswith("[Error] no such weight file")
    done = run_script(SCRIPT, *common, checkpoint, "MODEL.NAME", "hrnet_w18", "MODEL.EXTRA", "{}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    damage(monkeypatch, shift_classifier)
    done = run_script(SCRIPT, *common, checkpoint)
    assert done.returncode == 1 and "x.onnx is not written" in done.stderr
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("package", ["onnxruntime", "yaml", "yacs", "torch"])
def test_a_missing_package_is_explained(package: str, tmp_path: Path) -> None:
    """With requirement_for_infer.txt alone there is neither of the last three."""
    code = (
        f"import runpy, sys; sys.modules[{package!r}] = None; "
        "sys.argv = ['x', '--input', 'a', '--output', 'b.onnx']; "
        f"runpy.run_path({str(REPO / SCRIPT)!r}, run_name='__main__')"
    )
    environment = {**script_environment(), "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("[Error] ") and package in done.stderr
    assert "is not installed: pip install -r requirements.txt" in done.stderr
    assert "requirement_for_infer.txt" in done.stderr and done.stderr.count("\n") == 1
