"""Pictures for an .om with AIPP, which normalises by itself: uint8 files, rows of RGB pixels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from tqdm import tqdm

from lib import run_folder
from lib.ascend import uint8_size
from lib.cli import PartlyFailed
from lib.environment import num_cores
from lib.files import write_atomically
from lib.offline.files import shorten
from lib.offline.pool import run_in_processes
from lib.offline.record import ENDING, Target, origins_of
from lib.offline.sources import Sources, find_sources
from lib.pictures import one_line
from lib.stops import stops_noted
from lib.transforms import eval_pixels, eval_resize, open_rgb, recipe

_MODEL = "hrnet"
_PICTURES_A_JOB = 8

Task = tuple[str, str]  # stem, path of the picture
Outcomes = Generator[tuple[str, str], None, None]  # stem, and why it failed or nothing


def uint8_recipe(side: int) -> dict[str, object]:
    """How the pictures are prepared, in the words of `lib.transforms.recipe`.

    Mean and standard deviation are null: AIPP takes them off.
    """
    changes = {"crop": uint8_size(side), "mean": None, "std": None}
    return recipe(side) | changes | {"layout": "HWC", "dtype": "uint8"}


def write_uint8_bins(source: Path, target: Path, *, side: int, num_workers: int = 0) -> int:
    """Write `<stem>.bin` (uint8, H x W x 3) of each picture under `source`; return how many.

    Cutting `crop_margin` pixels off each side gives exactly what `lib.transforms` gives for
    `side`. What is there already, made of the same picture in the same way, is kept; see
    `lib.offline.record`. `num_workers` counts processes; 0: as many as cores.

    Raises:
        FileNotFoundError: no folder, or no pictures.
        ValueError: two pictures with one stem; a target that holds other files of this kind.
        PartlyFailed: pictures could not be read (all others are written), or files not written.
        Stopped, KeyboardInterrupt: the work was stopped.
    """
    sources = find_sources(source, leave_out=target)
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is not a folder: give one for the input files")
    results = Target(target, source, _MODEL, uint8_recipe(side), 3 * uint8_size(side) ** 2)
    with run_folder.lock(target), stops_noted() as check:
        start = partial(_outcomes, side=side, num_workers=num_workers or num_cores(), check=check)
        failed = _fill(results, sources, start)
    if failed:
        named = [f"{path} ({reason})" for path, reason in sorted(failed.items())]
        raise PartlyFailed(
            f"{len(failed)} of {len(sources.paths)} pictures not read: {shorten(named)}"
        )
    return len(sources.paths)


def _fill(
    results: Target,
    sources: Sources,
    start: Callable[[Sequence[Task], Path], Outcomes],
) -> dict[str, str]:
    """Make what is missing, and the record; return the pictures that failed, with the reasons."""
    origins = origins_of(sources)
    there = results.keep_up_to_date(origins)
    tasks = [(stem, sources.full_path(stem)) for stem in sources.paths if stem not in there]
    failed: dict[str, str] = {}
    try:
        results.write_record(origins, failed)
        try:
            with closing(start(tasks, results.folder)) as outcomes:
                for stem, reason in outcomes:
                    if reason:
                        failed[sources.paths[stem]] = reason
        finally:
            whole = results.whole_files()
            results.write_record({s: o for s, o in origins.items() if s in whole}, failed)
    except OSError as error:
        raise PartlyFailed(f"writing to {results.folder} failed: {error}") from error
    return failed


def _outcomes(
    tasks: Sequence[Task],
    target: Path,
    *,
    side: int,
    num_workers: int,
    check: Callable[[], None],
) -> Outcomes:
    """Do the tasks in processes; yield the stem of each and, where it failed, the reason."""
    if not tasks:
        return
    starts = range(0, len(tasks), _PICTURES_A_JOB)
    running = run_in_processes(
        partial(_prepare, target=target, side=side),
        (tasks[start : start + _PICTURES_A_JOB] for start in starts),
        num_workers=min(num_workers, len(starts)),
        check=check,
    )
    # disable=None: a bar on terminals only.
    with closing(running) as done, tqdm(total=len(tasks), unit="picture", disable=None) as progress:
        for reasons in done:
            yield from reasons.items()
            progress.update(len(reasons))


def _prepare(tasks: Sequence[Task], *, target: Path, side: int) -> dict[str, str]:
    """Write the files of a few pictures; {stem: why it failed, or nothing}; runs in a worker."""
    outcomes = {}
    for stem, source in tasks:
        path = target / f"{stem}{ENDING}"
        try:
            image = open_rgb(source)
            pixels = eval_pixels(image, resize=eval_resize(side), crop=uint8_size(side))
        except Exception as error:  # Pillow's answers to damaged files have no common base
            outcomes[stem] = one_line(error)
            path.unlink(missing_ok=True)  # of an earlier, readable picture
        else:
            outcomes[stem] = ""
            write_atomically(pixels.data, path, durable=False)
    return outcomes
