"""`preprocess.json`: how a folder's input files were made, and of which pictures.

A file is kept for as long as its picture is the one it was made of: same folder, path, size and
time of change, to the nanosecond; and its content is the one that was written. The record is
written before the files are, so that a killed run leaves none that it doesn't account for.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from lib.config.recipe import Recipe
from lib.data.picture_files import Sources
from lib.offline.ais_bench import FILE_MODE
from lib.runtime.checked import COUNT, read_json
from lib.runtime.files import write_json
from lib.runtime.text import shorten

RECORD = "preprocess.json"
ENDING = ".bin"

_FORM = {
    "model?": str,
    "recipe": object,
    "root?": str,
    "sources?": {str: [str, COUNT, int]},
    "sums?": {str: range(2**32)},
    "newest_ns?": COUNT,
}


@dataclass(frozen=True)
class Origin:
    """The picture that a file is made of."""

    path: str  # relative to the folder of the pictures
    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Record:
    """A record of input files, checked."""

    model: str
    recipe: Recipe
    root: str  # of the pictures
    origins: Mapping[str, Origin]  # by stem
    sums: Mapping[str, int]  # of the files' content, by stem; one that is not known is missing
    newest_ns: int  # when the last of the files had changed, by the file system's clock


@dataclass(frozen=True)
class UpToDate:
    """The files that stay, and those that don't because another program has changed them."""

    sums: Mapping[str, int]  # of the content, by stem
    replaced: Sequence[str]


@dataclass(frozen=True)
class Target:
    """A folder of input files, all made of one folder's pictures in one way."""

    folder: Path
    root: Path  # of the pictures
    model: str
    recipe: Recipe
    num_bytes: int  # of each file

    def whole_files(self) -> set[str]:
        """Stems of the files of the right size."""
        return {s for s, stat in _stats(self.folder).items() if stat.st_size == self.num_bytes}

    def keep_up_to_date(self, origins: Mapping[str, Origin]) -> UpToDate:
        """Remove the files that aren't what is to be made of these pictures as they are now.

        Raises ValueError, with nothing removed, for a folder that isn't of this kind: made by
        another recipe, without a record, or with files that none of the pictures has.
        """
        stats = _stats(self.folder)
        if not stats:
            return UpToDate({}, ())
        record = self._recorded(num_results=len(stats))
        strangers = sorted(stats.keys() - origins.keys())
        if strangers:
            raise ValueError(
                f"{self.folder} holds {len(strangers)} results of pictures that {self.root} lacks: "
                f"{shorten(strangers)}; remove them, or give an empty folder"
            )
        sums: dict[str, int] = {}
        replaced: list[str] = []
        for stem, stat in stats.items():
            if stat.st_size != self.num_bytes or record.origins.get(stem) != origins[stem]:
                continue
            recorded = record.sums.get(stem)
            # A file's time of change can't be set, so what is old is as it was.
            if recorded is None or stat.st_ctime_ns > record.newest_ns:
                found = sum_of(self.path_of(stem).read_bytes())
            else:
                found = recorded
            if recorded in (None, found):
                sums[stem] = found
            else:
                replaced.append(stem)
        for stem in stats.keys() - sums.keys():
            self.path_of(stem).unlink()
        return UpToDate(sums, tuple(sorted(replaced)))

    def path_of(self, stem: str) -> Path:
        """Where the file of a picture lies."""
        return self.folder / f"{stem}{ENDING}"

    def write_record(
        self, origins: Mapping[str, Origin], failed: Mapping[str, str], sums: Mapping[str, int]
    ) -> None:
        """Write down of what the files are made: those there, or, before the work, those to come.

        `failed` has the pictures that can't be read, by path, with the reason. `sums` are those of
        the files' content that are known.
        """
        stats = _stats(self.folder)
        newest_ns = max((stat.st_ctime_ns for stat in stats.values()), default=0)
        content = {
            "model": self.model,
            "recipe": self.recipe.as_json(),
            "num_images": sum(stats[s].st_size == self.num_bytes for s in stats.keys() & origins),
            "root": str(self.root.resolve()),
            "sources": {stem: astuple(origin) for stem, origin in origins.items()},
            "sums": {stem: sums[stem] for stem in origins if stem in sums},
            "newest_ns": newest_ns,
            "failed": dict(sorted(failed.items())),
        }
        write_json(content, self.folder / RECORD)
        (self.folder / RECORD).chmod(FILE_MODE)

    def _recorded(self, *, num_results: int) -> Record:
        """The record, without its origins where they are another folder's."""
        path = self.folder / RECORD
        found = f"{self.folder} holds {num_results} {ENDING} files"
        way_out = "give an empty folder, or remove them"
        if not path.is_file():
            raise ValueError(f"{found} and no {RECORD} that tells how they were made: {way_out}")
        try:
            record = read_record(path)
        except ValueError as error:
            raise ValueError(f"{found}, and {error}: {way_out}") from None
        differences = [f"model {record.model} for {self.model}"] * (record.model != self.model)
        differences += record.recipe.differences(self.recipe)
        if differences:
            raise ValueError(
                f"{found} made by another recipe ({', '.join(differences)}): {way_out}"
            )
        return record if record.root == str(self.root.resolve()) else replace(record, origins={})


def read_record(path: Path) -> Record:
    """Return what a record says. Raises OSError, and ValueError for one of another form."""
    content = read_json(path, _FORM)
    return Record(
        model=content.get("model", ""),
        recipe=Recipe.from_json(content["recipe"], where=f"{path}, recipe"),
        root=content.get("root", ""),
        origins={stem: Origin(*values) for stem, values in content.get("sources", {}).items()},
        sums=content.get("sums", {}),
        newest_ns=content.get("newest_ns", 0),
    )


def sum_of(content: bytes | memoryview) -> int:
    """Return a sum of a file's content (CRC-32, as zip has it)."""
    return zlib.crc32(content)


def origins_of(sources: Sources) -> dict[str, Origin]:
    """The pictures as they are now, by stem; a link that leads nowhere has size and time 0."""
    origins = {}
    for stem, path in sources.paths.items():
        try:
            stat = os.stat(sources.full_path(stem))
            origins[stem] = Origin(path, stat.st_size, stat.st_mtime_ns)
        except OSError:
            origins[stem] = Origin(path, 0, 0)
    return origins


def _stats(folder: Path) -> dict[str, os.stat_result]:
    """Size and times of the input files in a folder, by stem."""
    if not folder.is_dir():
        return {}
    return {
        entry.name.removesuffix(ENDING): entry.stat()
        for entry in os.scandir(folder)
        if entry.name.endswith(ENDING) and not entry.name.startswith(".")
    }
