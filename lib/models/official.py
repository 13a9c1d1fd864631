"""The official yaml form of a network (`NAME: cls_hrnet` and `EXTRA.STAGE1..4`) as an HRNetSpec.

The form is that of https://github.com/HRNet/HRNet-Image-Classification, in whose files STAGE1
counts its branches as NUM_RANCHES.
"""

import difflib
import itertools
from collections.abc import Mapping, Sequence

from lib.models.hrnet import HRNetSpec, StageSpec
from lib.runtime.checked import shown
from lib.runtime.text import printable

_STAGES = ("STAGE1", "STAGE2", "STAGE3", "STAGE4")
_BRANCH_KEYS = ("NUM_BRANCHES", "NUM_RANCHES")
_NEEDED_KEYS = ("NUM_MODULES", "BLOCK", "NUM_BLOCKS", "NUM_CHANNELS")
_STAGE_KEYS = (*_NEEDED_KEYS, *_BRANCH_KEYS, "FUSE_METHOD")
_EXTRA = "MODEL.EXTRA"
_MOST = {"NUM_MODULES": 64, "NUM_BLOCKS": 256, "NUM_CHANNELS": 4096}  # hrnet_w64: 4, 4, 512
_MOST_BLOCKS, _MOST_WEIGHTS = 1000, 2 * 10**9  # of all stages; hrnet_w64: 112 and 0.13 * 10**9


def spec_from_official(extra: Mapping[str, object]) -> HRNetSpec:
    """Return the network that the mapping MODEL.EXTRA of an official yaml describes.

    Raises ValueError, in one line with the path of the key: a stage or key is missing or unknown,
    a value is out of range, FUSE_METHOD is not SUM, or a number of branches contradicts the lists.
    """
    _check_keys(extra, needed=_STAGES, known=(*_STAGES, "WITH_HEAD"), path=_EXTRA)
    if extra.get("WITH_HEAD", True) is not True:
        raise ValueError(f"{_EXTRA}.WITH_HEAD must be true: a classifier needs its head")
    stages = [_stage_from_official(extra[name], f"{_EXTRA}.{name}") for name in _STAGES]
    try:
        spec = HRNetSpec(*stages)
    except ValueError as error:
        raise ValueError(f"{_EXTRA}: {error}") from None
    _check_size(stages)
    return spec


def _check_size(stages: Sequence[StageSpec]) -> None:
    """Raise ValueError for a network that takes minutes to build, or more memory than there is."""
    num_blocks = sum(stage.num_modules * sum(stage.num_blocks) for stage in stages)
    if num_blocks > _MOST_BLOCKS:
        raise ValueError(
            f"{_EXTRA}: NUM_MODULES and NUM_BLOCKS make {num_blocks} blocks; {_MOST_BLOCKS} at most"
        )
    num_weights = sum(map(_num_weights, stages))
    if num_weights > _MOST_WEIGHTS:
        raise ValueError(
            f"{_EXTRA}: NUM_MODULES, NUM_BLOCKS and NUM_CHANNELS make {num_weights:.2g} weights; "
            f"{_MOST_WEIGHTS:.2g} at most"
        )


def _num_weights(stage: StageSpec) -> int:
    """Return about how many weights a stage has: those of its 3 x 3 convolutions."""
    pairs = zip(stage.num_blocks, stage.num_channels, strict=True)
    blocks = sum(2 * 9 * blocks * channels**2 for blocks, channels in pairs)
    fusion = sum(9 * one * other for one, other in itertools.combinations(stage.widths, 2))
    return stage.num_modules * (blocks + fusion)


def _stage_from_official(stage: object, path: str) -> StageSpec:
    if not isinstance(stage, Mapping):
        raise ValueError(f"{path} must hold the keys of a stage, not the value {shown(stage)}")
    _check_keys(stage, needed=_NEEDED_KEYS, known=_STAGE_KEYS, path=path)
    if stage.get("FUSE_METHOD", "SUM") != "SUM":
        raise ValueError(f"{path}.FUSE_METHOD {shown(stage['FUSE_METHOD'])} must be SUM")
    if not isinstance(stage["BLOCK"], str):
        raise ValueError(f"{path}.BLOCK must be a name, not {shown(stage['BLOCK'])}")
    for key, most in _MOST.items():
        given = stage[key]
        for number in given if isinstance(given, list | tuple) else [given]:
            if isinstance(number, int) and number > most:
                raise ValueError(f"{path}.{key}: {shown(number)} is above {most}")
    for key in _BRANCH_KEYS:
        for list_key in ("NUM_BLOCKS", "NUM_CHANNELS"):
            numbers = _numbers(stage[list_key], f"{path}.{list_key}")
            if key in stage and stage[key] != len(numbers):
                raise ValueError(
                    f"{path}.{key} is {shown(stage[key])}, but {list_key} {list(numbers)} "
                    f"has {len(numbers)}: one number a branch is needed"
                )
    try:
        return StageSpec(
            num_modules=stage["NUM_MODULES"],
            block=stage["BLOCK"],
            num_blocks=_numbers(stage["NUM_BLOCKS"], f"{path}.NUM_BLOCKS"),
            num_channels=_numbers(stage["NUM_CHANNELS"], f"{path}.NUM_CHANNELS"),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _numbers(value: object, path: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) > len(_STAGES):
        raise ValueError(f"{path} must be a list of numbers, one a branch, not {shown(value)}")
    return tuple(value)


def _check_keys(
    mapping: Mapping[str, object], *, needed: tuple[str, ...], known: tuple[str, ...], path: str
) -> None:
    for key in mapping:
        if key not in known:
            nearest = difflib.get_close_matches(str(key)[:80], known, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown key {path}.{printable(str(key))}; did you mean {nearest}?")
    missing = [key for key in needed if key not in mapping]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
