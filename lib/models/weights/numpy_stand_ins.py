"""Inert stand-ins for what a pickle of numpy's arrays names, so that numpy unpickles nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_NUMPY_KINDS = re.compile(r"[biufSU]\d{1,9}")  # numbers and texts, no objects


class Inert:
    """An object of another project: its arguments and attributes, without what it does."""

    arguments: tuple[object, ...]

    def __new__(cls, *arguments: object) -> Inert:
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __setstate__(self, state: object) -> None:
        if isinstance(state, Mapping):
            vars(self).update({name: value for name, value in state.items() if type(name) is str})


def entries_of(content: object) -> Mapping[str, object]:
    """Return the entries of a mapping, or the attributes of another project's object."""
    if isinstance(content, Inert):
        return vars(content)
    return content if isinstance(content, Mapping) else {}


class NumpyType:
    """Stands for numpy.dtype."""

    def __init__(self, kind: object = "", *_: object) -> None:
        self._kind, self._byte_order = str(kind), "="

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self._byte_order = str(state[1])

    def real(self) -> np.dtype | None:
        """Return the type, where it is one of numbers or texts."""
        if not _NUMPY_KINDS.fullmatch(self._kind) or self._byte_order not in ("<", ">", "=", "|"):
            return None
        return np.dtype(self._byte_order + self._kind)


class NumpyArray:
    """Stands for numpy.ndarray."""

    array: np.ndarray | None = None  # where it is of numbers or texts

    def __setstate__(self, state: tuple[object, tuple[int, ...], object, object, object]) -> None:
        _, shape, kind, is_fortran, data = state
        real = kind.real() if isinstance(kind, NumpyType) else None
        if real is not None and isinstance(data, bytes):
            found = np.ndarray(shape, real, data, order="F" if is_fortran else "C")
            self.array = found.astype(real.newbyteorder("="))

    @property
    def numbers(self) -> np.ndarray | None:
        """The array where it is of numbers that torch has too."""
        is_usual = self.array is not None and self.array.dtype.kind in "fiub"
        return self.array if is_usual and self.array.itemsize <= 8 else None  # type: ignore[union-attr]


def numpy_array(*_: object) -> NumpyArray:
    """Stands for what makes an array before its state is set."""
    return NumpyArray()


def numpy_number(kind: object, data: object) -> object:
    """Return one number or text of numpy's as Python's own."""
    real = kind.real() if isinstance(kind, NumpyType) else None
    if real is None or not isinstance(data, bytes):
        return Inert(kind, data)
    return np.ndarray((), real, data).item()
