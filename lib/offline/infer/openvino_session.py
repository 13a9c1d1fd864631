"""A loaded model that computes with OpenVINO, on the processor."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib.offline.infer.model import (
    Array,
    ModelDescription,
    RunTime,
    describe,
)
from lib.runtime.onnx_session import import_runtime, open_onnx

if TYPE_CHECKING:
    import openvino

_LEAST_IMAGES_A_PART = 4  # of fewer, a part costs more than it gives


def is_installed() -> bool:
    """Tell whether this Python has OpenVINO."""
    return importlib.util.find_spec("openvino") is not None


def computes_in_bf16() -> bool:
    """Tell whether OpenVINO is installed and this processor computes in bfloat16."""
    if not is_installed():
        return False
    core = importlib.import_module("openvino").Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoSession:
    """Computes a batch in parts, side by side, where it can: in int8 a seventh faster."""

    def __init__(self, path: Path, *, dynamic_batch: int, num_threads: int, precision: str):
        if not is_installed():
            raise ValueError(
                "--backend openvino: the package openvino is not installed: pip install openvino"
            )
        if precision == "bf16" and not computes_in_bf16():
            raise ValueError(
                "--precision bf16: this processor does not compute in bfloat16: take fp32"
            )
        openvino = importlib.import_module("openvino")
        onnxruntime = import_runtime()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # OpenVINO forgets an ONNX file's metadata, so the other library is asked for it.
        self.model = describe(path, open_onnx(path, options), dynamic_batch)
        network = openvino.Core().read_model(path)
        num_parts = _divide(network, self.model, _num_parts(self.model, num_threads))
        settings = {
            # Without it some processors compute float32 in bfloat16 without being asked to.
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": str(num_threads),
            "NUM_STREAMS": str(num_parts),
        }
        compiled = openvino.compile_model(network, "CPU", settings)
        self._requests = [compiled.create_infer_request() for _ in range(num_parts)]
        self._tensor = openvino.Tensor
        self._outputs = range(len(compiled.outputs))
        version = openvino.__version__.split("-")[0]
        self.runtime = f"openvino {version} on CPU, {num_threads} threads"
        if precision != "fp32":
            self.runtime += f", {precision}"

    def run(self, arrays: Sequence[Array]) -> tuple[list[Array], RunTime]:
        start = time.perf_counter()
        for spec, array in zip(self.model.inputs, arrays, strict=True):
            parts = np.split(array, len(self._requests))
            for request, part in zip(self._requests, parts, strict=True):
                request.set_tensor(spec.name, self._tensor(part, shared_memory=True))
        there = time.perf_counter()
        for request in self._requests:
            request.start_async()
        for request in self._requests:
            request.wait()
        computed = time.perf_counter()
        outputs = [self._whole_output(number) for number in self._outputs]
        return outputs, RunTime.between(start, there, computed, time.perf_counter())

    def _whole_output(self, number: int) -> Array:
        parts = [request.get_output_tensor(number).data for request in self._requests]
        # Copied: the next run writes into the same memory.
        return np.concatenate(parts) if len(parts) > 1 else np.array(parts[0])


def _num_parts(model: ModelDescription, num_threads: int) -> int:
    """In how many equal parts to compute a batch, each with as many threads, of 4 images or more.

    Only a model with a recipe was exported here, so that each image counts for itself.
    """
    batch = model.batch_size
    if model.recipe is None or any(spec.shape[0] != batch for spec in model.inputs):
        return 1
    counts = range(max(1, min(num_threads, batch // _LEAST_IMAGES_A_PART)), 0, -1)
    return next(n for n in counts if batch % n == 0 and num_threads % n == 0)


def _divide(network: openvino.Model, model: ModelDescription, num_parts: int) -> int:
    """Give a network the batch of one of `num_parts` parts, or else the whole; return how many.

    It stays whole where its outputs do not shrink with the batch, along their first axis.
    """
    whole = _output_shapes(network, model, num_parts=1)
    if num_parts == 1:
        return 1
    try:
        parts = _output_shapes(network, model, num_parts=num_parts)
    except RuntimeError:  # the batch is written down inside
        parts = []
    if parts and all(parts) and [(num_parts * s[0], *s[1:]) for s in parts] == whole:
        return num_parts
    _output_shapes(network, model, num_parts=1)
    return 1


def _output_shapes(
    network: openvino.Model, model: ModelDescription, *, num_parts: int
) -> list[tuple[int, ...]]:
    """Give a network the batch of a part, and return its outputs' shapes then; () if unknown."""
    network.reshape({s.name: [s.shape[0] // num_parts, *s.shape[1:]] for s in model.inputs})
    shapes = [output.partial_shape for output in network.outputs]
    return [() if shape.is_dynamic else tuple(shape.to_shape()) for shape in shapes]
