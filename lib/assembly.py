"""From a configuration to the pieces that training and evaluation both compute with."""

from __future__ import annotations

from collections.abc import Set
from functools import partial
from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from lib import device as devices
from lib.config import eval_recipe
from lib.data import (
    Extras,
    ImageList,
    LoaderOptions,
    Normalize,
    SetAside,
    WatchedLoader,
    choose_decoder,
    eval_loader,
    has_fast_decoder,
    num_workers,
    read_train_val,
    train_loader,
)
from lib.data.packed import is_packed
from lib.distributed import Processes
from lib.models.views import MirroredMean
from lib.objective import Computing
from lib.pictures import has_pictures_below
from lib.precision import Precision
from lib.recipe import USUAL, Recipe
from lib.rgb import IGNORE


def read_images(
    config: CfgNode, data_path: Path | str, *, kept_aside: Set[str] | None = None
) -> tuple[ImageList, ImageList]:
    """Return the pictures to train on and to validate with; raises as `lib.data.read_train_val`.

    `kept_aside` are those that a resumed run has set aside, by their paths in DATASET.TRAIN_SET.
    """
    data = config.DATASET
    return read_train_val(
        data_path,
        train_set=data.TRAIN_SET,
        val_set=data.TEST_SET,
        aside=SetAside(data.VAL_SHARE, data.SPLIT_SEED, kept_aside),
    )


def picture_folders(config: CfgNode, data_path: Path | str) -> tuple[Path, ...]:
    """Return the folders that `read_images` lists: the parts; none of a packed data set."""
    data = config.DATASET
    if is_packed(data_path):
        return ()
    parts = [data.TRAIN_SET] if data.VAL_SHARE else [data.TRAIN_SET, data.TEST_SET]
    return tuple(Path(data_path) / part for part in parts)


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


def build_computing(
    config: CfgNode, processes: Processes, *, amp_backend: str, recipe: Recipe = USUAL
) -> Computing:
    """Set the device up and return precision and normalisation for it.

    Raises ValueError for an unknown precision, or a layout that the device does not have.
    """
    device = processes.device
    devices.configure(
        device,
        cudnn_benchmark=config.CUDNN.BENCHMARK,
        cudnn_deterministic=config.CUDNN.DETERMINISTIC,
    )
    precision = Precision(
        config.TRAIN.PRECISION,
        device,
        backend=amp_backend,
        max_grad_norm=config.TRAIN.CLIP_GRAD_NORM,
    )
    layout = devices.memory_format(device, config.TRAIN.MEMORY_FORMAT)
    normalize = Normalize(recipe, channels_last=layout is torch.channels_last).to(device)
    return Computing(processes, precision, normalize, config.TRAIN.ACCUM_STEPS)


def place(network: nn.Module, device: torch.device, memory_format: str = "auto") -> None:
    """Move a network to the device, in the layout that TRAIN.MEMORY_FORMAT says."""
    layout = devices.memory_format(device, memory_format)
    network.to(device, memory_format=layout)  # type: ignore[call-overload]


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


def eval_view(config: CfgNode, network: nn.Module) -> nn.Module:
    """Return the network as it is evaluated: with mirror images where TEST.FLIP says so."""
    return MirroredMean(network) if config.TEST.FLIP else network


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
