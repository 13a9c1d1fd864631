"""lib/runtime/checked.py: what comes from files has the form that it is used in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lib.runtime.checked import COUNT, checked, parse_json, read_json, shown


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (5, int),
        (5, float),
        (-0.5, float),
        ("a", str),
        (True, bool),
        (None, None),
        ("eval", ("train", "eval")),
        (255, range(1, 256)),
        (2**63 - 1, COUNT),
        ([], [int]),
        ((1, 2), [int]),
        ([72, 64], [int, int]),
        ({"a": 1, "more": None}, {"a": int, "b?": str}),
        ({"a": {"b": [{"c": 1.5}]}}, {"a": {"b": [{"c": float}]}}),
        ({"x": 1, "y": 2}, {str: int}),
        (None, (None, {"a": int})),
        ([object()], [object]),
    ],
)
def test_a_value_of_the_form_comes_back_as_it_is(value: object, form: object) -> None:
    assert checked(value, form, where="f") is value


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [
        (True, int, "it is True, and a whole number is needed"),
        (True, float, "it is True, and a number is needed"),
        (True, range(2), "it is True, and a whole number from 0 to 1 is needed"),
        (1, bool, "it is 1, and true or false is needed"),
        (5.0, int, "it is 5.0, and a whole number is needed"),
        (float("nan"), float, "it is nan, and a number is needed"),
        (float("inf"), float, "it is inf, and a number is needed"),
        (10**400, float, "it is 1000"),
        (-1, COUNT, "it is -1, and a whole number from 0 is needed"),
        (2**63, COUNT, "it is 9223372036854775808, and"),
        ("x", ("train", "eval"), """it is 'x', and "train" or "eval" is needed"""),
        ([], {"a": int}, "it is [], and a mapping is needed"),
        ({}, [int], "it is {}, and a list is needed"),
        ("ab", [str], "it is 'ab', and a list is needed"),
        ([72], [int, int], "it is [72], and a list of 2 is needed"),
        ({}, {"a": int}, "it has no 'a'"),
        ({"a": {"b": [{"c": None}]}}, {"a": {"b": [{"c": int}]}}, "a.b[0].c is None, and a whole"),
        ({"a": {"b": "5"}}, {"a": (None, {"b": int})}, "a.b is '5', and a whole number"),
        ({"a": {"b": "5"}}, {"a": {str: int}}, "a.b is '5', and a whole number"),
        ({5: 1}, {str: int}, "a key of it is 5, and a text is needed"),
        ({"a\n[Error] b": 1}, {str: str}, "a\\x0a[Error] b is 1, and a text is needed"),
    ],
)
def test_another_value_is_refused_with_its_place_and_what_is_needed(
    value: object, form: object, said: str
) -> None:
    """Fault R6."""
    with pytest.raises(ValueError) as refusal:
        checked(value, form, where="run/x.json")
    message = str(refusal.value)
    assert message.startswith(f"run/x.json: {said}")
    assert "\n" not in message and len(message) < 300


def test_a_value_is_shown_in_one_short_line() -> None:
    """Fault R2, R6."""
    for value in ("a" * 10_000, ["\x1b[31m\n"] * 1000, 10**9000, json.loads("[" * 500 + "]" * 500)):
        assert len(shown(value)) <= 80
        assert shown(value).isprintable()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "is no JSON of ours: it is nested too deeply"),
        (b'{"a":' * 100_000, "is no JSON of ours: it is nested too deeply"),
        (b"", "is damaged or no JSON: Expecting value"),
        (b'{"a": \xff}', "is damaged or no JSON: "),
        (b'{"a": 1, "b": 2, "a": 3}', "is damaged or no JSON: the key 'a' is there twice"),
        (b"1" * 5000, ""),
        (b"null", ": it is None, and a mapping is needed"),
    ],
)
def test_json_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    """Fault R6."""
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as refusal:
        read_json(path, {"a": int})
    message = str(refusal.value)
    assert message.startswith(f"{path}") and said in message
    assert "\n" not in message and len(message) < 400


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x.json", {"a": int}) == {"a": 1}
    assert parse_json('{"a": 1}', {"a": int}, where="there") == {"a": 1}


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    """Fault R7."""
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(ValueError, match="x.json is no file"):
        read_json(tmp_path / "x.json", object)
