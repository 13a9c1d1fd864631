"""What is finished of a packing, so that a restart goes on behind it.

`.packing/options.json` says how the pictures are packed. `.packing/<part>/<number>.json` comes
after each shard, and says of which pictures it is made.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lib.data.packed import PROGRESS, FileSum
from lib.files import write_atomically
from lib.packing.pictures import Picture

_OPTIONS = "options.json"


@dataclass(frozen=True, slots=True)  # there may be millions
class Sample:
    """A picture in a shard."""

    name: str
    offset: int
    num_bytes: int
    target: int


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard."""

    file: FileSum
    end: int  # the number of the first picture behind it
    is_last: bool
    made_of: str  # see `fingerprint`
    samples: tuple[Sample, ...]
    failed: Mapping[str, str]  # path: reason


@dataclass(frozen=True)
class Record:
    """The records of one packed data set."""

    root: Path

    def claim(self, options: Mapping[str, object]) -> None:
        """Take the folder for a packing with these options.

        Raises ValueError where it holds something else, or a packing with other options.
        """
        path = self.root / PROGRESS / _OPTIONS
        if path.is_file():
            theirs = _read(path)
            if theirs != options:
                theirs = theirs if isinstance(theirs, dict) else {}
                differences = ", ".join(
                    f"{key} {theirs.get(key)} for {options.get(key)}"
                    for key in {**options, **theirs}
                    if theirs.get(key) != options.get(key)
                )
                raise ValueError(
                    f"{self.root} was packed with other options ({differences}): give the same "
                    "ones, or an empty folder"
                )
            return
        others = sorted(entry.name for entry in self.root.iterdir() if entry.name != ".lock")
        if others:
            raise ValueError(
                f"{self.root} holds other files ({others[0]}, ...): give an empty folder, or one "
                "that doesn't exist"
            )
        path.parent.mkdir()
        _write(options, path)

    def finished(self, part: str, pictures: Sequence[Picture]) -> list[ShardRecord]:
        """Return the shards at the beginning of a part that are made of these pictures."""
        kept: list[ShardRecord] = []
        first = 0
        while first < len(pictures):
            record = _parsed(_read(self._path(part, len(kept))))
            if record is None or not self._is_good(record, pictures, first):
                break
            kept.append(record)
            first = record.end
        return kept

    def drop_from(self, part: str, number: int) -> None:
        """Remove the shards of a part from `number` on, and their records."""
        for folder, ending in ((self._path(part, 0).parent, ".json"), (self.root / part, ".tar")):
            for path in sorted(folder.glob(f"*{ending}")):
                if path.stem.isdecimal() and int(path.stem) >= number:
                    path.unlink()

    def drop_parts_but(self, parts: Sequence[str]) -> None:
        """Remove the parts of an earlier packing that there are no pictures for any more."""
        for folder in (self.root / PROGRESS).iterdir():
            if folder.is_dir() and folder.name not in parts:
                shutil.rmtree(self.root / folder.name, ignore_errors=True)
                shutil.rmtree(folder)

    def add(self, part: str, number: int, record: ShardRecord) -> None:
        """Write down a shard that is whole."""
        path = self._path(part, number)
        path.parent.mkdir(exist_ok=True)
        _write(asdict(record), path)

    def _path(self, part: str, number: int) -> Path:
        return self.root / PROGRESS / part / f"{number:06}.json"

    def _is_good(self, record: ShardRecord, pictures: Sequence[Picture], first: int) -> bool:
        shard = self.root / record.file.name
        return (
            shard.is_file()
            and shard.stat().st_size == record.file.num_bytes
            and record.is_last == (record.end == len(pictures))
            and record.made_of == fingerprint(pictures[first : record.end])
        )


def fingerprint(pictures: Sequence[Picture]) -> str:
    """Return a sum that changes with the pictures' paths, classes, sizes and times of change."""
    whole = hashlib.sha256()
    for picture in pictures:
        whole.update(repr(picture).encode("ascii", errors="backslashreplace"))
    return whole.hexdigest()


def _write(content: object, path: Path) -> None:
    write_atomically(json.dumps(content).encode(), path)


def _read(path: Path) -> object:
    """Return what a record holds; None where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _parsed(content: object) -> ShardRecord | None:
    try:
        fields = dict(content)  # type: ignore[call-overload]
        fields["file"] = FileSum(**fields["file"])
        fields["samples"] = tuple(Sample(**sample) for sample in fields["samples"])
        return ShardRecord(**fields)
    except (TypeError, KeyError, ValueError):
        return None
