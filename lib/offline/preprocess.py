"""Pictures to the network's input files: what `valid.py` feeds the network, one file a picture.

A file holds float32 values, C x H x W, little-endian, without a header: what ais_bench reads. They
are bit-equal to torchvision's `Resize`, `CenterCrop`, `ToTensor`, `Normalize` on PIL pictures with
the same Pillow. (Pillow 13 resizes pictures more than about twice as tall as wide in another order
than older ones, and then some values differ in the last of 256 steps.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from lib import run_folder
from lib.cli import PartlyFailed
from lib.environment import num_cores
from lib.files import write_atomically
from lib.offline.pixels import eval_crop, load_rgb
from lib.offline.pool import run_in_processes
from lib.offline.record import Target, origins_of
from lib.pictures import Sources, find_sources, one_line
from lib.recipe import Recipe, eval_resize
from lib.stops import Check, stops_noted
from lib.transforms import normalize

MODEL = "hrnet"

Make = Callable[[str], npt.NDArray[np.generic]]  # from a picture's path to what its file holds

_PICTURES_A_JOB = 8


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
    num_in_all: int  # files in the folder now
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

    What is there already, made by the same recipe of the same picture, is kept. A stop (Ctrl-C,
    SIGTERM) leaves whole files only, and a record of them.

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
    results = Target(target, source, MODEL, Recipe.for_crop(options.crop), _num_bytes(options.crop))
    return fill(results, partial(_file_of, crop=options.crop), options)


def fill(results: Target, make: Make, options: PreprocessOptions) -> PreprocessReport:
    """Write the file of each picture and the record, as `preprocess` says.

    `make` gives a picture's file by the picture's path. It has to be picklable, and what it raises
    says why the picture can't be read. Of the options, `crop` means nothing here.
    """
    sources = find_sources(results.root, leave_out=results.folder)
    if results.folder.exists() and not results.folder.is_dir():
        raise ValueError(f"{results.folder} is not a folder: give one for the results")
    with run_folder.lock(results.folder), stops_noted() as check:
        return _fill(results, sources, make, options=options, check=check)


def _fill(
    results: Target,
    sources: Sources,
    make: Make,
    *,
    options: PreprocessOptions,
    check: Check,
) -> PreprocessReport:
    origins = origins_of(sources)
    there = results.keep_up_to_date(origins)
    planned = list(sources.paths)[: options.limit or None]
    tasks = [
        _Task(stem, sources.full_path(stem), os.fspath(results.path_of(stem)))
        for stem in planned
        if stem not in there
    ]
    accounted = there.union(planned)
    wanted = {stem: origin for stem, origin in origins.items() if stem in accounted}
    failed: dict[str, str] = {}
    try:
        results.write_record(wanted, failed)
        try:
            with closing(_prepared(tasks, make, options=options, check=check)) as outcomes:
                for stem, reason in outcomes:
                    if reason:
                        failed[sources.paths[stem]] = reason
        finally:
            whole = results.whole_files()
            results.write_record({s: o for s, o in wanted.items() if s in whole}, failed)
    except OSError as error:
        raise PartlyFailed(f"writing to {results.folder} failed: {error}") from error
    return PreprocessReport(
        num_written=len(tasks) - len(failed),
        num_already_there=len(planned) - len(tasks),
        num_in_all=len(whole),
        failed=dict(sorted(failed.items())),
        others=sources.others,
    )


def _prepared(
    tasks: Sequence[_Task], make: Make, *, options: PreprocessOptions, check: Check
) -> Generator[tuple[str, str], None, None]:
    """Do the tasks; yield the stem of each and, where it failed, the reason."""
    if not tasks:
        return
    starts = range(0, len(tasks), _PICTURES_A_JOB)
    work = run_in_processes(
        partial(_prepare, make=make),
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


def _prepare(tasks: Sequence[_Task], *, make: Make) -> list[tuple[str, str]]:
    """Write the results of a few pictures; runs in a worker."""
    outcomes = []
    for task in tasks:
        try:
            content = make(task.source)
        except Exception as error:  # decoders raise many kinds; the reason is reported
            reason = one_line(error)
            Path(task.target).unlink(missing_ok=True)  # of an earlier, readable picture
        else:
            reason = ""
            write_atomically(content.data, task.target, durable=False)
        outcomes.append((task.stem, reason))
    return outcomes


def _file_of(path: str, *, crop: int) -> npt.NDArray[np.float32]:
    return picture_planes(path, crop=crop).astype("<f4", copy=False)


def _num_bytes(crop: int) -> int:
    return 3 * crop * crop * np.dtype(np.float32).itemsize
