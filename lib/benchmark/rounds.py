"""Two sides of a comparison, timed in turn, and their figures as a table and as JSON.

On a shared machine the speed drifts. Taking turns lets both sides meet the same weather, and the
median over the rounds forgets the gusts.
"""

from __future__ import annotations

import importlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from lib.runtime.cli import needing
from lib.runtime.environment import installed_version

Work = Callable[[], object]

# As /proc/cpuinfo names them: wide vectors, products of bytes and of bfloat16.
_FAST_INSTRUCTIONS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "sve", "asimddp", "i8mm", "bf16"),
)


@dataclass(frozen=True)
class Row:
    """One comparison. `ours` and `peer` are in `unit`, in which more is better."""

    mode: str
    case: str
    ours: float
    peer: float
    ratio: float  # median over the rounds, not of the medians
    unit: str
    goal: float | None = None  # for the ratio
    peer_name: str = ""
    remark: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the row as `--json` writes it."""
        return {
            "mode": self.mode,
            "case": self.case,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "unit": self.unit,
            "goal_row": f">= {self.goal:g}" if self.goal is not None else "",
            "peer_name": self.peer_name,
            "remark": self.remark,
        }


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_turn(
    ours: Work, peer: Work, rounds: int, *, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[float], list[float]]:
    """Return the seconds of each side in each round, after one of each that does not count.

    What uses one core alone may be timed by `time.process_time`, which other programs disturb less.
    """
    ours()
    peer()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for work, times in zip((ours, peer), seconds, strict=True):
            start_s = clock()
            work()
            times.append(clock() - start_s)
    return seconds


def compare(
    mode: str,
    case: str,
    *,
    ours: Work,
    peer: Work,
    num_items: int,
    unit: str,
    rounds: int,
    goal: float | None = None,
    peer_name: str = "",
    remark: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> Row:
    """Time both sides, each of which works on `num_items` items, and return items a second."""
    our_times, peer_times = in_turn(ours, peer, rounds, clock=clock)
    ratios = [theirs / own for own, theirs in zip(our_times, peer_times, strict=True)]
    return Row(
        mode,
        case,
        num_items / statistics.median(our_times),
        num_items / statistics.median(peer_times),
        statistics.median(ratios),
        unit,
        goal,
        peer_name,
        remark,
    )


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table. On a CPU only the ratios say something about other machines."""
    lines = [
        "| case | against | ours | theirs | unit | ratio | goal | |",
        "|---|---|--:|--:|---|--:|--:|---|",
    ]
    for row in rows:
        goal = f"{row.goal:g}" if row.goal is not None else ""
        lines.append(
            f"| {row.mode}: {row.case} | {row.peer_name} | {row.ours:.4g} | {row.peer:.4g} | "
            f"{row.unit} | {row.ratio:.2f} | {goal} | {row.remark} |"
        )
    return "\n".join(lines)


def peer_module(name: str) -> ModuleType:
    """Return a module that only a comparison needs. Raises ValueError where it is missing."""
    with needing(f"pip install {name.partition('.')[0]}, to compare with"):
        return importlib.import_module(name)


def machine(num_cores: int) -> str:
    """Return what the figures were measured on, in a line."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        about = ""
    python = platform.python_version()
    return f"{processor(about)}, {num_cores} cores, {platform.system()}, Python {python}"


def versions(packages: Sequence[str]) -> str:
    """Return the packages that are installed here with their releases, in a line."""
    found = {package: installed_version(package) for package in packages}
    return ", ".join(f"{package} {version}" for package, version in found.items() if version)


def processor(about: str) -> str:
    """Return the processor's name and what of its instructions decides on speed here.

    Args:
        about: what /proc/cpuinfo says; empty where there is none.
    """
    fields = [line.partition(":") for line in about.splitlines()]
    values = {key.strip(): value.strip() for key, _, value in reversed(fields)}
    flags = values.get("flags", values.get("Features", "")).split()
    fast = ", ".join(flag for flag in _FAST_INSTRUCTIONS if flag in flags)
    return values.get("model name", platform.machine()) + (f" ({fast})" if fast else "")
