"""Prediction files as ais_bench and `tools/onnx_infer.py` write them: `<stem>_<output>.<ending>`.

BIN is raw float32, little-endian, unless the model's output is of another type; NPY is numpy's own;
TXT has a line for each row of the last dimension, each value as `%f` with a space after it.
"""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lib.offline.npy import read_npy_header
from lib.runtime.files import write_atomically
from lib.runtime.text import printable

FORMATS = ("BIN", "NPY", "TXT")
ENDINGS = tuple(f".{name.lower()}" for name in FORMATS)

# Where a run on several devices puts its results: ours device1, ais_bench device1_0 and the like.
_DEVICE_FOLDER = re.compile(r"device\d+(_\d+)?")
_LARGEST_FILE = 2**30
_BYTES_A_READ = 1 << 20
_PERCENT_F = re.compile(rb"-?\d+\.\d{6}")


def stem_of(name: str) -> str:
    """`a.b` for `a.b_0.txt`: the picture's name without output index and ending."""
    bare = name[name.rfind("/") + 1 :]
    underscore = bare.rfind("_")
    return bare[:underscore] if underscore >= 0 else os.path.splitext(bare)[0]


def prediction_names(folder: Path) -> list[str]:
    """Return the prediction files relative to `folder`, sorted; device folders are included.

    Raises FileNotFoundError where there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of predictions: {folder}")
    names: list[str] = []
    for entry in os.scandir(folder):
        if entry.name.endswith(ENDINGS) and not entry.name.startswith("."):
            names.append(entry.name)
        elif _DEVICE_FOLDER.fullmatch(entry.name) and entry.is_dir():
            below = (name for name in os.listdir(entry) if name.endswith(ENDINGS))
            names += [f"{entry.name}/{name}" for name in below if not name.startswith(".")]
    return sorted(names)


def read_whole(path: str | Path) -> bytes:
    """Return a regular file's content; tens of thousands are read, and `open` takes twice as long.

    Raises OSError, and ValueError for a pipe or device, which may have no end, or a huge file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{printable(os.fspath(path))} is no regular file")
        if status.st_size > _LARGEST_FILE:
            raise ValueError(f"{printable(os.fspath(path))} is too large: {status.st_size} bytes")
        parts = [os.read(descriptor, status.st_size + 1)]
        if len(parts[0]) != status.st_size:  # it grows, or is read in pieces
            while parts[-1]:
                parts.append(os.read(descriptor, _BYTES_A_READ))
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(descriptor)


def parse_prediction(data: bytes, name: str, dtype: str = "float32") -> npt.NDArray[np.floating]:
    """Return the values in a file's content, flat: float64 from text and wider elements.

    The ending of `name` tells the format; `dtype` is that of .bin files, little-endian. Raises
    ValueError for an unknown ending, and a file that is empty, cut short or holds no numbers.
    """
    shown = printable(name)
    if not name.endswith(ENDINGS):
        raise ValueError(f"{shown}: predictions end in one of {', '.join(ENDINGS)}")
    if not (data.strip() if name.endswith(".txt") else data):
        raise ValueError(f"{shown} is empty")
    if name.endswith(".txt"):
        return _parse_text(data, shown)
    if name.endswith(".npy"):
        return _parse_numpy(data, shown)
    element = np.dtype(dtype).newbyteorder("<")
    if len(data) % element.itemsize:
        raise ValueError(f"{shown} has {len(data)} bytes, which is no number of {dtype} values")
    return np.frombuffer(data, element).astype(dtype, copy=False)


def has_several_rows(data: bytes, name: str) -> bool:
    """Tell whether a file's content, which `parse_prediction` reads, is of several pictures.

    A .txt file has their rows as lines, an .npy file as another dimension; a .bin file doesn't say.
    A value a line is one row.
    """
    if name.endswith(".txt"):
        lines = data.strip().splitlines() if b"\n" in data.strip() else []
        return any(len(line.split()) > 1 for line in lines)
    if name.endswith(".npy"):
        shape = read_npy_header(io.BytesIO(data), len(data)).shape
        return sum(length > 1 for length in shape) > 1
    return False


def _parse_text(data: bytes, name: str) -> npt.NDArray[np.float64]:
    words = data.split()
    # A cut between two values shows in their number; a cut within the last one only here.
    whole = data[-1:].isspace() or len(words) < 2 or not _PERCENT_F.fullmatch(words[0])
    if not whole and not _PERCENT_F.fullmatch(words[-1]):
        raise ValueError(f"{name} is cut short: it ends with {words[-1][:20].decode('latin-1')!r}")
    try:
        return np.array(words, np.float64)
    except ValueError as error:
        raise ValueError(f"{name} has something else than numbers: {error}") from None


def _parse_numpy(data: bytes, name: str) -> npt.NDArray[np.floating]:
    try:
        header = read_npy_header(io.BytesIO(data), len(data))
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
    values = np.frombuffer(data, header.dtype, header.num_values, header.start)
    values = values.reshape(header.shape, order="F" if header.is_fortran else "C").ravel()
    return values.astype(np.float64 if values.itemsize > 4 else np.float32, copy=False)


def write_prediction(values: npt.ArrayLike, path_without_suffix: str | Path, outfmt: str) -> Path:
    """Write one output of one picture as float32, in one of FORMATS; return the file's path.

    `path_without_suffix` is `<folder>/<stem>_<output index>`, and may have dots.
    """
    array = np.ascontiguousarray(values, "<f4")
    path = Path(f"{path_without_suffix}.{outfmt.lower()}")
    write_atomically(_encoded(array, outfmt), path, durable=False)
    return path


def _encoded(array: npt.NDArray[np.float32], outfmt: str) -> bytes:
    if outfmt == "BIN":
        return array.tobytes()
    if outfmt == "NPY":
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()
    rows = np.atleast_1d(array)
    rows = rows.reshape(-1, rows.shape[-1])
    line = "%f " * rows.shape[-1] + "\n"
    return "".join(line % tuple(row.tolist()) for row in rows).encode()
