"""Class names and input recipe, as other projects state them in a checkpoint or beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from lib.config.recipe import Recipe
from lib.data.class_file import class_names_of, read_class_file
from lib.models.weights.facts import CLASS_NAMES, RECIPE
from lib.models.weights.normalization import other_normalization
from lib.models.weights.numpy_stand_ins import NumpyArray, entries_of
from lib.runtime.checked import checked, read_json, shown
from lib.runtime.run_folder import CLASSES
from lib.runtime.text import printable

HUB_CONFIG = "config.json"  # beside a file of the Hugging Face hub
# Entries that hold class names by their number, or numbers by their name, in any of both forms.
_NAMING = (
    "class_to_idx", "idx_to_class", "class_names", "classnames", "label2id", "id2label",
    "class_to_index", "index_to_class", "idx2class", "class2idx", "label_to_idx", "idx_to_label",
)  # fmt: skip
# Entries that hold them in mmengine, timm or scikit-learn, and other things elsewhere.
_PERHAPS_NAMING = ("classes", "CLASSES", "classes_", "label_names", "categories")
_MAX_DEPTH = 3  # of meta.dataset_meta.classes
_NO_NAMES = "LABEL_"  # Hugging Face's names for classes without names
_PRETRAINED_CFG = "pretrained_cfg"  # timm's, as whole as its data.resolve_data_config needs it
_INPUT_FORM = {
    "input_size": [float, range(1, 2**16), range(1, 2**16)],
    "interpolation": ("bilinear", "bicubic", "nearest", "lanczos"),
    "crop_pct": float,
    "mean": [float, float, float],
    "std": [float, float, float],
}


@dataclass(frozen=True)
class Naming:
    """Class names in the order of the network's outputs, and the entry that states them."""

    names: tuple[str, ...]
    place: str  # such as meta.dataset_meta.classes
    is_sure: bool = True  # False for an entry that may hold the names of something else


def _agreed(found: Sequence[Naming], *, where: str) -> Naming | None:
    """Return the first statement, or None where there is none.

    Raises:
        ValueError: another one contradicts it.
    """
    for other in found[1:]:
        first = found[0]
        if other.names != first.names:
            number, ours, theirs = _first_difference(first.names, other.names)
            raise ValueError(
                f"{where} contradicts itself: class {number} is {ours} by {first.place} and "
                f"{theirs} by {other.place}: take the wrong one out, and save it anew"
            )
    return found[0] if found else None


@dataclass(frozen=True)
class Stated:
    """What is known of weights besides their numbers."""

    class_names: tuple[str, ...] | None
    names_source: str  # such as "class_to_idx in the file"; '' where there are none
    facts: Mapping[str, object]
    notes: tuple[str, ...]  # on what is not used


def read_statements(
    path: Path, content: object, *, facts: Mapping[str, object], num_classes: int | None
) -> Stated:
    """Return what the content of a weight file, its own record, and files beside it state.

    Files beside it count where they are of as many classes as the classifier.

    Raises:
        ValueError: a statement is of another form, or two contradict each other.
    """
    where = printable(str(path))
    hub_config, notes = _hub_config(path)
    own = facts.get(CLASS_NAMES)
    stated = [Naming(tuple(own), "the record in the file")] if isinstance(own, list) else []
    stated += [
        replace(naming, place=f"{naming.place} in the file")
        for naming in _namings(content, "", where, set())
    ]
    fitting = []
    for naming in (*stated, *_beside(path, hub_config)):
        if naming.is_sure or num_classes in (None, len(naming.names)):
            fitting.append(naming)
        else:
            notes.append(
                f"{naming.place} names {len(naming.names)} classes and the classifier has "
                f"{num_classes}: not used"
            )
    meant = _agreed(fitting, where=where)
    recipe = recipe_facts(content) or recipe_facts(hub_config)
    if not recipe and RECIPE not in facts:
        notes += [
            f"[Warning] {_PRETRAINED_CFG} in {place} states an input recipe that is not whole, or "
            "not of a kind computed here: not used"
            for place, given in (("the file", content), (f"{HUB_CONFIG} beside it", hub_config))
            if not entries_of(entries_of(given).get(_PRETRAINED_CFG)).keys().isdisjoint(_INPUT_FORM)
        ]
        if other := other_normalization(content):
            notes.append(f"[Warning] {other}: not used, pictures are normalized as ImageNet's are")
    return Stated(
        meant.names if meant else None,
        meant.place if meant else "",
        MappingProxyType({**recipe, **facts}),
        tuple(notes),
    )


