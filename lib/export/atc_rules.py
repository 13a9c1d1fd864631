"""What ATC accepts, as tables, and a model held against them.

Sources: CANN's "Supported ONNX Operators" (a page an operator, with its opset versions; the
overview names ONNX 1.12, releases before 7.0 name ONNX 1.8 and opsets 9 to 13) and the pages of
the ATC options, CANN 6.0 to 9.0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import onnx

from lib.config.recipe import Recipe
from lib.export.onnx_metadata import RECIPE_KEY, metadata_of, opset_of
from lib.runtime.checked import parse_json

OPSETS = range(9, 19)
SAFE_OPSETS = (11, 13)  # on every release of CANN
MAX_IR_VERSION = 8  # of ONNX 1.12
INPUT_NAME, OUTPUT_NAME = "image", "class"

_ALL = (9, 18)
# {operator: first and last opset}. The operators of the exported networks, and those that
# exporters and simplifiers put around them.
OPERATORS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "Add": _ALL,
        "AveragePool": _ALL,
        "BatchNormalization": _ALL,
        "Cast": _ALL,
        "Concat": _ALL,
        "Constant": _ALL,
        "Conv": _ALL,
        "Expand": _ALL,  # the shape must be constant
        "Flatten": _ALL,
        "Gather": _ALL,
        "Gemm": _ALL,
        "GlobalAveragePool": _ALL,
        "Identity": _ALL,
        "MatMul": _ALL,
        "Mul": _ALL,
        "ReduceMean": _ALL,
        "Relu": _ALL,
        "Reshape": _ALL,
        "Resize": (10, 18),  # see _resize_faults
        "Shape": _ALL,
        "Slice": _ALL,
        "Squeeze": _ALL,
        "Tile": _ALL,
        "Transpose": _ALL,
        "Unsqueeze": _ALL,
    }
)
RESIZE_MODES = ("nearest", "linear")
MAX_BATCH = 2048  # of a static shape and of each step of --dynamic_batch_size
DYNAMIC_STEPS = range(2, 101)  # how many steps --dynamic_batch_size takes

EXPORT_AGAIN = "export it again with hrnet_pth2onnx.py, whose default profile fits ATC"
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv")

ACCEPTED: Mapping[str, str] = MappingProxyType(
    {
        "opset": f"{OPSETS[0]} to {OPSETS[-1]}; {' and '.join(map(str, SAFE_OPSETS))} everywhere",
        "IR version": f"up to {MAX_IR_VERSION}",
        "weights": "inside the file",
        "operators": "those CANN documents, of the standard domain",
        "Resize": "4-D, nearest or linear, constant scales or sizes",
        "input": f"one, float32, `{INPUT_NAME}`, N x 3 x S x S with S fixed",
        "output": f"one, float32, `{OUTPUT_NAME}`, N x classes",
        "recipe": "RGB or BGR pictures of the input's size",
        "precision": "weights and maps up to 65504, in the float16 that ATC computes in by default",
        "batch": f"1 to {MAX_BATCH}, as the model's input allows",
    }
)
OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """One row of the table: what was found of a subject, the verdict, and what to do."""

    subject: str  # a key of ACCEPTED
    found: str
    verdict: str = OK
    advice: str = ""


@dataclass(frozen=True)
class ModelInput:
    """The model's input: its name, its batch (None: dynamic) and the side of its pictures."""

    name: str
    batch: int | None
    side: int


def check_model(path: Path) -> list[Finding]:
    """Return what ATC would say to the ONNX file at `path`, one finding or more a subject.

    Reads no external weights. Raises FileNotFoundError, and ValueError for a file that is no ONNX.
    """
    model = load_graph(path)
    findings = [_opset(model), _ir_version(model), _weights(model), *_operators(model)]
    findings += [*_resizes(model), _input(model), _output(model), _recipe(model)]
    return findings


def model_input(path: Path) -> ModelInput:
    """Return the input of a model in which `check_model` found no problem."""
    (image,) = inputs_of(load_graph(path))
    batch, _, side, _ = _shape(image)
    return ModelInput(image.name, batch if isinstance(batch, int) else None, int(side))


