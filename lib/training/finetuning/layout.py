"""Which folders hold the pictures to train on and to validate with, told by their names.

    MY_FOLDER/<class>/...                            class folders
    MY_FOLDER/train/<class>/..., MY_FOLDER/val/...   parts

A folder with a part's name (upper or lower case) is a part where it holds class folders, or a
validation part too where it is flat and has a label file. Where its pictures lie right in it, and
there is no part to train on, it is a class.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from yacs.config import CfgNode

from lib.data.image_list import LABEL_FILE, sub_folders
from lib.data.packed.reading import is_packed
from lib.data.picture_files import entries, has_pictures_below, is_picture
from lib.runtime.files import is_url
from lib.runtime.text import printable, shorten

_TRAIN_NAMES = ("train", "training")
_VALIDATION_NAMES = ("val", "valid", "validation", "eval", "dev", "test", "testing")
_TRAIN_KEY, _TEST_KEY = "DATASET.TRAIN_SET", "DATASET.TEST_SET"
_SHARE_KEY = "DATASET.VAL_SHARE"


@dataclass(frozen=True)
class FolderSettings:
    """What a data folder says: configuration keys and values in turn, and lines for people."""

    settings: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def folder_settings(
    data_path: Path | str, data: CfgNode, *, given: Collection[str] = ()
) -> FolderSettings:
    """Return where a folder has its pictures to train on and to validate with.

    A packed data set says so itself. `data` is the configuration's DATASET; of it holds what is
    one of the keys `given`, or is not the default.
    Raises FileNotFoundError where there is no such folder, ValueError where it is not clear what
    the classes are, or where there are fewer than two.
    """
    folder = Path(data_path)
    if not is_url(data_path) and not folder.is_dir():
        raise FileNotFoundError(f"no such data folder: {folder}")
    if is_packed(data_path):
        return FolderSettings((_SHARE_KEY, "0"))
    name = ("DATASET.DATASET", folder.resolve().name or "finetune")
    is_given = _TRAIN_KEY in given or data.TRAIN_SET != "train"
    train, remarks = (data.TRAIN_SET, ()) if is_given else _find_classes(folder)
    if (folder / train).is_dir():
        _check_two_classes(folder / train)
    settings = (*name, _TRAIN_KEY, train)
    if _TEST_KEY in given or data.TEST_SET != "val":
        share = () if _SHARE_KEY in given else (_SHARE_KEY, "0")
        return FolderSettings((*settings, *share), remarks)
    if train == "." or (_SHARE_KEY in given and data.VAL_SHARE):
        return FolderSettings(settings, remarks)
    found, unused = _find_validation(folder, train)
    return FolderSettings((*settings, *found), (*remarks, *unused))


def _find_classes(folder: Path) -> tuple[str, tuple[str, ...]]:
    """Return the folder below `folder` that holds the class folders, or '.', and what to say."""
    names = sub_folders(folder)
    parts = [name for name in names if _is_part_name(name) and _holds_classes(folder / name)]
    to_train = [name for name in parts if name.lower() in _TRAIN_NAMES]
    pictured = [name for name in names if name not in parts and _has_pictures(folder / name)]
    if not parts:
        return ".", _check_flat(folder, names, pictured)
    ordinary = [name for name in pictured if not _is_part_name(name)]
    if len(to_train) > 1:
        raise ValueError(
            f"{folder} has {len(to_train)} parts to train on, {_slashed(to_train)}: say which with "
            f"{_TRAIN_KEY}"
        )
    if ordinary and not (to_train and _find_validation(folder, to_train[0])[0]):
        raise ValueError(
            f"{folder} has {_slashed(parts)} with class folders beside folders of pictures "
            f"({_slashed(ordinary)}): {_TRAIN_KEY} . says that all are classes, {_TRAIN_KEY} "
            f"{parts[0]} that those in {parts[0]}/ are"
        )
    if not to_train:
        raise ValueError(
            f"{folder} has {_slashed(parts)} but no train/ with class folders: rename the part to "
            f"train on, or name it with {_TRAIN_KEY}"
        )
    return to_train[0], ()


def _check_flat(folder: Path, names: Sequence[str], pictured: Sequence[str]) -> tuple[str, ...]:
    """Return what to say of folders that are the classes; raise ValueError where they can't be."""
    nested = [name for name in names if name not in pictured and has_pictures_below(folder / name)]
    named = [name for name in pictured if _is_part_name(name)]
    if named and len(named) == len(pictured) and not nested:
        raise ValueError(
            f"{folder}: {_slashed(named)} hold pictures but no class folders: put the pictures of "
            f"each class into a folder of its own, below {named[0]}/"
        )
    if len(nested) > 1 and not pictured:
        raise ValueError(
            f"{folder}: its folders {_slashed(nested)} hold folders only, so are they parts or "
            f"classes? name the part to train on with {_TRAIN_KEY}, or say {_TRAIN_KEY} . where "
            "they are the classes"
        )
    remarks = [f"pictures lie right in {_slashed(named)}: taken for a class"] if named else []
    if nested and pictured:
        remarks.append(f"only folders lie in {_slashed(nested)}: taken for one class each")
    return tuple(remarks)


def _check_two_classes(folder: Path) -> None:
    """Raise ValueError where the folders in `folder` cannot be two classes."""
    names = sub_folders(folder)
    wrapped = _wrapped(folder)
    if not names or (len(names) > 1 and wrapped is None):
        return
    fix = (
        "put the pictures of each class into a folder of its own"
        if wrapped is None
        else f"is it {wrapped}?"
    )
    held = "pictures in 1 folder only" if len(names) > 1 else f"1 class folder ({names[0]})"
    raise ValueError(f"{folder} has {held}, and at least 2 classes are needed: {fix}")


def _wrapped(folder: Path) -> Path | None:
    """Return what holds several folders where `folder` holds pictures in a single one; or None."""
    pictured = (name for name in sub_folders(folder) if has_pictures_below(folder / name))
    lone = list(islice(pictured, 2))  # a second one is enough: there may be thousands
    if len(lone) != 1 or not _holds_classes(folder / lone[0]):
        return None
    inner = folder / lone[0]
    return _wrapped(inner) or inner


def _find_validation(folder: Path, train: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the settings of the part to validate with, and what to say of those not used."""
    names = [name for name in sub_folders(folder) if name != train]
    named = [name for wanted in _VALIDATION_NAMES for name in names if name.lower() == wanted]
    usable = [name for name in named if _can_validate(folder, name)]
    remarks = []
    if not usable and named:
        remarks.append(
            f"{_slashed(named)} has neither class folders nor a {LABEL_FILE}: pictures to train on "
            f"are set aside to validate with ({_SHARE_KEY})"
        )
    if len(usable) > 1:
        remarks.append(f"{usable[0]}/ validates; {_slashed(usable[1:])} is not used")
    return ((_TEST_KEY, usable[0], _SHARE_KEY, "0") if usable else ()), tuple(remarks)


def _can_validate(folder: Path, name: str) -> bool:
    part = folder / name
    has_labels = any((parent / LABEL_FILE).is_file() for parent in (folder, part))
    return _holds_classes(part) or (has_labels and _has_pictures(part))


def _is_part_name(name: str) -> bool:
    return name.lower() in (*_TRAIN_NAMES, *_VALIDATION_NAMES)


def _holds_classes(folder: Path) -> bool:
    return any(has_pictures_below(folder / name) for name in sub_folders(folder))


def _has_pictures(folder: Path) -> bool:
    return any(map(is_picture, entries(folder).files))


def _slashed(names: Sequence[str]) -> str:
    return shorten([f"{name}/" for name in names], form=printable)
