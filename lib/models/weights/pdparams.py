"""PaddlePaddle's .pdparams files: pickles of numpy arrays by name, read without Paddle.

A pickle may name any function to be called. This reader knows those that arrays need, and no other.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO

import numpy as np

from lib.models.weights.numpy_stand_ins import NumpyArray, NumpyType, numpy_array
from lib.runtime.text import printable

_MAX_REASON = 120


def _latin1(text: str, encoding: str) -> bytes:
    """What pickles of protocol 2 write bytes as; no other codec may be asked for."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r}")
    return text.encode("latin1")


_ALLOWED: Mapping[tuple[str, str], Callable[..., object]] = MappingProxyType(
    {
        ("numpy.core.multiarray", "_reconstruct"): numpy_array,
        ("numpy._core.multiarray", "_reconstruct"): numpy_array,
        ("numpy", "ndarray"): NumpyArray,
        ("numpy", "dtype"): NumpyType,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _latin1,
    }
)


class _ArraysOnly(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        allowed = _ALLOWED.get((module, name))
        if allowed is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed


def read_pdparams(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of numbers in a .pdparams file, by name.

    Raises ValueError where the file is damaged, holds no mapping of arrays, or would call anything
    but what makes arrays.
    """
    shown = printable(str(path))
    with open(path, "rb") as file:
        try:
            content = _ArraysOnly(file).load()
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{shown} holds more than arrays and is not opened, since that could run foreign "
                f"code, or is damaged ({printable(str(error))[:_MAX_REASON]})"
            ) from None
        except Exception as error:  # damaged pickles raise whatever their bytes lead to
            reason = printable(" ".join(f"{type(error).__name__}: {error}".split()))
            raise ValueError(f"{shown} is damaged ({reason[:_MAX_REASON]})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{shown} holds a {type(content).__name__}, not a mapping of arrays")
    return {
        str(name): value.numbers
        for name, value in content.items()
        if isinstance(value, NumpyArray) and value.numbers is not None
    }
