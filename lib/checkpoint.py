"""Checkpoints: atomic saves of everything a run needs, and one tolerant loader of weights.

Files hold plain types and CPU tensors, so that `torch.load(weights_only=True)` opens them on a
machine without the device that wrote them.
"""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypedDict, TypeGuard

import torch
from torch import nn

from lib.class_file import read_class_file
from lib.device import rng_state, set_rng_state
from lib.files import write_atomically
from lib.run_folder import CLASSES
from lib.weights import converted, find_weights, read_pdparams

FORMAT = 1
_NESTED_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_HEAD = ("classifier.weight", "classifier.bias")
_COUNTER = "num_batches_tracked"
_NUM_AVERAGED = "n_averaged"  # a scalar that torch's AveragedModel keeps beside the weights
# What torch.load raises for damaged files, as tried with flipped and missing bytes.
_DAMAGES = (RuntimeError, EOFError, LookupError, TypeError, struct.error, zipfile.BadZipFile)


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
    names_sum: str  # of the training pictures, see lib.trainer.same_pictures
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


def save_atomically(content: object, path: Path) -> None:
    """Write `content` with torch.save so that `path` holds either the old or the new, whole file.

    Raises OSError (a full disk, say) and then leaves the old file and no debris.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(buffer.getbuffer(), path)


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
    state = _load(path)
    is_whole = isinstance(state, dict) and TrainingState.__required_keys__ <= state.keys()
    if not is_whole or state["format"] != FORMAT:  # type: ignore[index]
        raise ValueError(
            f"{path} has weights but no training state to resume from: give it to --pretrained, "
            "or a checkpoint.pth.tar to --resume"
        )
    return state  # type: ignore[return-value]


@dataclass(frozen=True)
class WeightFile:
    """Weights by parameter name (CPU tensors), and the class names they go with, if known."""

    path: Path
    weights: dict[str, torch.Tensor]
    class_names: tuple[str, ...] | None
    converted_from: str = ""  # the project whose names the weights had

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier. Raises ValueError where there is no classifier."""
        head = self.weights.get("classifier.weight")
        if head is None or head.dim() != 2:
            raise ValueError(f"{self.path} has no classifier.weight: it is not a whole HRNet")
        return head.shape[0]


def read_weights(source: Path | str) -> WeightFile:
    """Return the weights in a file of any usual form, downloaded where a name or address is given.

    Understood: a bare state_dict, one nested under state_dict or model (EMA weights first), names
    that begin with module. or _orig_mod., our own checkpoint.pth.tar, .safetensors, mmpretrain's
    names, and PaddleClas's .pdparams. Class names come from the file, else from `classes.json`
    beside it where the counts agree.
    Raises FileNotFoundError, ValueError where the file holds no weights or the one beside it no
    class names, and what `find_weights` raises.
    """
    path = find_weights(source)
    content = outer = _load(path) if path == Path(source) else _load_cached(path, source)
    for key in _NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a mapping of weights")
    weights = {_bare(str(name)): v for name, v in content.items() if _is_weight(v, name)}
    if not weights:
        raise ValueError(
            f"{path} holds no weights: its keys are {', '.join(map(str, content))[:200]}"
        )
    try:
        weights, converted_from = converted(weights)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    names = outer.get("class_names") if isinstance(outer, Mapping) else None
    head = weights.get("classifier.weight")
    if names is None and head is not None and head.dim() == 2:
        names = _class_names_beside(path, head.shape[0])
    return WeightFile(path, weights, None if names is None else tuple(names), converted_from)


def _class_names_beside(path: Path, num_classes: int) -> tuple[str, ...] | None:
    beside = path.with_name(CLASSES)
    if not beside.is_file():
        return None
    names = read_class_file(beside)
    return names if len(names) == num_classes else None


class Head(Enum):
    """What becomes of the classifier when weights are loaded."""

    SAME = "same"  # the weights'; another size is an error
    NEW_IF_OTHER = "new if other"  # a new one where the weights' has another size
    NEW = "new"


