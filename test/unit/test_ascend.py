"""What ATC accepts, the command lines it is given, and the scripts for an Ascend machine."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import RunScript, write_pictures
from onnx import NodeProto, TensorProto, helper, numpy_helper

from lib.config.recipe import Recipe
from lib.export.atc_rules import (
    ACCEPTED,
    PROBLEM,
    Finding,
    ModelInput,
    check_batches,
    check_model,
    model_input,
)

TOOL = "tools/ascend_convert.py"
IMAGE = ModelInput("image", None, 224)
node = helper.make_node


def write_model(
    path: Path,
    *,
    opset: int = 11,
    ir_version: int = 6,
    shape: Sequence[int | str] = ("batch", 3, 224, 224),
    extra: Sequence[NodeProto] = (),
    weights: Sequence[TensorProto] = (),
    name: str = "image",
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Write a small classifier; `extra` nodes lead from `image` to `map`."""
    value = helper.make_tensor_value_info
    extra = extra or [node("Relu", [name], ["map"])]
    nodes = [
        *extra,
        node("GlobalAveragePool", ["map"], ["mean"]),
        node("Flatten", ["mean"], ["features"]),
        node("Gemm", ["features", "weight"], ["class"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [value(name, kind, shape)],
        [value("class", TensorProto.FLOAT, [shape[0], 5])],
        [numpy_helper.from_array(np.zeros((3, 5), np.float32), "weight"), *weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    helper.set_model_props(model, {"hrnet.recipe": json.dumps(Recipe.for_crop(224).as_json())})
    onnx.save(model, str(path))
    return path


def resize(mode: str = "nearest", scales: str = "scales", **more: object) -> NodeProto:
    return node("Resize", ["image", "", scales], ["map"], mode=mode, **more)


SCALES = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 2.0, 2.0])


def problems(path: Path) -> list[Finding]:
    return [row for row in check_model(path) if row.verdict == PROBLEM]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "x.onnx")


def test_a_model_that_fits_has_a_row_a_subject_and_no_problem(model: Path) -> None:
    rows = check_model(model)
    later = ("batch", "precision")  # of what is asked for
    assert [row.subject for row in rows] == [name for name in ACCEPTED if name not in later]
    assert {row.verdict for row in rows} == {"ok"}
    assert model_input(model) == IMAGE


@pytest.mark.parametrize("opset, verdict", [(11, "ok"), (13, "ok"), (17, "note"), (18, "note")])
def test_opsets_up_to_18_are_read_and_the_safe_ones_are_told(
    opset: int, verdict: str, tmp_path: Path
) -> None:
    rows = check_model(write_model(tmp_path / "x.onnx", opset=opset))
    assert [row.verdict for row in rows if row.subject == "opset"] == [verdict]
    assert not [row for row in rows if row.verdict == PROBLEM]


def test_a_newer_opset_is_refused_as_atc_would(tmp_path: Path, run_script: RunScript) -> None:
    path = write_model(tmp_path / "x.onnx", opset=20, ir_version=9)
    done = run_script(TOOL, "--onnx", path, "--soc_version", "Ascend910A")
    assert done.returncode == 2
    opset, ir_version = done.stderr.splitlines()
    assert opset.startswith("[Error] opset: 20; accepted: 9 to 18")
    assert "No parser is registered for Op" in opset and "--opset 11" in opset
    assert ir_version.startswith("[Error] IR version: 9; accepted: up to 8.")
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


FAULTS = {
    "another domain": (
        {"extra": [node("Relu", ["image"], ["map"], domain="com.microsoft")]},
        ["com.microsoft::Relu x1"],
    ),
    "int8": (
        {"extra": [node("QuantizeLinear", ["image", "scales"], ["map"])], "weights": [SCALES]},
        ["QuantizeLinear x1", "float model"],
    ),
    "cubic": ({"extra": [resize("cubic")], "weights": [SCALES]}, ["mode cubic", "--no_resize"]),
    "computed scales": (
        {"extra": [node("Identity", ["image"], ["scales"]), resize()]},
        ["computed scales"],
    ),
    "axes": (
        {"extra": [resize(antialias=1, axes=[2, 3])], "weights": [SCALES], "opset": 18},
        ["antialias, axes, which ATC ignores"],
    ),
    "a computed shape": (
        {"extra": [node("Shape", ["image"], ["s"]), node("Expand", ["image", "s"], ["map"])]},
        ["a computed shape (Expand)"],
    ),
    "an old opset": ({"opset": 8}, ["opset 8"]),
    "a free size": ({"shape": ("batch", 3, "h", "w")}, ["batch x 3 x h x w"]),
    "oblong": ({"shape": (1, 3, 224, 192)}, ["1 x 3 x 224 x 192"]),
    "uint8": ({"kind": TensorProto.UINT8}, ["image: uint8", "float32"]),
    "a name with a colon": ({"name": "im:age"}, ["im:age", "--input_shape"]),
    "another recipe": ({"shape": (1, 3, 192, 192)}, ["recipe", "infer.sh would prepare"]),
}


@pytest.mark.parametrize("arguments, said", FAULTS.values(), ids=FAULTS)
def test_each_problem_is_named_with_its_fix(
    arguments: dict[str, object], said: list[str], tmp_path: Path
) -> None:
    (row,) = problems(write_model(tmp_path / "x.onnx", **arguments))
    text = f"{row.subject} {row.found}: {row.advice}"
    assert all(part in text for part in said), text


@pytest.mark.parametrize("name", ["Softmax", "Div", "Clip", "Pad", "Mish", "Sigmoid"])
def test_operators_that_hrnet_lacks_are_a_note(
    name: str, tmp_path: Path, run_script: RunScript
) -> None:
    """Fault A5: other networks have them, and CANN documents most."""
    path = write_model(tmp_path / "x.onnx", extra=[node(name, ["image"], ["map"])])
    (row,) = (row for row in check_model(path) if row.verdict == "note")
    assert row.found == f"{name} x1" and "look it up" in row.advice
    assert not problems(path)


def test_another_recipe_is_followed_by_infer_sh_but_not_by_aipp(
    tmp_path: Path, run_script: RunScript
) -> None:
    """Fault S5: pictures for an .om are prepared as the network was trained."""
    path = write_model(tmp_path / "x.onnx")
    changed = onnx.load(str(path))
    other = replace(Recipe(), resize=248, interpolation="bicubic", mean=(0.5, 0.5, 0.5))
    helper.set_model_props(changed, {"hrnet.recipe": json.dumps(other.as_json())})
    onnx.save(changed, str(path))
    asked = ("--onnx", path, "--soc_version=Ascend910A", "--precision_mode=origin")
    done = run_script(TOOL, *asked)
    assert done.returncode == 0, done.stderr
    words = "inputs --resize 248 --interpolation bicubic --mean 0.5 0.5 0.5\n"
    assert words in (tmp_path / "x_ascend" / "infer.sh").read_text()
    done = run_script(TOOL, *asked, "--aipp")
    assert done.returncode == 2 and "resize 248 for 256" in done.stderr
    done = run_script(TOOL, "--onnx", path, "--uint8_bins", tmp_path, tmp_path / "bins")
    assert done.returncode == 2 and "leave out --aipp" in done.stderr


@pytest.mark.parametrize("shape", [[1, 3], [1, -1], [4, 3], [0, 3], [-1, 3]])
@pytest.mark.parametrize("batches", ["1", "1,4"])
def test_a_reshape_to_the_batch_of_the_export_is_an_error(
    shape: list[int], batches: str, tmp_path: Path, run_script: RunScript
) -> None:
    """Fault A5: the model's input says that its batch is open."""
    path = write_model(tmp_path / "x.onnx", shape=("batch", 3, 32, 32))
    changed = onnx.load(str(path))
    wanted = numpy_helper.from_array(np.array(shape, np.int64), "wanted")
    changed.graph.initializer.append(wanted)
    (flatten,) = (one for one in changed.graph.node if one.op_type == "Flatten")
    flatten.CopyFrom(node("Reshape", ["mean", "wanted"], ["features"], name="flat"))
    del changed.metadata_props[:]
    onnx.save(changed, str(path))
    asked = ("--onnx", path, "--soc_version=Ascend910A", "--precision_mode=origin")
    done = run_script(TOOL, *asked, "--batch", batches)
    fits = shape[0] in (0, -1) or shape[0] == int(batches[-1])
    assert (done.returncode == 0) == fits, done.stderr
    assert fits or "the batch is fixed inside the model" in done.stderr


def test_what_float16_cannot_hold_is_an_error_in_the_modes_that_use_it(
    tmp_path: Path, run_script: RunScript
) -> None:
    """Fault A5: a weight, or a map, which is seen with pictures."""
    path = write_model(tmp_path / "x.onnx", shape=("batch", 3, 16, 16))
    whole = onnx.load(str(path))
    del whole.metadata_props[:]
    asked = ("--onnx", path, "--soc_version=Ascend910A", "--batch", 1)
    for factor, said in ((1.0, ""), (1e5, "the weight weight reaches 100000"), (60000.0, "class")):
        changed = onnx.ModelProto()
        changed.CopyFrom(whole)
        values = np.full((3, 5), factor, np.float32)
        changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "weight"))
        onnx.save(changed, str(path))
        done = run_script(TOOL, *asked)
        assert done.returncode == (2 if said else 0), done.stdout
        assert said in done.stderr and (not said or "precision" in done.stderr)
        assert run_script(TOOL, *asked, "--precision_mode=origin").returncode == 0
    write_pictures(tmp_path / "pictures", 1)
    done = run_script(TOOL, *asked, "--pictures", tmp_path / "pictures")
    assert done.returncode == 2 and f"for {tmp_path / 'pictures' / '0.png'} reaches" in done.stderr
    done = run_script(TOOL, *asked, "--force")
    assert done.returncode == 0 and "[Error] precision" in done.stderr
    assert (tmp_path / "x_ascend" / "atc.sh").is_file()


