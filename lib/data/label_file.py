"""Label files: a line `<file> <class number, from 0>` for each picture, as val_label.txt is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.runtime.files import write_atomically
from lib.runtime.text import quoted

LABEL_FORM = "'<file> <class number, from 0>'"
_MAX_SHOWN = 200
_MAX_DIGITS = 9  # of a class number; those of longer ones are a mistake


@dataclass(frozen=True)
class LabelLine:
    """One picture's label, and where it stands."""

    where: str  # file and line, for messages
    name: str  # of the picture, as written; it may have spaces
    label: int


def read_label_lines(path: Path, *, form: str = LABEL_FORM) -> Iterator[LabelLine]:
    """Yield each line's label; empty lines are none. `form` is what messages call a line's form.

    Raises FileNotFoundError, and ValueError that names the line for one of another form or a
    negative class.
    """
    if not path.is_file():  # a pipe would keep its reader waiting
        raise FileNotFoundError(f"no such label file: {path}")
    # Bytes that aren't UTF-8 stay what they are in file names, so that the two still match.
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.strip().rsplit(maxsplit=1)  # from the right, since a name may have spaces
        if not fields:
            continue
        where = f"{path}, line {number}"
        digits = fields[-1].removeprefix("-")
        if len(fields) != 2 or not (digits.isascii() and digits.isdecimal()):
            raise ValueError(f"{where}: {line.strip()[:_MAX_SHOWN]!r} is not of the form {form}")
        name = quoted(fields[0][:_MAX_SHOWN])
        if fields[1].startswith("-"):
            raise ValueError(
                f"{where}: class {fields[1][:_MAX_SHOWN]} of {name}: classes are numbered from 0"
            )
        if len(digits.lstrip("0")) > _MAX_DIGITS:
            raise ValueError(
                f"{where}: class {digits[:_MAX_SHOWN]} of {name}: class numbers have up to "
                f"{_MAX_DIGITS} digits"
            )
        yield LabelLine(where, fields[0], int(digits[-_MAX_DIGITS:]))


def write_labels(labels: Mapping[str, int], path: Path) -> None:
    """Write a line for each picture, by its name. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{name} {label}\n" for name, label in labels.items())
    write_atomically(text.encode(errors="surrogateescape"), path)
