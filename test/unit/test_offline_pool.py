"""lib/runtime/pool.py: nothing that happens to a worker is lost, and a stop is clean."""

import errno
import json
import os
import random
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest
from conftest import command, script_environment, write_pictures

from lib.config.recipe import Recipe
from lib.offline import preprocess as preprocess_module
from lib.offline.preprocess import PreprocessOptions, preprocess
from lib.runtime.cli import PartlyFailed, Stopped
from lib.runtime.pool import run_in_processes
from lib.runtime.signals import deferred_signals

SCRIPT = "imagenet_torch_preprocess.py"
TINY = PreprocessOptions(Recipe.for_crop(8), num_workers=2, start_method="fork")


def bins(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.bin"))


def num_recorded(folder: Path) -> int:
    return json.loads((folder / "preprocess.json").read_text())["num_images"]


def _square_of_small(number: int) -> int:
    if number >= 500:
        raise ValueError(f"{number} is too large")
    return number * number


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_every_result_comes_once(start_method):
    work = run_in_processes(_square_of_small, range(500), num_workers=2, start_method=start_method)
    assert sorted(work) == [number * number for number in range(500)]


@pytest.mark.parametrize("num_jobs", [501, 700])
def test_an_exception_of_any_job_is_raised(num_jobs):
    """Pitfall 31: every future is read, the last one's too."""
    with pytest.raises(ValueError, match="is too large"):
        list(run_in_processes(_square_of_small, range(num_jobs), num_workers=2))


def test_jobs_are_taken_as_the_work_goes_on():
    taken = []

    def jobs():
        for number in range(400):
            taken.append(number)
            yield number

    with closing(run_in_processes(_square_of_small, jobs(), num_workers=2)) as results:
        next(results)
    assert len(taken) < 20


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)]
)
def test_a_signal_is_raised_where_it_is_asked_for(number, expected):
    """In a destructor, say, Python would drop what the signal itself raises."""
    before = signal.getsignal(number)
    with deferred_signals() as check:
        check()
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        with pytest.raises(expected):
            check()
        with pytest.raises(expected):  # the second of an impatient user
            os.kill(os.getpid(), number)
            time.sleep(10)
    assert signal.getsignal(number) == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_signals() as check:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            check()
    finally:
        signal.signal(signal.SIGINT, before)


def _disk_full(data, path, *, durable):
    raise OSError(errno.ENOSPC, "No space left on device")


def _killed(path, recipe):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("name", "fault", "expected"),
    [("write_atomically", _disk_full, "No space left"), ("picture_planes", _killed, "was killed")],
)
def test_what_ends_a_worker_is_told_and_never_lost(tmp_path, monkeypatch, name, fault, expected):
    """Pitfall 31: every future is read. Forked workers see what is patched."""
    source = tmp_path / "source"
    write_pictures(source, 3)
    monkeypatch.setattr(preprocess_module, name, fault)
    with pytest.raises(PartlyFailed, match=expected):
        preprocess(source, tmp_path / "bins", TINY)
    assert bins(tmp_path / "bins") == [] and num_recorded(tmp_path / "bins") == 0


@pytest.mark.parametrize(
    ("stop", "to"),
    [
        (signal.SIGINT, os.killpg),  # as a terminal's Ctrl-C
        (signal.SIGTERM, os.kill),
        (signal.SIGTERM, os.killpg),  # as a scheduler
        (signal.SIGKILL, os.kill),
    ],
)
def test_a_stop_leaves_whole_files_only_and_no_process(tmp_path, stop, to):
    source, target = tmp_path / "source", tmp_path / "bins"
    write_pictures(source, 1, size=(700, 900))
    for number in range(1, 400):
        os.link(source / "0.png", source / f"{number}.png")
    process = subprocess.Popen(
        command(SCRIPT, ["hrnet", source, target, "--workers", 2]),
        env=script_environment(),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(target.glob("*.bin")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.random() / 10)
    to(process.pid, stop)
    _, errors = process.communicate(timeout=120)
    while time.monotonic() < deadline:  # until the last process of the group has gone
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("a worker goes on")
    whole = bins(target)
    assert 0 < len(whole) < 400 and {path.stat().st_size for path in whole} == {602_112}
    if stop != signal.SIGKILL:
        assert process.returncode == 128 + stop and errors.startswith(b"stopped by")
        assert errors.count(b"\n") == 1
        assert num_recorded(target) == len(whole)
        assert {path.suffix for path in target.iterdir() if path.name != ".lock"} == {
            ".bin",
            ".json",
        }
