"""From a configuration and a data path to image lists and loaders.

A data path holds class folders (`image_list`), or a packed data set (`packed`).
"""

from __future__ import annotations

import os
from collections.abc import Set
from functools import partial
from pathlib import Path

from yacs.config import CfgNode

from lib.config.recipe import Recipe, eval_recipe
from lib.data import image_list
from lib.data.augmenting import Extras
from lib.data.decoding import choose_decoder, has_fast_decoder
from lib.data.image_list import ImageList, sub_folders
from lib.data.loading import LoaderOptions, eval_loader, num_workers, train_loader
from lib.data.packed import reading
from lib.data.packed.reading import is_packed
from lib.data.picture_files import has_pictures_below
from lib.data.rgb import IGNORE
from lib.data.splitting import SetAside
from lib.data.watching import WatchedLoader
from lib.runtime.distributed import Processes


def read_images(
    config: CfgNode, data_path: Path | str, *, saved_holdout: Set[str] | None = None
) -> tuple[ImageList, ImageList]:
    """Return the pictures to train on and to validate with; raises as `lib.data.read_train_val`.

    `saved_holdout` are those that a resumed run has set aside, by their paths in DATASET.TRAIN_SET.
    """
    data = config.DATASET
    return read_train_val(
        data_path,
        train_set=data.TRAIN_SET,
        val_set=data.TEST_SET,
        aside=SetAside(data.VAL_SHARE, data.SPLIT_SEED, saved_holdout),
    )


def picture_folders(config: CfgNode, data_path: Path | str) -> tuple[Path, ...]:
    """Return the folders that `read_images` lists: the parts; none of a packed data set."""
    data = config.DATASET
    if is_packed(data_path):
        return ()
    parts = [data.TRAIN_SET] if data.VAL_SHARE else [data.TRAIN_SET, data.TEST_SET]
    return tuple(Path(data_path) / part for part in parts)


def overlap_remarks(config: CfgNode, data_path: Path | str) -> list[str]:
    """Return remarks on class folders that are one folder by two names, and on a single class."""
    remarks: list[str] = []
    name_of: dict[str, Path] = {}
    folders = picture_folders(config, data_path)
    for folder in folders:
        names = sub_folders(folder) if folder.is_dir() else ()
        if len(names) == 1 and folder == folders[0]:
            remarks.append(f"{folder} has one class alone: there is nothing to learn")
        for name in names:
            first = name_of.setdefault(os.path.realpath(folder / name), folder / name)
            if first != folder / name:
                remarks.append(f"{folder / name} is the same folder as {first}: is that meant?")
    return remarks[:_MOST_REMARKS]


def unused_part_remark(config: CfgNode, data_path: Path | str) -> str | None:
    """Return a remark where DATASET.VAL_SHARE takes the place of a part that has pictures."""
    data = config.DATASET
    if not data.VAL_SHARE or is_packed(data_path):
        return None
    root = Path(data_path)
    part, train = root / data.TEST_SET, root / data.TRAIN_SET
    if part.resolve().is_relative_to(train.resolve()):  # its pictures are listed
        return None
    if not has_pictures_below(part):
        return None
    return (
        f"{part} is not used: DATASET.VAL_SHARE {data.VAL_SHARE:g} sets pictures of {train} aside "
        "to validate with; DATASET.VAL_SHARE 0 validates with that folder"
    )


def build_train_loader(
    config: CfgNode, images: ImageList, processes: Processes, *, seed: int, decoder: str
) -> WatchedLoader:
    """Return this rank's shuffled, augmented batches, decoded as `agree_on_decoder` says.

    Raises ValueError for augmentations of torchvision's where that is not installed.
    """
    aug = config.AUG
    num_ops, magnitude = aug.RANDAUGMENT
    return train_loader(
        images,
        _options(config, processes)(batch_size=config.TRAIN.BATCH_SIZE_PER_GPU, seed=seed),
        scale=tuple(aug.CROP_SCALE),
        ratio=tuple(aug.CROP_RATIO),
        hflip=aug.HFLIP,
        decoder=decoder,
        extras=Extras(aug.AUTO, num_ops, magnitude, aug.ERASE),
    )


def agree_on_decoder(config: CfgNode, processes: Processes, *, saved: str | None) -> str:
    """Return what decodes the training pictures, the same on every rank: fast or pillow.

    `saved` is what a resumed run had. Raises ValueError where a rank cannot do what is asked for.
    """
    is_installed = all(processes.gather(has_fast_decoder()))
    return choose_decoder(config.DATASET.DECODER, is_installed=is_installed, saved=saved)


def input_choices(config: CfgNode) -> dict[str, object]:
    """Return what is evaluated otherwise than usual, as result.json has it."""
    choices: dict[str, object] = {}
    if config.DATASET.ORIENTATION != IGNORE:
        choices["orientation"] = config.DATASET.ORIENTATION
    if config.TEST.IMAGE_SIZE or config.TEST.RESIZE:
        recipe = eval_recipe(config)
        choices |= {"image_size": recipe.crop, "resize": recipe.resize}
    if config.TEST.FLIP:
        choices["flip"] = "mean of the logits of a picture and its mirror image"
    return choices


def input_lines(config: CfgNode) -> list[str]:
    """Return the lines to say of `input_choices`."""
    return [f"{name}: {value}" for name, value in input_choices(config).items()]


def build_eval_loader(
    config: CfgNode, images: ImageList, processes: Processes, recipe: Recipe
) -> WatchedLoader:
    """Return this rank's exact share of the images to evaluate, in fixed order."""
    options = _options(config, processes)(batch_size=config.TEST.BATCH_SIZE_PER_GPU)
    return eval_loader(images, options, recipe)


def _options(config: CfgNode, processes: Processes) -> partial[LoaderOptions]:
    ranks = processes.ranks
    return partial(
        LoaderOptions,
        image_size=config.MODEL.IMAGE_SIZE[0],
        orientation=config.DATASET.ORIENTATION,
        num_workers=num_workers(config.WORKERS, ranks.local_world_size),
        rank=ranks.rank,
        world_size=ranks.world_size,
        pin_memory=processes.device.type != "cpu",
    )


_NOTHING = SetAside(0.0)
_MOST_REMARKS = 3  # on folders that are one


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
        return aside.split(image_list.read_split(folder, train_set), folder / train_set)
    if reading.is_packed(root):
        return reading.read_train_val(root, train_set=train_set, val_set=val_set)
    return image_list.read_train_val(Path(root), train_set=train_set, val_set=val_set)


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
        whole = image_list.read_val(
            folder, val_set=train_set, class_names=class_names, num_classes=num_classes
        )
        return aside.split(whole, folder / train_set)[1]
    if reading.is_packed(root):
        read = reading.read_val
        return read(root, val_set=val_set, class_names=class_names, num_classes=num_classes)
    return image_list.read_val(
        Path(root), val_set=val_set, class_names=class_names, num_classes=num_classes
    )


def _folder(root: Path | str) -> Path:
    if reading.is_packed(root):
        raise ValueError(
            f"{root} is packed, and of a packed data set nothing can be set aside "
            "(DATASET.VAL_SHARE): pack one that has val/"
        )
    return Path(root)
