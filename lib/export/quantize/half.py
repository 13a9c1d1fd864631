"""What float16 can't hold, found with the float32 model: ONNX Runtime's CPU doesn't show it.

Without float16 kernels, as on most processors, it computes a float16 model in float32. What is
infinite on an accelerator is then an ordinary number here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lib.export.onnx_graph import constants_of
from lib.export.onnx_metadata import load_model, metadata_of, recipe_of
from lib.export.quantize.pictures import Picture
from lib.export.quantize.sessions import Images, filled, load, open_session
from lib.runtime.cli import PartlyFailed

LARGEST = float(np.finfo(np.float16).max)  # 65504


def check_ranges(path: Path, pictures: Sequence[Picture]) -> None:
    """Raise PartlyFailed where a weight, or a value computed of a picture, exceeds float16's range.

    Raises ValueError for a picture that can't be read.
    """
    model = load_model(path)
    recipe = recipe_of(metadata_of(model), path)
    excess = excess_of(model, ((str(p.path), load([p], recipe)) for p in pictures))
    if excess:
        raise PartlyFailed(f"float16 ends at {LARGEST:g}, but {excess}: leave out --fp16")


def excess_of(model: onnx.ModelProto, images: Iterable[tuple[str, Images]]) -> str:
    """Return the first weight, or value computed of images, that float16 can't hold; '' for none.

    `images` come with their names, N x 3 x S x S each. `model` is changed.
    """
    for name, tensor in constants_of(model).items():
        if tensor.data_type == TensorProto.FLOAT:
            size = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
            if not size <= LARGEST:  # what is no number is too much, too
                return f"the weight {name} reaches {size:g}"
    names = _watch(model)
    session = open_session(model.SerializeToString(), lean=True)
    (spec,) = session.get_inputs()
    batch = spec.shape[0] if isinstance(spec.shape[0], int) else 1
    for source, picture in images:
        feed = {spec.name: filled(picture, batch)}
        for name, extreme in zip(names, session.run(None, feed), strict=True):
            if not abs(float(extreme)) <= LARGEST:
                return f"{name} for {source} reaches {abs(float(extreme)):g}"
    return ""


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
