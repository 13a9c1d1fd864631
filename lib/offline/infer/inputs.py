"""Which files a run takes, in which order, and whether they are meant for the model."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.data.picture_files import Sources
from lib.runtime.text import printable

TENSOR_SUFFIXES = (".npy", ".bin")


@dataclass(frozen=True)
class Sample:
    """One picture, prepared or not: the name of its results, and its files, one a model input."""

    stem: str
    files: tuple[Path, ...]


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key that counts: img2 comes before img10."""
    pieces = re.split("([0-9]+)", name.lower())
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], name


def find_tensor_files(text: str, num_inputs: int) -> tuple[Sample, ...]:
    """Return the samples that --input names: a folder, or files, a model input (comma list).

    Of a folder these are its *.npy and *.bin in natural order, without folders in it. A list of
    files is cut into as many equal parts as the model has inputs.
    Raises FileNotFoundError, and ValueError where nothing is found or the counts don't fit.
    """
    # One path may have commas in its name; a long list is too long for the question whether it is.
    is_one = "," not in text or os.path.exists(text)
    paths = [Path(text)] if is_one else [Path(part) for part in text.split(",")]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"--input: no such file or folder: {path}")
        if not (path.is_dir() or path.is_file()):
            raise ValueError(f"--input: {printable(str(path))} is no regular file")
    if all(path.is_dir() for path in paths):
        columns = [_tensor_files_in(folder) for folder in paths]
    elif any(path.is_dir() for path in paths):
        raise ValueError(f"--input {text}: folders and files are mixed; give one kind")
    else:
        part = max(1, len(paths) // num_inputs)
        columns = [paths[i : i + part] for i in range(0, len(paths), part)]
    counts = [len(column) for column in columns]
    if len(columns) != num_inputs or len(set(counts)) > 1:
        raise ValueError(
            f"--input {text}: the model has {num_inputs} inputs and needs as many files for each, "
            f"but these are lists of {', '.join(map(str, counts))} files"
        )
    return tuple(Sample(files[0].stem, files) for files in zip(*columns, strict=True))


def _tensor_files_in(folder: Path) -> list[Path]:
    names = []
    for entry in os.scandir(folder):
        if not entry.name.lower().endswith(TENSOR_SUFFIXES) or entry.name.startswith("."):
            continue
        if entry.is_file():
            names.append(entry.name)
        elif not entry.is_dir():  # a pipe has no end, and a link that leads nowhere is a mistake
            raise ValueError(f"--input: {printable(entry.path)} is no regular file: remove it")
    if not names:
        raise ValueError(f"--input {folder}: no *.npy or *.bin file in this folder")
    return [folder / name for name in sorted(names, key=natural_key)]


def samples_of(sources: Sources) -> tuple[Sample, ...]:
    """Return the pictures of a folder and its class folders, as preprocessing finds them."""
    return tuple(Sample(stem, (Path(sources.full_path(stem)),)) for stem in sources.paths)


def check_stems(samples: Sequence[Sample]) -> None:
    """Raise ValueError where two samples would write the same result file."""
    seen: dict[str, Sample] = {}
    for sample in samples:
        other = seen.setdefault(sample.stem, sample)
        if other is not sample:
            raise ValueError(
                f"{other.files[0]} and {sample.files[0]} would both write {sample.stem}_0: rename "
                "one of them, or run them apart"
            )