def check_batch_numbers(batches: Sequence[int], *, dynamic: bool) -> None:
    """Raise ValueError for batches that ATC takes of no model; `dynamic`: one .om for all."""
    wrong = [batch for batch in batches if not 1 <= batch <= MAX_BATCH]
    if wrong or not batches or len(set(batches)) < len(batches):
        raise ValueError(
            f"--batch {','.join(map(str, batches))}: different numbers within 1..{MAX_BATCH} are "
            "needed, such as 1,4,8,16,32,64"
        )
    if dynamic and len(batches) not in DYNAMIC_STEPS:
        raise ValueError(
            f"--dynamic_batch with --batch {','.join(map(str, batches))}: {DYNAMIC_STEPS[0]} to "
            f"{DYNAMIC_STEPS[-1]} batches are needed; leave --dynamic_batch out for a single one"
        )


def check_batches(image: ModelInput, batches: Sequence[int], *, dynamic: bool) -> Finding:
    """Return whether .om files of these batches can be made; `dynamic`: one file for all.

    Raises ValueError for batches that ATC never takes.
    """
    check_batch_numbers(batches, dynamic=dynamic)
    asked = ",".join(map(str, batches)) + (" in one file" if dynamic else "")
    if image.batch is None or (list(batches) == [image.batch] and not dynamic):
        return Finding("batch", asked)
    return Finding(
        "batch",
        asked,
        PROBLEM,
        f"the model's batch is fixed at {image.batch}: ask for --batch {image.batch}, or export "
        "with --batch dynamic",
    )


