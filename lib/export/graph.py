"""Changes to an exported graph, and the promises it must keep. Knows onnx, not torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lib.config.recipe import Recipe
from lib.export.atc_rules import MAX_IR_VERSION, PROBLEM, check_model
from lib.export.onnx_graph import constants_of, drop_unused_constants, set_nodes
from lib.export.onnx_metadata import (
    ARCH_KEY,
    CHECKPOINT_KEY,
    CLASS_NAMES_KEY,
    PROFILE_KEY,
    RECIPE_KEY,
    STANDARD_DOMAINS,
    opset_of,
)
from lib.export.options import ATC, ExportOptions
from lib.runtime.cli import needing

INPUT, OUTPUT, BATCH_AXIS = "image", "class", "batch"


def strip_traces(model: ModelProto) -> None:
    """Remove from `model` where each node came from: the exporters write paths of this machine."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")


def name_batch_axis(model: ModelProto) -> None:
    """Give a free batch axis its name; some releases of torch call it s0 or the like."""
    graph = model.graph
    symbols = {
        axes[0].dim_param for value in (*graph.input, *graph.output) if (axes := _axes(value))
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in _axes(value):
            if axis.dim_param and axis.dim_param in symbols:
                axis.dim_param = BATCH_AXIS


def _axes(value: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    return value.type.tensor_type.shape.dim


def drop_identities(model: ModelProto) -> None:
    """Remove Identity nodes: the TorchScript exporter puts one before each weight it shares.

    Tools that want constant weights (quantisers, ATC) then see them as such.
    """
    kept_outputs = {value.name for value in model.graph.output}
    source_of: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:  # in topological order, so a chain is followed to its start
        if node.op_type == "Identity" and node.output[0] not in kept_outputs:
            source_of[node.output[0]] = source_of.get(node.input[0], node.input[0])
        else:
            nodes.append(node)
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = source_of.get(name, name)
    set_nodes(model, nodes)


def replace_resizes(model: ModelProto) -> None:
    """Write each nearest upsampling by a whole factor as reshape, expand, reshape; exact.

    N x C x H x W becomes N x C x H x 1 x W x 1, then each pixel is repeated along the new axes.
    """
    shapes = {
        value.name: [axis.dim_value for axis in _axes(value)]
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    constants = constants_of(model)
    nodes: list[NodeProto] = []
    weights: dict[str, TensorProto] = {}

    def weight(values: Sequence[int]) -> str:
        name = "upsample_" + "_".join(map(str, values)).replace("-1", "N")
        weights[name] = helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        return name

    for node in model.graph.node:
        if node.op_type != "Resize":
            nodes.append(node)
            continue
        factor = _upsampling_factor(node, constants)
        source, result = node.input[0], node.output[0]
        _, channels, height, width = shapes[source]
        split, repeated = f"{result}_split", f"{result}_repeated"
        steps = (
            ("Reshape", source, (-1, channels, height, 1, width, 1), split),
            ("Expand", split, (1, 1, 1, factor, 1, factor), repeated),
            ("Reshape", repeated, (-1, channels, height * factor, width * factor), result),
        )
        for kind, x, values, y in steps:
            nodes.append(helper.make_node(kind, [x, weight(values)], [y], name=f"{y}_{kind}"))
    set_nodes(model, nodes)
    model.graph.initializer.extend(weights.values())
    drop_unused_constants(model)


def _upsampling_factor(node: NodeProto, constants: dict[str, TensorProto]) -> int:
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert values["mode"] == b"nearest" and values["nearest_mode"] == b"floor", values
    assert values["coordinate_transformation_mode"] == b"asymmetric", values
    scales = numpy_helper.to_array(constants[node.input[2]]).tolist()
    factor = int(scales[-1])
    assert scales == [1, 1, factor, factor], scales
    return factor


def simplify(model: ModelProto) -> ModelProto:
    """Return the model as onnxslim simplifies it. Raises ValueError where that is missing."""
    with needing("pip install onnxslim, for --simplify"):
        import onnxslim
    return onnxslim.slim(model)


def describe(
    model: ModelProto,
    options: ExportOptions,
    *,
    recipe: Recipe,
    class_names: Sequence[str] | None,
    arch: str,
    checkpoint_sha256: str,
) -> None:
    """Write into `model` how its pictures are prepared, what its classes are, whence it came."""
    facts = {
        RECIPE_KEY: json.dumps(recipe.as_json()),
        ARCH_KEY: arch,
        CHECKPOINT_KEY: checkpoint_sha256,
        PROFILE_KEY: options.profile,
    }
    if class_names is not None:
        facts[CLASS_NAMES_KEY] = json.dumps(list(class_names), ensure_ascii=False)
    helper.set_model_props(model, facts)


def broken_promises(
    path: Path, options: ExportOptions, *, image_size: int, num_classes: int
) -> list[str]:
    """Return what the file at `path` is not although it should be; nothing for a good export."""
    model = onnx.load(str(path), load_external_data=False)
    batch = options.batch if options.batch is not None else BATCH_AXIS
    others = [entry.domain for entry in model.opset_import if entry.domain not in STANDARD_DOMAINS]
    facts = [
        ("opset", opset_of(model), options.opset_version),
        ("operators of other domains", others, []),
        ("input", signature(model.graph.input), [(INPUT, [batch, 3, image_size, image_size])]),
        ("output", signature(model.graph.output), [(OUTPUT, [batch, num_classes])]),
        ("weights in other files", _num_external(model), 0),
    ]
    broken = [f"{what} {is_}, not {wanted}" for what, is_, wanted in facts if is_ != wanted]
    if options.profile == ATC:
        if model.ir_version > MAX_IR_VERSION:
            broken.append(f"IR version {model.ir_version}, not {MAX_IR_VERSION} or less")
        problems = [row for row in check_model(path) if row.verdict == PROBLEM]
        broken += [f"{row.subject} {row.found}" for row in problems]
    return broken


def signature(values: Iterable[onnx.ValueInfoProto]) -> list[tuple[str, list[int | str]]]:
    """Return name and shape of each float32 input or output; a free axis by its name."""
    return [
        (value.name, [axis.dim_param or axis.dim_value for axis in _axes(value)])
        for value in values
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    ]


def _num_external(model: ModelProto) -> int:
    return sum(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer)
