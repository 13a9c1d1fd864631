"""Predictions as lines for people, as csv and as json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol

from lib.runtime.cli import Stopped
from lib.runtime.csv_text import csv_text
from lib.runtime.files import open_atomically, write_whole
from lib.runtime.text import num_columns, padded, printable

ENDINGS = (".csv", ".json")
NOT_FINITE = "the network's outputs are NaN or infinite"  # the error of a row
_MAX_PATH_WIDTH = 48


@dataclass(frozen=True)
class Guess:
    """A class that a picture may be of."""

    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Row:
    """What was made of one picture: guesses, the likeliest first, or an error."""

    path: str
    guesses: tuple[Guess, ...] = ()
    error: str = ""


class Writer(Protocol):
    """Takes the rows as they come."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows. Raises OSError."""


def path_width(paths: Sequence[str]) -> int:
    """Return how wide the column of paths is."""
    return min(_MAX_PATH_WIDTH, max(num_columns(printable(path)) for path in paths))


def line(row: Row, width: int) -> str:
    """Return one line on a picture."""
    if row.error == NOT_FINITE:
        said = f"no class: {row.error}"
    elif row.error:
        said = f"cannot be read: {printable(row.error)}"
    else:
        said = ", ".join(f"{printable(g.name)} {100 * g.probability:.1f} %" for g in row.guesses)
    return f"{padded(printable(row.path), width)}  {said}"


def check_ending(path: Path | None) -> None:
    """Raise ValueError for a file that is neither csv nor json."""
    if path is not None and path.suffix.lower() not in ENDINGS:
        raise ValueError(f"--out {path}: its ending must be one of {', '.join(ENDINGS)}")


@contextmanager
def open_writer(path: Path | None, topk: int) -> Iterator[Writer]:
    """Yield what writes rows to a file, or nowhere; the file is there, whole, at the end.

    A stop leaves the rows so far as a whole file. Whatever else ends the block leaves what was
    there before.
    """
    if path is None:
        yield _Nowhere()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    form = _Json() if path.suffix.lower() == ".json" else _Csv(topk)
    stop: BaseException | None = None
    with open_atomically(path) as file:
        writer = _ToFile(file, form)
        try:
            yield writer
        except (KeyboardInterrupt, Stopped) as error:
            stop = error
        writer.add(form.end)
    if stop is not None:
        raise stop


class _Nowhere:
    def write(self, rows: Sequence[Row]) -> None:
        """Do nothing."""


class _Form(Protocol):
    """How rows are text."""

    begin: str
    end: str

    def text(self, rows: Sequence[Row]) -> str:
        """Return what comes next in the file."""


class _ToFile:
    """A text file that grows by whole rows. Names with bytes that are no text keep them."""

    def __init__(self, file: FileIO, form: _Form) -> None:
        self._file, self._form = file, form
        self.add(form.begin)

    def write(self, rows: Sequence[Row]) -> None:
        self.add(self._form.text(rows))

    def add(self, text: str) -> None:
        write_whole(self._file, text.encode(errors="surrogateescape"))


class _Csv:
    """A line a picture: file, then class_1, probability_1, class_2, ..., then error.

    A name that a spreadsheet would compute has an apostrophe in front, see `lib.runtime.csv_text`.
    """

    end = ""

    def __init__(self, topk: int) -> None:
        self._topk = topk
        columns = [f"{c}_{n}" for n in range(1, topk + 1) for c in ("class", "probability")]
        self.begin = csv_text([["file", *columns, "error"]])

    def text(self, rows: Sequence[Row]) -> str:
        return csv_text(self._cells(row) for row in rows)

    def _cells(self, row: Row) -> list[str]:
        cells = [cell for g in row.guesses for cell in (g.name, f"{g.probability:.6f}")]
        cells += [""] * (2 * self._topk - len(cells))
        return [row.path, *cells, row.error]


class _Json:
    """A list with a mapping a picture."""

    begin, end = "[", "\n]\n"

    def __init__(self) -> None:
        self._separator = "\n"

    def text(self, rows: Sequence[Row]) -> str:
        pieces = []
        for row in rows:
            content: dict[str, object] = {"file": row.path}
            if row.error:
                content["error"] = row.error
            else:
                content["predictions"] = [
                    {"class": g.name, "index": g.index, "probability": round(g.probability, 6)}
                    for g in row.guesses
                ]
            pieces.append(f"{self._separator}  {json.dumps(content, allow_nan=False)}")
            self._separator = ",\n"
        return "".join(pieces)
