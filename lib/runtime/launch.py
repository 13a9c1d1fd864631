"""Start several processes of one entry script with torchrun (torch.distributed.run)."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lib.runtime.cli import EXIT_PARTLY_FAILED, EXIT_USER_ERROR, PartlyFailed, Stopped
from lib.runtime.environment import LAUNCH_VARIABLE, num_cores
from lib.runtime.rendezvous import MEANING, Place, meet
from lib.runtime.run_folder import RANK_LOG
from lib.runtime.text import printable

_PR_SET_PDEATHSIG = 1  # of Linux's prctl
# Of what a rank prints: its error line, or the exception at the end of a traceback.
_REASON = re.compile(
    r"^(?:\[Error\] (.+)|(?:\[rank\d+\]: )?((?:[A-Za-z_][\w.]*)?(?:Error|Exception)\b.*))",
    re.MULTILINE,
)
_MOST_CARDS, _MOST_MACHINES = 256, 4096  # each card is a process with a torch of its own
_GRACE_S = 5.0  # ranks part by less, having started together or just exchanged something


@dataclass(frozen=True)
class Cluster:
    """How many processes run where.

    Raises ValueError where the numbers do not fit together.
    """

    num_cards: int = 1  # processes on this machine
    num_machines: int = 1
    machine_rank: int = 0
    address: str = "127.0.0.1"  # of machine 0
    port: int = 29500  # on machine 0; a single machine takes a free one
    max_restarts: int = 0

    def __post_init__(self) -> None:
        if self.num_cards < 1 or self.num_machines < 1 or self.max_restarts < 0:
            raise ValueError(
                f"--cards {self.num_cards} --nproc {self.num_machines} --max_restarts "
                f"{self.max_restarts}: at least 1, 1 and 0 are needed"
            )
        for option, number, most in (
            ("--cards", self.num_cards, _MOST_CARDS),
            ("--nproc", self.num_machines, _MOST_MACHINES),
        ):
            if number > most:
                raise ValueError(f"{option} {number} is above {most}; {MEANING}")
        if not 0 <= self.machine_rank < self.num_machines:
            raise ValueError(
                f"--dn {self.machine_rank}: with --nproc {self.num_machines} the rank of this "
                f"node is 0..{self.num_machines - 1}; {MEANING}"
            )
        if not 0 < self.port < 65536:
            raise ValueError(f"--port {self.port}: a port is 1..65535")

    @property
    def place(self) -> Place:
        """Where its machines meet."""
        return Place(self.machine_rank, self.num_machines, self.address, self.port)

    @property
    def num_processes(self) -> int:
        """Processes on all machines."""
        return self.num_cards * self.num_machines

    def torchrun_arguments(self) -> list[str]:
        """Return torchrun's own options for this cluster."""
        options = [f"--nproc-per-node={self.num_cards}", f"--max-restarts={self.max_restarts}"]
        if self.num_machines == 1:
            return ["--standalone", *options]
        return [
            f"--nnodes={self.num_machines}",
            f"--node-rank={self.machine_rank}",
            f"--master-addr={self.address}",
            f"--master-port={self.port}",
            *options,
        ]


def end_with_parent() -> None:
    """Have this process sent SIGTERM, which saves and ends it, when its launcher is killed.

    Otherwise it would go on as an orphan and hold its card. Linux only; elsewhere nothing changes.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def let_the_first_rank_speak(local_rank: int, *, grace_s: float = _GRACE_S) -> Iterator[None]:
    """Hold back a mistake that another rank of this machine finds, for some seconds.

    Mostly all ranks find the same one. The launcher ends them all at the first that has left, and
    the first rank alone says it on the console.
    """
    try:
        yield
    except (ValueError, OSError):
        if local_rank > 0:
            time.sleep(grace_s)
        raise


def run_under_torchrun(
    script: Path, arguments: Sequence[str], cluster: Cluster, *, log_dir: Path | None = None
) -> None:
    """Run `script` once a card and return when all have ended well.

    `log_dir` is where other ranks than a machine's first log. Raises SystemExit after what the
    first rank has said itself, ValueError after another's mistake, PartlyFailed that names the
    first rank that failed, and Stopped after a signal, which is passed on to the processes first so
    that they save their state. Machines that do not meet raise as `lib.runtime.rendezvous.meet`.
    """
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # What ended is said below in one line; where and why, stands in the rank's own log.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[LAUNCH_VARIABLE] = str(uuid.uuid4())  # tells this launch's attempts from another's
    # torchrun would set one thread a process, which leaves cores idle where there are few cards.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // cluster.num_cards)))
    parsed = run.parse_args([*cluster.torchrun_arguments(), str(script)])
    # Set afterwards: its parser would take our --nproc for an abbreviation of its own options.
    parsed.training_script_args = list(arguments)
    meeting = meet(cluster.place) if cluster.num_machines > 1 else None
    try:
        run.run(parsed)
    except SignalException as stop:
        raise Stopped(stop.sigval) from None
    except DistError as error:
        reason = printable(str(error).partition("\n")[0])
        raise PartlyFailed(f"the machines lost each other at {cluster.place}: {reason}") from None
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        raise _failure(codes, error.get_first_failure()[0], cluster, log_dir=log_dir) from None
    finally:
        del meeting  # held until here: the machines' place is open as long as machine 0 runs


def _failure(
    codes: Mapping[int, int], first: int, cluster: Cluster, *, log_dir: Path | None
) -> SystemExit | ValueError | PartlyFailed:
    """Return what to raise after ranks that left with `codes`: what the console lacks."""
    mistaken = [rank for rank, code in codes.items() if code == EXIT_USER_ERROR]
    if mistaken:
        rank = min(mistaken)
        if rank % cluster.num_cards == 0:  # it said so on this console
            return SystemExit(EXIT_USER_ERROR)
        words, _ = _last_words(log_dir, rank)
        return ValueError(
            f"rank {rank}: {words}" if words else f"rank {rank} found a mistake; see its log"
        )
    if first % cluster.num_cards == 0 and codes[first] == EXIT_PARTLY_FAILED:
        return SystemExit(EXIT_PARTLY_FAILED)  # its line, or its traceback, stands above
    ended = f"ended with exit code {codes[first]}"
    if codes[first] < 0:
        ended = f"was ended by {signal.Signals(-codes[first]).name}"
    words, log = _last_words(log_dir, first)
    return PartlyFailed(f"rank {first} {ended}{f': {words}' if words else ''}{log}")


def _last_words(log_dir: Path | None, rank: int) -> tuple[str, str]:
    """Return what a rank gave as its reason, '' where it did not; and where to look for more."""
    path = log_dir and log_dir / RANK_LOG.format(rank)
    if path is None or not path.is_file():
        return "", "; its own message stands above, or in its log"
    said = _REASON.search(path.read_text(encoding="utf-8", errors="replace"))
    return printable((said[1] or said[2]).strip()) if said else "", f"; its log is {path}"
