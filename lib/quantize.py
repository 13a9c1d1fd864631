"""Smaller ONNX models: static int8 (QDQ, per-channel weights) and fp16, each with its cost stated.

Runs without torch. Calibration and comparison read pictures with the preprocessing that the model
itself records.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import onnx

from lib.onnx_file import PROFILE_KEY, crop_of, load_model, metadata_of
from lib.transforms import eval_pixels, is_picture, normalize, open_rgb

MIN_OPSET = 13  # per-channel QuantizeLinear needs it
LAYERS_TO_KEEP = ("first", "classifier")
_BATCH = 8

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """A picture to compare on, and its class where a labelled folder says so."""

    path: Path
    target: int | None = None


@dataclass(frozen=True)
class Comparison:
    """What the smaller model costs, on the same pictures as the original."""

    num_images: int
    num_agreeing: int  # pictures for which both name the same class
    max_abs_difference: float  # of the logits
    num_correct_before: int | None  # None: the pictures have no labels
    num_correct_after: int | None

    @property
    def agreement(self) -> float:
        """Percent of the pictures for which both name the same class."""
        return 100.0 * self.num_agreeing / max(1, self.num_images)

    @property
    def drop(self) -> float:
        """Points of top-1 accuracy lost; without labels, the points of disagreement."""
        if self.num_correct_before is None or self.num_correct_after is None:
            return 100.0 - self.agreement
        return 100.0 * (self.num_correct_before - self.num_correct_after) / max(1, self.num_images)


class _CalibrationReader:
    """Gives ONNX Runtime's calibration the prepared pictures, a batch of the model at a time."""

    def __init__(self, path: Path, model: onnx.ModelProto, pictures: Sequence[Picture]):
        self._sizes = crop_of(metadata_of(model), path)
        self._input = model.graph.input[0].name
        batch = model.graph.input[0].type.tensor_type.shape.dim[0]
        self._batch = batch.dim_value or 1
        self._parts = _parts(pictures, self._batch)

    def get_next(self) -> dict[str, Logits] | None:
        """Return the next feed of the model, None after the last."""
        part = next(self._parts, None)
        if part is None:
            return None
        images = np.stack([_load(picture, self._sizes) for picture in part])
        return {self._input: _filled(images, self._batch)}


def find_pictures(folder: Path, class_names: Sequence[str] | None = None) -> list[Picture]:
    """Return the pictures of a folder; with class folders, labelled by name, else by sorted order.

    Raises FileNotFoundError where there are none, ValueError for a class that the model lacks.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such picture folder: {folder}")
    flat = sorted(p for p in folder.iterdir() if p.is_file() and is_picture(p.name))
    if flat:
        return [Picture(path) for path in flat]
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    known = list(class_names) if class_names else names
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{folder}: the model has no class {', '.join(unknown[:3])}")
    pictures = [
        Picture(path, known.index(name))
        for name in names
        for path in sorted((folder / name).iterdir())
        if is_picture(path.name)
    ]
    if not pictures:
        raise FileNotFoundError(f"no pictures in {folder}")
    return pictures


def spread(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """Return `count` of the pictures, evenly spread over the list and so over its classes."""
    if count >= len(pictures):
        return list(pictures)
    return [pictures[index * len(pictures) // count] for index in range(count)]


def quantize_int8(
    source: Path, target: Path, *, calibration: Sequence[Picture], keep_float: Sequence[str] = ()
) -> None:
    """Write a static int8 model: QDQ, per-channel int8 weights, ranges seen on `calibration`.

    `keep_float` names layers of LAYERS_TO_KEEP that stay in float32.
    Raises ValueError for an opset below 13, a model without a recipe, or no pictures.
    """
    model = load_model(source)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < MIN_OPSET:
        raise ValueError(
            f"{source} has opset {opset}; per-channel int8 needs {MIN_OPSET} or more: export with "
            f"hrnet_pth2onnx.py --opset {MIN_OPSET}"
        )
    if not calibration:
        raise ValueError("no pictures to calibrate with")
    quantization = _import("onnxruntime.quantization")
    shaped = target.with_name(f".{target.name}.shaped.onnx")
    try:
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
    finally:
        shaped.unlink(missing_ok=True)
    _copy_metadata(model, target, profile="int8")


def convert_fp16(source: Path, target: Path) -> None:
    """Write a model that computes in float16 and still takes and gives float32."""
    model = load_model(source)
    float16 = _import("onnxruntime.transformers.float16")
    converted = float16.convert_float_to_float16(model, keep_io_types=True)
    onnx.save(converted, target)
    _copy_metadata(model, target, profile="fp16")


def compare(before: Path, after: Path, pictures: Sequence[Picture]) -> Comparison:
    """Run both models on the pictures and return what changed."""
    sizes = crop_of(metadata_of(load_model(before)), before)
    sessions = [_session(before), _session(after)]
    num_agreeing, difference, correct = 0, 0.0, [0, 0]
    for part in _parts(pictures, _BATCH):
        images = np.stack([_load(picture, sizes) for picture in part])
        first, second = (_run(session, images) for session in sessions)
        names = first.argmax(axis=1), second.argmax(axis=1)
        num_agreeing += int((names[0] == names[1]).sum())
        difference = max(difference, float(np.abs(first - second).max()))
        targets = np.array([-1 if p.target is None else p.target for p in part])
        correct = [
            total + int((n == targets).sum()) for total, n in zip(correct, names, strict=True)
        ]
    labelled = all(picture.target is not None for picture in pictures)
    return Comparison(
        len(pictures),
        num_agreeing,
        difference,
        num_correct_before=correct[0] if labelled else None,
        num_correct_after=correct[1] if labelled else None,
    )


def _nodes_to_keep(model: onnx.ModelProto, layers: Sequence[str]) -> list[str]:
    unknown = [layer for layer in layers if layer not in LAYERS_TO_KEEP]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(LAYERS_TO_KEEP)}")
    convs = [node.name for node in model.graph.node if node.op_type == "Conv"]
    linears = [node.name for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    kept = {"first": convs[:1], "classifier": linears[-1:]}
    return [name for layer in layers for name in kept[layer]]


def _copy_metadata(source: onnx.ModelProto, target: Path, *, profile: str) -> None:
    model = onnx.load(target)
    kept = metadata_of(source) | {PROFILE_KEY: profile}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, target)


def _load(picture: Picture, sizes: tuple[int, int]) -> Logits:
    resize, crop = sizes
    pixels = eval_pixels(open_rgb(picture.path), resize=resize, crop=crop)
    return normalize(pixels)


def _run(session: object, images: Logits) -> Logits:
    """Run a batch; a model with a fixed batch gets the last one filled up."""
    (spec,) = session.get_inputs()  # type: ignore[attr-defined]
    fixed = spec.shape[0] if isinstance(spec.shape[0], int) else len(images)
    outputs = []
    for part in _parts(images, fixed):
        feed = {spec.name: _filled(part, fixed)}
        outputs.append(session.run(None, feed)[0][: len(part)])  # type: ignore[attr-defined]
    return np.concatenate(outputs).astype(np.float32)


def _filled(images: Logits, batch: int) -> Logits:
    """Return a whole batch: what is missing are copies of the first picture."""
    return np.concatenate([images, np.repeat(images[:1], batch - len(images), axis=0)])


def _session(path: Path) -> object:
    runtime = _import("onnxruntime")
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _parts(items: Sequence[Picture] | Logits, size: int) -> Iterator:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{error}: pip install -r requirement_for_infer.txt") from None
