"""What a data path holds: class folders (`lists`), or a packed data set (`packed`)."""

from __future__ import annotations

from pathlib import Path

from lib.data import lists, packed
from lib.data.lists import ImageList
from lib.data.splitting import SetAside

_NOTHING = SetAside(0.0)


def read_train_val(
    root: Path | str, *, train_set: str, val_set: str, aside: SetAside = _NOTHING
) -> tuple[ImageList, ImageList]:
    """The pictures to train on and to validate with; see the functions of the same name.

    Args:
        root: a folder, or the http address of a packed data set.
        train_set, val_set: names of the two parts.
        aside: what of `train_set` takes the place of `val_set`.
    """
    if aside.share:
        folder = _folder(root)
        return aside.split(lists.read_split(folder, train_set), folder / train_set)
    if packed.is_packed(root):
        return packed.read_train_val(root, train_set=train_set, val_set=val_set)
    return lists.read_train_val(Path(root), train_set=train_set, val_set=val_set)


def read_val(
    root: Path | str,
    *,
    val_set: str,
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    train_set: str = "",
    aside: SetAside = _NOTHING,
) -> ImageList:
    """The pictures to evaluate with; see the functions of the same name, and `read_train_val`."""
    if aside.share:
        folder = _folder(root)
        whole = lists.read_val(
            folder, val_set=train_set, class_names=class_names, num_classes=num_classes
        )
        return aside.split(whole, folder / train_set)[1]
    if packed.is_packed(root):
        read = packed.read_val
        return read(root, val_set=val_set, class_names=class_names, num_classes=num_classes)
    return lists.read_val(
        Path(root), val_set=val_set, class_names=class_names, num_classes=num_classes
    )


def _folder(root: Path | str) -> Path:
    if packed.is_packed(root):
        raise ValueError(
            f"{root} is packed, and of a packed data set nothing can be set aside "
            "(DATASET.VAL_SHARE): pack one that has val/"
        )
    return Path(root)
