"""Texts from outside, file and class names above all, made fit to be shown."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

# Characters that reorder the text around them, so that a name may look like another.
_REORDERING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_MAX_NAMES_SHOWN = 5
_MAX_LINE = 300
_WORD = re.compile(r"\s*\S+\s*")  # with the blanks around it
_CONTINUED = "    "  # in front of a line that goes on


def printable(text: str, *, keep: str = "") -> str:
    """Return a text with an escape for each character that has no shape of its own.

    Those are bytes that are no text (file names have them), control characters but for those in
    `keep`, and what turns the direction of writing. The result can be encoded as UTF-8.
    """
    if text.isascii() and text.isprintable():  # most are
        return text
    return "".join(c if c in keep else _shown(c) for c in text)


def _shown(character: str) -> str:
    number, category = ord(character), unicodedata.category(character)
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte that is no text
        return f"\\x{number - 0xDC00:02x}"
    if category == "Cs" or character in _REORDERING or category in ("Zl", "Zp"):
        return f"\\u{number:04x}"
    return f"\\x{number:02x}" if category == "Cc" else character


def quoted(name: str) -> str:
    """Return a name in quotes, so that blanks at its ends can be seen."""
    return f"'{printable(name)}'"


def one_line(error: BaseException, *, with_type: bool = False) -> str:
    """Return an exception's message, or its type where it has none, on one short line."""
    name, message = type(error).__name__, printable(" ".join(str(error).split()))
    line = f"{name}: {message}" if with_type and message else message or name
    return line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]} ..."


def shorten(names: Sequence[str], *, form: Callable[[str], str] = quoted) -> str:
    """Return a few of the names in one line, and how many more there are.

    `form` makes each fit to be shown: in quotes; `printable` for what is more than a name.
    """
    shown = ", ".join(map(form, names[:_MAX_NAMES_SHOWN]))
    num_more = len(names) - _MAX_NAMES_SHOWN
    return f"{shown} and {num_more} more" if num_more > 0 else shown


def look_alikes(names: Iterable[str], others: Iterable[str]) -> str:
    """Return a remark, after `; `, on a name not among others that looks like one of them.

    They differ in blanks, in the form of letters with accents (Unicode has two), in invisible
    characters, or in upper and lower case. '' where there is none.
    """
    known = frozenset(others)
    alike = {_looks(other): other for other in known}
    pairs = ((name, alike.get(_looks(name))) for name in names if name not in known)
    return next((f"; {_told(name, other)}" for name, other in pairs if other is not None), "")


def look_alike_among(names: Iterable[str]) -> str:
    """Return a remark on two names that differ so; '' where there are none."""
    seen: dict[str, str] = {}
    pairs = ((seen.setdefault(_looks(name), name), name) for name in names)
    return next((_told(first, name) for first, name in pairs if first != name), "")


def _told(name: str, other: str) -> str:
    return f"{quoted(name)} and {quoted(other)} differ only in {_difference(name, other)}"


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _visible(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


_DIFFERENCES = (
    ("blanks", _without_blanks),
    ("Unicode normalisation (accents apart from their letters, NFD, or not, NFC)", _composed),
    ("invisible characters", _visible),
    ("upper and lower case", str.casefold),
)


def _looks(name: str) -> str:
    for _, change in _DIFFERENCES:
        name = change(name)
    return name


def _difference(name: str, other: str) -> str:
    for difference, change in _DIFFERENCES:
        if change(name) == change(other):
            return difference
    return "blanks, Unicode normalisation, invisible characters and case"


def num_columns(text: str) -> int:
    """Return the width of a text in Latin characters: East Asian ones have two, accents none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def padded(text: str, columns: int) -> str:
    """Return a text with blanks behind it, so that it has so many columns."""
    return text + " " * (columns - num_columns(text))


def fitted(line: str, stream: TextIO) -> str:
    """Return a line for a stream: on a narrower terminal, several lines that break between words.

    In a file or a pipe, where programs read it, it is one line; and so are everywhere lines of
    fields with tabs between them. A word that is wider than the terminal stays whole.
    """
    if "\t" in line or not stream.isatty():
        return line
    most = shutil.get_terminal_size().columns
    lines = [""]
    for word in _WORD.findall(line):
        if lines[-1].strip() and num_columns(lines[-1] + word.rstrip()) > most:
            lines.append(_CONTINUED)
        lines[-1] += word
    return "\n".join(text.rstrip() for text in lines)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return `1 epoch` or `2 epochs`; `plural` is for nouns without a plain -s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def duration(seconds: float) -> str:
    """Return a time in words, such as `1 h 05 min`, `2 min 07 s` or `9 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
