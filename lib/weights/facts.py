"""The record that a weight file of ours carries: its network, input recipe and class names.

One JSON object, `{"arch": "hrnet_w18", "recipe": {...}, "class_names": ["cat", "dog"]}`, each entry
where it is known. It stands as text under the name `hrnet`: in the metadata of a safetensors file,
beside `state_dict` in a torch file, and as an attribute of the mapping in a file of bare weights.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from lib.readable import readable

KEY = "hrnet"
ARCH, RECIPE, CLASS_NAMES = "arch", "recipe", "class_names"
NO_FACTS: Mapping[str, object] = MappingProxyType({})
_MAX_SHOWN = 40
_Value = TypeVar("_Value")


def facts_text(facts: Mapping[str, object]) -> str:
    """Return the record as it is stored, without the entries that are None."""
    return json.dumps({name: value for name, value in facts.items() if value is not None})


def with_facts(
    weights: Mapping[str, _Value], facts: Mapping[str, object]
) -> OrderedDict[str, _Value]:
    """Return the weights as a mapping that carries the record, for a file of bare weights."""
    carrier = OrderedDict(weights)
    vars(carrier).update(getattr(weights, "__dict__", {}))
    setattr(carrier, KEY, facts_text(facts))
    return carrier


def facts_text_in(content: object) -> object:
    """Return what stands for the record in a torch file's content; None: there is none.

    Bare weights have it as an attribute, other files under a key.
    """
    found = content.get(KEY) if isinstance(content, Mapping) else None
    return getattr(content, KEY, None) if found is None else found


def read_facts(text: object, *, where: str) -> Mapping[str, object]:
    """Return the record that is stored as `text`; empty where that is None.

    An entry without a value counts as left out; entries of later releases stay as they are.

    Raises:
        ValueError: it is no JSON text, or an entry is of another type; begins with `where`.
    """
    if text is None:
        return NO_FACTS
    try:
        facts = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise ValueError(
            f"{where}: its record {KEY!r} is no JSON object ({_shown(text)}): the file is damaged, "
            "or another program wrote that entry"
        )
    facts = {name: value for name, value in facts.items() if value is not None}
    for name, is_right, wanted in (
        (ARCH, _is_name(facts.get(ARCH, "x")), "a network's name"),
        (RECIPE, isinstance(facts.get(RECIPE, {}), dict), "a mapping"),
        (CLASS_NAMES, _are_names(facts.get(CLASS_NAMES, ["x"])), "a list of different names"),
    ):
        if not is_right:
            raise ValueError(
                f"{where}: {name} in its record {KEY!r} must be {wanted}, not {_shown(facts[name])}"
            )
    return MappingProxyType(facts)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _are_names(value: object) -> bool:
    """True for a list of texts, none of which is there twice."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and max(Counter(value).values()) == 1
    )


def _shown(value: object) -> str:
    text = readable(repr(value))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
