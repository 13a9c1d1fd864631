"""The two ways to a smaller model: int8 with ONNX Runtime's quantiser, float16 with its converter.

Both keep the original's metadata and opset.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from lib.export.onnx_graph import constants_of, drop_unused_constants, set_nodes, sort_nodes
from lib.export.onnx_metadata import PROFILE_KEY, load_model, metadata_of, opset_of, recipe_of
from lib.export.quantize.pictures import Picture
from lib.export.quantize.sessions import Images, filled, load, parts_of
from lib.runtime.files import scratch_beside
from lib.runtime.onnx_session import import_runtime

MIN_OPSET = 13  # per-channel QuantizeLinear needs it
LAYERS_TO_KEEP = ("first", "classifier")


class _CalibrationReader:
    """Gives ONNX Runtime's calibration the prepared pictures, a batch of the model at a time."""

    def __init__(self, path: Path, model: onnx.ModelProto, pictures: Sequence[Picture]):
        self._recipe = recipe_of(metadata_of(model), path)
        self._input = model.graph.input[0].name
        batch = model.graph.input[0].type.tensor_type.shape.dim[0]
        self._batch = batch.dim_value or 1
        self._parts = parts_of(pictures, self._batch)

    def get_next(self) -> dict[str, Images] | None:
        """Return the next feed of the model, None after the last."""
        part = next(self._parts, None)
        if part is None:
            return None
        return {self._input: filled(load(part, self._recipe), self._batch)}


def quantize_int8(
    source: Path, target: Path, *, calibration: Sequence[Picture], keep_float: Sequence[str] = ()
) -> None:
    """Write a static int8 model: QDQ, per-channel int8 weights, ranges seen on `calibration`.

    `keep_float` names layers of LAYERS_TO_KEEP that stay in float32.
    Raises ValueError for an opset below 13, a model without a recipe, no pictures, or one that
    can't be read.
    """
    model = load_model(source)
    if opset_of(model) < MIN_OPSET:
        raise ValueError(
            f"{source} has opset {opset_of(model)}; per-channel int8 needs {MIN_OPSET} or more: "
            f"export with hrnet_pth2onnx.py --opset {MIN_OPSET}"
        )
    if not calibration:
        raise ValueError("no pictures to calibrate with")
    quantization = import_runtime("onnxruntime.quantization")
    with scratch_beside(target, suffix=".shaped.onnx") as file:
        shaped = Path(file.name)
        quantization.shape_inference.quant_pre_process(
            str(source), str(shaped), skip_symbolic_shape=True
        )
        quantization.quantize_static(
            str(shaped),
            str(target),
            _CalibrationReader(source, model, calibration),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_nodes_to_keep(load_model(shaped), keep_float),
        )
    small = onnx.load(target)
    _describe(small, model, profile="int8")
    onnx.save(small, target)


def convert_fp16(source: Path, target: Path) -> None:
    """Write a model that computes in float16 and still takes and gives float32."""
    model = load_model(source)
    float16 = import_runtime("onnxruntime.transformers.float16")
    small = float16.convert_float_to_float16(load_model(source), keep_io_types=True)
    _keep_constants_float(small, model)
    sort_nodes(small)  # the converter appends the casts that it adds
    _describe(small, model, profile="fp16")
    onnx.save(small, target)


def _keep_constants_float(small: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Take back the detour through float16 of constants that must be float32: a Resize's scales.

    ATC, for one, wants them to be constants, not casts of some.
    """
    originals = constants_of(model)
    nodes = []
    for node in small.graph.node:
        original = originals.get(node.input[0]) if node.op_type == "Cast" else None
        if original is None or node.attribute[0].i != original.data_type:
            nodes.append(node)
            continue
        kept = small.graph.initializer.add()
        kept.CopyFrom(original)
        kept.name = node.output[0]
    set_nodes(small, nodes)
    drop_unused_constants(small)


def _nodes_to_keep(model: onnx.ModelProto, layers: Sequence[str]) -> list[str]:
    unknown = [layer for layer in layers if layer not in LAYERS_TO_KEEP]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(LAYERS_TO_KEEP)}")
    convs = [node.name for node in model.graph.node if node.op_type == "Conv"]
    linears = [node.name for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    kept = {"first": convs[:1], "classifier": linears[-1:]}
    return [name for layer in layers for name in kept[layer]]


def _describe(small: onnx.ModelProto, model: onnx.ModelProto, *, profile: str) -> None:
    del small.metadata_props[:]
    onnx.helper.set_model_props(small, metadata_of(model) | {PROFILE_KEY: profile})
