"""What float16 can't hold, found with the float32 model: ONNX Runtime's CPU doesn't show it.

Without float16 kernels, as on most processors, it computes a float16 model in float32. What is
infinite on an accelerator is then an ordinary number here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lib.cli import PartlyFailed
from lib.onnx_file import load_model, metadata_of, recipe_of
from lib.onnx_graph import constants_of
from lib.quantize.pictures import Picture
from lib.quantize.sessions import filled, load, open_session

LARGEST = float(np.finfo(np.float16).max)  # 65504


def check_ranges(path: Path, pictures: Sequence[Picture]) -> None:
    """Raise PartlyFailed where a weight, or a value computed of a picture, exceeds float16's range.

    Raises ValueError for a picture that can't be read.
    """
    model = load_model(path)
    for name, tensor in constants_of(model).items():
        if tensor.data_type == TensorProto.FLOAT:
            _check(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0), f"the weight {name}")
    recipe = recipe_of(metadata_of(model), path)
    names = _watch(model)
    session = open_session(model.SerializeToString(), lean=True)
    (spec,) = session.get_inputs()
    batch = spec.shape[0] if isinstance(spec.shape[0], int) else 1
    for picture in pictures:
        images = filled(load([picture], recipe), batch)
        for name, extreme in zip(names, session.run(None, {spec.name: images}), strict=True):
            _check(abs(float(extreme)), f"{name} for {picture.path}")


def computes_in_float16() -> bool:
    """Return whether ONNX Runtime computes in float16 here: whether 60000 * 2 / 4 is infinite."""
    half, shape = TensorProto.FLOAT16, [1, 1, 1, 1]
    factors = [np.full(shape, value, np.float16) for value in (2, 0.25)]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "double"], ["beyond"]),
            helper.make_node("Conv", ["beyond", "quarter"], ["class"]),
        ],
        "probe",
        [helper.make_tensor_value_info("image", half, shape)],
        [helper.make_tensor_value_info("class", half, shape)],
        [
            numpy_helper.from_array(f, n)
            for f, n in zip(factors, ("double", "quarter"), strict=True)
        ],
    )
    probe = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)])
    session = open_session(probe.SerializeToString())
    (result,) = session.run(None, {"image": np.full(shape, 60000, np.float16)})
    return not np.isfinite(result).all()


def _check(size: float, what: str) -> None:
    if not size <= LARGEST:  # what is no number is too much, too
        raise PartlyFailed(
            f"float16 ends at {LARGEST:g}, but {what} reaches {size:g}: leave out --fp16"
        )


def _watch(model: onnx.ModelProto) -> list[str]:
    """Let `model` give the largest and the smallest value of each tensor that it computes.

    Returns the tensors' names, each twice, in the order of the outputs. Integers, such as shapes,
    are left out.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    constants = constants_of(model)
    computed = [name for node in model.graph.node for name in node.output if name not in constants]
    names = [name for name in computed if kinds.get(name) == TensorProto.FLOAT]
    del model.graph.output[:]
    for index, name in enumerate(names):
        for kind in ("ReduceMax", "ReduceMin"):
            result = f"watched_{kind}_{index}"
            # Over all axes: how to name some is not the same in each opset.
            model.graph.node.append(helper.make_node(kind, [name], [result], keepdims=0))
            model.graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, []))
    return [name for name in names for _ in range(2)]