def test_nothing_is_forced_without_a_picture_to_feed(tmp_path: Path, run_script: RunScript) -> None:
    """Fault A5."""
    path = write_model(tmp_path / "x.onnx", shape=(1, 3, 224, 192))
    done = run_script(TOOL, "--onnx", path, "--soc_version=Ascend910A", "--force")
    assert done.returncode == 2 and "--force: without one input of square pictures" in done.stderr


def test_on_310p_the_best_batch_is_told_where_it_is_left_out(
    model: Path, run_script: RunScript
) -> None:
    """Fault A6."""
    asked = ("--onnx", model, "--soc_version=Ascend310P3", "--precision_mode=origin", "--batch")
    assert "best published batch is 16" in run_script(TOOL, *asked, "1,8").stdout
    assert "best published" not in run_script(TOOL, *asked, "8,16").stdout


def test_nearest_and_linear_of_constant_scales_pass_and_rounding_is_told(tmp_path: Path) -> None:
    for mode, verdict in (("nearest", "note"), ("linear", "ok")):
        path = write_model(tmp_path / f"{mode}.onnx", extra=[resize(mode)], weights=[SCALES])
        (row,) = (row for row in check_model(path) if row.subject == "Resize")
        assert row.verdict == verdict
    constant = node("Constant", [], ["scales"], value=SCALES)
    path = write_model(tmp_path / "x.onnx", extra=[constant, resize()])
    assert not problems(path)


