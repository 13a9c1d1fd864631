"""What is known of a model before it computes: its inputs, and what its file says of itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from lib.config.recipe import Recipe
from lib.export.onnx_metadata import RECIPE_KEY, parse_recipe

if TYPE_CHECKING:
    import onnxruntime

Array = npt.NDArray[np.generic]
Shapes = Mapping[str, tuple[int, ...]]  # of inputs, by name; '': of the only one, height and width

_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
}


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
    recipe: Recipe | None  # the preprocessing it was trained for, if it says so

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

    @classmethod
    def between(cls, start_s: float, there_s: float, computed_s: float, back_s: float) -> RunTime:
        """Of the moments at which each of the three began, and the last ended."""
        moments = (start_s, there_s, computed_s, back_s)
        return cls(*((end - begin) * 1e3 for begin, end in itertools.pairwise(moments)))


class Session(Protocol):
    """A model ready to compute."""

    model: ModelDescription
    runtime: str  # program, version and device that compute, for people

    def run(self, arrays: Sequence[Array]) -> tuple[list[Array], RunTime]:
        """Return the outputs (new arrays) for one array an input, and the times."""


def describe(
    path: Path, session: onnxruntime.InferenceSession, dynamic_batch: int
) -> ModelDescription:
    """Return what a loaded model says of itself.

    `dynamic_batch` is the batch of a model that leaves it open, 0 for one that doesn't. Raises
    ValueError for inputs that can't be fed, or such a batch.
    """
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


def check_shapes(model: ModelDescription, shapes: Shapes) -> None:
    """Raise ValueError where an input doesn't have the shape that was asked for."""
    found = {spec.name: spec.shape for spec in model.inputs}
    found[""] = model.inputs[0].shape[-2:]
    for name, shape in shapes.items():
        if found.get(name) != shape:
            inputs = "; ".join(f"{s.name} {' x '.join(map(str, s.shape))}" for s in model.inputs)
            asked = f"{name} {' x '.join(map(str, shape))}".strip()
            raise ValueError(f"{asked} is asked for, but {model.path} takes {inputs}")


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
