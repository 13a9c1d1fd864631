"""Weights taken out of what trainers wrap around them: outer keys, and prefixes of the names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.runtime.checked import shown

if TYPE_CHECKING:
    from torch import Tensor

AsWeight = Callable[[object, object], "Tensor | None"]  # of a name and what it stands for

# Names in every HRNet, behind the prefix that all of its names share.
_STEM, _STAGE = "conv1.weight", "stage2.0.branches.0.0.conv1.weight"
_PADDLE_STEM = re.compile(r"(.*\.)?conv_layer1_1\._?conv\.weight")
_WRAPPERS = ("module.", "_orig_mod.")  # of networks of any kind
_BACKBONE, _BESIDE_BACKBONE = "backbone.", ("neck.", "head.fc.")  # mmpretrain's three parts
# Outer keys, the better ones first: averaged weights are what a project evaluates.
_KEYS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema",
    "params_ema", "state_dict", "model_state_dict", "model_state", "model", "net", "network",
    "weights", "params", "module", "student", "backbone",
)  # fmt: skip
_AVERAGED = re.compile(r"(^|[._])(ema|averaged?|swa|shadow)([._]|$)")
_TEACHER = re.compile(r"(^|[._])teacher")
_NO_NETWORK = re.compile(r"optim|sched|scaler|momentum|grad|discriminator", re.IGNORECASE)
# mmengine swaps the averaged weights with the others as it saves: those of this key are the others.
_SWAPPED, _MMENGINES = "ema_state_dict", "message_hub"
_MAX_DEPTH, _MAX_NAMED = 4, 3


@dataclass(frozen=True)
class Unwrapped:
    """Weights by their bare names."""

    weights: dict[str, Tensor]
    notes: tuple[str, ...] = ()  # on what else there was, to say


@dataclass(frozen=True)
class _Found:
    """Weights at some place."""

    place: str  # outer keys or a prefix
    weights: dict[str, Tensor]

    @property
    def is_averaged(self) -> bool:
        return bool(_AVERAGED.search(self.place))

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """The lowest is taken."""
        key = self.place.rpartition(".")[2]
        position = _KEYS.index(key) if key in _KEYS else len(_KEYS)
        return bool(_TEACHER.search(self.place)), not self.is_averaged, position


def unwrap(content: object, as_weight: AsWeight) -> Unwrapped:
    """Return the weights in a file's content, by the names that they have within the network.

    What holds an HRNet is taken, under whichever keys and prefixes, averaged weights first and a
    teacher last. Where nothing does, weights under a usual key, without the prefixes of torch's
    own wrappers; an empty mapping where there are none at all.

    Raises:
        ValueError: several networks are there, and nothing tells which is meant.
    """
    found = list(_mappings(content, as_weight, "", set()))
    hrnets = [place for place in found if _roots(place.weights)]
    if not hrnets:
        usual = sorted((place for place in found if _is_usual(place)), key=lambda place: place.rank)
        return Unwrapped(_without_wrappers(usual[0].weights) if usual else {})
    taken, notes = _best(hrnets)
    bare = _without_prefix(taken.weights)
    lists = (
        f"averaged weights under {shown(place)} are a list without names, and left out"
        for place in _averaged_lists(content, as_weight, "", set())
    )
    return Unwrapped(bare.weights, (*notes, *bare.notes, *lists))


def _averaged_lists(
    content: object, as_weight: AsWeight, place: str, seen: set[int]
) -> Iterator[str]:
    """Yield where averaged weights stand in a list, which tells no one's name."""
    if isinstance(content, Mapping) and id(content) not in seen and place.count(".") < _MAX_DEPTH:
        seen.add(id(content))
        for key, value in content.items():
            below = f"{place}.{key}" if place else str(key)
            yield from _averaged_lists(value, as_weight, below, seen)
    elif isinstance(content, (list, tuple)) and content and _AVERAGED.search(place):
        yield from [place] if all(as_weight("", value) is not None for value in content) else []


def _is_usual(place: _Found) -> bool:
    return not place.place or place.place.rpartition(".")[2] in _KEYS


def _mappings(content: object, as_weight: AsWeight, place: str, seen: set[int]) -> Iterator[_Found]:
    """Yield each mapping within `content` that holds weights."""
    if not isinstance(content, Mapping) or id(content) in seen:
        return
    seen.add(id(content))  # a pickle may hold a mapping within itself
    weights = {
        str(name): weight
        for name, value in content.items()
        if (weight := as_weight(name, value)) is not None
    }
    if weights:
        yield _Found(place, weights)
    if place.count(".") >= _MAX_DEPTH:
        return
    for key, value in content.items():
        is_swapped = key == _SWAPPED and _MMENGINES in content
        if isinstance(key, str) and not is_swapped and not _NO_NETWORK.search(key):
            yield from _mappings(value, as_weight, f"{place}.{key}" if place else key, seen)


def _best(found: Sequence[_Found]) -> tuple[_Found, list[str]]:
    """Return what is meant, and lines on the rest."""
    order = sorted(found, key=lambda place: place.rank)
    notes = []
    plain = [place for place in order if not place.is_averaged]
    while len(order) > 1 and order[0].is_averaged and plain:
        if len(order[0].weights) >= len(plain[0].weights):
            break
        notes.append(
            f"the averaged weights under {shown(order[0].place)} are not whole "
            f"({len(order[0].weights)} of {len(plain[0].weights)}) and left out"
        )
        order = order[1:]
    taken, rest = order[0], order[1:]
    if rest and rest[0].rank == taken.rank:
        raise ValueError(
            f"holds several networks, under {shown(taken.place)} and {shown(rest[0].place)}: save "
            "the one that is meant alone, with torch.save"
        )
    if taken.is_averaged:
        notes.append(f"the averaged weights, under {shown(taken.place)}")
    notes += [
        f"those under {shown(place.place)} are left out" for place in rest if not taken.is_averaged
    ]
    return taken, notes


def _roots(names: Mapping[str, object]) -> list[str]:
    """Return each prefix of names that are an HRNet's behind it."""
    official = [
        name.removesuffix(_STAGE)
        for name in names
        if name.endswith(_STAGE) and name.removesuffix(_STAGE) + _STEM in names
    ]
    paddle = [match[1] or "" for match in map(_PADDLE_STEM.fullmatch, names) if match]
    return [root for root in official + paddle if not root or root.endswith(".")]


def _without_prefix(weights: dict[str, Tensor]) -> Unwrapped:
    below = [
        _Found(root.removesuffix("."), {n: w for n, w in weights.items() if n.startswith(root)})
        for root in _roots(weights)
    ]
    taken, notes = _best(below)
    root = f"{taken.place}." if taken.place else ""
    parent = root.removesuffix(_BACKBONE)
    siblings = tuple(f"{parent}{name}" for name in _BESIDE_BACKBONE)
    if parent != root and any(name.startswith(siblings) for name in weights):
        root = parent
    inner = {n.removeprefix(root): w for n, w in weights.items() if n.startswith(root)}
    others = [
        name
        for name in weights
        if not name.startswith(root) and not any(name in place.weights for place in below)
    ]
    if others:
        some = ", ".join(map(shown, others[:_MAX_NAMED])) + ", ..." * (len(others) > _MAX_NAMED)
        notes.append(f"{len(others)} tensors that are not the network's left out ({some})")
    return Unwrapped(inner, tuple(notes))


def _without_wrappers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefixes of torch's wrappers that all names share, in any order and number."""
    while True:
        prefix = next((p for p in _WRAPPERS if all(name.startswith(p) for name in weights)), None)
        if prefix is None:
            return weights
        weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