@pytest.mark.parametrize("computed", [False, True])
def test_the_scales_of_opset_10_are_the_second_input(computed: bool, tmp_path: Path) -> None:
    nodes = [node("Resize", ["image", "scales"], ["map"], mode="nearest")]
    if computed:
        nodes.insert(0, node("Identity", ["image"], ["scales"]))
    weights = [] if computed else [SCALES]
    path = write_model(tmp_path / "x.onnx", opset=10, extra=nodes, weights=weights)
    rows = [row for row in check_model(path) if row.subject == "Resize"]
    assert [row.verdict for row in rows] == [PROBLEM if computed else "note"]


def test_weights_beside_the_file_are_a_problem(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "y.onnx"
    onnx.save(onnx.load(str(model)), str(path), save_as_external_data=True, size_threshold=0)
    assert [row.subject for row in problems(path)] == ["weights"]
    next(p for p in tmp_path.iterdir() if p.suffix != ".onnx").unlink()
    assert [row.subject for row in problems(path)] == ["weights"]


def test_two_inputs_are_a_problem_but_listed_weights_are_no_inputs(model: Path) -> None:
    changed = onnx.load(str(model))
    value = helper.make_tensor_value_info
    changed.graph.input.append(value("weight", TensorProto.FLOAT, [3, 5]))
    onnx.save(changed, str(model))
    assert not problems(model)
    changed.graph.input.append(value("other", TensorProto.FLOAT, [1]))
    changed.graph.output.append(value("mean", TensorProto.FLOAT, [1, 3, 1, 1]))
    onnx.save(changed, str(model))
    assert [row.subject for row in problems(model)] == ["input", "output"]


def test_a_model_with_another_input_name_or_no_recipe_passes_with_a_note(tmp_path: Path) -> None:
    path = write_model(tmp_path / "x.onnx", name="input.1")
    changed = onnx.load(str(path))
    del changed.metadata_props[:]
    onnx.save(changed, str(path))
    notes = {row.subject for row in check_model(path) if row.verdict == "note"}
    assert notes == {"input", "recipe"}
    assert model_input(path).name == "input.1"


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such ONNX file"):
        check_model(tmp_path / "absent.onnx")
    for content in (b"", b"<html>", b"\x00" * 50):
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"x.onnx is no ONNX model"):
            check_model(tmp_path / "x.onnx")


