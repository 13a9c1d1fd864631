"""The pictures that a smaller model is calibrated with and compared on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from lib.data.picture_files import find_pictures
from lib.export.onnx_metadata import class_names_of, num_outputs_of
from lib.runtime.text import look_alikes, shorten


@dataclass(frozen=True)
class Picture:
    """A picture to compare on, and its class where a labelled folder says so."""

    path: Path
    target: int | None = None


@dataclass(frozen=True)
class PictureSet:
    """Pictures of which all have a class, or none."""

    pictures: tuple[Picture, ...]
    remark: str = ""  # why class folders give no classes


def calibration_pictures(folder: Path) -> tuple[Picture, ...]:
    """Return every picture of a folder and its folders. Raises FileNotFoundError for none."""
    return tuple(Picture(folder / path) for path in find_pictures(folder).pictures)


def comparison_pictures(folder: Path, model: onnx.ModelProto) -> PictureSet:
    """Return the same pictures, with classes where they lie in class folders.

    A class folder's number is the place of its name among the model's class names. A model without
    names takes the folders in sorted order, if it has as many outputs as there are folders.

    Raises:
        FileNotFoundError: there are no pictures.
        ValueError: a class that the model lacks, or pictures beside class folders.
    """
    paths = [Path(path) for path in find_pictures(folder).pictures]
    outside = [str(path) for path in paths if len(path.parts) == 1]
    if len(outside) == len(paths):
        return PictureSet(tuple(Picture(folder / path) for path in paths))
    if outside:
        raise ValueError(
            f"{folder} has {len(outside)} pictures beside its class folders: {shorten(outside)}; "
            "move them into class folders, or elsewhere"
        )
    folders = sorted({path.parts[0] for path in paths})
    names = class_names_of(model)
    if names is None:
        num_outputs = num_outputs_of(model)
        if num_outputs != len(folders):
            remark = (
                f"the classes of {folder} are not known: the model records no class names and has "
                f"{num_outputs or 'a free number of'} outputs for {len(folders)} class folders; "
                "answers are compared instead"
            )
            return PictureSet(tuple(Picture(folder / path) for path in paths), remark)
        names = folders
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise ValueError(
            f"{folder}: the model has no class {shorten(unknown)}; it knows {shorten(names)}"
            f"{look_alikes(unknown, names)}"
        )
    number = {name: index for index, name in enumerate(names)}
    return PictureSet(tuple(Picture(folder / path, number[path.parts[0]]) for path in paths))


def spread(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """Return `count` of the pictures, evenly spread over the list and so over its classes."""
    if count >= len(pictures):
        return list(pictures)
    return [pictures[index * len(pictures) // count] for index in range(count)]