def load_graph(path: Path) -> onnx.ModelProto:
    """Return a model without its external weights. Raises FileNotFoundError and ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"no such ONNX file: {path}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # protobuf's DecodeError, which onnx does not name
        model = onnx.ModelProto()
    if not model.graph.node:
        raise ValueError(f"{path} is no ONNX model, or is cut short")
    return model


def _opset(model: onnx.ModelProto) -> Finding:
    opset = opset_of(model)
    if opset not in OPSETS:
        stop = "stops with `No parser is registered for Op`" if opset > OPSETS[-1] else "fails"
        return Finding("opset", str(opset), PROBLEM, f"ATC {stop}: {EXPORT_AGAIN}, or --opset 11")
    if opset not in SAFE_OPSETS:
        advice = f"only newer releases of CANN read opset {opset}; --opset 11 fits all"
        return Finding("opset", str(opset), NOTE, advice)
    return Finding("opset", str(opset))


def _ir_version(model: onnx.ModelProto) -> Finding:
    if model.ir_version > MAX_IR_VERSION:
        advice = f"CANN is built with ONNX 1.12, whose newest is {MAX_IR_VERSION}: {EXPORT_AGAIN}"
        return Finding("IR version", str(model.ir_version), PROBLEM, advice)
    return Finding("IR version", str(model.ir_version))


def _weights(model: onnx.ModelProto) -> Finding:
    external = [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    if external:
        found = f"{len(external)} in a file beside it ({external[0]}, ...)"
        advice = f"ATC looks in one file only: {EXPORT_AGAIN} and one file"
        return Finding("weights", found, PROBLEM, advice)
    return Finding("weights", f"{len(model.graph.initializer)} inside")


def _operators(model: onnx.ModelProto) -> Iterator[Finding]:
    opset = opset_of(model)
    counts = Counter((node.domain or "ai.onnx", node.op_type) for node in model.graph.node)
    good = []
    for (domain, name), count in sorted(counts.items()):
        found = f"{name} x{count}" if domain == "ai.onnx" else f"{domain}::{name} x{count}"
        first, last = OPERATORS.get(name, (0, 0)) if domain == "ai.onnx" else (0, 0)
        if name in _QUANTISED:
            fix = "give ATC the float model; CANN quantises with its own tool, AMCT"
            yield Finding("operators", found, PROBLEM, f"ATC does not read ONNX's int8: {fix}")
        elif domain != "ai.onnx":
            yield Finding(
                "operators", found, PROBLEM, f"ATC knows ONNX's own alone: {EXPORT_AGAIN}"
            )
        elif not last:
            advice = "no operator of HRNet: look it up among those that your CANN documents"
            yield Finding("operators", found, NOTE, advice)
        elif opset in OPSETS and not first <= opset <= last:
            advice = f"CANN documents it for opset {first} to {last}: {EXPORT_AGAIN}"
            yield Finding("operators", found, PROBLEM, advice)
        else:
            good.append(found)
    yield Finding("operators", ", ".join(good) or "none")


def _resizes(model: onnx.ModelProto) -> Iterator[Finding]:
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    nodes = [node for node in model.graph.node if node.op_type in ("Resize", "Expand")]
    faults: Counter[str] = Counter()
    for node in nodes:
        faults.update(_node_faults(node, constants, opset_of(model)))
    for fault, count in faults.items():
        advice = "export it again with --no_resize, or with --simplify"
        yield Finding("Resize", f"{count} of {len(nodes)} have {fault}", PROBLEM, advice)
    num_nearest = sum(node.op_type == "Resize" and _is_nearest(node) for node in nodes)
    if num_nearest and not faults:
        advice = (
            "newer documents of CANN name round_prefer_ceil as the only rounding of nearest, the "
            "model asks for floor: compare results (tools/compare_dirs.py), or export with "
            "--no_resize, which is exact on every release"
        )
        yield Finding("Resize", f"{num_nearest} nearest, constant scales", NOTE, advice)
    elif not faults:
        yield Finding("Resize", f"{len([n for n in nodes if n.op_type == 'Resize'])}")


def _node_faults(node: onnx.NodeProto, constants: set[str], opset: int) -> Iterator[str]:
    if node.op_type == "Expand":
        if node.input[1] not in constants:
            yield "a computed shape (Expand)"
        return
    values = _attributes(node)
    mode = values.get("mode", "nearest")
    if mode not in RESIZE_MODES:
        yield f"mode {mode}, which is not one of {', '.join(RESIZE_MODES)}"
    # Opset 10 has the scales right behind the picture; 11 put the region of interest between.
    sizing = [name for name in list(node.input)[1 if opset < 11 else 2 :] if name]
    if not sizing or any(name not in constants for name in sizing):
        yield "computed scales or sizes"
    ignored = [name for name in ("antialias", "axes") if values.get(name)]
    if values.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        ignored.append("keep_aspect_ratio_policy")
    if ignored:
        yield f"{', '.join(ignored)}, which ATC ignores"


def _is_nearest(node: onnx.NodeProto) -> bool:
    return _attributes(node).get("mode", "nearest") == "nearest"


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the graph's true inputs: old IR versions list the weights there too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims]


def _signature(value: onnx.ValueInfoProto) -> str:
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    kind = {"float": "float32"}.get(kind, kind)
    return f"{value.name}: {kind} {' x '.join(map(str, _shape(value)))}"


def _input(model: onnx.ModelProto) -> Finding:
    inputs = inputs_of(model)
    found = "; ".join(map(_signature, inputs))
    if len(inputs) != 1:
        return Finding("input", found, PROBLEM, f"{len(inputs)} inputs: {EXPORT_AGAIN}")
    (image,) = inputs
    shape = _shape(image)
    if image.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        advice = f"the .bin files hold float32: {EXPORT_AGAIN}"
        return Finding("input", found, PROBLEM, advice)
    sides = shape[2:]
    if len(shape) != 4 or shape[1] != 3 or sides[0] != sides[1] or not isinstance(sides[0], int):
        advice = f"N x 3 x S x S with a fixed S is needed: {EXPORT_AGAIN}"
        return Finding("input", found, PROBLEM, advice)
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", image.name):
        advice = f"--input_shape cannot hold this name: {EXPORT_AGAIN}"
        return Finding("input", found, PROBLEM, advice)
    if image.name != INPUT_NAME:
        advice = f"the commands say {image.name}, where scripts of others say {INPUT_NAME}"
        return Finding("input", found, NOTE, advice)
    return Finding("input", found)


def _output(model: onnx.ModelProto) -> Finding:
    outputs = list(model.graph.output)
    found = "; ".join(map(_signature, outputs))
    if len(outputs) != 1 or len(_shape(outputs[0])) != 2:
        return Finding("output", found, PROBLEM, f"one output N x classes: {EXPORT_AGAIN}")
    return Finding("output", found)


def _recipe(model: onnx.ModelProto) -> Finding:
    text = metadata_of(model).get(RECIPE_KEY)
    shape = [dim for image in inputs_of(model)[:1] for dim in _shape(image)]
    side = shape[-1] if len(shape) == 4 and shape[2] == shape[3] else None
    if text is None or not isinstance(side, int):
        return Finding("recipe", "not said", NOTE, "the project's own preprocessing is assumed")
    try:
        recipe = Recipe.from_json(parse_json(text, object, where=RECIPE_KEY), where=RECIPE_KEY)
    except ValueError as error:
        return Finding("recipe", text[:80], PROBLEM, f"{error}: {EXPORT_AGAIN}")
    if recipe.crop != side or (recipe.layout, recipe.dtype) != ("CHW", "float32"):
        advice = f"infer.sh would prepare other pictures than the input takes: {EXPORT_AGAIN}"
        return Finding("recipe", text[:200], PROBLEM, advice)
    return Finding("recipe", str(recipe))
