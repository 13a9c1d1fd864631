"""From prediction files to ranks: at which place the true class comes, and which comes first.

The work of a score, done in batches and, where there are many files, in several processes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lib.environment import num_cores
from lib.offline.percent_f import Millionths, rows_of_millionths
from lib.offline.pool import run_in_processes
from lib.offline.predictions import parse_prediction

Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.floating] | Millionths

_FILES_A_BATCH = 32  # their values fit into a core's cache
_FILES_A_JOB = 1024
_FILES_WORTH_A_PROCESS = 4096  # starting one takes as long as reading about so many
_NUM_SAMPLED = 33
_BYTES_A_READ = 1 << 20


@dataclass(frozen=True)
class RankJob:
    """Files to read, and the output that is right for each (int64)."""

    folder: str
    names: Sequence[str]
    targets: Indices
    first: int  # position of the first of the names in the list of all
    num_values: int  # that each file should have


@dataclass(frozen=True)
class Ranks:
    """What was found; the arrays belong together, and have a place for each whole prediction."""

    positions: Indices  # of the files in the list of names
    ranks: Indices  # how many outputs come before the right one
    best: Indices  # the output that comes first
    broken: tuple[tuple[str, str], ...]  # (kind, name) of the others


EMPTY, DAMAGED, WRONG_SIZE, NOT_FINITE = "empty", "damaged", "of a wrong size", "with NaN or inf"


def most_frequent_size(folder: Path, names: Sequence[str]) -> int:
    """How many values most of the files have, judged by some; 0 where none of these is whole."""
    step = max(1, len(names) // _NUM_SAMPLED)
    sizes = []
    for name in names[::step]:
        try:
            sizes.append(parse_prediction(_read(os.path.join(folder, name)), name).size)
        except ValueError:  # counted and named later, with all files
            continue
    return max(sizes, key=lambda size: (sizes.count(size), size), default=0)


def rank_files(
    folder: Path,
    names: Sequence[str],
    targets: Indices,
    *,
    num_values: int,
    num_workers: int | None = None,
) -> Ranks:
    """Read all files and rank the right outputs.

    Equal scores keep the outputs' order. A target outside the outputs comes last.

    Args:
        folder: where the files are.
        names: their paths in it.
        targets: the right output for each, int64.
        num_values: that each file should have; others are broken.
        num_workers: processes; None: as it pays.

    Raises:
        PartlyFailed: a process was killed.
    """
    if num_workers is None:
        num_workers = min(num_cores(), len(names) // _FILES_WORTH_A_PROCESS)
    jobs = (
        RankJob(
            os.fspath(folder),
            names[start : start + _FILES_A_JOB],
            targets[start : start + _FILES_A_JOB],
            start,
            num_values,
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
    return Ranks(
        np.concatenate([none, *(part.positions for part in parts)]),
        np.concatenate([none, *(part.ranks for part in parts)]),
        np.concatenate([none, *(part.best for part in parts)]),
        tuple(sorted(broken for part in parts for broken in part.broken)),
    )


def _rank_batch(job: RankJob, start: int) -> Ranks:
    names = job.names[start : start + _FILES_A_BATCH]
    targets = job.targets[start : start + _FILES_A_BATCH]
    contents = [_read(f"{job.folder}/{name}") for name in names]
    values = _rows(names, contents, num_values=job.num_values)
    if values is not None:
        positions = np.arange(len(names)) + job.first + start
        return Ranks(positions, *_ranked(values, targets), broken=())
    return _rank_one_by_one(
        names, contents, targets, first=job.first + start, num_values=job.num_values
    )


def _rows(names: Sequence[str], contents: Sequence[bytes], *, num_values: int) -> Values | None:
    """The values of all files at once, where all are whole and alike in their format."""
    if not num_values:
        return None
    if all(name.endswith(".txt") for name in names):
        return rows_of_millionths(contents, num_values=num_values)
    alike = all(len(content) == 4 * num_values for content in contents)
    if not alike or not all(name.endswith(".bin") for name in names):
        return None
    values = np.frombuffer(b"".join(contents), "<f4").reshape(len(names), num_values)
    return values if np.isfinite(values).all() else None


def _rank_one_by_one(
    names: Sequence[str],
    contents: Sequence[bytes],
    targets: Indices,
    *,
    first: int,
    num_values: int,
) -> Ranks:
    good: list[tuple[int, int, int]] = []
    broken: list[tuple[str, str]] = []
    for index, (name, content) in enumerate(zip(names, contents, strict=True)):
        values, kind = _parsed(content, name, num_values=num_values)
        if values is None:
            broken.append((kind, name))
            continue
        ranks, best = _ranked(values[None], targets[index : index + 1])
        good.append((first + index, int(ranks[0]), int(best[0])))
    columns = np.array(good, np.int64).reshape(-1, 3).T
    return Ranks(columns[0], columns[1], columns[2], tuple(broken))


def _parsed(
    content: bytes, name: str, *, num_values: int
) -> tuple[npt.NDArray[np.floating] | None, str]:
    """The values of one file, or None and what is wrong with it."""
    if not (content.strip() if name.endswith(".txt") else content):
        return None, EMPTY
    try:
        values = parse_prediction(content, name)
    except ValueError:
        size_shows_it = name.endswith(".bin")
        return None, WRONG_SIZE if size_shows_it else DAMAGED
    if values.size != num_values:
        return None, WRONG_SIZE
    return (values, "") if np.isfinite(values).all() else (None, NOT_FINITE)


def _ranked(values: Values, targets: Indices) -> tuple[Indices, Indices]:
    """(rank of the target, best output) of each row."""
    num_values = values.shape[1]
    known = (targets >= 0) & (targets < num_values)
    rows = np.arange(len(values))
    columns = np.where(known, targets, 0)
    theirs = values[rows, columns][:, None]
    ranks = np.count_nonzero(values > theirs, axis=1)
    equal = values == theirs
    tied = np.flatnonzero(np.count_nonzero(equal, axis=1) > 1)
    for row in tied:
        ranks[row] += np.count_nonzero(equal[row, : columns[row]])
    return np.where(known, ranks, num_values).astype(np.int64), values.argmax(axis=1)


def _read(path: str) -> bytes:
    """The whole file; tens of thousands are read, and `open` takes twice as long."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        parts = [os.read(descriptor, size + 1)]
        if len(parts[0]) != size:  # it grows, or is read in pieces
            while parts[-1]:
                parts.append(os.read(descriptor, _BYTES_A_READ))
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(descriptor)
