"""Which values of the configuration's keys are allowed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from yacs.config import CfgNode

from lib.config.recipe import ORIENTATIONS
from lib.runtime.checked import shown
from lib.runtime.text import printable

CHOICES = {
    "DATASET.BAD_IMAGES": ("skip", "fail"),
    "DATASET.DECODER": ("auto", "fast", "pillow"),
    "DATASET.ORIENTATION": ORIENTATIONS,
    "AUG.AUTO": ("no", "randaugment", "trivialaugment"),
    "TRAIN.LOSS": ("cross_entropy", "bce"),
    "DISTILL.LOSS": ("js", "kl"),
    "TRAIN.OPTIMIZER": ("sgd", "adam", "adamw", "rmsprop"),
    "TRAIN.SCHEDULE": ("step", "cosine", "poly"),
    "TRAIN.PRECISION": ("auto", "fp32", "hf32", "fp16", "bf16"),
    "TRAIN.AMP_BACKEND": ("torch", "apex"),
    "TRAIN.MEMORY_FORMAT": ("auto", "channels_last", "contiguous"),
    "TRAIN.COMPILE": ("no", "default", "reduce-overhead", "max-autotune"),
    "TRAIN.WIDTH_MULTIPLE": (1, 8, 16, 32),
}
_WITH_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")  # modes of torch.compile
_ANY, _ANY_RATE = 10**9, 1e38  # bounds of counts and rates without a natural one; float32's end
_LONGEST, _LARGEST_SIDE = 10**6, 4096  # in epochs, in pixels
_RANGES = {  # (least, most); more is a slip of the finger, or memory that no machine has
    "WORKERS": (-1, 1024),
    "PRINT_FREQ": (1, _ANY),
    "SEED": (0, 2**63 - 1),
    "MODEL.NUM_CLASSES": (0, 10**6),
    "TRAIN.BATCH_SIZE_PER_GPU": (1, 2**16),
    "TRAIN.END_EPOCH": (1, _LONGEST),
    "TRAIN.LR": (0.0, _ANY_RATE),
    "TRAIN.LR_FACTOR": (0.0, 1000),
    "TRAIN.LR_MIN": (0.0, _ANY_RATE),
    "TRAIN.LR_POWER": (0.0, 1000),
    "TRAIN.WARMUP_EPOCHS": (0.0, _LONGEST),
    "TRAIN.HEAD_LR_FACTOR": (0.0, _ANY_RATE),
    "TRAIN.CLIP_GRAD_NORM": (0.0, _ANY_RATE),
    "TRAIN.EARLY_STOP": (0, _LONGEST),
    "TRAIN.WD": (0.0, _ANY_RATE),
    "TRAIN.MOMENTUM": (0.0, 1),
    "TRAIN.ACCUM_STEPS": (1, 2**16),
    "TRAIN.SAVE_EVERY_STEPS": (0, _ANY),
    "TEST.BATCH_SIZE_PER_GPU": (1, 2**16),
    "TEST.IMAGE_SIZE": (0, _LARGEST_SIDE),
    "TEST.RESIZE": (0, 2 * _LARGEST_SIDE),
    "DATASET.BAD_IMAGES_MAX_SHARE": (0.0, 1),
    "DATASET.VAL_SHARE": (0.0, 1),
    "DATASET.SPLIT_SEED": (0, 2**63 - 1),
    "AUG.MIXUP": (0.0, 1000),
    "AUG.CUTMIX": (0.0, 1000),
    "TRAIN.LABEL_SMOOTHING": (0.0, 1),
    "DISTILL.TEMPERATURE": (0.0, 1000),
}
_MOST_OPERATIONS = 100
_MOST_PIXELS = 2**32  # of a batch; as float32 they take 48 GiB
_PROBABILITIES = ("AUG.HFLIP", "AUG.ERASE", "AUG.MIX_PROB", "AUG.MIX_SWITCH_PROB")


def value_at(config: CfgNode, path: str) -> object:
    """Return the value of a dotted key such as `TRAIN.LR`."""
    node: object = config
    for part in path.split("."):
        node = node[part]  # type: ignore[index]
    return node


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
    for path, allowed in CHOICES.items():
        if value_at(config, path) not in allowed:
            choices = ", ".join(map(str, allowed))
            raise ValueError(f"{path}: {shown(value_at(config, path))} is not one of {choices}")
    for path, (least, most) in _RANGES.items():
        value = value_at(config, path)
        if not value >= least:  # type: ignore[operator]
            raise ValueError(f"{path}: {shown(value)} is below {least:g}")
        if not value <= most:  # type: ignore[operator]
            raise ValueError(f"{path}: {shown(value)} is above {most}, the most that is allowed")
    size = config.MODEL.IMAGE_SIZE
    if len(size) != 2 or size[0] != size[1] or size[0] % 32 or not 32 <= size[0] <= _LARGEST_SIDE:
        raise ValueError(
            f"MODEL.IMAGE_SIZE: {shown(list(size))} must be two equal multiples of 32, such as "
            f"[224, 224], up to {_LARGEST_SIDE}"
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
    if config.DATASET.VAL_SHARE >= 1:
        raise ValueError(f"DATASET.VAL_SHARE: {config.DATASET.VAL_SHARE} must be below 1")
    for path in _PROBABILITIES:
        if not 0 <= value_at(config, path) <= 1:  # type: ignore[operator]
            raise ValueError(
                f"{path}: {value_at(config, path)} must be a probability within [0, 1]"
            )
    _check_recipe(config)
    if config.TRAIN.ACCUM_STEPS > config.TRAIN.BATCH_SIZE_PER_GPU:
        raise ValueError(
            f"TRAIN.ACCUM_STEPS: {config.TRAIN.ACCUM_STEPS} parts are more than the "
            f"{config.TRAIN.BATCH_SIZE_PER_GPU} images of TRAIN.BATCH_SIZE_PER_GPU"
        )
    _check_optimising(config.TRAIN)
    steps = config.TRAIN.LR_STEP
    if any(not 1 <= step <= _LONGEST for step in steps) or sorted(set(steps)) != list(steps):
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
    if not 0 <= train.WARMUP_FACTOR <= 1:
        raise ValueError(f"TRAIN.WARMUP_FACTOR: {train.WARMUP_FACTOR} must be within [0, 1]")
    if not 0 < train.LAYER_DECAY <= 1:
        raise ValueError(f"TRAIN.LAYER_DECAY: {train.LAYER_DECAY} must be within (0, 1]")
    if not 0 <= train.EMA_DECAY < 1:
        raise ValueError(f"TRAIN.EMA_DECAY: {train.EMA_DECAY} must be within [0, 1); 0: no average")
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
            f"TRAIN.ACCUM_STEPS {train.ACCUM_STEPS} parts: take default, or TRAIN.ACCUM_STEPS 1"
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
    if train.LABEL_SMOOTHING >= 1:
        raise ValueError(f"TRAIN.LABEL_SMOOTHING: {train.LABEL_SMOOTHING} must be below 1")
    if distill.TEMPERATURE <= 0:
        raise ValueError(f"DISTILL.TEMPERATURE: {distill.TEMPERATURE} must be above 0")
    if not 0 < distill.WEIGHT <= 1:
        raise ValueError(f"DISTILL.WEIGHT: {distill.WEIGHT} must be within (0, 1]")
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
