"""Checkpoints: atomic saves of everything that a run needs to go on.

Files hold plain types and CPU tensors, so that `torch.load(weights_only=True)` opens them on a
machine without the device that wrote them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch

from lib.config.yaml_text import read_yaml
from lib.models.weights.torch_file import read_torch_file
from lib.runtime.checked import COUNT, checked
from lib.runtime.device import rng_state, set_rng_state
from lib.runtime.text import one_line, printable

FORMAT = 1


@dataclass(frozen=True)
class Position:
    """How far a run has come: whole epochs done, and steps done within the present one."""

    epoch: int = 0
    step: int = 0
    num_steps: int = 0  # steps of a whole epoch when this was saved
    images_per_step: int = 0  # over all cards


class _AddedState(TypedDict, total=False):
    """What the first releases did not save."""

    decoder: str  # of the training pictures; those releases used 'pillow'
    state_dict_ema: dict[str, torch.Tensor]  # the averaged weights, where TRAIN.EMA_DECAY is set
    num_ema_updates: int
    teacher: str  # SHA-256 sum of its weight file; '' where there is none
    names_sum: str  # of the training pictures, see lib.training.held_out
    hrnet: str  # what the weights need to be used alone, see lib.models.weights.facts
    names_aside: list[str]  # of the pictures set aside by DATASET.VAL_SHARE, within TRAIN_SET


class TrainingState(_AddedState):
    """The content of a `checkpoint.pth.tar`."""

    format: int  # FORMAT of the program that wrote it
    state_dict: dict[str, torch.Tensor]
    optimizer: dict[str, object]
    optimizer_name: str
    precision: dict[str, dict[str, object]]  # the loss scaler's state
    position: dict[str, int]  # a Position; with the seed it fixes order, augmentation and rate
    rng: list[dict[str, object]]  # of each rank
    seed: int
    sums: list[int]  # Metrics of the unfinished epoch, over all ranks
    best_accuracy: float  # top-1 in percent
    report: dict[str, object]  # result.json so far
    num_images: int  # of the training set
    class_names: list[str]
    class_to_idx: dict[str, int]
    config: str  # yaml


_REPORT_FORM: dict[object, object] = {
    "best_epoch?": COUNT,
    "images_per_s?": float,
    "step_time_ms?": float,
    "train_loss?": float,
    "train_accuracy_top1?": float,
    str: object,
}
_WEIGHTS_FORM = {str: torch.Tensor}
_FORM = {
    "state_dict": _WEIGHTS_FORM,
    "optimizer": {"state": dict, "param_groups": [{"params": [COUNT]}]},
    "optimizer_name": str,
    "precision": {"scaler?": {str: (bool, float)}, "apex?": {str: object}},
    "position": {"epoch": COUNT, "step": COUNT, "num_steps": COUNT, "images_per_step": COUNT},
    "rng": [
        {
            "python": [COUNT, [COUNT], (float, None)],
            "torch": torch.Tensor,
            "device": (torch.Tensor, None),
        }
    ],
    "seed": range(-(2**63), 2**64),
    "sums": [float],
    "best_accuracy": float,
    "report": _REPORT_FORM,
    "num_images": COUNT,
    "class_names": [str],
    "class_to_idx": {str: COUNT},
    "config": str,
    "decoder?": str,
    "state_dict_ema?": _WEIGHTS_FORM,
    "num_ema_updates?": COUNT,
    "teacher?": str,
    "names_sum?": str,
    "names_aside?": [str],
}
_SLOTS = {str: (torch.Tensor, float, bool, None)}  # of one parameter in the optimizer
_CONFIG_FORM = {
    "MODEL": {"NAME": str, "EXTRA": object, "PRETRAINED": str},
    "DATASET": {"VAL_SHARE?": float, "SPLIT_SEED?": COUNT},
}
_INSTEAD = "give another checkpoint to --resume, or start anew"


def to_cpu(content: object) -> object:
    """Return `content` with its tensors copied to the CPU and its mappings made plain dicts."""
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, Mapping):
        return {key: to_cpu(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(to_cpu(value) for value in content)
    return content


def rng_states(device: torch.device) -> dict[str, object]:
    """Return this process's random generators (python, torch, device) in plain types."""
    return {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "device": rng_state(device),
    }


def restore_rng_states(states: Mapping[str, object], device: torch.device) -> None:
    """Put states of `rng_states` back; a device state only where there is such a device."""
    random.setstate(states["python"])  # type: ignore[arg-type]
    torch.set_rng_state(states["torch"])  # type: ignore[arg-type]
    if states["device"] is not None and device.type != "cpu":
        set_rng_state(states["device"], device)  # type: ignore[arg-type]


def load_training_state(path: Path) -> TrainingState:
    """Return the content of a `checkpoint.pth.tar` that this project wrote.

    Raises FileNotFoundError, and ValueError for a damaged file or one of another kind.
    """
    state, where = read_torch_file(path).value, printable(str(path))
    is_whole = isinstance(state, dict) and TrainingState.__required_keys__ <= state.keys()
    if not is_whole or state["format"] != FORMAT:  # type: ignore[index]
        raise ValueError(
            f"{where} has weights but no training state to resume from: give it to --pretrained, "
            "or a checkpoint.pth.tar to --resume"
        )
    try:
        checked(state, _FORM, where=where)
        saved_config(state, path)  # type: ignore[arg-type]
        json.dumps(state["report"])  # type: ignore[index]
        for number, slots in state["optimizer"]["state"].items():  # type: ignore[index]
            place = f"{where}: optimizer.state"
            checked(slots, _SLOTS, where=f"{place}[{checked(number, COUNT, where=place)}]")
    except (ValueError, TypeError) as error:  # a report that result.json could not hold
        said = str(error).removeprefix(f"{where}: ")
        raise ValueError(f"{where} is damaged: {said}; {_INSTEAD}") from None
    return state  # type: ignore[return-value]


def saved_config(state: TrainingState, path: Path | None) -> dict[str, dict]:
    """Return the configuration of the run that a checkpoint of `path` is of, by sections.

    Raises ValueError where it is none.
    """
    where = f"{printable(str(path))}: config"
    try:
        content = read_yaml(state["config"])
    except ValueError as error:
        raise ValueError(f"{where} is no yaml ({error})") from None
    return checked(content, _CONFIG_FORM, where=where)


@contextmanager
def put_back(what: str, path: Path | None) -> Iterator[None]:
    """Turn what a library raises for a part of a checkpoint that it can't take into one line.

    Raises ValueError.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, LookupError, RuntimeError, AttributeError) as error:
        reason = one_line(error)
        raise ValueError(
            f"{printable(str(path))} is damaged: its {what} cannot be put back "
            f"({type(error).__name__}: {reason}); {_INSTEAD}"
        ) from None
