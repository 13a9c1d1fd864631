"""The times of a run: as lines that other people's scripts parse, and as ais_bench's JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib.offline.infer.model import RunTime
from lib.offline.infer.outputs import Written
from lib.runtime.files import write_atomically

_COMPUTE = "NPU_compute_time"  # ais_bench's name, on every device
_TITLE = "-----------------Performance Summary------------------"
_END = "------------------------------------------------------"


def statistics(times_ms: Sequence[float]) -> dict[str, float]:
    """Return min, max, mean, median and the 99th percentile in the unit given, and the count."""
    values = np.asarray(times_ms, np.float64)
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "percentile(99%)": float(np.percentile(values, 99)),
        "count": len(times_ms),
    }


def throughput(times: Sequence[RunTime], batch_size: int) -> float:
    """Return images a second of computing alone: 1000 * batch size / mean milliseconds."""
    return 1000 * batch_size / statistics([run.compute_ms for run in times])["mean"]


def end_to_end_line(num_images: int, duration_s: float, what: str = "end-to-end") -> str:
    """Return the line that counts real images over real time: no padding, no warm-up, all I/O."""
    return (
        f"[INFO] {what}: {num_images / duration_s:.2f} images/s ({num_images} images in "
        f"{duration_s:.3f} s, reading and writing included)"
    )


def summary_lines(times: Sequence[RunTime], batch_size: int, *, display_all: bool) -> list[str]:
    """Return the block that ends a run, line by line, to ais_bench's letter."""
    mean = statistics([run.compute_ms for run in times])["mean"]
    names = ("H2D_latency", _COMPUTE, "D2H_latency") if display_all else (_COMPUTE,)
    lines = [_TITLE]
    for name in names:
        figures = _statistics_by_name(times)[name]
        shown = (f"{key} = {value}" for key, value in figures.items() if key != "count")
        lines.append(f"{name} (ms): {', '.join(shown)}")
    lines.append(
        f"throughput 1000*batchsize.mean({batch_size})/{_COMPUTE}.mean({mean}): "
        f"{throughput(times, batch_size)}"
    )
    return [f"[INFO] {line}" for line in (*lines, _END)]


def _statistics_by_name(times: Sequence[RunTime]) -> dict[str, dict[str, float]]:
    return {
        _COMPUTE: statistics([run.compute_ms for run in times]),
        "H2D_latency": statistics([run.h2d_ms for run in times]),
        "D2H_latency": statistics([run.d2h_ms for run in times]),
    }


def summary_path(folder: Path) -> Path:
    """Return where the summary of a run with results in `folder` lies: beside it."""
    return folder.with_name(f"{folder.name}_summary.json")


def write_summary(
    path: Path,
    times: Sequence[RunTime],
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
        **_statistics_by_name(times),
        "npu_compute_time_list": [run.compute_ms for run in times],
        "throughput": throughput(times, batch_size),
        "pid": os.getpid(),
    }
    write_atomically(json.dumps(content).encode(), path)
