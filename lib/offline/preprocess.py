"""Pictures to the network's input files: what `valid.py` feeds the network, one file a picture.

A file holds float32 values, C x H x W, little-endian, without a header: what ais_bench reads. They
are bit-equal to torchvision's `Resize`, `CenterCrop`, `ToTensor`, `Normalize` on PIL pictures with
the same Pillow. (Pillow 13 resizes pictures more than about twice as tall as wide in another order
than older ones, and then some values differ in the last of 256 steps.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from lib.config.recipe import Recipe
from lib.data.picture_files import LeftOut, Sources, find_sources
from lib.data.rgb import open_rgb
from lib.data.transforms import center_crop, normalize, resize_short_side
from lib.offline.ais_bench import (
    FILE_MODE,
    FOLDER_MODE,
    faults_of_folder,
    faults_of_names,
    make_acceptable,
)
from lib.offline.fast_crop import eval_crop
from lib.offline.preprocess_record import Target, origins_of, sum_of
from lib.runtime import run_folder
from lib.runtime.cli import PartlyFailed
from lib.runtime.environment import check_num_workers, num_cores
from lib.runtime.files import write_atomically
from lib.runtime.pool import run_in_processes
from lib.runtime.signals import Check, deferred_signals
from lib.runtime.text import one_line, shorten

MODEL = "hrnet"

Make = Callable[[str], npt.NDArray[np.generic]]  # from a picture's path to what its file holds

_PICTURES_A_JOB = 8
_FLOAT32 = np.dtype("<f4")
_FAST = "bilinear"  # the interpolation that `eval_crop` has a shortcut for


@dataclass(frozen=True)
class PreprocessOptions:
    """How a folder is prepared. Raises ValueError for impossible values."""

    recipe: Recipe = Recipe()
    num_workers: int = 0  # processes; 0: as many as cores
    limit: int = 0  # only so many pictures, the first by path; 0: all
    start_method: str | None = None  # of the processes; None: the platform's own

    def __post_init__(self) -> None:
        for name, value in (("workers", self.num_workers), ("limit", self.limit)):
            if value < 0:
                raise ValueError(f"{name} is {value}: give 1 or more, or 0 for all")
        check_num_workers("--workers", self.num_workers)


@dataclass(frozen=True)
class PreprocessReport:
    """What has become of the pictures asked for."""

    num_written: int
    num_already_there: int
    num_in_all: int  # files in the folder now
    failed: Mapping[str, str]  # path relative to the source folder: reason
    left_out: LeftOut  # of the source folder
    warnings: Sequence[str]  # a sentence each


@dataclass(frozen=True)
class _Task:
    stem: str
    source: str
    target: str


@dataclass(frozen=True)
class _Outcome:
    stem: str
    reason: str = ""  # why it failed
    sum: int = 0  # of the content


def picture_planes(path: str | Path, recipe: Recipe) -> npt.NDArray[np.float32]:
    """Return the network's input, float32 3 x crop x crop, as `normalize(eval_pixels(...))` does.

    Raises what `open_rgb` raises.
    """
    image = open_rgb(path, orientation=recipe.orientation)
    if recipe.interpolation == _FAST:
        image = eval_crop(image, resize=recipe.resize, crop=recipe.crop)
    else:
        image = resize_short_side(image, recipe.resize, recipe.interpolation)
        image = center_crop(image, recipe.crop)
    # Pillow takes one colour out at a time faster than numpy turns H x W x 3 around, and
    # `normalize` then has nothing to copy.
    planes = b"".join(image.tobytes("raw", colour) for colour in "RGB")
    pixels = np.frombuffer(planes, np.uint8).reshape(3, recipe.crop, recipe.crop)
    return normalize(pixels.transpose(1, 2, 0), recipe)


def preprocess(source: Path, target: Path, options: PreprocessOptions) -> PreprocessReport:
    """Prepare the pictures of a folder, and record how in `preprocess.json` beside the results.

    What is there already, made by the same recipe of the same picture, stays. A stop (Ctrl-C,
    SIGTERM) leaves whole files only, and a record of them.

    Raises FileNotFoundError where there are no pictures; ValueError for two of one stem, or a
    target with other files of this kind; PartlyFailed where results can't be written or a process
    was killed.
    """
    recipe = options.recipe
    results = Target(target, source, MODEL, recipe, 3 * recipe.crop**2 * _FLOAT32.itemsize)
    return fill(results, partial(_file_of, recipe=recipe), options)


def fill(results: Target, make: Make, options: PreprocessOptions) -> PreprocessReport:
    """Write the file of each picture and the record, as `preprocess` says.

    `make` gives a picture's file by the picture's path. It has to be picklable, and what it raises
    says why the picture can't be read. Of the options, `recipe` means nothing here.
    """
    sources = find_sources(results.root, leave_out=results.folder)
    if results.folder.resolve() == results.root.resolve():
        raise ValueError(f"{results.folder} is the folder of the pictures: give another for DST")
    if results.folder.exists() and not results.folder.is_dir():
        raise ValueError(f"{results.folder} is not a folder: give one for the results")
    is_new = not results.folder.exists()
    with run_folder.lock(results.folder), deferred_signals() as check:
        if is_new:
            results.folder.chmod(FOLDER_MODE)
        return _fill(results, sources, make, options=options, check=check)


def _fill(
    results: Target, sources: Sources, make: Make, *, options: PreprocessOptions, check: Check
) -> PreprocessReport:
    origins = origins_of(sources)
    there = results.keep_up_to_date(origins)
    planned = list(sources.paths)[: options.limit or None]
    tasks = [
        _Task(stem, sources.full_path(stem), os.fspath(results.path_of(stem)))
        for stem in planned
        if stem not in there.sums
    ]
    accounted = there.sums.keys() | planned
    wanted = {stem: origin for stem, origin in origins.items() if stem in accounted}
    failed: dict[str, str] = {}
    sums = dict(there.sums)
    try:
        results.write_record(wanted, failed, sums)
        try:
            with closing(_prepared(tasks, make, options=options, check=check)) as outcomes:
                for outcome in outcomes:
                    if outcome.reason:
                        failed[sources.paths[outcome.stem]] = outcome.reason
                    else:
                        sums[outcome.stem] = outcome.sum
        finally:
            make_acceptable(results.folder)
            whole = results.whole_files()
            results.write_record({s: o for s, o in wanted.items() if s in whole}, failed, sums)
    except OSError as error:
        raise PartlyFailed(f"writing to {results.folder} failed: {error}") from error
    return PreprocessReport(
        num_written=len(tasks) - len(failed),
        num_already_there=len(planned) - len(tasks),
        num_in_all=len(whole),
        failed=dict(sorted(failed.items())),
        left_out=sources.left_out,
        warnings=_warnings(results.folder, whole, there.replaced),
    )


def _warnings(folder: Path, stems: Collection[str], replaced: Sequence[str]) -> list[str]:
    said = [*faults_of_names(sorted(stems)), *faults_of_folder(folder)]
    if replaced:
        said.append(
            f"{len(replaced)} files were no longer as they had been written, and were made again: "
            f"{shorten(replaced)}"
        )
    return said


def _prepared(
    tasks: Sequence[_Task], make: Make, *, options: PreprocessOptions, check: Check
) -> Generator[_Outcome, None, None]:
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


def _prepare(tasks: Sequence[_Task], *, make: Make) -> list[_Outcome]:
    """Write the results of a few pictures; runs in a worker."""
    outcomes = []
    for task in tasks:
        try:
            content = make(task.source).data
        except Exception as error:  # decoders raise many kinds; the reason is reported
            Path(task.target).unlink(missing_ok=True)  # of an earlier, readable picture
            outcomes.append(_Outcome(task.stem, reason=one_line(error, with_type=True)))
        else:
            write_atomically(content, task.target, durable=False)
            os.chmod(task.target, FILE_MODE)
            outcomes.append(_Outcome(task.stem, sum=sum_of(content)))
    return outcomes


def _file_of(path: str, *, recipe: Recipe) -> npt.NDArray[np.float32]:
    return picture_planes(path, recipe).astype(_FLOAT32, copy=False)
