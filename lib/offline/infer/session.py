"""A loaded model that computes batches: ONNX Runtime, or OpenVINO where that is installed."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib.offline.infer.model import (
    Array,
    RunTime,
    Session,
    describe,
)
from lib.offline.infer.openvino_session import OpenVinoSession
from lib.runtime.onnx_session import CPU_PROVIDER, import_runtime, open_onnx
from lib.runtime.text import one_line

BACKENDS = ("onnxruntime", "openvino")
PRECISIONS = ("fp32", "bf16")  # what a model's float32 is computed in

_CUDA = "CUDAExecutionProvider"


def installed_backends() -> tuple[str, ...]:
    """Return those of BACKENDS that this Python has."""
    return tuple(name for name in BACKENDS if importlib.util.find_spec(name) is not None)


def open_session(
    path: Path,
    *,
    backend: str,
    dynamic_batch: int,
    device: int,
    num_threads: int,
    precision: str = "fp32",
) -> Session:
    """Load a model to compute on card `device`, or on the processor with `num_threads` threads.

    `dynamic_batch` is the batch of a model that leaves it open, 0 for one that doesn't.
    Raises FileNotFoundError, and ValueError for a file, batch, backend or precision that can't be
    used.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such model: {path}")
    if path.suffix.lower() == ".om":
        raise ValueError(
            f"{path} is made for an NPU: give it to ais_bench, and this program the ONNX"
        )
    if backend == "openvino":
        return OpenVinoSession(
            path, dynamic_batch=dynamic_batch, num_threads=num_threads, precision=precision
        )
    if precision != "fp32":
        raise ValueError(f"--precision {precision} needs --backend openvino")
    return _OnnxRuntimeSession(
        path, dynamic_batch=dynamic_batch, device=device, num_threads=num_threads
    )


class _OnnxRuntimeSession:
    def __init__(self, path: Path, *, dynamic_batch: int, device: int, num_threads: int):
        onnxruntime = import_runtime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        has_cuda = _CUDA in onnxruntime.get_available_providers()
        # TF32 would round float32 networks to 10 bits without being asked to.
        providers = [(_CUDA, {"device_id": device, "use_tf32": 0})] if has_cuda else []
        self._session = open_onnx(path, options, providers=[*providers, CPU_PROVIDER])
        self.model = describe(path, self._session, dynamic_batch)
        provider = self._session.get_providers()[0]
        self._device = ("cuda", device) if provider == _CUDA else ("cpu", 0)
        self.runtime = f"onnxruntime {onnxruntime.__version__} on {provider}"
        if provider == CPU_PROVIDER:
            self.runtime += f", {num_threads} threads"
        if has_cuda and provider != _CUDA:
            self.runtime += f" ({_CUDA} is installed, but cannot use device {device})"
        self._to_device = onnxruntime.OrtValue.ortvalue_from_numpy
        self._binding = self._session.io_binding()
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name, *self._device)

    def run(self, arrays: Sequence[Array]) -> tuple[list[Array], RunTime]:
        start = time.perf_counter()
        for spec, array in zip(self.model.inputs, arrays, strict=True):
            self._binding.bind_ortvalue_input(spec.name, self._to_device(array, *self._device))
        there = time.perf_counter()
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # as in open_onnx
            batch = self.model.batch_size
            raise ValueError(f"{self.model.path}, batch {batch}: {one_line(error)}") from None
        computed = time.perf_counter()
        # Copied: the next run writes into the same memory.
        outputs = [np.array(output.numpy()) for output in self._binding.get_outputs()]
        return outputs, RunTime.between(start, there, computed, time.perf_counter())
