"""From prediction files to ranks: at which place the true class comes, and which comes first.

The work of a score, done in batches and, where there are many files, in several processes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lib.metrics.confusion import answers_of
from lib.offline.element_type import USUAL, element_type, is_wild
from lib.offline.fast_text import Millionths, rows_of_millionths
from lib.offline.prediction_files import has_several_rows, parse_prediction, read_whole
from lib.runtime.environment import num_cores
from lib.runtime.pool import run_in_processes

Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.floating] | Millionths

_FILES_A_BATCH = 32  # their values fit into a core's cache
_FILES_A_JOB = 1024
_FILES_WORTH_A_PROCESS = 4096  # starting one takes as long as reading about so many
_NUM_SAMPLED = 33


@dataclass(frozen=True)
class FileForm:
    """What each file should hold."""

    num_outputs: int = 0  # 0: not known
    dtype: str = ""  # of .bin files; '': not known
    is_wild: bool = False  # whether their values hardly are a network's


@dataclass(frozen=True)
class RankJob:
    """Files to read, and the output that is right for each (int64)."""

    folder: str
    names: Sequence[str]
    targets: Indices
    first: int  # position of the first of the names in the list of all
    form: FileForm


@dataclass(frozen=True)
class Ranks:
    """What was found; the arrays belong together, and have a place for each whole prediction."""

    positions: Indices  # of the files in the list of names
    ranks: Indices  # how many outputs come before the right one; equal ones do
    best: Indices  # the output that comes first; of equal ones not the right one
    num_first: Indices  # how many outputs share the first place: 1 where there is no tie
    broken: tuple[tuple[str, str], ...]  # (kind, name) of the others


EMPTY, DAMAGED, WRONG_SIZE, NOT_FINITE = "empty", "damaged", "of a wrong size", "with NaN or inf"
SEVERAL_ROWS = "with several rows, as of a whole batch"
UNREADABLE = "that can't be read or are no regular files"


def find_form(folder: Path, names: Sequence[str], *, num_classes: int, known: FileForm) -> FileForm:
    """Return the form of most files, found from some; 0 outputs where none of these is whole.

    A .bin file has at least `num_classes` outputs; what is `known` is taken. Raises ValueError
    where .bin files may be of more than one element type.
    """
    step = max(1, len(names) // _NUM_SAMPLED)
    contents = {}
    for name in names[::step]:
        try:
            if content := read_whole(folder / name):
                contents[name] = content
        except (OSError, ValueError):  # counted and named later, with all files
            continue
    bins = [content for name, content in contents.items() if name.endswith(".bin")]
    others = _sizes({n: c for n, c in contents.items() if not n.endswith(".bin")}, USUAL)
    num_outputs = known.num_outputs or _most_frequent(others)
    dtype, wild = known.dtype or USUAL, False
    if bins:
        size = _most_frequent([len(content) for content in bins])
        alike = [content for content in bins if len(content) == size]
        if not known.dtype:
            dtype = element_type(alike, num_classes=num_classes, num_outputs=num_outputs)
        wild = is_wild(alike, dtype)
    return FileForm(known.num_outputs or _most_frequent(_sizes(contents, dtype)), dtype, wild)


def _sizes(contents: Mapping[str, bytes], dtype: str) -> list[int]:
    """How many values each file has that is whole."""
    sizes = []
    for name, content in contents.items():
        with suppress(ValueError):
            sizes.append(parse_prediction(content, name, dtype).size)
    return sizes


def _most_frequent(sizes: Sequence[int]) -> int:
    return max(sizes, key=lambda size: (sizes.count(size), size), default=0)


def rank_files(
    folder: Path,
    names: Sequence[str],
    targets: Indices,
    *,
    form: FileForm,
    num_workers: int | None = None,
) -> Ranks:
    """Read all files and rank the right outputs.

    An output that shares its score comes behind the others that have it: who can't tell outputs
    apart isn't right by their order. A target outside the outputs comes last. Files of another
    form are broken. `num_workers` counts processes; None: as it pays.

    Raises PartlyFailed where a process was killed.
    """
    if num_workers is None:
        num_workers = min(num_cores(), len(names) // _FILES_WORTH_A_PROCESS)
    jobs = (
        RankJob(
            os.fspath(folder),
            names[start : start + _FILES_A_JOB],
            targets[start : start + _FILES_A_JOB],
            start,
            form,
        )
        for start in range(0, len(names), _FILES_A_JOB)
    )
    if num_workers <= 1:
        return _joined([_rank_job(job) for job in jobs])
    with closing(run_in_processes(_rank_job, jobs, num_workers=num_workers)) as done:
        return _joined(sorted(done, key=lambda ranks: ranks.positions.tolist()[:1]))


def _rank_job(job: RankJob) -> Ranks:
    starts = range(0, len(job.names), _FILES_A_BATCH)
    return _joined([_rank_batch(job, start) for start in starts])


def _joined(parts: Sequence[Ranks]) -> Ranks:
    none = np.zeros(0, np.int64)
    positions, ranks, best, num_first = (
        np.concatenate([none, *(getattr(part, name) for part in parts)])
        for name in ("positions", "ranks", "best", "num_first")
    )
    broken = tuple(sorted(broken for part in parts for broken in part.broken))
    return Ranks(positions, ranks, best, num_first, broken)


def _rank_batch(job: RankJob, start: int) -> Ranks:
    names = job.names[start : start + _FILES_A_BATCH]
    targets = job.targets[start : start + _FILES_A_BATCH]
    contents = [_read(f"{job.folder}/{name}") for name in names]
    values = _rows(names, contents, job.form)
    if values is not None:
        positions = np.arange(len(names)) + job.first + start
        return Ranks(positions, *_ranked(values, targets), broken=())
    return _rank_one_by_one(names, contents, targets, first=job.first + start, form=job.form)


def _rows(names: Sequence[str], contents: Sequence[bytes | None], form: FileForm) -> Values | None:
    """The values of all files at once, where all are whole and alike in their format."""
    whole = [content for content in contents if content is not None]
    if not form.num_outputs or len(whole) < len(contents):
        return None
    if all(name.endswith(".txt") for name in names):
        return rows_of_millionths(whole, num_values=form.num_outputs)
    element = np.dtype(form.dtype).newbyteorder("<")
    alike = all(len(content) == element.itemsize * form.num_outputs for content in whole)
    if not alike or not all(name.endswith(".bin") for name in names):
        return None
    values = np.frombuffer(b"".join(whole), element).reshape(len(names), form.num_outputs)
    if element.itemsize == 2:
        values = values.astype(np.float32)  # numpy compares these many times as fast
    return values if np.isfinite(values).all() else None


def _rank_one_by_one(
    names: Sequence[str],
    contents: Sequence[bytes | None],
    targets: Indices,
    *,
    first: int,
    form: FileForm,
) -> Ranks:
    good: list[tuple[int, int, int, int]] = []
    broken: list[tuple[str, str]] = []
    for index, (name, content) in enumerate(zip(names, contents, strict=True)):
        values, kind = _parsed(content, name, form)
        if values is None:
            broken.append((kind, name))
            continue
        found = (int(column[0]) for column in _ranked(values[None], targets[index : index + 1]))
        good.append((first + index, *found))  # type: ignore[arg-type]
    positions, ranks, best, num_first = np.array(good, np.int64).reshape(-1, 4).T
    return Ranks(positions, ranks, best, num_first, tuple(broken))


def _parsed(
    content: bytes | None, name: str, form: FileForm
) -> tuple[npt.NDArray[np.floating] | None, str]:
    """The values of one file, or None and what is wrong with it."""
    if content is None:
        return None, UNREADABLE
    if not (content.strip() if name.endswith(".txt") else content):
        return None, EMPTY
    try:
        values = parse_prediction(content, name, form.dtype)
    except ValueError:
        size_shows_it = name.endswith(".bin")
        return None, WRONG_SIZE if size_shows_it else DAMAGED
    if has_several_rows(content, name):
        return None, SEVERAL_ROWS
    if values.size != form.num_outputs:
        return None, WRONG_SIZE
    return (values, "") if np.isfinite(values).all() else (None, NOT_FINITE)


def _ranked(values: Values, targets: Indices) -> tuple[Indices, Indices, Indices]:
    """(rank of the target, first output, how many outputs are first) of each row."""
    num_values = values.shape[1]
    known = (targets >= 0) & (targets < num_values)
    rows = np.arange(len(values))
    columns = np.where(known, targets, 0)
    ranks = np.count_nonzero(values >= values[rows, columns][:, None], axis=1) - 1
    best = answers_of(values, targets)
    num_first = np.count_nonzero(values == values[rows, best][:, None], axis=1)
    return np.where(known, ranks, num_values).astype(np.int64), best, num_first


def _read(path: str) -> bytes | None:
    try:
        return read_whole(path)
    except (OSError, ValueError):
        return None
