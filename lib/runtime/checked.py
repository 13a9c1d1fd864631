"""Values from files, checked against a declared form before anything is done with them.

A form is one of

    int, float, str, bool    a value of that type; True is no int, 5 is a float too, NaN is none
    object                   any value
    "eval", None             this value
    range(1, 256)            a whole number of the range
    [form]                   a list of such values
    [form, form]             a list of these two
    {str: form}              a mapping of any names to such values
    {"a": form, "b?": form}  a mapping with these keys and any others; `b` may be missing
    (form, form)             a value of either form
"""

from __future__ import annotations

import json
import reprlib
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar, overload

from lib.runtime.text import printable

COUNT = range(2**63)  # what fits into 64 bits, from 0
_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_LARGEST = sys.float_info.max
_SHOWN_LENGTH = 80
_T = TypeVar("_T")
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 60


@overload
def checked(content: object, form: type[_T], *, where: str) -> _T: ...
@overload
def checked(content: object, form: dict, *, where: str) -> dict: ...
@overload
def checked(content: object, form: list, *, where: str) -> list: ...
@overload
def checked(content: object, form: object, *, where: str) -> object: ...
def checked(content: object, form: object, *, where: str) -> object:
    """Return `content` where it is of the form; `where` names the file it comes from.

    Raises ValueError in one line: the place within the file, what is there, what is needed.
    """
    misfit = _misfit(content, form, "")
    if misfit:
        raise ValueError(f"{printable(where)}: {misfit}")
    return content


@overload
def parse_json(text: str | bytes, form: type[_T], *, where: str) -> _T: ...
@overload
def parse_json(text: str | bytes, form: dict, *, where: str) -> dict: ...
@overload
def parse_json(text: str | bytes, form: list, *, where: str) -> list: ...
@overload
def parse_json(text: str | bytes, form: object, *, where: str) -> object: ...
def parse_json(text: str | bytes, form: object, *, where: str) -> object:
    """Return what JSON text says, where it is of the form.

    Raises ValueError in one line: as `checked`, and for what is no JSON, is nested too deeply, or
    has a key twice.
    """
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError(
            f"{printable(where)} is no JSON of ours: it is nested too deeply"
        ) from None
    except ValueError as error:
        raise ValueError(f"{printable(where)} is damaged or no JSON: {error}") from None
    return checked(content, form, where=where)


@overload
def read_json(path: Path, form: type[_T]) -> _T: ...
@overload
def read_json(path: Path, form: dict) -> dict: ...
@overload
def read_json(path: Path, form: list) -> list: ...
@overload
def read_json(path: Path, form: object) -> object: ...
def read_json(path: Path, form: object) -> object:
    """Return what a JSON file says, where it is of the form.

    Raises OSError where it can't be read, ValueError as `parse_json` and for what is no file.
    """
    return parse_json(_content(path), form, where=str(path))


def read_json_lines(path: Path, form: object) -> tuple[list, list[str]]:
    """Return the values of a file with one a line, and of each that is left out why.

    Left out is what is no JSON, as a line that a killed process has begun, or of another form.
    Raises OSError where the file can't be read, ValueError where it is none.
    """
    values, left_out = [], []
    for number, line in enumerate(_content(path).split(b"\n"), start=1):
        if line.strip():
            try:
                values.append(parse_json(line, form, where=f"{path} line {number}"))
            except ValueError as error:
                left_out.append(str(error))
    return values, left_out


def _content(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would keep its reader waiting
        raise ValueError(f"{printable(str(path))} is no file")
    return path.read_bytes()


def shown(value: object) -> str:
    """Return a value quoted for a message: in one line, cut short, fit for a terminal."""
    try:
        text = _SHOWN.repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = f"a {type(value).__name__} too large to be shown"
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 3]}..."


def _misfit(value: object, form: object, place: str) -> str:
    """Return what is wrong with the value at `place`, '' where it is of the form."""
    if isinstance(form, tuple):
        if not all(_misfit(value, choice, place) for choice in form):
            return ""
        for choice in form:  # what it comes near to says more than all that it may be
            if isinstance(choice, dict | list) and _is_like(value, choice):
                return _misfit(value, choice, place)
    elif isinstance(form, dict) and isinstance(value, Mapping):
        return _misfit_within(value, form, place)
    elif isinstance(form, list) and _is_like(value, form):
        return _misfit_of_items(value, form, place)  # type: ignore[arg-type]
    elif _is_of(value, form):
        return ""
    return f"{place or 'it'} is {shown(value)}, and {_name(form)} is needed"


def _misfit_within(mapping: Mapping[object, object], form: dict, place: str) -> str:
    for name, inner in form.items():
        if name is str:
            for key, value in mapping.items():
                if misfit := _misfit(key, str, f"a key of {place or 'it'}"):
                    return misfit
                if misfit := _misfit(value, inner, _below(place, key)):
                    return misfit
            continue
        key = name.removesuffix("?")
        if key in mapping:
            if misfit := _misfit(mapping[key], inner, _below(place, key)):
                return misfit
        elif key == name:
            return f"{place or 'it'} has no {key!r}"
    return ""


def _misfit_of_items(items: Sequence[object], form: list, place: str) -> str:
    if len(form) > 1 and len(items) != len(form):
        return f"{place or 'it'} is {shown(items)}, and {_name(form)} is needed"
    for number, value in enumerate(items):
        inner = form[number] if len(form) > 1 else form[0]
        if misfit := _misfit(value, inner, f"{place}[{number}]"):
            return misfit
    return ""


def _below(place: str, key: object) -> str:
    name = printable(str(key))[:_SHOWN_LENGTH]
    return f"{place}.{name}" if place else name


def _is_like(value: object, form: dict | list) -> bool:
    if isinstance(form, list):
        return isinstance(value, list | tuple)
    return isinstance(value, Mapping) and all(value.get(k) == v for k, v in _fixed(form).items())


def _fixed(form: dict) -> dict[str, str]:
    """Return the keys that must have one value, such as the kind of a record."""
    return {key: value for key, value in form.items() if isinstance(value, str)}


def _is_of(value: object, form: object) -> bool:
    if isinstance(value, bool):
        return form in (bool, object) or form is value
    if form is float:
        return isinstance(value, int | float) and -_LARGEST <= value <= _LARGEST
    if isinstance(form, type):
        return isinstance(value, form)
    if isinstance(form, range):
        return isinstance(value, int) and value in form
    return type(value) is type(form) and value == form


def _name(form: object) -> str:
    if isinstance(form, tuple):
        return " or ".join(dict.fromkeys(_name(choice) for choice in form))
    if isinstance(form, range):
        if form.stop == form.start + 1:
            return str(form.start)
        end = f" to {form.stop - 1}" if form.stop < COUNT.stop else ""
        return f"a whole number from {form.start}{end}"
    if isinstance(form, list):
        return "a list" if len(form) == 1 else f"a list of {len(form)}"
    if isinstance(form, dict):
        fixed = ", ".join(f"{key} {value!r}" for key, value in _fixed(form).items())
        return f"a mapping with {fixed}" if fixed else "a mapping"
    if isinstance(form, type):
        return _NAMES.get(form) or f"a {form.__name__}"
    return json.dumps(form)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the mapping of some pairs; a dict alone would keep one of equal keys silently."""
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} is there twice")
    return content
