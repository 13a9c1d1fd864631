"""Which of a network's outputs the classes of an evaluation's pictures are.

Without a choice the class folders are looked up among the network's class names, or stand for its
outputs in sorted order (`image_list`). Test sets of ImageNet need more: ImageNet-V2 numbers
its folders, ImageNet-A and -R have 200 of the 1000 classes and are scored among those alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from lib.data.class_file import read_class_list
from lib.data.image_list import ImageList, class_folders
from lib.data.label_file import read_label_lines
from lib.runtime.checked import COUNT, parse_json
from lib.runtime.text import look_alikes, quoted, shorten

NUMBERS = "numbers"  # the class map of folders whose names are output numbers
MAP_FORM = "'<class folder> <output, from 0>'"


@dataclass(frozen=True)
class ClassChoice:
    """What the command line says of classes."""

    class_map: Path | None = None  # which output each class folder is: a file, or NUMBERS
    train_classes: Path | None = None  # the network's class names, in place of the weight file's
    subset: bool = False  # compare only the outputs whose classes have pictures


@dataclass(frozen=True)
class EvaluationSet:
    """The pictures; their targets are places in `outputs`, or outputs where that is None."""

    images: ImageList
    outputs: tuple[int, ...] | None = None  # those that are compared; None: all
    remarks: tuple[str, ...] = ()  # lines on what was chosen

    @property
    def record(self) -> dict[str, object]:
        """The entries of result.json."""
        return {} if self.outputs is None else {"num_outputs_compared": len(self.outputs)}

    def output(self, target: int) -> int:
        """Return the number of the network's output that `target` stands for."""
        return target if self.outputs is None else self.outputs[target]


class Reader(Protocol):
    """What lists the pictures: `lib.data.read_val` for a data path and a part of it."""

    def __call__(
        self, *, class_names: tuple[str, ...] | None, num_classes: int | None
    ) -> ImageList:
        """Return them for a network with these class names, or with so many outputs."""


def read_evaluation_set(
    read: Reader,
    *,
    choice: ClassChoice,
    class_names: tuple[str, ...] | None,
    num_outputs: int,
) -> EvaluationSet:
    """Return the pictures that `read` lists, for a network of `num_outputs`.

    `class_names` are the network's as the weight file has them, if it does.
    Raises FileNotFoundError and ValueError: see `read_val`; a file of the choice that is missing
    or of another form, or that does not fit the folders or the network.
    """
    if choice.train_classes is not None:
        class_names = read_class_names(choice.train_classes, num_outputs=num_outputs)
    if choice.class_map is None:
        found = EvaluationSet(read(class_names=class_names, num_classes=num_outputs))
    else:
        images = read(class_names=None, num_classes=None)
        found = _mapped(images, choice.class_map, class_names=class_names, num_outputs=num_outputs)
    return _restricted(found, num_outputs) if choice.subset else found


def read_class_names(path: Path, *, num_outputs: int) -> tuple[str, ...]:
    """Return a network's class names in the order of its outputs.

    `path` is the folder of the class folders that it was trained on (the names are sorted), a
    classes.json, or a text file with a name a line.
    Raises FileNotFoundError, and ValueError for another form or number of names.
    """
    if path.is_dir():
        names = class_folders(path)
    elif not path.is_file():
        raise FileNotFoundError(f"no such folder or list of class names: {path}")
    else:
        names = read_class_list(path)
    if len(names) != num_outputs:
        raise ValueError(
            f"{path} has {len(names)} class names and the network {num_outputs} outputs: give "
            "the classes that these weights were trained on"
        )
    return names


def read_class_map(path: Path) -> dict[str, int]:
    """Return the output number of each class folder.

    A .json file holds {folder: output}, another one lines `<class folder> <output, from 0>`.
    Raises FileNotFoundError, and ValueError that names what is of another form.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such class map: {path} (a file, or the word {NUMBERS})")
    if path.suffix == ".json":
        return parse_json(_text(path), {str: COUNT}, where=str(path))
    output_of: dict[str, int] = {}
    for line in read_label_lines(path, form=MAP_FORM):
        if output_of.setdefault(line.name, line.label) != line.label:
            raise ValueError(
                f"{line.where}: {quoted(line.name)} was output {output_of[line.name]} before"
            )
    return output_of


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig", errors="surrogateescape")


def _mapped(
    images: ImageList,
    class_map: Path,
    *,
    class_names: tuple[str, ...] | None,
    num_outputs: int,
) -> EvaluationSet:
    """Return the pictures of a part's own classes as those of the outputs in the class map."""
    folders = images.class_names
    by_number = str(class_map) == NUMBERS
    output_of = _numbers(folders) if by_number else read_class_map(class_map)
    unmapped = [folder for folder in folders if folder not in output_of]
    if unmapped:
        raise ValueError(
            f"{class_map} does not say which outputs {len(unmapped)} of the {len(folders)} class "
            f"folders are: {shorten(unmapped)}{look_alikes(unmapped, output_of)}"
        )
    outputs = [output_of[folder] for folder in folders]
    outside = [folder for folder in folders if output_of[folder] >= num_outputs]
    if outside:
        raise ValueError(
            f"class map {class_map}: class folder {quoted(outside[0])} is output "
            f"{output_of[outside[0]]}, and the network's outputs are 0..{num_outputs - 1}"
        )
    names = class_names or _names_of_outputs(folders, output_of, num_outputs)
    targets = tuple(outputs[target] for target in images.targets)
    remark = f"class map {class_map}: {len(folders)} class folders are {len(set(outputs))} outputs"
    return EvaluationSet(replace(images, targets=targets, class_names=names), remarks=(remark,))


def _numbers(folders: tuple[str, ...]) -> dict[str, int]:
    words = [folder for folder in folders if not (folder.isascii() and folder.isdecimal())]
    if words:
        raise ValueError(
            f"--class_map {NUMBERS}: {len(words)} class folders have names that are no numbers: "
            f"{shorten(words)}"
        )
    return {folder: int(folder) for folder in folders}


def _names_of_outputs(
    folders: tuple[str, ...], output_of: Mapping[str, int], num_outputs: int
) -> tuple[str, ...]:
    """Call each output by its class folders, and `#3` where it has none."""
    folders_of: dict[int, list[str]] = {}
    for folder in folders:
        folders_of.setdefault(output_of[folder], []).append(folder)
    return tuple(
        "+".join(folders_of[output]) if output in folders_of else f"#{output}"
        for output in range(num_outputs)
    )


def _restricted(found: EvaluationSet, num_outputs: int) -> EvaluationSet:
    """Return the same pictures with the classes that have any as the only ones."""
    images = found.images
    outputs = tuple(sorted(set(images.targets)))
    place = {output: target for target, output in enumerate(outputs)}
    restricted = replace(
        images,
        targets=tuple(place[target] for target in images.targets),
        class_names=tuple(images.class_names[output] for output in outputs),
    )
    remark = f"subset: {len(outputs)} of the network's {num_outputs} outputs are compared"
    return EvaluationSet(restricted, outputs, (*found.remarks, remark))
