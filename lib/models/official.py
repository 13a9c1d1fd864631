"""The official yaml form of a network (`NAME: cls_hrnet` and `EXTRA.STAGE1..4`) as an HRNetSpec.

The form is that of https://github.com/HRNet/HRNet-Image-Classification, in whose files STAGE1
counts its branches as NUM_RANCHES.
"""

import difflib
from collections.abc import Mapping

from lib.models.hrnet import HRNetSpec, StageSpec

_STAGES = ("STAGE1", "STAGE2", "STAGE3", "STAGE4")
_BRANCH_KEYS = ("NUM_BRANCHES", "NUM_RANCHES")
_NEEDED_KEYS = ("NUM_MODULES", "BLOCK", "NUM_BLOCKS", "NUM_CHANNELS")
_STAGE_KEYS = (*_NEEDED_KEYS, *_BRANCH_KEYS, "FUSE_METHOD")
_EXTRA = "MODEL.EXTRA"


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
        return HRNetSpec(*stages)
    except ValueError as error:
        raise ValueError(f"{_EXTRA}: {error}") from None


def _stage_from_official(stage: object, path: str) -> StageSpec:
    if not isinstance(stage, Mapping):
        raise ValueError(f"{path} must hold the keys of a stage, not the value {stage!r}")
    _check_keys(stage, needed=_NEEDED_KEYS, known=_STAGE_KEYS, path=path)
    if stage.get("FUSE_METHOD", "SUM") != "SUM":
        raise ValueError(f"{path}.FUSE_METHOD {stage['FUSE_METHOD']!r} must be SUM")
    for key in _BRANCH_KEYS:
        for list_key in ("NUM_BLOCKS", "NUM_CHANNELS"):
            numbers = _numbers(stage[list_key], f"{path}.{list_key}")
            if key in stage and stage[key] != len(numbers):
                raise ValueError(
                    f"{path}.{key} is {stage[key]!r}, but {list_key} {list(numbers)} "
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
    if not isinstance(value, list | tuple):
        raise ValueError(f"{path} must be a list of numbers, one a branch, not {value!r}")
    return tuple(value)


def _check_keys(
    mapping: Mapping[str, object], *, needed: tuple[str, ...], known: tuple[str, ...], path: str
) -> None:
    for key in mapping:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown key {path}.{key}; did you mean {nearest}?")
    missing = [key for key in needed if key not in mapping]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
