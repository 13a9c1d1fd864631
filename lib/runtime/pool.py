"""Work spread over processes: every result is read, and a stop leaves no process behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import NoReturn, TypeVar

from lib.runtime.cli import PartlyFailed
from lib.runtime.launch import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")

# Enough that no process waits for its next job, few enough that a stop comes soon.
_JOBS_AHEAD = 3
_CHECK_EVERY_S = 0.1


def _go_on() -> None:
    """Nothing has been noted."""


def run_in_processes(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    num_workers: int,
    start_method: str | None = None,
    check: Callable[[], None] = _go_on,
    in_order: bool = False,
) -> Generator[Result, None, None]:
    """Yield `work(job)` of every job, in the order in which they end, or in that of the jobs.

    A stop is this process's affair: whatever is raised here, the workers end the jobs they have
    begun and leave before it goes on. They also leave when this process is killed. The caller
    closes the iterator (contextlib.closing), which is how it ends where the caller itself raises.

    Args:
        work: a function that can be pickled.
        jobs: what it is called with; taken one by one as the work goes on.
        num_workers: how many processes.
        start_method: 'fork', 'spawn', 'forkserver'; None for the platform's own.
        check: called several times a second; what it raises ends the work. See `signals`.
        in_order: as the jobs come. Few are ahead of a slow one, so few results are kept.

    Raises:
        PartlyFailed: a process was killed.
        Whatever `work` raises.
    """
    context = multiprocessing.get_context(start_method)
    executor = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_set_up_worker)
    waiting: list[Future[Result]] = []
    left = iter(jobs)
    try:
        while True:
            ahead = _JOBS_AHEAD * num_workers - len(waiting)
            waiting += [executor.submit(partial(_do, work), job) for job in islice(left, ahead)]
            if not waiting:
                return
            check()
            wanted = waiting[:1] if in_order else waiting
            done, _ = wait(wanted, timeout=_CHECK_EVERY_S, return_when=FIRST_COMPLETED)
            waiting = [future for future in waiting if future not in done]
            yield from (future.result() for future in done)
    except BrokenProcessPool:
        # A SIGTERM to all processes at once may have ended a worker before it is noted here.
        time.sleep(_CHECK_EVERY_S)
        check()
        raise PartlyFailed(
            "a worker process was killed, most often for want of memory: run the same command "
            "again, with fewer --workers"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def _set_up_worker() -> None:
    gc.freeze()  # ONNX Runtime sessions of the parent would hang where they are collected here
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the workers too
    signal.signal(signal.SIGTERM, _leave)
    end_with_parent()


def _leave(number: int, frame: object) -> NoReturn:
    """Raise, so that a write under way cleans up before the process ends."""
    raise SystemExit(128 + number)


def _do(work: Callable[[Job], Result], job: Job) -> Result:
    try:
        return work(job)
    except SystemExit:  # the pool would send it to the parent as a result, and go on
        os._exit(128 + signal.SIGTERM)
