"""Whether a run waits for its pictures, and what would help."""

from __future__ import annotations

from dataclasses import dataclass

from lib.data.decoding import FAST
from lib.data.samplers import TrainBatches
from lib.metrics.stats import IntervalStats

_WAITS_MUCH, _IS_BUSY = 0.1, 0.7


@dataclass(frozen=True)
class LoaderSetup:
    """How one card's training pictures are loaded."""

    num_workers: int
    num_cores: int  # of this machine, for this card
    decoder: str


def input_line(stats: IntervalStats, loading: LoaderSetup) -> str:
    """Return the `Input:` line of a log interval: where the time went, and advice where it helps.

    The shares are this process's: of the time spent waiting for pictures, and of its workers' time
    spent decoding.
    """
    waiting = _share(stats.data_time_s, stats.time_s)
    if loading.num_workers == 0:
        decoding = f"decoding {_share(stats.decode_time_s, stats.time_s):.0%}, in this process"
        busy = 1.0
    else:
        busy = _share(stats.decode_time_s, stats.time_s * loading.num_workers)
        decoding = f"{loading.num_workers} workers decoding {busy:.0%} of theirs"
    advice = _advice(busy, loading) if waiting > _WAITS_MUCH else ""
    line = f"Input: waiting {waiting:.0%} of the time, computing {1 - waiting:.0%}; {decoding}"
    return line + (f"; what would help: {advice}" if advice else "")


def _share(part_s: float, whole_s: float) -> float:
    return min(1.0, part_s / whole_s) if whole_s > 0 else 0.0


def _advice(busy: float, loading: LoaderSetup) -> str:
    if loading.num_workers < loading.num_cores and busy > _IS_BUSY:
        return f"--workers {loading.num_cores}"
    if busy <= _IS_BUSY:
        return "faster reading; tools/pack_dataset.py makes few large files of many small ones"
    if loading.decoder != FAST:
        return "pip install simplejpeg, for DATASET.DECODER fast"
    return "smaller pictures: tools/pack_dataset.py --resize"


def last_batches_line(batches: TrainBatches) -> str:
    """Return what is said where the last two batches share what is left; empty elsewhere."""
    if not batches.is_spread:
        return ""
    before, last = batches.last_batch_sizes
    return (
        f"the last two batches of an epoch have {before} and {last} images a card: less than a "
        "quarter of a batch would be left for a step of its own"
    )
