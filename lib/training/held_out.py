"""That a resumed run keeps to its pictures: what was set aside to validate with stays so.

A run's accuracies and its best weights are of the pictures that it has set aside by
DATASET.VAL_SHARE, so its checkpoint names them. Those that came new since are trained on.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from lib.data.image_list import ImageList
from lib.data.splitting import names_below
from lib.training.checkpoint import saved_config
from lib.training.start import StartingPoint

_KEYS = ("VAL_SHARE", "SPLIT_SEED")  # of DATASET


@dataclass(frozen=True)
class PictureNames:
    """What a checkpoint keeps of the pictures."""

    sum: str  # SHA-256 of the training pictures' names in their order; '' where they are packed
    held_out: tuple[str, ...]  # the names of those set aside to validate with


def picture_names(
    config: CfgNode,
    data_path: Path | str,
    *,
    start: StartingPoint,
    images: ImageList,
    val: ImageList,
) -> PictureNames:
    """Return what a checkpoint keeps of the pictures, by their paths in DATASET.TRAIN_SET.

    What a resumed run had set aside and is gone stays noted: it may come back.
    """
    if images.contents is not None:  # they are not named as the files that they were made of
        return PictureNames("", ())
    folder = Path(data_path) / config.DATASET.TRAIN_SET
    names = "\0".join(names_below(images, folder))
    held_out = names_below(val, folder) if config.DATASET.VAL_SHARE else []
    names_sum = hashlib.sha256(os.fsencode(names)).hexdigest()
    return PictureNames(names_sum, tuple(sorted(saved_holdout(start) or held_out)))


def saved_holdout(start: StartingPoint) -> frozenset[str] | None:
    """Return the names of what a resumed run has set aside; None where none are known."""
    names = start.state.get("names_aside") if start.state is not None else None
    return frozenset(names) if names else None


def with_saved_split(config: CfgNode, start: StartingPoint) -> CfgNode:
    """Return the configuration with the DATASET.VAL_SHARE and SPLIT_SEED that a resumed run had.

    Raises ValueError where the run had set pictures aside and now would not, or the reverse.
    """
    saved = _saved_split(start)
    if not saved:
        return config
    share, now = saved["VAL_SHARE"], config.DATASET.VAL_SHARE
    if share and not now:
        raise ValueError(
            f"{start.path} is of a run that set pictures aside to validate with "
            f"(DATASET.VAL_SHARE {share:g}), which DATASET.VAL_SHARE 0 would train on: say "
            f"DATASET.VAL_SHARE {share:g}, or begin a new run with --pretrained"
        )
    if now and not share:
        raise ValueError(
            f"{start.path} is of a run that trained on all pictures of DATASET.TRAIN_SET, some of "
            f"which DATASET.VAL_SHARE {now:g} would validate with: say DATASET.VAL_SHARE 0 and "
            "keep the validation folder, or begin a new run with --pretrained"
        )
    own = config.clone()
    own.defrost()
    own.DATASET.update(saved)
    own.freeze()
    return own


def split_remarks(
    config: CfgNode, start: StartingPoint, images: ImageList, aside: int
) -> list[str]:
    """Return where a resumed run does not do as `config` says, or has lost pictures.

    `aside` is the number of pictures that are set aside now.
    """
    saved, before = _saved_split(start), saved_holdout(start)
    if not saved.get("VAL_SHARE"):
        return []
    remarks = []
    for key, value in saved.items():
        if config.DATASET[key] != value:
            remarks.append(
                f"DATASET.{key} {config.DATASET[key]:g} has no effect in a resume: what the run "
                f"has set aside ({value:g}) stays aside, and what came new is trained on"
            )
    if before is not None and aside < len(before):
        remarks.append(
            f"{len(before) - aside} of the {len(before)} pictures that the run has set aside are "
            "gone: accuracies before and after are not of the same pictures"
        )
    num_before = 0 if start.state is None else start.state["num_images"]
    if before is None and num_before != len(images):
        remarks.append(
            f"{start.path} does not name the pictures that were set aside, and {num_before} were "
            f"trained on, {len(images)} are now: some may be validated with after being trained on"
        )
    return remarks


def _saved_split(start: StartingPoint) -> dict[str, float]:
    """Return the two settings of a resumed run; older runs set nothing aside."""
    if start.state is None:
        return {}
    dataset = saved_config(start.state, start.path)["DATASET"]
    return {key: dataset.get(key, 0) for key in _KEYS}
