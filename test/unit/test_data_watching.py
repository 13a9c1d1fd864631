"""lib/data/watching.py: where no batch can come any more, one line says why, and soon."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Callable

import pytest
import torch
from torch.utils.data import Dataset

from lib.data import watching
from lib.data.watching import LoadingFailed, WatchedLoader, end_worker_that_loses_a_batch, why_ended


class Items(Dataset):
    """Numbers, one of which does something else to its worker."""

    def __init__(self, act: Callable[[], object]):
        self._act = act

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> object:
        return self._act() if index == 5 else index


class CannotTravel:
    """What a worker cannot hand on to its parent."""

    def __reduce__(self) -> tuple:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fails() -> None:
    raise RuntimeError("unable to write to file </torch_7_1_0>: No space left on device (28)")


def _breaks() -> None:
    raise RuntimeError("some bug")


def _sleeps() -> None:
    time.sleep(60)


def _begin(worker_id: int) -> None:
    end_worker_that_loses_a_batch()


def loaded(act: Callable[[], object]) -> list[object]:
    loader = WatchedLoader(
        Items(act),
        batch_size=1,
        num_workers=2,
        collate_fn=list,
        worker_init_fn=_begin,
        persistent_workers=True,
        generator=torch.Generator(),
    )
    return [item for _ in range(2) for batch in loader for item in batch]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (_is_killed, r"ended by SIGKILL, most often because memory ran out: .* fewer --workers"),
        (CannotTravel, r"could not hand its batch on: too many files are open: .*ulimit -n"),
        (_fails, r"/dev/shm.* ran out: .*--shm-size.*--workers 0 \(RuntimeError: unable to write"),
        (_sleeps, r"no batch has come for 0.01 minutes"),
    ],
)
def test_a_worker_that_gives_no_batch_ends_the_loading_in_one_line(
    act: Callable[[], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults R5 and M1: no wait is endless, and the handlers are as before."""
    if act is _sleeps:
        monkeypatch.setattr(watching, "LONGEST_WAIT_S", 0.6)
    numbers = (signal.SIGCHLD, signal.SIGALRM)
    before, began_s = [signal.getsignal(n) for n in numbers], time.monotonic()
    with pytest.raises(LoadingFailed, match=said) as failure:
        loaded(act)
    assert "\n" not in str(failure.value)
    assert time.monotonic() - began_s < 4, "torch itself looks every 5 seconds"
    assert [signal.getsignal(n) for n in numbers] == before


def test_workers_that_do_well_go_on_and_a_bug_stays_one() -> None:
    assert loaded(lambda: 5) == [*range(8)] * 2
    with pytest.raises(RuntimeError, match="some bug"):
        loaded(_breaks)


@pytest.mark.parametrize(
    ("exit_code", "said"),
    [(-7, "SIGBUS.*--shm-size"), (-11, "SIGSEGV.*crashed"), (112, "memory"), (3, "exit code 3")],
)
def test_an_ended_worker_is_explained_by_its_exit_code(exit_code: int, said: str) -> None:
    """Faults R5 and M1."""
    assert re.search(said, why_ended(exit_code))
