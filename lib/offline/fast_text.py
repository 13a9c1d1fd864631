"""Values that C's `%f` wrote, read many at a time: how ais_bench writes its TXT predictions.

Fifty thousand predictions of a thousand values are half a gigabyte of text. Here numpy works on
whole batches of files, several times as fast as Python's `float` value by value. The numbers are
exact: every `%f` is a whole number of millionths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MILLIONTHS = 1_000_000

_DOT, _MINUS, _SPACE, _ZERO = b".- 0"
_NUM_DECIMALS = 6
_AFTER_DOT = _NUM_DECIMALS + 2  # from a dot to where the next value begins: decimals and a space
_MAX_WHOLE_PART = 9  # sign and digits before the dot, so that they fit into 32 bits

_LARGEST_IN_32_BITS = 2146  # whole part of a value whose millionths fit

Bytes = npt.NDArray[np.uint8]
Millionths = npt.NDArray[np.int32] | npt.NDArray[np.int64]


def rows_of_millionths(texts: Sequence[bytes], *, num_values: int) -> Millionths | None:
    """Read texts of `num_values` values each, as millionths: len(texts) x num_values.

    Returns None where any text isn't exactly that: values of six decimals with single spaces
    between them. A general reader then has to look at each, and to say what is wrong with it.
    """
    stripped = [text[:-1] if text.endswith(b" \n") else text.rstrip() + b" " for text in texts]
    # Blanks in front, so that looking before the first dot stays within the array.
    padded = np.frombuffer(b" " * _MAX_WHOLE_PART + b"".join(stripped), np.uint8)
    dots = np.flatnonzero(padded[_MAX_WHOLE_PART:] == _DOT)
    if len(dots) != len(texts) * num_values or not len(dots):
        return None
    ends = np.cumsum([len(text) for text in stripped])
    if not np.array_equal(dots[num_values - 1 :: num_values] + _AFTER_DOT, ends):
        return None
    decimals = _decimals(padded[_MAX_WHOLE_PART:], dots)
    wholes = _whole_parts(padded, dots)
    if decimals is None or wholes is None:
        return None
    sizes, negative = wholes
    # Half the bytes are read in half the time.
    dtype = np.int32 if sizes.max() <= _LARGEST_IN_32_BITS else np.int64
    values = sizes.astype(dtype, copy=False) * dtype(MILLIONTHS) + decimals
    # np.where is slow here: the processor can't guess the signs.
    values *= np.int8(1) - np.int8(2) * negative.view(np.int8)
    return values.reshape(len(texts), num_values)


def _decimals(text: Bytes, dots: npt.NDArray[np.int64]) -> npt.NDArray[np.int32] | None:
    """What the six characters after each dot say; None where they and a space aren't there.

    Digits and pairs of them are handled as bytes, which numpy adds and compares 32 at a time.
    """
    if (text[_AFTER_DOT - 1 :].take(dots) != _SPACE).any():
        return None
    total = np.zeros(len(dots), np.int32)
    for place in range(1, _NUM_DECIMALS, 2):
        tens = text[place:].take(dots) - np.uint8(_ZERO)
        ones = text[place + 1 :].take(dots) - np.uint8(_ZERO)
        if np.maximum(tens, ones).max() > 9:  # what is below '0' has wrapped to above 9
            return None
        total *= 100
        total += tens * np.uint8(10) + ones
    return total


def _whole_parts(
    padded: Bytes, dots: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]] | None:
    """(digits before each dot, whether a minus precedes them); None where something else does."""
    lengths = np.empty(len(dots), np.int64)
    lengths[0] = dots[0]
    np.subtract(dots[1:], dots[:-1] + _AFTER_DOT, out=lengths[1:])
    longest = int(lengths.max())
    if int(lengths.min()) < 1 or longest > _MAX_WHOLE_PART:
        return None
    lengths = lengths.astype(np.uint8)
    sizes = np.zeros(len(dots), np.int32)
    negative = np.zeros(len(dots), bool)
    for place in range(1, longest + 1):
        characters = padded[_MAX_WHOLE_PART - place :].take(dots)
        first = lengths == place
        minus = (characters == _MINUS) & first if place > 1 else negative
        digits = (characters - np.uint8(_ZERO)) * ((lengths >= place) & ~minus)
        if digits.max() > 9:
            return None
        negative = negative | minus
        sizes += np.multiply(digits, 10 ** (place - 1), dtype=np.int32)
    return sizes, negative
