"""The record that a weight file of ours carries: its network, input recipe and class names.

One JSON object, `{"arch": "hrnet_w18", "recipe": {...}, "class_names": ["cat", "dog"]}`, each entry
where it is known. It stands as text under the name `hrnet`: in the metadata of a safetensors file,
beside `state_dict` in a torch file, and as an attribute of the mapping in a file of bare weights.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from lib.runtime.checked import checked, parse_json
from lib.runtime.text import printable

KEY = "hrnet"
ARCH, RECIPE, CLASS_NAMES = "arch", "recipe", "class_names"
FLIP = "flip"  # true: evaluated with mirror images
NO_FACTS: Mapping[str, object] = MappingProxyType({})
_FORM = {
    "arch?": (str, None),
    "recipe?": ({str: object}, None),
    "class_names?": ([str], None),
    "flip?": (bool, None),
}
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
        ValueError: it is no JSON text, or an entry is of another form; begins with `where`.
    """
    if text is None:
        return NO_FACTS
    place = f"{where}: its record {KEY!r}"
    facts = parse_json(checked(text, str, where=place), _FORM, where=place)
    facts = {name: value for name, value in facts.items() if value is not None}
    names = facts.get(CLASS_NAMES)
    if names is not None and (not names or len(set(names)) < len(names)):
        fault = "a name is there twice" if names else "it is empty"
        raise ValueError(f"{printable(place)}: {CLASS_NAMES} is no list of class names: {fault}")
    return MappingProxyType(facts)
