"""predictions.npz: what an evaluation predicted for each picture, with the pictures' names."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib.data import ImageList
from lib.files import write_atomically
from lib.predictions import Predictions

# What numpy raises for damaged files, as tried with flipped and missing bytes.
_DAMAGES = (
    ValueError, LookupError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error,
    struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class KeptPredictions:
    """Predictions of N pictures, and the pictures' paths."""

    predictions: Predictions
    paths: tuple[str, ...]  # N, relative to the data path
    epoch: int  # after which the weights were evaluated
    data_path: str  # where the pictures were


def keep_predictions(
    predictions: Predictions, path: Path, *, images: ImageList, data_path: Path | str, epoch: int
) -> None:
    """Write predictions of `images`, evaluated after `epoch`. Raises OSError."""
    places = predictions.indices.tolist()
    names = [os.fsencode(name) for name in relative_paths(images, places, data_path)]
    content = io.BytesIO()
    np.savez_compressed(
        content,
        indices=predictions.indices.numpy(),
        targets=predictions.targets.numpy().astype(np.int32),
        classes=predictions.classes.numpy().astype(np.int32),
        probabilities=predictions.probabilities.numpy(),
        characters=np.frombuffer(b"".join(names), np.uint8),
        ends=np.cumsum([len(name) for name in names], dtype=np.int64),
        epoch=np.int64(epoch),
        data_path=np.frombuffer(os.fsencode(_absolute(data_path)), np.uint8),
    )
    write_atomically(content.getbuffer(), path)


def read_predictions(path: Path) -> KeptPredictions:
    """Return what `keep_predictions` wrote. Raises FileNotFoundError, ValueError for damage."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file of predictions: {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            indices, targets, classes = (
                torch.from_numpy(arrays[name].astype(np.int64))
                for name in ("indices", "targets", "classes")
            )
            shares = torch.from_numpy(arrays["probabilities"])
            predictions = Predictions(indices, targets, classes, shares)
            text, ends = arrays["characters"].tobytes(), arrays["ends"].tolist()
            paths = [
                os.fsdecode(text[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=bool(ends))
            ]
            where = os.fsdecode(arrays["data_path"].tobytes())
            return KeptPredictions(predictions, tuple(paths), int(arrays["epoch"]), where)
    except _DAMAGES as error:
        raise ValueError(f"{path} is damaged, or no file of predictions: {error}") from None


def relative_paths(images: ImageList, places: list[int], data_path: Path | str) -> list[str]:
    """Return the paths of the pictures at `places`, seen from the data path."""
    if images.contents is not None:  # in shards, they are so already
        return [images.paths[place] for place in places]
    return [os.path.relpath(images.paths[place], data_path) for place in places]


def _absolute(data_path: Path | str) -> str:
    """Return a folder's whole path; an address stays as it is."""
    return data_path if isinstance(data_path, str) else str(data_path.absolute())
