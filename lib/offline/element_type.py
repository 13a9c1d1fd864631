"""The element type of .bin predictions: ais_bench writes the model's own, and no file says which.

Float32 is usual. An .om converted without --output_type=FP32 gives float16, other tools float64;
read as float32 these are numbers without meaning. Two things tell: how many outputs a file then
has, at least as many as there are classes, and whether the values look like a network's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

USUAL = "float32"
_BYTES: Mapping[str, int] = MappingProxyType({USUAL: 4, "float64": 8, "float16": 2})
ELEMENT_TYPES = tuple(_BYTES)

# A network's scores are spread over a few powers of two. Two halves of a float16 taken for the
# exponent of a float32 are spread over eight times as many, the lower half of a float64 over 256.
_MAX_SPREAD = 7.0
# Of a value read in two parts, the second one's bits are chance beside the first one's.
_MAX_SPREAD_RATIO, _LEAST_SPREAD = 4.0, 0.25
_WILD_SPREAD = 30.0  # even of probabilities; of float32 with its bytes in another order it is 70
_MAX_SUM_ERROR = 0.02  # of probabilities in float16
_LEAST_VALUES = 16  # fewer are no evidence


@dataclass(frozen=True)
class _Reading:
    """The files read as one type."""

    num_outputs: int
    is_plausible: bool


def element_type(contents: Sequence[bytes], *, num_classes: int, num_outputs: int = 0) -> str:
    """Return which of ELEMENT_TYPES some files of one size hold.

    There are at least `num_classes` outputs, and `num_outputs` where that isn't 0. Raises
    ValueError, which lacks the advice, where no type fits the size or more than one is possible.
    """
    num_bytes = len(contents[0])
    if num_outputs:
        fitting = [name for name, size in _BYTES.items() if size * num_outputs == num_bytes]
        if not fitting:
            raise ValueError(
                f"the .bin files have {num_bytes} bytes, which are no {num_outputs} outputs of any "
                f"of {', '.join(ELEMENT_TYPES)}"
            )
        return fitting[0]
    readings = {
        name: _Reading(num_bytes // size, _is_plausible(contents, name))
        for name, size in _BYTES.items()
        if num_bytes % size == 0
    }
    return _chosen(readings, num_files=len(contents), num_classes=num_classes)


def _chosen(readings: Mapping[str, _Reading], *, num_files: int, num_classes: int) -> str:
    """The usual type unless another one is possible, and then only if it is the only one."""
    possible = [
        name
        for name, reading in readings.items()
        if reading.is_plausible and reading.num_outputs >= num_classes
    ]
    exact = [name for name in possible if readings[name].num_outputs == num_classes]
    usual = readings.get(USUAL)
    if usual is not None and usual.num_outputs >= num_classes:
        few = num_files * usual.num_outputs < _LEAST_VALUES
        # What float64 is made of never looks like float32; what float16 is made of may.
        if (few and exact in ([], [USUAL])) or (USUAL in possible and "float16" not in possible):
            return USUAL
    if not possible:
        possible = [n for n, reading in readings.items() if reading.num_outputs == num_classes]
        if usual is None or USUAL in possible or usual.num_outputs < num_classes or not possible:
            return USUAL  # odd values, but nothing speaks for another type
    elif usual is None or not usual.is_plausible:
        for names in (possible, exact):
            if len(names) == 1:
                return names[0]
    choices = {USUAL: usual, **{name: readings[name] for name in possible}}
    counts = ", ".join(f"{r.num_outputs} of {name}" for name, r in choices.items() if r is not None)
    raise ValueError(f"the .bin files may hold {counts}")


def is_wild(contents: Sequence[bytes], name: str) -> bool:
    """Tell whether files of one size, read as a type, hold values of all sizes that it has."""
    if len(contents[0]) % _BYTES[name]:
        return False
    values = _read(contents, name)
    return _spread(values[np.isfinite(values)]) > _WILD_SPREAD


def _read(contents: Sequence[bytes], name: str) -> npt.NDArray[np.float64]:
    element = np.dtype(name).newbyteorder("<")
    with np.errstate(all="ignore"):
        return np.stack([np.frombuffer(c, element) for c in contents]).astype(np.float64)


def _is_plausible(contents: Sequence[bytes], name: str) -> bool:
    values = _read(contents, name)
    if not np.count_nonzero(values):
        return name == USUAL  # zeros are zeros in every type
    whole = values[np.isfinite(values).all(axis=1)]
    if 2 * len(whole) < len(values):
        return False
    if (whole >= 0).all() and np.abs(whole.sum(axis=1) - 1).max() < _MAX_SUM_ERROR:
        return True  # probabilities, which may be as small as they like
    return _spread(whole) <= _MAX_SPREAD and _are_places_alike(whole)


def _are_places_alike(values: npt.NDArray[np.float64]) -> bool:
    """False where every second or fourth value is of another kind than its neighbours."""
    for step in (2, 4):
        if values.shape[1] % step or values.shape[1] <= step:
            continue
        places = [values[:, place::step] for place in range(step)]
        if len({bool(np.count_nonzero(place)) for place in places}) > 1:
            return False
        spreads = [_spread(place) for place in places]
        if max(spreads) > _MAX_SPREAD_RATIO * max(min(spreads), _LEAST_SPREAD):
            return False
    return True


def _spread(values: npt.NDArray[np.float64]) -> float:
    """Standard deviation of the sizes, in powers of two."""
    sizes = np.abs(values[values != 0])
    return float(np.log2(sizes).std()) if sizes.size else 0.0
