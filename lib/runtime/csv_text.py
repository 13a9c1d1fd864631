"""Tables as CSV that a spreadsheet takes for nothing but text and numbers.

A name that begins with = + - @, a tab or a line end is a formula to a spreadsheet. Such a name gets
an apostrophe in front, and so does one that begins with an apostrophe. To have the name back, take
off one apostrophe where a cell begins with one. Numbers stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_APOSTROPHE = "'"
_QUOTED = frozenset(',"\r\n')  # Python's csv leaves a lone \r bare, and then cannot read it
NOTE = "in a CSV a name that would be a formula has an apostrophe in front"
# With the wide forms, which some spreadsheets read alike.
_BEGINNINGS = (*"=+-@\t\r\n", "＝", "＋", "－", "＠", _APOSTROPHE)


def csv_text(rows: Iterable[Sequence[str | int | float]]) -> str:
    """Return lines of CSV; a text is a name, for which see above."""
    return "".join(f"{','.join(map(_cell, row))}\n" for row in rows)


def name_of(cell: str) -> str:
    """Return the name that a cell stands for."""
    return cell.removeprefix(_APOSTROPHE)


def _cell(value: str | int | float) -> str:
    if not isinstance(value, str):
        return str(value)
    text = f"{_APOSTROPHE}{value}" if value.startswith(_BEGINNINGS) else value
    if _QUOTED.isdisjoint(text):
        return text
    return '"' + text.replace('"', '""') + '"'
