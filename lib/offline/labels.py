"""Labels from class folders: what `imagenet_acc_eval.py` compares the predictions with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.data.class_file import read_class_list
from lib.data.picture_files import LeftOut, find_sources
from lib.export.onnx_metadata import class_names_of, load_model
from lib.runtime.text import look_alikes, shorten


@dataclass(frozen=True)
class FolderLabels:
    """The class number of each picture, by file name, in the order of the paths."""

    labels: Mapping[str, int]
    left_out: LeftOut


def labels_of_folder(folder: Path, class_names: Sequence[str] | None) -> FolderLabels:
    """Return the labels by the outermost folder that each picture is in.

    `class_names` are the network's in order; None: the sorted folder names, as in training. Raises
    FileNotFoundError, and ValueError for pictures outside of class folders, a class that the
    network lacks, or two pictures of one stem.
    """
    sources = find_sources(folder)
    paths = [Path(path) for path in sources.paths.values()]
    outside = [path.name for path in paths if len(path.parts) < 2]
    if outside:
        raise ValueError(
            f"{folder} has {len(outside)} pictures outside of class folders: {shorten(outside)}; "
            "for pictures without class folders a label file has to be written by hand"
        )
    found = sorted({path.parts[0] for path in paths})
    names = list(class_names or found)
    unknown = [name for name in found if name not in names]
    if unknown:
        raise ValueError(
            f"{folder} has {len(unknown)} class folders that the network doesn't know: "
            f"{shorten(unknown)}; it knows {len(names)}: {shorten(names)}"
            f"{look_alikes(unknown, names)}"
        )
    number = {name: label for label, name in enumerate(names)}
    labels = {path.name: number[path.parts[0]] for path in paths}
    return FolderLabels(labels, sources.left_out)


def read_class_names(path: Path) -> Sequence[str] | None:
    """Return the class names in an ONNX file, None where it records none, or in a file of names.

    Raises FileNotFoundError, and ValueError for what is neither.
    """
    if path.suffix.lower() == ".onnx":
        return class_names_of(load_model(path), path)
    return read_class_list(path)