def load_weights(
    model: nn.Module, file: WeightFile, *, head: Head = Head.SAME, hint: str = ""
) -> str:
    """Load weights strictly and return one line that says what was loaded.

    A new head is the model's own, as it is. `hint` stands for the question that the error ends
    with.
    Raises ValueError that names the missing, unexpected and misshapen parameters.
    """
    own = model.state_dict()
    weights = dict(file.weights)
    note = f", {file.converted_from}'s names converted" if file.converted_from else ""
    if head is Head.NEW or (head is Head.NEW_IF_OTHER and _head_differs(own, weights)):
        ours = own["classifier.weight"].shape[0]
        note += f"; the classifier of {file.num_classes} classes is replaced by a new one of {ours}"
        weights.update({name: own[name] for name in _HEAD})
    _check_fit(find_misfits(own, weights), file.path, hint=hint)
    if not any(name.endswith(_COUNTER) for name in weights):
        weights.update({name: value for name, value in own.items() if name.endswith(_COUNTER)})
    model.load_state_dict(weights, strict=True)
    return f"{len(own)} tensors from {file.path}{note}"


def _head_differs(own: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> bool:
    return any(name in weights and weights[name].shape != own[name].shape for name in _HEAD)


@dataclass(frozen=True)
class Misfits:
    """What keeps weights from fitting a network; true where there is anything."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    other_shape: tuple[str, ...]  # "name (theirs) for (ours)"

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.other_shape)


def find_misfits(own: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> Misfits:
    """Compare weights with those of a network by name and shape.

    Weights older than torch 0.4.1, or of another project, have no counters of batches: none of
    them is missed then.
    """
    has_counters = any(name.endswith(_COUNTER) for name in weights)
    return Misfits(
        missing=tuple(
            name
            for name in own
            if name not in weights and (has_counters or not name.endswith(_COUNTER))
        ),
        unexpected=tuple(name for name in weights if name not in own),
        other_shape=tuple(
            f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in weights and weights[name].shape != own[name].shape
        ),
    )


def _check_fit(misfits: Misfits, source: Path, *, hint: str) -> None:
    if not misfits:
        return
    missing, unexpected, shapes = misfits.missing, misfits.unexpected, misfits.other_shape
    if hint:
        fix = hint
    elif not missing and not unexpected and all(s.startswith("classifier.") for s in shapes):
        fix = "to start a new classifier, say MODEL.NUM_CLASSES <count> on purpose"
    else:
        fix = (
            "is --cfg (MODEL.NAME) the network that these weights are of? python tools/weights.py "
            "inspect lists all"
        )
    raise ValueError(
        f"{source} does not fit: {_some('missing', missing)}; {_some('unexpected', unexpected)}; "
        f"{_some('other shape', shapes)}; {fix}"
    )


def _some(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {what}" + (f" ({shown})" if names else "")


def _is_weight(value: object, name: object) -> TypeGuard[torch.Tensor]:
    if not isinstance(value, torch.Tensor):
        return False
    return name != _NUM_AVERAGED or value.dim() > 0


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _load_cached(path: Path, source: Path | str) -> object:
    try:
        return _load(path)
    except ValueError as error:
        raise ValueError(
            f"{error}; it was downloaded for {source}: if it is damaged, delete {path}, and the "
            "next run fetches it anew"
        ) from None


def _load(path: Path) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"no such weight file: {path}")
    if path.suffix == ".safetensors":
        import safetensors.torch  # the only reader of this form, and needed for no other

        try:
            return safetensors.torch.load_file(path)
        except Exception as error:  # its errors have no common public base
            raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if path.suffix == ".pdparams":
        return {name: torch.from_numpy(value) for name, value in read_pdparams(path).items()}
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(
            f"{path} holds more than plain weights and is not opened, since that could run foreign "
            f"code, or is damaged ({reason}); save its state_dict alone with torch.save"
        ) from None
    except _DAMAGES as error:
        raise ValueError(
            f"{path} is damaged or no weight file: {' '.join(str(error).split())[:160]}"
        ) from None
