"""predictions.npz: what an evaluation predicted for each picture, with the pictures' names."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib.data.image_list import ImageList
from lib.metrics.predictions import Predictions
from lib.runtime.arrays import ArrayForms, read_arrays, texts_of
from lib.runtime.files import write_atomically

_FORMS: ArrayForms = {
    "indices": ("iu", ("N",)),
    "targets": ("iu", ("N",)),
    "classes": ("iu", ("N", "k")),
    "probabilities": ("f", ("N", "k")),
    "characters": ("u", ("c",)),
    "ends": ("iu", ("N",)),
    "epoch": ("iu", ()),
    "data_path": ("u", ("p",)),
}


@dataclass(frozen=True)
class SavedPredictions:
    """Predictions of N pictures, and the pictures' paths."""

    predictions: Predictions
    paths: tuple[str, ...]  # N, relative to the data path
    epoch: int  # after which the weights were evaluated
    data_path: str  # where the pictures were


def save_predictions(
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


def read_predictions(path: Path) -> SavedPredictions:
    """Return what `save_predictions` wrote. Raises FileNotFoundError, ValueError for damage."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file of predictions: {path}")
    arrays = read_arrays(path, _FORMS, where=str(path))
    indices, targets, classes = (
        torch.from_numpy(arrays[name].astype(np.int64))
        for name in ("indices", "targets", "classes")
    )
    if (
        not classes.shape[1]
        or min((int(t.min()) for t in (indices, targets, classes) if len(t)), default=0) < 0
    ):
        raise ValueError(f"{path} is damaged: a number of a picture or class is below 0")
    shares = torch.from_numpy(arrays["probabilities"].astype(np.float32))
    names = texts_of(arrays["characters"].tobytes(), arrays["ends"], where=str(path))
    return SavedPredictions(
        Predictions(indices, targets, classes, shares),
        tuple(map(os.fsdecode, names)),
        int(arrays["epoch"]),
        os.fsdecode(arrays["data_path"].tobytes()),
    )


def relative_paths(images: ImageList, places: list[int], data_path: Path | str) -> list[str]:
    """Return the paths of the pictures at `places`, seen from the data path."""
    if images.contents is not None:  # in shards, they are so already
        return [images.paths[place] for place in places]
    return [os.path.relpath(images.paths[place], data_path) for place in places]


def _absolute(data_path: Path | str) -> str:
    """Return a folder's whole path; an address stays as it is."""
    return data_path if isinstance(data_path, str) else str(data_path.absolute())
