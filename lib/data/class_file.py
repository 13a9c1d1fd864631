"""A network's class names in a file: a run's classes.json, another usual form of it, or a text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lib.runtime.text import shorten

_FORMS = 'wanted is {"name": number} with the numbers 0..n-1, {"0": "name"}, or ["name", ...]'


def read_class_file(path: Path) -> tuple[str, ...]:
    """Return the class names in the order of the network's outputs.

    Understood are {name: number}, as a run writes it, {"0": name}, and a list of the names.
    Raises FileNotFoundError, and ValueError where the file is of another form, its numbers are not
    0..n-1, or a name is there twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file of class names: {path}")
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    try:
        name_of = _numbered(json.loads(text, object_pairs_hook=_Pairs))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no list of class names ({error}): {_FORMS}") from None
    return tuple(name for _, name in sorted(name_of))


def read_class_list(path: Path) -> tuple[str, ...]:
    """Return the class names in a .json file, as `read_class_file`, or in a text, a name a line.

    Raises FileNotFoundError, and ValueError where a name is there twice, or none.
    """
    if path.suffix.lower() == ".json":
        return read_class_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file of class names: {path}")
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    names = tuple(line.strip() for line in text.split("\n") if line.strip())
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or not names:
        fault = f"has class names twice: {shorten(twice)}" if twice else "has no class names"
        raise ValueError(f"{path} {fault}; wanted is a name a line, in the order of the outputs")
    return names


def class_names_of(content: object) -> tuple[str, ...]:
    """Return the class names that a mapping or a list of the same forms states.

    Raises ValueError, which says the fault alone, for anything else.
    """
    if isinstance(content, Mapping):
        content = _Pairs((str(key), value) for key, value in content.items())
    elif isinstance(content, tuple):
        content = list(content)
    return tuple(name for _, name in sorted(_numbered(content)))


class _Pairs(list[tuple[str, object]]):
    """A mapping as it stands in the file: a dict would keep one of equal keys, and say nothing."""


def _numbered(content: object) -> list[tuple[int, str]]:
    """Return number and name of each class; raise ValueError, which says the fault alone."""
    if not isinstance(content, list) or not content:
        raise ValueError("it is empty" if content == [] else "it holds a single value")
    if not isinstance(content, _Pairs):
        pairs = [(number, _name(found)) for number, found in enumerate(content)]
    elif all(isinstance(value, str) for _, value in content):
        pairs = [(_number_in_text(key), _name(value)) for key, value in content]
    else:
        pairs = [(_number(value), key) for key, value in content]
    for what, found in zip(("number", "name"), zip(*pairs, strict=True), strict=True):
        (most, num_times), *_ = Counter(found).most_common(1)
        if num_times > 1:
            raise ValueError(f"the {what} {most!r} is there {num_times} times")
    highest = max(number for number, _ in pairs)
    if highest >= len(pairs):
        raise ValueError(f"the number {highest} is there, among {len(pairs)} classes")
    return pairs


def _number_in_text(key: str) -> int:
    return _number(int(key) if key.isascii() and key.isdecimal() and len(key) < 10 else key)


def _number(found: object) -> int:
    if type(found) is not int or found < 0:
        raise ValueError(f"{str(found)[:40]!r} stands for the number of a class")
    return found


def _name(found: object) -> str:
    if not isinstance(found, str):
        raise ValueError(f"{str(found)[:40]!r} stands for the name of a class")
    return found
