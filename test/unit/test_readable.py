"""lib/runtime/text.py: names from outside as they may be shown."""

from __future__ import annotations

import io
import os
import unicodedata

import pytest

from lib.runtime.text import counted, fitted, look_alikes, num_columns, padded, printable, shorten


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
    assert printable(text) == shown
    printable(text).encode()


def test_what_is_to_be_kept_is_kept() -> None:
    assert printable("a\n\tb\x07", keep="\n\t") == "a\n\tb\\x07"


def test_names_in_a_line_are_quoted_and_a_few() -> None:
    """Fault M2: blanks at the ends of a name can be seen."""
    assert shorten(["cat ", "a\nb"]) == "'cat ', 'a\\x0ab'"
    assert shorten(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"
    assert shorten(["cat/ (empty)"], form=printable) == "cat/ (empty)"


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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LINE = (
    "[Warning] the best weights are evaluated, of which \u4e01\u9999\u9c7c is a class with a name "
    "of six columns; give --data_path to show what they are"
)


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_terminal_breaks_no_word(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault V3."""
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = fitted(LINE, Terminal()).split("\n")
    assert len(lines) > 1 and all(num_columns(line) <= columns for line in lines)
    assert " ".join(" ".join(lines).split()) == LINE
    fields = "Epoch: [0][1/2]\tTime 0.431s" + "x" * columns
    assert fitted(fields, Terminal()) == fields  # a contract, which programs read


def test_a_file_has_each_line_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault V3: what reads a log takes it line by line."""
    monkeypatch.setenv("COLUMNS", "40")
    assert fitted(LINE, io.StringIO()) == LINE


def test_a_word_wider_than_the_terminal_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    path = "/a/" + "b" * 50
    assert fitted(f"  weights {path} are gone", Terminal()).split("\n") == [
        "  weights", f"    {path}", "    are gone",
    ]  # fmt: skip
    assert fitted("", Terminal()) == ""


def test_one_is_no_plural() -> None:
    """Fault V3."""
    assert [counted(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert counted(1, "class", "classes") + ", " + counted(3, "class", "classes") == (
        "1 class, 3 classes"
    )


def test_a_column_of_names_is_padded_by_their_width() -> None:
    assert padded("\u4e01", 4) + "|" == "\u4e01  |" and padded("abc", 2) == "abc"
