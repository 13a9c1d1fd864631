"""Loading processes that die, lose a batch or come to a stop: one line, and no endless wait.

torch's loader raises from a signal handler, in the midst of whatever runs, where a worker dies;
and it waits for ever for a batch that a living worker could not hand on.
"""

import errno
import multiprocessing
import multiprocessing.queues
import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NoReturn

from torch.utils.data import DataLoader

from lib.runtime.cli import PartlyFailed
from lib.runtime.shortages import OUT_OF_MEMORY, OUT_OF_OPEN_FILES, OUT_OF_SHARED_MEMORY, shortage

LONGEST_WAIT_S = 1800.0  # for one batch; ranks wait as long for each other
_ENOUGH_FILES = 65_536
_LOST_A_BATCH = 100  # exit code of a worker that could not hand a batch on, plus the errno of why
_WHY_LOST = {
    errno.EMFILE: OUT_OF_OPEN_FILES,
    errno.ENFILE: OUT_OF_OPEN_FILES,
    errno.ENOSPC: OUT_OF_SHARED_MEMORY,
    errno.ENOMEM: OUT_OF_MEMORY,
}
_WHY_KILLED = {
    signal.SIGKILL: f"most often because {OUT_OF_MEMORY}",
    signal.SIGBUS: f"most often because {OUT_OF_SHARED_MEMORY}",
    signal.SIGSEGV: "a library crashed, most often on a damaged picture: --workers 0 shows where",
}
_A_WORKER_ENDED = re.compile(r"DataLoader worker .*(exited|killed)")  # as torch says it


class LoadingFailed(PartlyFailed):
    """Pictures cannot be loaded any more, for no fault of theirs; the message says why."""


class WatchedLoader(DataLoader):
    """A DataLoader with persistent workers that raises LoadingFailed where no batch can come."""

    _workers: tuple[BaseProcess, ...] = ()

    def __iter__(self) -> Iterator:  # type: ignore[override]
        """Yield the batches. Raises LoadingFailed, and what the data set raises."""
        iterator = self._begun()
        while True:
            try:
                with self._watched():
                    batch = next(iterator, None)
            except (RuntimeError, OSError, MemoryError) as error:
                self._fail(error)
            except BaseException:  # a stop too
                self.end_workers()
                raise
            if batch is None:
                return
            yield batch

    def _begun(self) -> Iterator:
        """Return torch's own iterator, whose signal handler is taken away again."""
        if not self.num_workers or self._workers:
            return super().__iter__()
        _allow_open_files()
        others, handler = multiprocessing.active_children(), signal.getsignal(signal.SIGCHLD)
        failure: Exception | None = None
        try:
            iterator = super().__iter__()
        except (OSError, RuntimeError, MemoryError) as error:
            failure = error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)
        started = multiprocessing.active_children()
        self._workers = tuple(worker for worker in started if worker not in others)
        if failure is None:
            return iterator
        self.end_workers()
        _free(failure)
        is_of_semaphores = getattr(failure, "errno", None) == errno.ENOSPC
        said = OUT_OF_SHARED_MEMORY if is_of_semaphores else shortage(failure)
        if said is None:
            raise failure
        raise LoadingFailed(said)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Raise LoadingFailed at once where a worker dies within the block, or nothing comes."""
        is_main_thread = threading.current_thread() is threading.main_thread()
        if not (self._workers and is_main_thread):
            yield
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            self._check_workers()
            if number == signal.SIGALRM:
                raise LoadingFailed(
                    f"no batch has come for {LONGEST_WAIT_S / 60:g} minutes: is the storage of "
                    "the pictures still there?"
                )

        before = {n: signal.signal(n, on_signal) for n in (signal.SIGCHLD, signal.SIGALRM)}
        signal.setitimer(signal.ITIMER_REAL, LONGEST_WAIT_S)
        try:
            self._check_workers()  # one may have died since the last batch
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _check_workers(self) -> None:
        for worker in self._workers:
            if worker.exitcode is not None:
                raise LoadingFailed(why_ended(worker.exitcode))

    def end_workers(self) -> None:
        """End them at once, for good: one that is stuck would be waited for at the exit."""
        for worker in self._workers:
            worker.kill()

    def _fail(self, error: Exception) -> NoReturn:
        """Raise LoadingFailed for what the machine lacks, else the error."""
        ended = [w.exitcode for w in self._workers if w.exitcode is not None]
        said = why_ended(ended[0]) if ended else shortage(error)
        if said is None and _A_WORKER_ENDED.search(str(error)):
            said = f"a loading process ended ({error}), most often because {OUT_OF_MEMORY}"
        if said is None:
            raise error
        self.end_workers()
        raise LoadingFailed(said) from None


def _free(error: Exception) -> None:
    """Free torch's half-built iterator, whose destructor complains on stderr."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        error.__traceback__ = None
    finally:
        sys.unraisablehook = hook


def why_ended(exit_code: int) -> str:
    """Return one line on a worker that has ended with this exit code, a signal's below 0."""
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        why = _WHY_KILLED.get(signal.Signals(-exit_code), "somebody's kill, or a library's fault")
        return f"a loading process was ended by {name}, {why}"
    number = exit_code - _LOST_A_BATCH
    if number in _WHY_LOST:
        return f"a loading process could not hand its batch on: {_WHY_LOST[number]}"
    return f"a loading process ended with exit code {exit_code}; --workers 0 shows where"


def end_worker_that_loses_a_batch() -> None:
    """Have this worker end where it cannot hand a batch on; its parent would wait for ever.

    Handing on happens in a thread of the queue's, which otherwise prints a traceback and goes on.
    """

    def end(error: Exception, batch: object) -> None:
        said = shortage(error) or ""
        numbers = (n for n, why in _WHY_LOST.items() if said.startswith(why))
        os._exit(_LOST_A_BATCH + (getattr(error, "errno", None) or next(numbers, 0)))

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]


def _allow_open_files() -> None:
    """Raise this process's own limit of open files: each batch under way is some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
