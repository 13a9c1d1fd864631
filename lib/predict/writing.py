"""Predictions as lines for people, as csv and as json."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from lib.readable import readable

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
        """Add rows; they are in the file when this returns. Raises OSError."""


def path_width(paths: Sequence[str]) -> int:
    """Return how wide the column of paths is."""
    return min(_MAX_PATH_WIDTH, max(len(readable(path)) for path in paths))


def line(row: Row, width: int) -> str:
    """Return one line on a picture."""
    if row.error == NOT_FINITE:
        said = f"no class: {row.error}"
    elif row.error:
        said = f"cannot be read: {readable(row.error)}"
    else:
        said = ", ".join(f"{readable(g.name)} {100 * g.probability:.1f} %" for g in row.guesses)
    return f"{readable(row.path):{width}}  {said}"


def check_ending(path: Path | None) -> None:
    """Raise ValueError for a file that is neither csv nor json."""
    if path is not None and path.suffix.lower() not in ENDINGS:
        raise ValueError(f"--out {path}: its ending must be one of {', '.join(ENDINGS)}")


def open_writer(path: Path | None, topk: int) -> AbstractContextManager[Writer]:
    """Return what writes rows to a file, or nowhere; the file is whole whenever it is left."""
    if path is None:
        return nullcontext(_Nowhere())
    path.parent.mkdir(parents=True, exist_ok=True)
    return _Json(path) if path.suffix.lower() == ".json" else _Csv(path, topk)


class _Nowhere:
    def write(self, rows: Sequence[Row]) -> None:
        """Do nothing."""


class _ToFile:
    """A text file that grows by whole rows."""

    begin, end = "", ""

    def __init__(self, path: Path) -> None:
        # Names with bytes that are no text keep them.
        self._file = open(  # noqa: SIM115  closed on leaving
            path, "w", encoding="utf-8", errors="surrogateescape", newline=""
        )

    def __enter__(self) -> _ToFile:
        self._file.write(self.begin)
        self._begun()
        self._file.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._file:
            self._file.write(self.end)

    def write(self, rows: Sequence[Row]) -> None:
        self._add(rows)
        self._file.flush()

    def _begun(self) -> None:
        pass

    def _add(self, rows: Sequence[Row]) -> None:
        raise NotImplementedError


class _Csv(_ToFile):
    """A line a picture: file, then class_1, probability_1, class_2, ..., then error."""

    def __init__(self, path: Path, topk: int) -> None:
        super().__init__(path)
        self._topk = topk
        self._table = csv.writer(self._file, lineterminator="\n")

    def _begun(self) -> None:
        columns = [f"{c}_{n}" for n in range(1, self._topk + 1) for c in ("class", "probability")]
        self._table.writerow(["file", *columns, "error"])

    def _add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            cells = [cell for g in row.guesses for cell in (g.name, f"{g.probability:.6f}")]
            cells += [""] * (2 * self._topk - len(cells))
            self._table.writerow([row.path, *cells, row.error])


class _Json(_ToFile):
    """A list with a mapping a picture."""

    begin, end = "[", os.linesep + "]" + os.linesep

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._separator = "\n"

    def _add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            content: dict[str, object] = {"file": row.path}
            if row.error:
                content["error"] = row.error
            else:
                content["predictions"] = [
                    {"class": g.name, "index": g.index, "probability": round(g.probability, 6)}
                    for g in row.guesses
                ]
            self._file.write(f"{self._separator}  {json.dumps(content, allow_nan=False)}")
            self._separator = ",\n"
