"""Prediction files as ais_bench and `tools/onnx_infer.py` write them: `<stem>_<output>.<ending>`.

BIN is raw float32, little-endian; NPY is numpy's own; TXT has a line for each row of the last
dimension, each value as `%f` with a space after it.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lib.files import write_atomically

FORMATS = ("BIN", "NPY", "TXT")
ENDINGS = tuple(f".{name.lower()}" for name in FORMATS)

_DEVICE_FOLDER = re.compile(r"device\d+")  # where a run on several devices puts its shares
_PERCENT_F = re.compile(rb"-?\d+\.\d{6}")


def stem_of(name: str) -> str:
    """`a.b` for `a.b_0.txt`: the picture's name without output index and ending."""
    bare = name[name.rfind("/") + 1 :]
    underscore = bare.rfind("_")
    return bare[:underscore] if underscore >= 0 else os.path.splitext(bare)[0]


def prediction_names(folder: Path) -> list[str]:
    """Paths of the prediction files relative to `folder`, sorted; device0, device1, ... included.

    Raises:
        FileNotFoundError: there is no such folder.
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


def list_predictions(folder: Path) -> list[Path]:
    """The prediction files in `folder`, sorted; see `prediction_names`."""
    return [folder / name for name in prediction_names(folder)]


def read_prediction(path: Path) -> npt.NDArray[np.float32]:
    """All values of a file, float32, in one dimension.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown ending; an empty file; one that is cut short or holds no numbers.
    """
    return parse_prediction(path.read_bytes(), path.name).astype(np.float32, copy=False)


def parse_prediction(data: bytes, name: str) -> npt.NDArray[np.floating]:
    """The values in a file's content, float32 or, from text and wider NPY, float64.

    Args:
        data: the content.
        name: of the file; its ending tells the format.

    Raises:
        ValueError: as `read_prediction`.
    """
    if not name.endswith(ENDINGS):
        raise ValueError(f"{name}: predictions end in one of {', '.join(ENDINGS)}")
    if not (data.strip() if name.endswith(".txt") else data):
        raise ValueError(f"{name} is empty")
    if name.endswith(".txt"):
        return _parse_text(data, name)
    if name.endswith(".npy"):
        return _parse_numpy(data, name)
    if len(data) % 4:
        raise ValueError(f"{name} has {len(data)} bytes, which is no number of float32 values")
    return np.frombuffer(data, "<f4").astype(np.float32, copy=False)


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
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{name} is damaged: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds no array of numbers")
    return values.ravel().astype(np.float64 if values.itemsize > 4 else np.float32, copy=False)


def write_prediction(values: npt.ArrayLike, path_without_suffix: str | Path, outfmt: str) -> Path:
    """Write one output of one picture as ais_bench does; return the file's path.

    Args:
        values: of any shape; written as float32.
        path_without_suffix: `<folder>/<stem>_<output index>`; it may have dots.
        outfmt: BIN, NPY or TXT, in capitals or not.

    Raises:
        ValueError: an unknown format.
        OSError: it can't be written; nothing is left behind.
    """
    if outfmt.upper() not in FORMATS:
        raise ValueError(f"output format {outfmt!r}: use one of {', '.join(FORMATS)}")
    array = np.ascontiguousarray(values, "<f4")
    path = Path(f"{path_without_suffix}.{outfmt.lower()}")
    write_atomically(_encoded(array, outfmt.upper()), path, durable=False)
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
