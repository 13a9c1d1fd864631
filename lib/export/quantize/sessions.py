"""ONNX Runtime on the CPU, fed with pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from lib.config.recipe import Recipe
from lib.data.picture_files import network_input
from lib.export.quantize.pictures import Picture
from lib.runtime.environment import num_cores
from lib.runtime.onnx_session import import_runtime, open_onnx

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Logits = npt.NDArray[np.float32]
Images = npt.NDArray[np.float32]
Part = TypeVar("Part", Sequence[Picture], Images)


def open_session(model: Path | bytes, *, lean: bool = False) -> InferenceSession:
    """Return a session of a file, or of a model's bytes, on the cores of this process.

    `lean`: of a model with very many outputs, half the memory.
    """
    runtime = import_runtime()
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = num_cores()
    if lean:
        settings.enable_cpu_mem_arena = False
        settings.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
    return open_onnx(model, settings)


def run(session: InferenceSession, images: Images) -> list[Logits]:
    """Return all outputs for a batch; a model with a fixed batch gets the last one filled up."""
    (spec,) = session.get_inputs()
    fixed = spec.shape[0] if isinstance(spec.shape[0], int) else len(images)
    parts = [
        [output[: len(part)] for output in session.run(None, {spec.name: filled(part, fixed)})]
        for part in parts_of(images, fixed)
    ]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def load(pictures: Sequence[Picture], recipe: Recipe) -> Images:
    """Return pictures as the network sees them: float32 N x 3 x crop x crop.

    Raises ValueError that names a picture that can't be read.
    """
    return np.stack([network_input(p.path, recipe) for p in pictures])


def filled(images: Images, batch: int) -> Images:
    """Return a whole batch: what is missing are copies of the first picture."""
    return np.concatenate([images, np.repeat(images[:1], batch - len(images), axis=0)])


def parts_of(items: Part, size: int) -> Iterator[Part]:
    """Yield `items` in parts of `size`, the last one perhaps shorter."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
