"""Weights in files of every usual form, and their way into a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import torch
from torch import nn

from lib.models.weights.conversion import converted
from lib.models.weights.facts import NO_FACTS, facts_text_in, read_facts
from lib.models.weights.find import find_weights, local_weights
from lib.models.weights.forms import is_plain_pickle
from lib.models.weights.numpy_stand_ins import NumpyArray
from lib.models.weights.pdparams import read_pdparams
from lib.models.weights.statements import read_statements
from lib.models.weights.torch_file import Content, read_torch_file
from lib.models.weights.unwrap import unwrap
from lib.runtime.checked import shown
from lib.runtime.text import printable

_HEAD = ("classifier.weight", "classifier.bias")
_AFTER_BACKBONE = ("incre_modules", "downsamp_modules", "final_layer", "classifier")
_COUNTER = "num_batches_tracked"
_MAX_KEYS = 12
_NUM_AVERAGED = "n_averaged"  # a scalar that torch's AveragedModel keeps beside the weights


@dataclass(frozen=True)
class WeightFile:
    """Weights by parameter name (CPU tensors), and what is known of them."""

    path: Path
    weights: dict[str, torch.Tensor]
    class_names: tuple[str, ...] | None
    converted_from: str = ""  # the project whose names the weights had
    names_source: str = ""  # where the class names stand, such as "class_to_idx in the file"
    facts: Mapping[str, object] = field(
        default_factory=lambda: NO_FACTS
    )  # see lib.models.weights.facts
    notes: tuple[str, ...] = ()  # on what the file holds besides, to say

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier. Raises ValueError where there is no classifier."""
        num = _num_outputs(self.weights)
        if num is None:
            raise ValueError(
                f"{printable(str(self.path))} has no classifier.weight: it is not a whole HRNet"
            )
        return num


def read_weights(source: Path | str) -> WeightFile:
    """Return the weights in a file of any usual form, downloaded where a name or address is given.

    Understood: a bare state_dict, or one under the keys and prefixes of usual trainers (averaged
    weights first), our own checkpoint.pth.tar, safetensors, mmpretrain's names, and PaddleClas's
    .pdparams. Class names and an input recipe come from the file, else from `classes.json` or the
    Hugging Face hub's `config.json` beside it where the counts agree.
    Raises FileNotFoundError, ValueError where the file holds no weights or contradicts itself, or
    the one beside it holds no class names, and what `find_weights` raises.
    """
    local = local_weights(source)
    path = find_weights(source) if local is None else local
    where = printable(str(path))
    content = _load_cached(path, source) if local is None else _load(path)
    try:
        found = unwrap(content.value, _as_weight)
        weights, converted_from = converted(found.weights)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not weights:
        raise ValueError(f"{where} holds no weights: {_held(content.value)}")
    _check_tensors(weights, where)
    record = facts_text_in(content.value) if content.record is None else content.record
    stated = read_statements(
        path,
        content.value,
        facts=read_facts(record, where=where),
        num_classes=_num_outputs(weights),
    )
    return WeightFile(
        path,
        weights,
        stated.class_names,
        converted_from,
        stated.names_source,
        stated.facts,
        (*found.notes, *stated.notes),
    )


def _num_outputs(weights: Mapping[str, torch.Tensor]) -> int | None:
    head = weights.get("classifier.weight")
    return None if head is None or head.dim() != 2 else head.shape[0]


def _as_weight(name: object, value: object) -> torch.Tensor | None:
    """Return what a name stands for where it is a weight."""
    if isinstance(value, NumpyArray) and value.numbers is not None:
        value = torch.from_numpy(value.numbers)
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        return None
    is_counter = name.rpartition(".")[2] == _NUM_AVERAGED and value.dim() == 0
    return None if is_counter else value


def _check_tensors(weights: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise ValueError for a tensor that hasn't as many numbers as it states."""
    for name, tensor in weights.items():
        is_plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not is_plain or tensor.is_quantized or tensor.is_complex():
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}"
            fault = f"is of a kind that no network here has ({kind})"
        elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            fault = f"states {tuple(tensor.shape)} numbers and holds fewer"
        else:
            continue
        raise ValueError(f"{where}: its tensor {shown(name)} {fault}: is it damaged?")


