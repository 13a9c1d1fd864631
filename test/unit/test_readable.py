"""lib/readable.py: names from outside as they may be shown."""

from __future__ import annotations

import os
import unicodedata

import pytest

from lib.readable import look_alikes, readable, shorten


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("丁香鱼 ça 👩‍🔬", "丁香鱼 ça 👩‍🔬"),
        (os.fsdecode(b"na\xffme"), "na\\xffme"),
        ("\ud800", "\\ud800"),
        ("a\x1b[31mb\x00\x85", "a\\x1b[31mb\\x00\\x85"),
        ("evil\u202egpj.exe", "evil\\u202egpj.exe"),
        ("two\nlines\u2028three", "two\\x0alines\\u2028three"),
    ],
)
def test_what_has_no_shape_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert readable(text) == shown
    readable(text).encode()


def test_what_is_to_be_kept_is_kept() -> None:
    assert readable("a\n\tb\x07", keep="\n\t") == "a\n\tb\\x07"


def test_names_in_a_line_are_quoted_and_a_few() -> None:
    """Fault M2: blanks at the ends of a name can be seen."""
    assert shorten(["cat ", "a\nb"]) == "'cat ', 'a\\x0ab'"
    assert shorten(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"
    assert shorten(["cat/ (empty)"], form=readable) == "cat/ (empty)"


@pytest.mark.parametrize(
    ("name", "other", "difference"),
    [
        ("cat ", "cat", "blanks"),
        ("big  cat", "big cat", "blanks"),
        ("big\u00a0cat", "big cat", "blanks"),
        (unicodedata.normalize("NFD", "café"), "café", "Unicode normalisation"),
        ("Cat", "cat", "upper and lower case"),
        ("c\u200bat", "cat", "invisible characters"),
    ],
)
def test_names_that_look_alike_are_told_apart(name: str, other: str, difference: str) -> None:
    """Fault M2."""
    assert f" differ only in {difference}" in look_alikes(["dog", name], ["cow", other])


def test_names_that_differ_for_the_eye_are_not_remarked_on() -> None:
    """Fault M2."""
    assert look_alikes(["cat", "dog"], ["cat", "cow", "cats"]) == ""