def test_a_fixed_batch_makes_that_om_only() -> None:
    fixed = ModelInput("image", 4, 224)
    assert check_batches(fixed, [4], dynamic=False).verdict == "ok"
    for batches, dynamic in (([1], False), ([1, 4], False), ([1, 4], True)):
        row = check_batches(fixed, batches, dynamic=dynamic)
        assert row.verdict == PROBLEM and "fixed at 4" in row.advice
    assert check_batches(IMAGE, [1, 4, 64], dynamic=True).verdict == "ok"


@pytest.mark.parametrize(
    "batches, dynamic", [([], False), ([0], False), ([1, 1], False), ([4096], False), ([4], True)]
)
def test_batches_that_atc_never_takes_are_refused(batches: list[int], dynamic: bool) -> None:
    with pytest.raises(ValueError, match="--batch"):
        check_batches(IMAGE, batches, dynamic=dynamic)


def note_calls(folder: Path, name: str, exit_code: int = 0) -> Path:
    """Write a program into `folder` that notes its arguments, one call a line; return the notes."""
    folder.mkdir(exist_ok=True)
    log, program = folder / f"{name}.log", folder / name
    program.write_text(f'#!/bin/sh\necho "$PWD: $*" >>"{log}"\nexit {exit_code}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return log


def test_atc_is_run_where_it_is(
    model: Path, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    log = note_calls(tmp_path / "bin", "atc")
    arguments = ("--onnx", model, "--soc_version", "Ascend310P3", "--batch", "1,8")
    done = run_script(TOOL, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    calls = log.read_text().splitlines()
    assert [call.split(" ")[0] for call in calls] == [f"{tmp_path / 'x_ascend'}:"] * 2
    assert "--input_shape=image:8,3,224,224 --output=x_bs8 " in calls[1]
    note_calls(tmp_path / "bin", "atc", exit_code=3)
    done = run_script(TOOL, *arguments)
    assert done.returncode == 1 and "atc failed (exit 3)" in done.stderr


def test_without_atc_the_scripts_are_written_and_atc_sh_says_what_is_missing(
    model: Path, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    done = run_script(
        TOOL, "--onnx", model, "--soc_version=Ascend910A", "--aipp", "--output", tmp_path / "om"
    )
    assert done.returncode == 0, done.stderr
    assert "input is uint8, NHWC, N x 256 x 256 x 3" in done.stdout
    assert "atc is not on the PATH here" in done.stdout
    names = ["aipp.cfg", "atc.sh", "infer.sh"]
    assert sorted(path.name for path in (tmp_path / "om").iterdir()) == names
    script = subprocess.run(
        ["bash", str(tmp_path / "om" / "atc.sh")], capture_output=True, text=True
    )
    assert script.returncode == 2 and "[Error] atc is not on the PATH" in script.stderr


def test_the_tool_writes_input_files_for_aipp(
    model: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Pitfall 32: names with several dots."""
    write_pictures(tmp_path / "pictures", 2)
    (tmp_path / "pictures" / "0.png").rename(tmp_path / "pictures" / "a.b.c.png")
    bins = tmp_path / "bins"
    done = run_script(TOOL, "--onnx", model, "--uint8_bins", tmp_path / "pictures", bins)
    assert done.returncode == 0, done.stderr
    assert f"2 input files in {bins}: uint8, 256 pixels" in done.stdout
    assert sorted(path.name for path in bins.glob("*.bin")) == ["1.bin", "a.b.c.bin"]
    assert (bins / "a.b.c.bin").stat().st_size == 256 * 256 * 3


def test_the_tool_says_with_exit_code_2_what_it_lacks(model: Path, run_script: RunScript) -> None:
    """Before it prints the table of the model, behind which a line is overlooked."""
    chip = ("--soc_version", "Ascend910A")
    for arguments, said in (
        ((), "--soc_version is needed"),
        ((*chip, "--batch", "1,x"), "'1,x' is no list such as 1,4,8"),
        ((*chip, "--batch", "1,0"), "--batch 1,0: different numbers within 1..2048"),
        ((*chip, "--batch", "4", "--dynamic_batch"), "leave --dynamic_batch out"),
        ((*chip, "--precision_mode", "fp8"), "--precision_mode fp8 is not one of fp16"),
        (("--soc_version", "910A"), "--soc_version 910A"),
    ):
        done = run_script(TOOL, "--onnx", model, *arguments)
        assert done.returncode == 2
        assert said in done.stderr and done.stderr.count("\n") == 1
        assert done.stdout == ""
