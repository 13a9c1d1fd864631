"""The pipeline: threads read ahead and write behind while the model computes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from lib.offline.infer.inputs import Sample
from lib.offline.infer.model import RunTime, Session
from lib.offline.infer.outputs import OutputFolder, Written
from lib.offline.infer.sources import LoadedBatch, Source

# A batch of 64 pictures takes 39 MB, and each reader holds one.
_MAX_READERS = 16
_MAX_BATCHES_BEHIND = 4
_NUM_WRITERS = 2

Batches = Sequence[tuple[Sample, ...]]


@dataclass
class Tally:
    """What has been done so far."""

    times: list[RunTime] = field(default_factory=list)  # of every computed batch
    written: dict[Sample, Written] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)  # `<file>: <reason>`


def batches_of(source: Source) -> Batches:
    """Return the samples in the model's batches; the last one may be short."""
    size = source.samples_per_batch
    return [source.samples[i : i + size] for i in range(0, len(source.samples), size)]


def warm_up(session: Session, source: Source, batches: Batches, *, count: int) -> None:
    """Compute the first batch that can be read `count` times and forget it."""
    if count == 0:
        return
    loaded = next((batch for batch in map(source.load, batches) if batch.samples), None)
    if loaded is not None:
        for _ in range(count):
            session.run(loaded.arrays)


def compute_all(
    session: Session,
    source: Source,
    folder: OutputFolder,
    *,
    loop: int,
    num_cores: int,
    advance: Callable[[], None],
) -> Tally:
    """Read, compute and write all batches; each is computed `loop` times and written once.

    As many batches are read ahead as there are cores, though at least 2: decoding pictures can
    take longer than computing them.
    `advance` is called after each run of the model. Errors of the threads come out here.
    """
    tally = Tally()
    behind: deque[Future[dict[Sample, Written]]] = deque()
    num_readers = min(max(num_cores, 2), _MAX_READERS)
    with _threads(num_readers) as readers, _threads(_NUM_WRITERS) as writers:
        for loaded in _ahead(readers, source.load, batches_of(source), num_readers):
            tally.failures += loaded.failures
            if loaded.samples:
                for _ in range(loop):
                    outputs, run_time = session.run(loaded.arrays)
                    tally.times.append(run_time)
                    advance()
                behind.append(writers.submit(folder.write, outputs, loaded.samples))
            while len(behind) > _MAX_BATCHES_BEHIND:
                tally.written.update(behind.popleft().result())
        for written in behind:
            tally.written.update(written.result())
    return tally


@contextmanager
def _threads(count: int) -> Iterator[Executor]:
    """Threads that on an error, or Ctrl-C, end what they are at and begin nothing more."""
    executor = ThreadPoolExecutor(count)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _ahead(
    executor: Executor,
    load: Callable[[tuple[Sample, ...]], LoadedBatch],
    batches: Batches,
    num_ahead: int,
) -> Iterator[LoadedBatch]:
    """Yield the loaded batches in order, with `num_ahead` of the next ones loading meanwhile."""
    waiting = iter(batches)
    first = itertools.islice(waiting, num_ahead)
    loading = deque(executor.submit(load, batch) for batch in first)
    while loading:
        loaded = loading.popleft().result()
        loading.extend(executor.submit(load, batch) for batch in itertools.islice(waiting, 1))
        yield loaded
