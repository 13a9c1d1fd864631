"""A loaded model that computes batches: ONNX Runtime, or OpenVINO where that is installed."""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from lib.onnx_file import RECIPE_KEY, parse_recipe

if TYPE_CHECKING:
    import onnxruntime

BACKENDS = ("onnxruntime", "openvino")
PRECISIONS = ("fp32", "bf16")  # what a model's float32 is computed in

Array = npt.NDArray[np.generic]

_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
}
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_LEAST_IMAGES_A_PART = 4  # of fewer, a part costs more than it gives


@dataclass(frozen=True)
class TensorSpec:
    """One input of a model: its name, shape (batch included) and element type."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class ModelDescription:
    """What a model file says of itself: its inputs at the batch chosen, and its metadata."""

    path: Path
    inputs: tuple[TensorSpec, ...]
    recipe: dict[str, object] | None  # the preprocessing it was trained for, if it says so

    @property
    def batch_size(self) -> int:
        """The first dimension of the first input."""
        return self.inputs[0].shape[0]


@dataclass(frozen=True)
class RunTime:
    """Milliseconds of one batch: to the device, computing, back to the host."""

    h2d_ms: float
    compute_ms: float
    d2h_ms: float


class Session(Protocol):
    """A model ready to compute."""

    model: ModelDescription
    runtime: str  # program, version and device that compute, for people

    def run(self, arrays: Sequence[Array]) -> tuple[list[Array], RunTime]:
        """Return the outputs (new arrays) for one array an input, and the times."""


def installed_backends() -> tuple[str, ...]:
    """Return those of BACKENDS that this Python has."""
    return tuple(name for name in BACKENDS if importlib.util.find_spec(name) is not None)


def computes_in_bf16() -> bool:
    """Tell whether OpenVINO is installed and this processor computes in bfloat16."""
    if "openvino" not in installed_backends():
        return False
    core = importlib.import_module("openvino").Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


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
        return _OpenVinoSession(
            path, dynamic_batch=dynamic_batch, num_threads=num_threads, precision=precision
        )
    if precision != "fp32":
        raise ValueError(f"--precision {precision} needs --backend openvino")
    return _OnnxRuntimeSession(
        path, dynamic_batch=dynamic_batch, device=device, num_threads=num_threads
    )


class _OnnxRuntimeSession:
    def __init__(self, path: Path, *, dynamic_batch: int, device: int, num_threads: int):
        onnxruntime = _onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        has_cuda = _CUDA in onnxruntime.get_available_providers()
        # TF32 would round float32 networks to 10 bits without being asked to.
        providers = [(_CUDA, {"device_id": device, "use_tf32": 0})] if has_cuda else []
        self._session = _load(path, options, [*providers, _CPU])
        self.model = _describe(path, self._session, dynamic_batch)
        provider = self._session.get_providers()[0]
        self._device = ("cuda", device) if provider == _CUDA else ("cpu", 0)
        self.runtime = f"onnxruntime {onnxruntime.__version__} on {provider}"
        if provider == _CPU:
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
        except Exception as error:  # as in _load
            batch = self.model.batch_size
            raise ValueError(f"{self.model.path}, batch {batch}: {_one_line(error)}") from None
        computed = time.perf_counter()
        # Copied: the next run writes into the same memory.
        outputs = [np.array(output.numpy()) for output in self._binding.get_outputs()]
        return outputs, _run_time(start, there, computed, time.perf_counter())


class _OpenVinoSession:
    """A batch is computed in parts, side by side: in int8 that takes a seventh less time.

    Only of a model whose recipe says that it was exported here: each image counts for itself.
    """

    def __init__(self, path: Path, *, dynamic_batch: int, num_threads: int, precision: str):
        if "openvino" not in installed_backends():
            raise ValueError(
                "--backend openvino: the package openvino is not installed: pip install openvino"
            )
        openvino = importlib.import_module("openvino")
        onnxruntime = _onnxruntime()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # OpenVINO forgets an ONNX file's metadata, so the other library is asked for it.
        self.model = _describe(path, _load(path, options, [_CPU]), dynamic_batch)
        if precision == "bf16" and not computes_in_bf16():
            raise ValueError(
                "--precision bf16: this processor does not compute in bfloat16: take fp32"
            )
        is_ours = self.model.recipe is not None
        num_parts = _num_parts(self.model.batch_size, num_threads) if is_ours else 1
        network = openvino.Core().read_model(path)
        network.reshape(
            {s.name: [s.shape[0] // num_parts, *s.shape[1:]] for s in self.model.inputs}
        )
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
        return outputs, _run_time(start, there, computed, time.perf_counter())

    def _whole_output(self, number: int) -> Array:
        return np.concatenate([r.get_output_tensor(number).data for r in self._requests])


def _num_parts(batch: int, num_threads: int) -> int:
    """In how many equal parts to compute a batch: at most one a thread, of 4 images or more."""
    most = max(1, min(num_threads, batch // _LEAST_IMAGES_A_PART))
    return next(count for count in range(most, 0, -1) if batch % count == 0)


def _run_time(start: float, there: float, computed: float, back: float) -> RunTime:
    return RunTime((there - start) * 1e3, (computed - there) * 1e3, (back - computed) * 1e3)


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ValueError(
            "the package onnxruntime is not installed: pip install -r requirement_for_infer.txt"
        ) from None
    onnxruntime.set_default_logger_severity(3)  # errors only: its warnings are for its developers
    return onnxruntime


def _load(
    path: Path, options: onnxruntime.SessionOptions, providers: Sequence[object]
) -> onnxruntime.InferenceSession:
    try:
        return _onnxruntime().InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # its errors have no common base of their own
        raise ValueError(f"{path} cannot be loaded: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _describe(
    path: Path, session: onnxruntime.InferenceSession, dynamic_batch: int
) -> ModelDescription:
    inputs = []
    for node in session.get_inputs():
        if node.type not in _DTYPES:
            raise ValueError(
                f"{path}: input {node.name} is a {node.type}, not one of {', '.join(_DTYPES)}"
            )
        shape = _whole_shape(path, node.name, node.shape, dynamic_batch)
        inputs.append(TensorSpec(node.name, shape, _DTYPES[node.type]))
    if not inputs:
        raise ValueError(f"{path} has no inputs")
    metadata = session.get_modelmeta().custom_metadata_map
    return ModelDescription(path, tuple(inputs), parse_recipe(metadata.get(RECIPE_KEY), path))


def _whole_shape(
    path: Path, name: str, shape: Sequence[object], dynamic_batch: int
) -> tuple[int, ...]:
    """Return the shape with an open batch (a name or None in the file) filled in."""
    whole = [size if isinstance(size, int) and size > 0 else 0 for size in shape]
    shown = " x ".join(map(str, shape))
    if not whole or 0 in whole[1:]:
        raise ValueError(f"{path}: input {name} is {shown}: only its batch may be left open")
    if whole[0] == 0 and dynamic_batch == 0:
        raise ValueError(f"{path} leaves the batch open ({shown}): give it with --dymBatch")
    if dynamic_batch not in (0, whole[0]) and whole[0] != 0:
        raise ValueError(
            f"--dymBatch {dynamic_batch}: {path} has a fixed batch of {whole[0]}; leave it out"
        )
    return (whole[0] or dynamic_batch, *whole[1:])
