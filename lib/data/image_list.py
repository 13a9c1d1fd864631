"""Which pictures a data set has and what they show: class folders, or flat with a label file.

    root/train/<class>/*.jpg        the classes are the sorted folder names
    root/val/<class>/*.jpg          the same classes
    root/val/*.jpg + root/val_label.txt      or flat: lines `<file> <class number, from 0>`

All mistakes in the layout are reported from here, before anything slow has begun.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lib.data.label_file import LABEL_FORM, read_label_lines
from lib.data.picture_files import (
    LABEL_FILE,
    PICTURE_SUFFIXES,
    Entries,
    LeftOut,
    entries,
    is_picture,
    list_below,
)
from lib.runtime.text import look_alikes, quoted, shorten


class Contents(Protocol):
    """Pictures that are no files of their own."""

    recipe: str  # what was done to them, in a few words
    orientation: (
        str | None
    )  # in which they were made anew (`lib.data.rgb`); None: they are as they were

    def read(self, index: int) -> bytes:
        """Return what the file of picture `index` held."""


@dataclass(frozen=True)
class ImageList:
    """Pictures and their classes: `targets[i]` is the place of picture i's in `class_names`."""

    paths: Sequence[str]
    targets: Sequence[int]
    class_names: tuple[str, ...]
    contents: Contents | None = None  # None: the paths are those of files
    left_out: LeftOut = field(default_factory=LeftOut)  # by the listing of the files

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.targets)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def form(self) -> str:
        """How the pictures are stored, in a few words; nothing for files."""
        return "" if self.contents is None else f", packed ({self.contents.recipe})"


def read_train_val(root: Path, *, train_set: str, val_set: str) -> tuple[ImageList, ImageList]:
    """The pictures to train on and to validate with, with the same class names.

    Raises:
        FileNotFoundError: a folder or the label file is missing, or has nothing in it.
        ValueError: the class folders of the two differ, or the label file has a mistake.
    """
    train_folder = _existing_folder(root, train_set)
    val_folder = _existing_folder(root, val_set)
    class_names = class_folders(train_folder)
    if _is_flat(val_folder):
        val = _read_flat(root, val_folder, class_names=class_names)
    else:
        require_same_classes(train_folder, class_names, val_folder, class_folders(val_folder))
        val = _read_class_folders(val_folder, class_names, class_names=class_names)
    return _read_class_folders(train_folder, class_names, class_names=class_names), val


def read_val(
    root: Path, *, val_set: str, class_names: tuple[str, ...] | None, num_classes: int | None
) -> ImageList:
    """The pictures to evaluate with.

    Args:
        root: folder that holds the folder `val_set`.
        val_set: name of that folder.
        class_names: the network's classes in order, where known. Class folders are looked up by
            name and may be fewer.
        num_classes: the network's number of outputs, used where the names aren't known: there
            must be as many class folders, taken in sorted order. The classes of a flat folder
            are then named "0", "1", ...

    Raises:
        FileNotFoundError: a folder or the label file is missing, or has nothing in it.
        ValueError: classes that the network doesn't have, or a mistake in the label file.
    """
    val_folder = _existing_folder(root, val_set)
    found = None if _is_flat(val_folder) else class_folders(val_folder)
    names = names_to_evaluate(val_folder, found, class_names=class_names, num_classes=num_classes)
    if found is None:
        return _read_flat(root, val_folder, class_names=names)
    return _read_class_folders(val_folder, found, class_names=names)


def read_split(root: Path, name: str) -> ImageList:
    """The pictures of one part by itself, in the order that all functions here have.

    A flat one has no class names, only numbers.

    Raises:
        FileNotFoundError: a folder or the label file is missing, or has nothing in it.
        ValueError: a mistake in the layout or in the label file.
    """
    folder = _existing_folder(root, name)
    if _is_flat(folder):
        return _read_flat(root, folder, class_names=None)
    found = class_folders(folder)
    return _read_class_folders(folder, found, class_names=found)


