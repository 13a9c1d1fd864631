"""Which values of the configuration's keys are allowed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from yacs.config import CfgNode

from lib.config.keys import KEYS, MAX_IMAGE_SIDE, MOST_EPOCHS, Range, value_at
from lib.runtime.checked import shown
from lib.runtime.text import printable

_WITH_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")  # modes of torch.compile
_MOST_OPERATIONS = 100
_MOST_PIXELS = 2**32  # of a batch; as float32 they take 48 GiB


def leaves(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted key and the value of all that is no mapping of further keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check(config: CfgNode) -> None:
    """Raise ValueError, in one line with the key and its value, for the first that is not."""
    for path, value in leaves(config):
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ValueError(f"{path}: {shown(value)} is not a finite number: give one")
    for key in KEYS:
        value = value_at(config, key.name)
        if isinstance(key.allowed, Range) and value not in key.allowed:  # type: ignore[operator]
            raise ValueError(f"{key.name}: {shown(value)} must be within {key.allowed}")
        if isinstance(key.allowed, tuple) and value not in key.allowed:
            choices = ", ".join(map(str, key.allowed))
            raise ValueError(f"{key.name}: {shown(value)} is not one of {choices}")
    size = config.MODEL.IMAGE_SIZE
    if len(size) != 2 or size[0] != size[1] or size[0] % 32 or not 32 <= size[0] <= MAX_IMAGE_SIDE:
        raise ValueError(
            f"MODEL.IMAGE_SIZE: {shown(list(size))} must be two equal multiples of 32, such as "
            f"[224, 224], up to {MAX_IMAGE_SIDE}"
        )
    side, short_side = config.TEST.IMAGE_SIZE, config.TEST.RESIZE
    if side % 32:
        raise ValueError(
            f"TEST.IMAGE_SIZE: {side} must be a multiple of 32, or 0 for MODEL.IMAGE_SIZE"
        )
    _check_pixels(config)
    if 0 < short_side < (side or size[0]):
        raise ValueError(
            f"TEST.RESIZE: {short_side} is below the crop of {side or size[0]} pixels: give as "
            "many or more, or 0 for the proportion of training"
        )
    low, high = config.AUG.CROP_SCALE if len(config.AUG.CROP_SCALE) == 2 else (0, 0)
    if not 0 < low <= high <= 1:
        raise ValueError(
            f"AUG.CROP_SCALE: {config.AUG.CROP_SCALE} must be [low, high] within (0, 1]"
        )
    low, high = config.AUG.CROP_RATIO if len(config.AUG.CROP_RATIO) == 2 else (0, 0)
    if not 0 < low <= high:
        raise ValueError(f"AUG.CROP_RATIO: {config.AUG.CROP_RATIO} must be [low, high] above 0")
    _check_recipe(config)
    if config.TRAIN.ACCUM_STEPS > config.TRAIN.BATCH_SIZE_PER_GPU:
        raise ValueError(
            f"TRAIN.ACCUM_STEPS: {config.TRAIN.ACCUM_STEPS} micro-batches are more than the "
            f"{config.TRAIN.BATCH_SIZE_PER_GPU} images of TRAIN.BATCH_SIZE_PER_GPU"
        )
    _check_optimising(config.TRAIN)
    steps = config.TRAIN.LR_STEP
    if any(not 1 <= step <= MOST_EPOCHS for step in steps) or sorted(set(steps)) != list(steps):
        raise ValueError(
            f"TRAIN.LR_STEP: {shown(steps)} must be rising epochs >= 1, such as [30, 60, 90]"
        )


def _check_pixels(config: CfgNode) -> None:
    """Raise ValueError for batches that fit into no memory, though side and number might."""
    train, test = config.MODEL.IMAGE_SIZE[0], config.TEST.IMAGE_SIZE or config.MODEL.IMAGE_SIZE[0]
    for block, side in (("TRAIN", train), ("TEST", test)):
        number = config[block].BATCH_SIZE_PER_GPU
        if number * side**2 > _MOST_PIXELS:
            raise ValueError(
                f"{block}.BATCH_SIZE_PER_GPU: {number} pictures of {side} x {side} do not fit into "
                f"memory: {_MOST_PIXELS // side**2} at most"
            )


def _check_optimising(train: CfgNode) -> None:
    if train.SCHEDULE != "step" and train.LR_MIN > train.LR:
        raise ValueError(
            f"TRAIN.LR_MIN: {train.LR_MIN:g} is above TRAIN.LR {train.LR:g}, from which the rate "
            f"falls with TRAIN.SCHEDULE {train.SCHEDULE}"
        )
    if train.SYNC_BN and train.CHECKPOINT_ACTIVATIONS:
        raise ValueError(
            "TRAIN.SYNC_BN: true does not go with TRAIN.CHECKPOINT_ACTIVATIONS, which computes "
            "batch norms a second time; TRAIN.ACCUM_STEPS needs less memory too"
        )
    if train.SYNC_BN and train.WIDTH_MULTIPLE > 1:
        raise ValueError(
            f"TRAIN.SYNC_BN: true does not go with TRAIN.WIDTH_MULTIPLE {train.WIDTH_MULTIPLE}, "
            "whose batch norms are its own: leave that at 1"
        )
    if train.ACCUM_STEPS > 1 and train.COMPILE in _WITH_CUDA_GRAPHS:
        # A graph's gradients are overwritten when it runs again: pytorch/pytorch issue 169545.
        raise ValueError(
            f"TRAIN.COMPILE: {train.COMPILE} records CUDA graphs, which cannot add up gradients of "
            f"TRAIN.ACCUM_STEPS {train.ACCUM_STEPS}: take default, or TRAIN.ACCUM_STEPS 1"
        )


def _check_recipe(config: CfgNode) -> None:
    """Check what the losses, RandAugment and distillation are asked for."""
    train, distill = config.TRAIN, config.DISTILL
    settings = config.AUG.RANDAUGMENT
    if len(settings) != 2 or not 1 <= settings[0] <= _MOST_OPERATIONS or not 0 <= settings[1] <= 30:
        raise ValueError(
            f"AUG.RANDAUGMENT: {shown(settings)} must be [operations >= 1, strength in 0..30], "
            f"such as [2, 9], with {_MOST_OPERATIONS} operations at most"
        )
    if distill.ARCH and not distill.TEACHER:
        raise ValueError(
            f"DISTILL.ARCH: {printable(distill.ARCH)} without weights: name a file in "
            "DISTILL.TEACHER too"
        )
    if distill.TEACHER and distill.WEIGHT == 1:
        unused = {"LOSS": "cross_entropy", "LABEL_SMOOTHING": 0, "CLASS_WEIGHTS": "no"}
        for key, default in unused.items():
            if train[key] != default:
                raise ValueError(
                    f"TRAIN.{key}: {train[key]} has no effect with DISTILL.WEIGHT 1, which leaves "
                    f"the labels out: set TRAIN.{key} {default}, or DISTILL.WEIGHT below 1"
                )
