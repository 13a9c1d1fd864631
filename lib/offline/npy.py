"""The header of an .npy file, checked before numpy takes its word for how much is to be read."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from lib.runtime.text import one_line, printable

_READERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


@dataclass(frozen=True)
class NpyHeader:
    """An array of numbers in a file: its shape and element type, and where the numbers begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    is_fortran: bool  # the first axis varies fastest
    start: int  # bytes

    @property
    def num_values(self) -> int:
        """How many numbers there are."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of the numbers."""
        return self.num_values * self.dtype.itemsize


def read_npy_header(file: BinaryIO, num_bytes: int) -> NpyHeader:
    """Return the header of an .npy file of `num_bytes`, which `file` is at the beginning of.

    Raises ValueError, whose text continues the file's name: it is no .npy file, it holds no plain
    numbers, or another number of bytes than the header claims.
    """
    try:
        version = npy_format.read_magic(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            shape, is_fortran, dtype = _READERS[version](file)
    except KeyError:
        raise ValueError(f"is of version {version} of .npy files: save plain numbers") from None
    except Exception as error:  # a damaged header makes Python's parser raise many kinds
        reason = one_line(error)
        raise ValueError(f"is no .npy file, or damaged ({reason})") from None
    if dtype.kind not in "fiu" or dtype.hasobject:
        raise ValueError(f"holds {printable(str(dtype))[:40]}, no array of numbers")
    header = NpyHeader(tuple(map(int, shape)), dtype, bool(is_fortran), file.tell())
    there = num_bytes - header.start
    if min(header.shape, default=0) < 0 or header.num_bytes != there:
        claimed = " x ".join(map(str, header.shape))[:80]
        raise ValueError(
            f"is damaged: its header claims {claimed} values of {dtype}, and {there} bytes follow"
        )
    return header
