"""Which folders hold the pictures to train on and to validate with, told by their names.

    MY_FOLDER/<class>/...                            class folders
    MY_FOLDER/train/<class>/..., MY_FOLDER/val/...   splits, also by their other usual names

A folder of such a name, in upper or lower case, is a split where it holds class folders, or a
validation split too where it is flat and has a label file. All other folders are classes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from lib.data.image_list import LABEL_FILE, sub_folders
from lib.data.packed.reading import is_packed
from lib.data.picture_files import entries, has_pictures_below, is_picture
from lib.runtime.files import is_url
from lib.runtime.text import counted, printable, shorten

_TRAIN_NAMES = ("train", "training")
_VALIDATION_NAMES = ("val", "valid", "validation", "eval", "dev", "test", "testing")
_TRAIN_KEY, _TEST_KEY = "DATASET.TRAIN_SET", "DATASET.TEST_SET"
_SHARE_KEY = "DATASET.VAL_SHARE"


@dataclass(frozen=True)
class FolderSettings:
    """Configuration keys and values in turn for a data folder, and remarks for people."""

    settings: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def folder_settings(
    data_path: Path | str, data: CfgNode, *, given: Collection[str] = ()
) -> FolderSettings:
    """Return the settings for the splits of a folder, or of a packed data set.

    `data` is the configuration's DATASET; those of its keys that are in `given`, or are not the
    default, hold.
    Raises FileNotFoundError where there is no such folder, ValueError for a folder without a split
    to train on, or with fewer than two classes.
    """
    folder = Path(data_path)
    if not is_url(data_path) and not folder.is_dir():
        raise FileNotFoundError(f"no such data folder: {folder}")
    if is_packed(data_path):
        return FolderSettings((_SHARE_KEY, "0"))
    is_given = _TRAIN_KEY in given or data.TRAIN_SET != "train"
    train = data.TRAIN_SET if is_given else _find_train(folder)
    if (folder / train).is_dir():
        _check_two_classes(folder / train)
    settings = ("DATASET.DATASET", folder.resolve().name or "finetune", _TRAIN_KEY, train)
    if _TEST_KEY in given or data.TEST_SET != "val":
        share = () if _SHARE_KEY in given else (_SHARE_KEY, "0")
        return FolderSettings((*settings, *share))
    if train == "." or (_SHARE_KEY in given and data.VAL_SHARE):
        return FolderSettings(settings)
    names = [name for name in sub_folders(folder) if name != train]
    usable = [name for name in _named(names, _VALIDATION_NAMES) if _can_validate(folder, name)]
    unused = [
        name for name in names if name not in usable[:1] and has_pictures_below(folder / name)
    ]
    remarks = (f"not used: {_slashed(unused)}",) if unused else ()
    found = (_TEST_KEY, usable[0], _SHARE_KEY, "0") if usable else ()
    return FolderSettings((*settings, *found), remarks)


def _find_train(folder: Path) -> str:
    """Return the split to train on, or '.' where the folder holds the classes themselves."""
    names = sub_folders(folder)
    splits = _named(names, (*_TRAIN_NAMES, *_VALIDATION_NAMES))
    with_classes = [name for name in splits if _holds_classes(folder / name)]
    to_train = _named(with_classes, _TRAIN_NAMES)
    if len(to_train) > 1:
        raise ValueError(
            f"{folder} has {len(to_train)} splits to train on, {_slashed(to_train)}: say which "
            f"with {_TRAIN_KEY}"
        )
    if to_train:
        return to_train[0]
    if with_classes or (splits and len(splits) == len(names)):
        raise ValueError(
            f"{folder} has {_slashed(splits)} but no train/ with class folders: put the pictures "
            f"of each class into a folder of its own below train/, or say {_TRAIN_KEY}"
        )
    return "."


def _check_two_classes(folder: Path) -> None:
    """Raise ValueError where a folder has fewer than two class folders with pictures."""
    classes = [name for name in sub_folders(folder) if has_pictures_below(folder / name)]
    if len(classes) > 1:
        return
    fix = "put the pictures of each class into a folder of its own"
    if classes and _holds_classes(folder / classes[0]):
        fix = f"is it {folder / classes[0]}?"
    raise ValueError(
        f"{folder} has {counted(len(classes), 'class folder')} with pictures"
        f"{f' ({classes[0]})' if classes else ''}, and at least 2 are needed: {fix}"
    )


def _can_validate(folder: Path, name: str) -> bool:
    split = folder / name
    has_labels = any((parent / LABEL_FILE).is_file() for parent in (folder, split))
    return _holds_classes(split) or (has_labels and any(map(is_picture, entries(split).files)))


def _holds_classes(folder: Path) -> bool:
    return any(has_pictures_below(folder / name) for name in sub_folders(folder))


def _named(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return those of the names that are wanted, in any case, in the order of `wanted`."""
    return [name for one in wanted for name in names if name.lower() == one]


def _slashed(names: Sequence[str]) -> str:
    return shorten([f"{name}/" for name in names], form=printable)
