"""Arrays from .npz files, checked against what they must be before any is unpacked."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

# By name: the kinds of number that may be there, such as `iu` for whole ones, and the shape. A
# letter stands for a length that is the same wherever it is.
ArrayForms = Mapping[str, tuple[str, tuple[str, ...]]]

_KINDS = {"iu": "whole numbers", "f": "floating-point numbers", "u": "bytes"}
# What zipfile and NumPy raise for damaged files, as tried with flipped and missing bytes.
_DAMAGES = (
    ValueError, LookupError, EOFError, OSError, RuntimeError, TypeError, ArithmeticError,
    MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip


def read_arrays(
    file: Path | BinaryIO,
    forms: ArrayForms,
    *,
    where: str,
    lengths: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file that have a form.

    `lengths` are those that are known before. `where` names the file.
    Raises ValueError in one line: the file is damaged, or an array is missing or of another form.
    """
    known = dict(lengths or {})
    try:
        with zipfile.ZipFile(file) as archive:
            return {name: _read(archive, name, form, known) for name, form in forms.items()}
    except _DAMAGES as error:
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise ValueError(f"{where} is damaged: {reason[:200]}") from None


def _read(
    archive: zipfile.ZipFile, name: str, form: tuple[str, tuple[str, ...]], known: dict[str, int]
) -> np.ndarray:
    kinds, dimensions = form
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read_header(file)
        if dtype.kind not in kinds or dtype.names:
            raise ValueError(f"{name} has numbers of type {dtype}, {_KINDS[kinds]} are needed")
        if len(shape) != len(dimensions):
            raise ValueError(f"{name} has the shape {shape}, {len(dimensions)} axes are needed")
        for letter, length in zip(dimensions, shape, strict=True):
            if known.setdefault(letter, length) != length:
                raise ValueError(
                    f"{name} has the shape {shape}, and another is {known[letter]} long"
                )
        num_bytes = math.prod(shape) * dtype.itemsize
        if info.file_size != file.tell() + num_bytes:  # before memory is taken for it
            raise ValueError(f"{name} says that it has the shape {shape}, and has another size")
        content = file.read(num_bytes)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


def texts_of(characters: bytes, ends: np.ndarray, *, where: str) -> list[bytes]:
    """Return the texts that stand one after the other in `characters`, each up to its end.

    Raises ValueError where the ends are none of these characters.
    """
    begins = [0, *ends.tolist()]
    if any(b > e for b, e in zip(begins, begins[1:], strict=False)) or begins[-1] != len(
        characters
    ):
        raise ValueError(f"{where} is damaged: its names do not end where it says")
    return [characters[b:e] for b, e in zip(begins, begins[1:], strict=False)]
