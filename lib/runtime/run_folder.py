"""A run folder: its file names, who may write there, and what an earlier run left in it."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from lib.runtime.files import open_in_place, write_atomically

CHECKPOINT = "checkpoint.pth.tar"  # everything, to resume from
BEST = "model_best.pth.tar"  # bare weights
FINAL = "final_state.pth.tar"  # bare weights
CLASSES = "classes.json"
BAD_IMAGES = "bad_images.tsv"
SPLIT = "split.tsv"  # which pictures were set aside to validate with, by DATASET.VAL_SHARE
RESULT = "result.json"
CONFIG = "config.yaml"
CURVES = "curves.png"
PER_CLASS = "per_class.csv"
CONFUSION = "confusion.png"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.npz"  # of the best weights
ENVIRONMENT = "environment.json"  # what the run computed with
REPORT = "report.html"
PROFILE = "profile"  # traces, where PROFILE_TYPE asks for them
LOGS = "logs"  # one file for each rank but the first of a machine
RANK_LOG = "rank_{}.log"
PERFORMANCE = "performance"  # of `--stop_step` runs
EVAL = "eval"  # of tools/valid.py
_TENSORBOARD = "tensorboard"
_LAUNCH = ".launch"  # which launch the files are of
_OF_A_RUN = (
    CHECKPOINT, BEST, FINAL, CLASSES, BAD_IMAGES, SPLIT, RESULT, CONFIG, CURVES, METRICS, PROFILE,
    PER_CLASS, CONFUSION, PREDICTIONS, ENVIRONMENT, REPORT, _TENSORBOARD,
)  # fmt: skip


def read_with(weights: Path | str) -> tuple[Path, ...]:
    """Return what may be read with a weight file: itself, and what its run wrote beside it."""
    path = Path(weights)
    names = (CLASSES, CONFIG, CHECKPOINT, BEST, FINAL, METRICS, SPLIT, PREDICTIONS)
    return path, *(path.parent / name for name in names)


def lock(folder: Path) -> TextIO:
    """Make the folder this process's alone until the returned file is closed.

    Raises ValueError where another run is writing there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(open_in_place(folder / ".lock", os.O_RDWR), "r+")
    except OSError as error:
        raise ValueError(_not_writable(folder, error)) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"another run is writing to {folder}: wait for it, or give this one a folder of its own"
        ) from None
    return file


def check_writable(folder: Path) -> None:
    """Raise ValueError where nothing can be written to the folder, or where it would be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(_not_writable(folder, error)) from None


def _not_writable(folder: Path, error: OSError) -> str:
    name = "" if error.filename in (None, str(folder)) else f"{error.filename}: "
    reason = f"{name}{error.strerror}"
    return f"folder {folder} cannot be written ({reason}): give --out a folder that can be"


def check_apart(folder: Path, classes: Path) -> None:
    """Raise ValueError where a run folder lies in `classes`, whose folders are classes.

    The next run would take it for one.
    """
    if folder.resolve().is_relative_to(classes.resolve()):
        raise ValueError(
            f"the run folder {folder} lies in {classes}, whose folders are the classes, and would "
            f"become one: give --out a folder outside, such as {_beside(classes)}"
        )


def _beside(classes: Path) -> Path:
    return Path(os.path.relpath(classes.resolve().parent / f"{classes.resolve().name}_run"))


def set_aside_older_run(folder: Path) -> Path | None:
    """Move what an earlier run left into `previous_<n>`; return that folder, None if nothing."""
    left = [folder / name for name in _OF_A_RUN if os.path.lexists(folder / name)]
    if not left:
        return None
    number = 1
    while os.path.lexists(folder / f"previous_{number}"):
        number += 1
    aside = folder / f"previous_{number}"
    aside.mkdir()
    for path in left:
        path.rename(aside / path.name)
    return aside


def sign(folder: Path, launch_id: str) -> None:
    """Note which launch the folder's files are of."""
    write_atomically(launch_id.encode(), folder / _LAUNCH)


def is_signed(folder: Path, launch_id: str) -> bool:
    """Tell whether the folder's files are of an earlier attempt of this launch."""
    path = folder / _LAUNCH
    return bool(launch_id) and path.is_file() and path.read_text(encoding="utf-8") == launch_id


def redirect_output(path: Path, *, append: bool) -> None:
    """Send all that this process prints, from C++ too, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not append:
        path.unlink(missing_ok=True)  # emptied, a link would empty what it leads to
    descriptor = open_in_place(path, os.O_WRONLY | os.O_APPEND)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