def _beside(path: Path, hub_config: Mapping[str, object]) -> Iterator[Naming]:
    """Yield the class names that stand in files beside the weights."""
    if path.with_name(CLASSES).is_file():
        yield Naming(read_class_file(path.with_name(CLASSES)), f"{CLASSES} beside it", False)
    where = printable(str(path.with_name(HUB_CONFIG)))
    for naming in _namings(hub_config, "", where, set()):
        yield Naming(naming.names, f"{naming.place} in {HUB_CONFIG} beside it", False)


def _hub_config(path: Path) -> tuple[Mapping[str, object], list[str]]:
    """Return the Hugging Face hub's description beside weights, empty where there is none.

    A file of that name may be anything: one of another form is not used, as the lines say.
    """
    beside = path.with_name(HUB_CONFIG)
    if not beside.is_file():
        return {}, []
    try:
        return read_json(beside, {str: object}), []
    except ValueError as error:
        return {}, [f"{error}: not used"]


def recipe_facts(content: object) -> dict[str, object]:
    """Return timm's input recipe in the form of our own record; empty where none is whole."""
    fields = entries_of(content)
    inner = entries_of(fields.get(_PRETRAINED_CFG))
    given = {**fields, **inner}
    if given.get("crop_mode", "center") not in ("center", None):
        return {}
    try:
        whole = checked(given, _INPUT_FORM, where="")
    except ValueError:
        return {}
    channels, height, width = whole["input_size"]
    if channels != 3 or height != width or not 0 < whole["crop_pct"] <= 1:
        return {}
    recipe = Recipe(
        resize=math.floor(height / whole["crop_pct"]),
        crop=height,
        interpolation=whole["interpolation"],
        mean=tuple(whole["mean"]),
        std=tuple(whole["std"]),
    )
    return {RECIPE: recipe.as_json()}


def _namings(content: object, place: str, where: str, seen: set[int]) -> Iterator[Naming]:
    if id(content) in seen:  # a pickle may hold a mapping within itself
        return
    seen.add(id(content))
    for key, value in entries_of(content).items():
        if not isinstance(key, str):
            continue
        below = f"{place}.{key}" if place else key
        if isinstance(value, NumpyArray):
            value = None if value.array is None else value.array.tolist()
        if key in (*_NAMING, *_PERHAPS_NAMING):
            names = _stated(key, value, where=f"{where}: {below}")
            if names:
                yield Naming(names, below, key in _NAMING)
        elif below.count(".") < _MAX_DEPTH:
            yield from _namings(value, below, where, seen)


def _stated(key: str, value: object, *, where: str) -> tuple[str, ...] | None:
    """Return the names that an entry states; None where it states none.

    An entry of one of these names may be the path of a list, or a count.
    """
    if not isinstance(value, Mapping | list | tuple) or not value:
        return None
    try:
        names = class_names_of(value)
    except ValueError as error:
        if key in _PERHAPS_NAMING:
            return None
        raise ValueError(f"{where} states no class names: {error}") from None
    if names == tuple(f"{_NO_NAMES}{number}" for number in range(len(names))):
        return None
    return names


def _first_difference(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[int, str, str]:
    """Return the first class that two lists name differently, and both of its names."""
    length = max(len(ours), len(theirs))
    pairs = zip(_padded(ours, length), _padded(theirs, length), strict=True)
    return next((n, shown(a), shown(b)) for n, (a, b) in enumerate(pairs) if a != b)


def _padded(names: tuple[str, ...], length: int) -> list[str | None]:
    return [*names, *[None] * (length - len(names))]
