"""Texts from outside, file and class names above all, made fit to be shown."""

from __future__ import annotations

import unicodedata

# Characters that reorder the text around them, so that a name may look like another.
_REORDERING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def readable(text: str, *, keep: str = "") -> str:
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


def duration(seconds: float) -> str:
    """Return a time in words, such as `1 h 05 min`, `2 min 07 s` or `9 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
