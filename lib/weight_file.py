"""Weights in files of every usual form, and their way into a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeGuard

import torch
from torch import nn

from lib.class_file import read_class_file
from lib.run_folder import CLASSES
from lib.torch_file import read_torch_file
from lib.weights import converted, find_weights, read_pdparams

_NESTED_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_HEAD = ("classifier.weight", "classifier.bias")
_COUNTER = "num_batches_tracked"
_NUM_AVERAGED = "n_averaged"  # a scalar that torch's AveragedModel keeps beside the weights


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
    if path.suffix == ".pdparams" and path.is_file():
        return {name: torch.from_numpy(value) for name, value in read_pdparams(path).items()}
    return read_torch_file(path)
