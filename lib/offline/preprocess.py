"""Pictures to the network's input files: what `valid.py` feeds the network, one file a picture.

A file holds float32 values, C x H x W, little-endian, without a header: what ais_bench reads. They
are bit-equal to torchvision's `Resize`, `CenterCrop`, `ToTensor`, `Normalize` on PIL pictures with
the same Pillow. (Pillow 13 resizes pictures more than about twice as tall as wide in another order
than older ones, and then some values differ in the last of 256 steps.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from lib.cli import PartlyFailed
from lib.environment import num_cores
from lib.files import write_atomically
from lib.offline.files import shorten, write_json
from lib.offline.pixels import eval_crop, load_rgb
from lib.offline.pool import run_in_processes, stops_noted
from lib.offline.sources import Sources, find_sources
from lib.transforms import eval_resize, normalize, recipe

RECORD = "preprocess.json"
ENDING = ".bin"

_MODEL = "hrnet"
_PICTURES_A_JOB = 8
_MAX_REASON_LENGTH = 200


@dataclass(frozen=True)
class PreprocessOptions:
    """How a folder is prepared. Raises ValueError for impossible values."""

    crop: int = 224  # side of the result in pixels
    num_workers: int = 0  # processes; 0: as many as cores
    limit: int = 0  # only so many pictures, the first by path; 0: all
    start_method: str | None = None  # of the processes; None: the platform's own

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise ValueError(f"an image size of {self.crop} pixels: give 1 or more, such as 224")
        for name, value in (("workers", self.num_workers), ("limit", self.limit)):
            if value < 0:
                raise ValueError(f"{name} is {value}: give 1 or more, or 0 for all")


@dataclass(frozen=True)
class PreprocessReport:
    """What has become of the pictures asked for."""

    num_written: int
    num_already_there: int
    failed: Mapping[str, str]  # path relative to the source folder: reason
    others: Sequence[str]  # files in the source folder that are no pictures


@dataclass(frozen=True)
class _Task:
    stem: str
    source: str
    target: str


def picture_planes(path: str | Path, *, crop: int) -> npt.NDArray[np.float32]:
    """The network's input, float32 3 x crop x crop; equal to `normalize(eval_pixels(...))`.

    Raises:
        Exception: of many kinds, for a file that can't be decoded; see `lib.transforms.open_rgb`.
    """
    image = eval_crop(load_rgb(path), resize=eval_resize(crop), crop=crop)
    # Pillow takes one colour out at a time faster than numpy turns H x W x 3 around, and
    # `normalize` then has nothing to copy.
    planes = b"".join(image.tobytes("raw", colour) for colour in "RGB")
    pixels = np.frombuffer(planes, np.uint8).reshape(3, crop, crop)
    return normalize(pixels.transpose(1, 2, 0))


def preprocess(source: Path, target: Path, options: PreprocessOptions) -> PreprocessReport:
    """Prepare the pictures of a folder, and record how in `preprocess.json` beside the results.

    What is there already, of the right size, made by the same recipe and not older than its
    picture, is kept. A stop (Ctrl-C, SIGTERM) leaves whole files only, and a record of them.

    Args:
        source: holds the pictures, or class folders of them.
        target: gets `<stem>.bin` of each; made if missing.
        options: see there.

    Raises:
        FileNotFoundError: no folder, or no pictures.
        ValueError: two pictures with one stem; a target that holds other files of this kind.
        PartlyFailed: the results can't be written, or a process was killed.
        Stopped, KeyboardInterrupt: the work was stopped.
    """
    sources = find_sources(source, leave_out=target)
    there = _up_to_date(target, sources, options.crop)
    planned = list(sources.paths)[: options.limit or None]
    tasks = [
        _Task(stem, sources.full_path(stem), os.path.join(target, f"{stem}{ENDING}"))
        for stem in planned
        if stem not in there
    ]
    failed: dict[str, str] = {}
    try:
        target.mkdir(parents=True, exist_ok=True)
        with stops_noted() as check:
            _write_record(target, sources, failed, crop=options.crop)
            try:
                with closing(_prepared(tasks, options, check)) as outcomes:
                    for stem, reason in outcomes:
                        if reason:
                            failed[sources.paths[stem]] = reason
            finally:
                _write_record(target, sources, failed, crop=options.crop)
    except OSError as error:
        raise PartlyFailed(f"writing to {target} failed: {error}") from error
    return PreprocessReport(
        len(tasks) - len(failed),
        len(planned) - len(tasks),
        dict(sorted(failed.items())),
        sources.others,
    )


def _prepared(
    tasks: Sequence[_Task], options: PreprocessOptions, check: Callable[[], None]
) -> Generator[tuple[str, str], None, None]:
    """Do the tasks; yield the stem of each and, where it failed, the reason."""
    if not tasks:
        return
    starts = range(0, len(tasks), _PICTURES_A_JOB)
    work = run_in_processes(
        partial(_prepare, crop=options.crop),
        (tasks[start : start + _PICTURES_A_JOB] for start in starts),
        num_workers=min(options.num_workers or num_cores(), len(starts)),
        start_method=options.start_method,
        check=check,
    )
    # disable=None: a bar on terminals only.
    with closing(work) as done, tqdm(total=len(tasks), unit="picture", disable=None) as progress:
        for outcomes in done:
            yield from outcomes
            progress.update(len(outcomes))


def _prepare(tasks: Sequence[_Task], *, crop: int) -> list[tuple[str, str]]:
    """Write the results of a few pictures; runs in a worker."""
    outcomes = []
    for task in tasks:
        try:
            planes = picture_planes(task.source, crop=crop)
        except Exception as error:  # decoders raise many kinds; the reason is reported
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_REASON_LENGTH]
            Path(task.target).unlink(missing_ok=True)  # of an earlier, readable picture
        else:
            reason = ""
            write_atomically(planes.astype("<f4", copy=False).data, task.target, durable=False)
        outcomes.append((task.stem, reason))
    return outcomes


def _up_to_date(target: Path, sources: Sources, crop: int) -> set[str]:
    """Stems whose results can stay; refuses a folder with results that aren't of these pictures.

    Raises ValueError.
    """
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is not a folder: give one for the results")
    results = _results(target)
    if not results:
        return set()
    recorded = _recorded_sources(target, crop, num_results=len(results))
    strangers = sorted(results.keys() - sources.paths.keys())
    if strangers:
        raise ValueError(
            f"{target} holds {len(strangers)} results of pictures that {sources.root} lacks: "
            f"{shorten(strangers)}; remove them, or give an empty folder"
        )
    return {
        stem
        for stem, stat in results.items()
        if stat.st_size == _num_bytes(crop)
        and stat.st_mtime_ns >= os.stat(sources.full_path(stem)).st_mtime_ns
        and recorded.get(stem, sources.paths[stem]) == sources.paths[stem]
    }


def _results(target: Path) -> dict[str, os.stat_result]:
    if not target.is_dir():
        return {}
    return {
        entry.name.removesuffix(ENDING): entry.stat()
        for entry in os.scandir(target)
        if entry.name.endswith(ENDING) and not entry.name.startswith(".")
    }


def _num_bytes(crop: int) -> int:
    return 3 * crop * crop * np.dtype(np.float32).itemsize


def _recorded_sources(target: Path, crop: int, *, num_results: int) -> Mapping[str, str]:
    """The sources that the folder's record names. Raises ValueError for another recipe, or none."""
    path = target / RECORD
    found = f"{target} holds {num_results} {ENDING} files"
    way_out = "give an empty folder, or remove them"
    if not path.is_file():
        raise ValueError(f"{found} and no {RECORD} that tells how they were made: {way_out}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        theirs, sources = {"model": record["model"], **record["recipe"]}, dict(record["sources"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{found} and a {RECORD} that is damaged: {way_out}") from None
    ours = {"model": _MODEL, **recipe(crop)}
    if theirs != ours:
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        differences = ", ".join(f"{key} {theirs.get(key)} for {ours.get(key)}" for key in keys)
        raise ValueError(f"{found} made by another recipe ({differences}): {way_out}")
    return sources


def _write_record(target: Path, sources: Sources, failed: Mapping[str, str], *, crop: int) -> None:
    """Write down what is there now, so that the record is true whenever the work ends."""
    whole = {stem for stem, stat in _results(target).items() if stat.st_size == _num_bytes(crop)}
    paths = {stem: path for stem, path in sources.paths.items() if stem in whole}
    content = {
        "model": _MODEL,
        "recipe": recipe(crop),
        "num_images": len(paths),
        "sources": paths,
        "failed": dict(sorted(failed.items())),
    }
    write_json(content, target / RECORD)