def names_to_evaluate(
    folder: Path | str,
    found: tuple[str, ...] | None,
    *,
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
) -> tuple[str, ...]:
    """The names of the network's classes.

    Args:
        folder: where the pictures are, for messages.
        found: names of its class folders; None for a flat one.
        class_names, num_classes: see `read_val`.

    Raises:
        ValueError: the folder's classes aren't the network's.
    """
    if found is None:
        if class_names is None and num_classes is None:
            raise ValueError(
                f"{folder} has no class folders, but a label file with output numbers: leave the "
                "class map out, or give the number of classes"
            )
        return class_names or tuple(str(number) for number in range(num_classes or 0))
    if class_names is not None:
        unknown = sorted(set(found) - set(class_names))
        if unknown:
            raise ValueError(
                f"{folder} has {len(unknown)} class folders that the network wasn't trained "
                f"on: {shorten(unknown)}; it knows {len(class_names)}: {shorten(class_names)}; "
                f"--class_map says which output a folder is{look_alikes(unknown, class_names)}"
            )
    elif num_classes is not None:
        _require_clear_order(folder, found, num_classes)
    return class_names or found


def _require_clear_order(folder: Path | str, found: tuple[str, ...], num_classes: int) -> None:
    """Raise ValueError where the n-th of the folders `found` can't be taken for the n-th output."""
    if len(found) != num_classes:
        raise ValueError(
            f"{folder} has {len(found)} class folders and the network {num_classes} outputs: "
            "without class names in the checkpoint the two must agree, since the n-th folder "
            "is taken for the n-th output; --train_classes names the outputs, --class_map says "
            "which of them a folder is"
        )
    if all(name.isdecimal() for name in found) and sorted(found, key=int) != list(found):
        raise ValueError(
            f"{folder} has numbers for class folders, and the checkpoint no class names: with "
            "--class_map numbers folder 10 is output 10, as in ImageNet-V2; for a network trained "
            "on such folders, whose names were sorted as text (1, 10, 100, 2), give the folder of "
            "its training classes, or its classes.json, to --train_classes"
        )


def require_same_classes(
    train_folder: Path | str, train: Iterable[str], val_folder: Path | str, val: Iterable[str]
) -> None:
    """Raise ValueError where the class folders to train on and to validate with differ."""
    only_train, only_val = sorted(set(train) - set(val)), sorted(set(val) - set(train))
    if only_train or only_val:
        raise ValueError(
            f"the class folders differ: {len(only_train)} only in {train_folder} "
            f"({shorten(only_train) or 'none'}), {len(only_val)} only in {val_folder} "
            f"({shorten(only_val) or 'none'}); both need the same"
            f"{look_alikes(only_train, only_val)}"
        )


def sub_folders(folder: Path) -> tuple[str, ...]:
    """Sorted names of the folders in a folder, without those that `picture_files` leaves out.

    Raises ValueError where the folder can't be listed.
    """
    return tuple(entries(folder).folders)


def class_folders(folder: Path) -> tuple[str, ...]:
    """`sub_folders`, of which there must be some.

    Raises:
        FileNotFoundError: there is none.
    """
    names = sub_folders(folder)
    if not names:
        raise FileNotFoundError(
            f"{folder} has no class folders: put the pictures of each class in a folder of its own"
        )
    return names


def _existing_folder(root: Path, name: str) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(
            f"data path {quoted(str(root))} is not a folder: give the one that holds {name}/"
        )
    folder = root / name
    if not folder.is_dir():
        present = sub_folders(root)
        raise FileNotFoundError(
            f"data path {quoted(str(root))} has no folder {quoted(name)}; its folders: "
            f"{shorten(present) or 'none'}{look_alikes([name], present)}"
        )
    return folder


