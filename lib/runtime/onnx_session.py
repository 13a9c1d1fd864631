"""ONNX Runtime and its sessions, without the warnings that are for its own developers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from lib.runtime.cli import needing
from lib.runtime.text import one_line

if TYPE_CHECKING:
    import onnxruntime

CPU_PROVIDER = "CPUExecutionProvider"

_ERRORS_ONLY = 3


def import_runtime(name: str = "onnxruntime") -> ModuleType:
    """Return ONNX Runtime or a module of it. Raises ValueError where it isn't installed."""
    with needing("pip install -r requirement_for_infer.txt"):
        importlib.import_module("onnxruntime").set_default_logger_severity(_ERRORS_ONLY)
        return importlib.import_module(name)


def open_onnx(
    model: Path | bytes,
    options: onnxruntime.SessionOptions,
    *,
    providers: Sequence[object] = (CPU_PROVIDER,),
) -> onnxruntime.InferenceSession:
    """Load a model from a file, or from its bytes. Raises ValueError in one line."""
    source = model if isinstance(model, bytes) else str(model)
    try:
        return import_runtime().InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # its errors have no common base of their own
        name = "the model" if isinstance(model, bytes) else model
        raise ValueError(f"{name} cannot be loaded: {one_line(error)}") from None
