"""Whether a model whose batch is open takes any: ATC makes an .om for each that it is told.

A Reshape with the batch of its export written down inside goes unnoticed until then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
from onnx import helper

from lib.export.atc_rules import EXPORT_AGAIN, PROBLEM, Finding, inputs_of, load_graph
from lib.export.onnx_graph import constants_of

_MANY_VALUES = 1024  # no shape has so many, so their numbers don't matter to shapes
_Shapes = Mapping[str, tuple[int, ...]]


def check_inside(path: Path, batches: Sequence[int]) -> Finding | None:
    """Return what is wrong with a model at the largest of the batches; None: nothing is known."""
    model = load_graph(path)
    batch = max(batches)
    if _shapes(model, None) is None:
        return None  # nothing can be told of its shapes, at whatever batch
    shapes = _shapes(model, batch)
    faults = list(_faults(model, shapes, batch)) if shapes is not None else ["its shapes clash"]
    if not faults:
        return None
    return Finding(
        "batch",
        ",".join(map(str, batches)),
        PROBLEM,
        f"at a batch of {batch} {faults[0]}: the batch is fixed inside the model; {EXPORT_AGAIN} "
        "and --batch dynamic",
    )


def _shapes(model: onnx.ModelProto, batch: int | None) -> _Shapes | None:
    """Shapes of the tensors that are known at a batch (None: the open one); None for a clash."""
    light = _without_numbers(model)
    for value in inputs_of(model)[:1] if batch is not None else ():
        (image,) = (found for found in light.graph.input if found.name == value.name)
        image.type.tensor_type.shape.dim[0].dim_value = batch
    try:
        inferred = onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=True)
    except Exception:  # onnx's own, and protobuf's for what is no graph
        return None
    values = (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input)
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in values
        if all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
    }


def _without_numbers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large weights are inputs, without the shapes that are to be found."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = "light"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(inputs_of(model))
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) < _MANY_VALUES:
            light.graph.initializer.append(tensor)
            continue
        kind, shape = tensor.data_type, list(tensor.dims)
        light.graph.input.append(helper.make_tensor_value_info(tensor.name, kind, shape))
    for output in model.graph.output:
        kind = output.type.tensor_type.elem_type
        light.graph.output.append(helper.make_tensor_value_info(output.name, kind, None))
    return light


def _faults(model: onnx.ModelProto, shapes: _Shapes, batch: int) -> Iterator[str]:
    constants = constants_of(model)
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        before = shapes.get(node.input[0])
        wanted = onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()
        if before is None or -1 in wanted or len(before) < wanted.count(0):
            continue
        whole = [before[axis] if size == 0 else size for axis, size in enumerate(wanted)]
        if math.prod(whole) != math.prod(before):
            shape = " x ".join(map(str, wanted))
            yield f"the Reshape {node.name or node.output[0]} to {shape} fails"
    for output in model.graph.output:
        found = shapes.get(output.name)
        if found and found[0] != batch:
            yield f"the output {output.name} is {' x '.join(map(str, found))}"