def _is_flat(folder: Path) -> bool:
    """True where the pictures lie right in the folder.

    Raises:
        FileNotFoundError: there is nothing in it.
        ValueError: there are class folders beside the pictures.
    """
    found = entries(folder)
    pictures = [name for name in found.files if is_picture(name)]
    if found.folders and pictures:
        raise ValueError(
            f"{folder} has {len(found.folders)} class folders and {len(pictures)} pictures beside "
            f"them ({shorten(pictures)}): keep the one or the other"
        )
    if not found.folders and not pictures:
        raise FileNotFoundError(
            f"{folder} is empty: it needs class folders, or pictures with a {LABEL_FILE}"
            f"{_left_out_right_in(folder, found).remark(folder)}"
        )
    return bool(pictures)


def _left_out_right_in(folder: Path, found: Entries) -> LeftOut:
    """Return what of a folder's own entries is neither a picture nor a folder of them."""

    def whole(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(os.path.join(folder, name) for name in names)

    others = (name for name in found.files if not is_picture(name) and name != LABEL_FILE)
    return LeftOut(others=whole(others), system=whole(found.system))


def _read_class_folders(
    folder: Path, found: tuple[str, ...], *, class_names: tuple[str, ...]
) -> ImageList:
    """List the pictures below the folders `found`; sorted by class folder, sub-folder and name."""
    number = {name: target for target, name in enumerate(class_names)}
    paths: list[str] = []
    targets: list[int] = []
    empty: list[str] = []
    own = entries(folder)
    outside = tuple(os.path.join(folder, name) for name in own.files if is_picture(name))
    left_out = [_left_out_right_in(folder, own), LeftOut(outside=outside)]
    for name in found:
        listed = list_below(folder / name)
        if not listed.pictures:
            empty.append(name)
        paths += listed.pictures
        targets += [number[name]] * len(listed.pictures)
        left_out.append(listed.left_out)
    whole = LeftOut.whole(left_out)
    if empty:
        raise FileNotFoundError(
            f"{len(empty)} of {len(found)} class folders in {folder} have no pictures: "
            f"{shorten(empty)} (looked for {' '.join(PICTURE_SUFFIXES)})"
            f"{whole.remark(folder)}"
        )
    return ImageList(tuple(paths), tuple(targets), class_names, left_out=whole)


def _read_flat(root: Path, folder: Path, *, class_names: tuple[str, ...] | None) -> ImageList:
    """List the pictures right in a folder, sorted by name, with the classes of the label file.

    Without names, any number is a class.
    """
    candidates = (root / LABEL_FILE, folder / LABEL_FILE)
    label_file = next((path for path in candidates if path.is_file()), None)
    if label_file is None:
        raise FileNotFoundError(
            f"{folder} has pictures but no class folders, so it needs the label file "
            f"{candidates[0]} with lines {LABEL_FORM}"
        )
    labels = _read_labels(label_file, num_classes=None if class_names is None else len(class_names))
    found = entries(folder)
    names = [name for name in found.files if is_picture(name)]
    missing, unlisted = sorted(labels.keys() - set(names)), sorted(set(names) - labels.keys())
    left_out = _left_out_right_in(folder, found)
    if missing:
        raise FileNotFoundError(
            f"{label_file} lists {len(missing)} pictures that {folder} lacks: {shorten(missing)}"
            f"{look_alikes(missing, unlisted)}"
            f"{left_out.remark(folder)}"
        )
    if unlisted:
        raise ValueError(
            f"{folder} has {len(unlisted)} pictures that {label_file} doesn't list: "
            f"{shorten(unlisted)}"
        )
    paths = tuple(os.path.join(folder, name) for name in names)
    targets = tuple(labels[name] for name in names)
    return ImageList(paths, targets, class_names or (), left_out=left_out)


def _read_labels(label_file: Path, *, num_classes: int | None) -> dict[str, int]:
    labels: dict[str, int] = {}
    for line in read_label_lines(label_file):
        if num_classes is not None and line.label >= num_classes:
            raise ValueError(
                f"{line.where}: class {line.label} of {quoted(line.name)} is outside "
                f"0..{num_classes - 1}; classes are numbered from 0 in the sorted order of the "
                "class names"
            )
        if line.name in labels:
            raise ValueError(f"{line.where}: {quoted(line.name)} is listed a second time")
        labels[line.name] = line.label
    return labels
