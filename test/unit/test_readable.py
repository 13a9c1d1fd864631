"""lib/readable.py: names from outside as they may be shown."""

from __future__ import annotations

import os

import pytest

from lib.readable import readable


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
