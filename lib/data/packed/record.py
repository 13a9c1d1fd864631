"""What is finished of a packing, so that a restart goes on behind it.

`.packing/options.json` says how the pictures are packed. `.packing/<part>/<number>.json` says of
which pictures a shard is made. It comes just before the shard gets its name: what has no record is
somebody else's file, and stays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lib.data.packed.pictures import Picture
from lib.data.packed.reading import FILE_FORM, PICTURES, PROGRESS, FileSum
from lib.runtime.checked import COUNT, read_json, shown
from lib.runtime.files import write_atomically

_OPTIONS = "options.json"
_SAMPLE = {"name": str, "offset": COUNT, "num_bytes": COUNT, "target": COUNT}
_SHARD = {
    "file": FILE_FORM,
    "end": COUNT,
    "is_last": bool,
    "made_of": str,
    "samples": [_SAMPLE],
    "failed": {str: str},
}


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
            theirs = _read(path, {str: object}) or {}
            if theirs != options:
                differences = ", ".join(
                    f"{shown(key)[1:-1]} {shown(theirs.get(key))} for {options.get(key)}"
                    for key in {**options, **theirs}
                    if theirs.get(key) != options.get(key)
                )
                raise ValueError(
                    f"{self.root} was packed with other options ({differences}): give the same "
                    "ones, or an empty folder"
                )
            return
        others = sorted(entry.name for entry in self.root.iterdir() if entry.name != ".lock")
        if others and others != [PROGRESS]:  # which a killed packing had just made
            raise ValueError(
                f"{self.root} holds other files ({others[0]}, ...): give an empty folder, or one "
                "that doesn't exist"
            )
        path.parent.mkdir(exist_ok=True)
        _write(options, path)

    def finished(self, part: str, pictures: Sequence[Picture]) -> list[ShardRecord]:
        """Return the shards at the beginning of a part that are made of these pictures."""
        kept: list[ShardRecord] = []
        first = 0
        while first < len(pictures):
            record = _parsed(_read(self._path(part, len(kept)), _SHARD))
            if record is None or not self._is_good(record, pictures, first):
                break
            kept.append(record)
            first = record.end
        return kept

    def drop_from(self, part: str, number: int) -> None:
        """Remove the shards of a part from `number` on, and their records."""
        for path in sorted(self._path(part, 0).parent.glob("*.json")):
            if path.stem.isdecimal() and int(path.stem) >= number:
                (self.root / part / f"{path.stem}.tar").unlink(missing_ok=True)
                path.unlink()

    def drop_parts_but(self, parts: Sequence[str]) -> None:
        """Remove what was packed of parts that there are no pictures for any more."""
        for folder in (self.root / PROGRESS).iterdir():
            if folder.is_dir() and folder.name not in parts:
                self.drop_from(folder.name, 0)
                (self.root / folder.name / PICTURES).unlink(missing_ok=True)
                for emptied in (self.root / folder.name, folder):
                    with suppress(OSError):  # it holds somebody's files
                        emptied.rmdir()

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


def _read(path: Path, form: dict) -> dict | None:
    """Return what a record holds; None where it is missing, damaged or of another form."""
    try:
        return read_json(path, form)
    except (OSError, ValueError):
        return None


def _parsed(content: dict | None) -> ShardRecord | None:
    if content is None:
        return None
    return ShardRecord(
        FileSum(*(content["file"][name] for name in FILE_FORM)),
        content["end"],
        content["is_last"],
        content["made_of"],
        tuple(Sample(*(sample[name] for name in _SAMPLE)) for sample in content["samples"]),
        content["failed"],
    )