def _held(content: object) -> str:
    """Return what a file without weights holds instead."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}, not a mapping of weights"
    return f"its keys are {', '.join(shown(key) for key in list(content)[:_MAX_KEYS])}"


def _load_cached(path: Path, source: Path | str) -> Content:
    try:
        return _load(path)
    except ValueError as error:
        raise ValueError(
            f"{error}; it was downloaded for {printable(str(source))}: if it is damaged, delete "
            f"{path}, and the next run fetches it anew"
        ) from None


def _load(path: Path) -> Content:
    if path.is_file() and (path.suffix == ".pdparams" or is_plain_pickle(path)):
        arrays = read_pdparams(path).items()
        return Content({name: torch.from_numpy(value) for name, value in arrays}, None)
    return read_torch_file(path)


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
    weights, notes = dict(file.weights), list(file.notes)
    converted_names = f", {file.converted_from}'s names converted" if file.converted_from else ""
    is_new = head is Head.NEW or (head is Head.NEW_IF_OTHER and _head_differs(own, weights))
    if is_new:
        notes.append(_with_new_head(own, weights))
    _check_fit(find_misfits(own, weights), file.path, hint=hint)
    if not any(name.endswith(_COUNTER) for name in weights):
        weights.update({name: value for name, value in own.items() if name.endswith(_COUNTER)})
    model.load_state_dict(weights, strict=True)
    broken = not_finite(weights)
    if broken:
        notes.append(f"[Warning] {broken}: what the network computes means nothing")
    loaded = f"{len(own)} tensors from {printable(str(file.path))}{converted_names}"
    return "; ".join([loaded, *notes])


def not_finite(weights: Mapping[str, torch.Tensor]) -> str:
    """Return in words which weights are NaN or infinite; empty where none is."""
    broken = [
        name
        for name, value in weights.items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]
    return _some("hold NaN or infinite numbers", broken) if broken else ""


def _head_differs(own: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> bool:
    """True where the classifier is missing, or of another size."""
    return any(name not in weights or weights[name].shape != own[name].shape for name in _HEAD)


def _with_new_head(own: Mapping[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> str:
    """Put the model's own classifier among the weights; return what is said of that.

    Its other layers behind the backbone too, where the weights are a backbone's alone.
    """
    classifier = weights.get("classifier.weight")
    num_new = own["classifier.weight"].shape[0]
    weights.update({name: own[name] for name in _HEAD})
    absent = [
        part for part in _AFTER_BACKBONE if not any(name.startswith(f"{part}.") for name in weights)
    ]
    weights.update({n: v for n, v in own.items() if n.partition(".")[0] in absent})
    said = f"a new one of {num_new}"
    if classifier is not None:
        said = f"the classifier of {classifier.shape[0]} classes is replaced by {said}"
    else:
        said = f"it has no classifier: that is {said}"
    return said + (f", and {', '.join(absent)} start anew too" if absent else "")


@dataclass(frozen=True)
class Misfits:
    """What keeps weights from fitting a network; true where there is anything."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    other_shape: tuple[str, ...]  # or type of numbers: "name (theirs) for (ours)"

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
            misfit
            for name, ours in own.items()
            if name in weights and (misfit := _misfit(name, weights[name], ours))
        ),
    )


def _misfit(name: str, theirs: torch.Tensor, ours: torch.Tensor) -> str:
    if theirs.shape != ours.shape:
        return f"{name} {tuple(theirs.shape)} for {tuple(ours.shape)}"
    if theirs.is_floating_point() or not ours.is_floating_point():
        return ""
    return f"{name} {theirs.dtype} for {ours.dtype}"  # its numbers would be taken as they are


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
        f"{printable(str(source))} does not fit: {_some('missing', missing)}; "
        f"{_some('unexpected', unexpected)}; {_some('other shape', shapes)}; {fix}"
    )


def _some(what: str, names: Sequence[str]) -> str:
    some = printable(", ".join(names[:3])) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {what}" + (f" ({some})" if names else "")
