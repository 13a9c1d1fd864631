"""`preprocess.json`: how a folder's input files were made, and of which pictures.

A file is kept for as long as its picture is the one it was made of: same folder, path, size and
time of change, to the nanosecond. The record is written before the files are, so that a killed run
leaves none that it doesn't account for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

from lib.files import write_json
from lib.pictures import Sources, shorten
from lib.recipe import Recipe

RECORD = "preprocess.json"
ENDING = ".bin"


@dataclass(frozen=True)
class Origin:
    """The picture that a file is made of."""

    path: str  # relative to the folder of the pictures
    num_bytes: int
    mtime_ns: int


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
        return {
            stem for stem, num_bytes in _sizes(self.folder).items() if num_bytes == self.num_bytes
        }

    def keep_up_to_date(self, origins: Mapping[str, Origin]) -> set[str]:
        """Remove the files that aren't made of these pictures as they are now; stems of the others.

        Raises ValueError, with nothing removed, for a folder that isn't of this kind: made by
        another recipe, without a record, or with files that none of the pictures has.
        """
        sizes = _sizes(self.folder)
        if not sizes:
            return set()
        recorded = self._recorded(num_results=len(sizes))
        strangers = sorted(sizes.keys() - origins.keys())
        if strangers:
            raise ValueError(
                f"{self.folder} holds {len(strangers)} results of pictures that {self.root} lacks: "
                f"{shorten(strangers)}; remove them, or give an empty folder"
            )
        kept = {
            stem
            for stem, num_bytes in sizes.items()
            if num_bytes == self.num_bytes and recorded.get(stem) == origins[stem]
        }
        for stem in sizes.keys() - kept:
            self.path_of(stem).unlink()
        return kept

    def path_of(self, stem: str) -> Path:
        """Where the file of a picture lies."""
        return self.folder / f"{stem}{ENDING}"

    def write_record(self, origins: Mapping[str, Origin], failed: Mapping[str, str]) -> None:
        """Write down of what the files are made: those there, or, before the work, those to come.

        `failed` has the pictures that can't be read, by path, with the reason.
        """
        content = {
            "model": self.model,
            "recipe": self.recipe.as_json(),
            "num_images": len(self.whole_files() & origins.keys()),
            "root": str(self.root.resolve()),
            "sources": {stem: astuple(origin) for stem, origin in origins.items()},
            "failed": dict(sorted(failed.items())),
        }
        write_json(content, self.folder / RECORD)

    def _recorded(self, *, num_results: int) -> Mapping[str, Origin]:
        """What the record says the files are made of; nothing where that's another folder's."""
        path = self.folder / RECORD
        found = f"{self.folder} holds {num_results} {ENDING} files"
        way_out = "give an empty folder, or remove them"
        if not path.is_file():
            raise ValueError(f"{found} and no {RECORD} that tells how they were made: {way_out}")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            theirs = Recipe.from_json(record["recipe"], where=str(path))
            model, sources = record["model"], dict(record["sources"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{found} and a {RECORD} that is damaged: {way_out}") from None
        differences = [f"model {model} for {self.model}"] if model != self.model else []
        differences += theirs.differences(self.recipe)
        if differences:
            raise ValueError(
                f"{found} made by another recipe ({', '.join(differences)}): {way_out}"
            )
        if record.get("root") != str(self.root.resolve()):
            return {}
        whole = {stem: values for stem, values in sources.items() if len(values) == 3}
        return {stem: Origin(*values) for stem, values in whole.items()}


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


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of the input files in a folder, by stem."""
    if not folder.is_dir():
        return {}
    return {
        entry.name.removesuffix(ENDING): entry.stat().st_size
        for entry in os.scandir(folder)
        if entry.name.endswith(ENDING) and not entry.name.startswith(".")
    }
