"""The times of a run: as lines that other people's scripts parse, and as ais_bench's JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.offline.infer.model import RunTime
from lib.offline.infer.outputs import Written
from lib.runtime.files import write_atomically

_PERCENTILE = 99
_TITLE = "-----------------Performance Summary------------------"
_END = "------------------------------------------------------"


@dataclass
class Times:
    """Milliseconds of every computed batch; `compute` is what ais_bench calls NPU_compute_time."""

    h2d_ms: list[float] = field(default_factory=list)
    compute_ms: list[float] = field(default_factory=list)
    d2h_ms: list[float] = field(default_factory=list)

    def add(self, run: RunTime) -> None:
        """Append one batch."""
        self.h2d_ms.append(run.h2d_ms)
        self.compute_ms.append(run.compute_ms)
        self.d2h_ms.append(run.d2h_ms)


def statistics(times_ms: Sequence[float]) -> dict[str, float]:
    """Return min, max, mean, median and the 99th percentile in the unit given, and the count."""
    values = np.asarray(times_ms, np.float64)
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        f"percentile({_PERCENTILE}%)": float(np.percentile(values, _PERCENTILE)),
        "count": len(times_ms),
    }


def throughput(times: Times, batch_size: int) -> float:
    """Return images a second of computing alone: 1000 * batch size / mean milliseconds."""
    return 1000 * batch_size / statistics(times.compute_ms)["mean"]


def end_to_end_line(num_images: int, duration_s: float, what: str = "end-to-end") -> str:
    """Return the line that counts real images over real time: no padding, no warm-up, all I/O."""
    return (
        f"[INFO] {what}: {num_images / duration_s:.2f} images/s ({num_images} images in "
        f"{duration_s:.3f} s, reading and writing included)"
    )


def summary_lines(times: Times, batch_size: int, *, display_all: bool) -> list[str]:
    """Return the block that ends a run, line by line, to ais_bench's letter."""
    mean = statistics(times.compute_ms)["mean"]
    lines = [_TITLE]
    if display_all:
        lines.append(_times_line("H2D_latency", times.h2d_ms))
    lines.append(_times_line("NPU_compute_time", times.compute_ms))
    if display_all:
        lines.append(_times_line("D2H_latency", times.d2h_ms))
    lines.append(
        f"throughput 1000*batchsize.mean({batch_size})/NPU_compute_time.mean({mean}): "
        f"{throughput(times, batch_size)}"
    )
    return [f"[INFO] {line}" for line in (*lines, _END)]


def _times_line(name: str, times_ms: Sequence[float]) -> str:
    figures = {key: value for key, value in statistics(times_ms).items() if key != "count"}
    return f"{name} (ms): " + ", ".join(f"{key} = {value}" for key, value in figures.items())


def summary_path(folder: Path) -> Path:
    """Return where the summary of a run with results in `folder` lies: beside it."""
    return folder.with_name(f"{folder.name}_summary.json")


def write_summary(
    path: Path,
    times: Times,
    batch_size: int,
    *,
    written: Sequence[Written],
    arguments: Sequence[str],
) -> None:
    """Write `<output>/<dirname>_summary.json`, whole or not at all.

    `written` has the files of each sample in order, `arguments` is the command line.
    """
    content = {
        "filesinfo": {
            str(number): {"infiles": list(sample.inputs), "outfiles": list(sample.outputs)}
            for number, sample in enumerate(written)
        },
        "args": list(arguments),
        "NPU_compute_time": statistics(times.compute_ms),
        "H2D_latency": statistics(times.h2d_ms),
        "D2H_latency": statistics(times.d2h_ms),
        "npu_compute_time_list": times.compute_ms,
        "throughput": throughput(times, batch_size),
        "pid": os.getpid(),
    }
    write_atomically(json.dumps(content).encode(), path)
