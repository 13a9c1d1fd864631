"""Start several processes of one entry script with torchrun (torch.distributed.run)."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lib.cli import EXIT_USER_ERROR, PartlyFailed, Stopped
from lib.environment import LAUNCH_VARIABLE, num_cores

_PR_SET_PDEATHSIG = 1  # of Linux's prctl
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
        if not 0 <= self.machine_rank < self.num_machines:
            raise ValueError(
                f"--dn {self.machine_rank}: with --nproc {self.num_machines} the rank of this "
                f"node is 0..{self.num_machines - 1}"
            )
        if not 0 < self.port < 65536:
            raise ValueError(f"--port {self.port}: a port is 1..65535")

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


def run_under_torchrun(script: Path, arguments: Sequence[str], cluster: Cluster) -> None:
    """Run `script` once a card and return when all have ended well.

    Raises SystemExit or ValueError after a user's mistake, PartlyFailed that names the first rank
    that failed, and Stopped after a signal, which is passed on to the processes first so that they
    save their state.
    """
    from torch.distributed import run
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
    try:
        run.run(parsed)
    except SignalException as stop:
        raise Stopped(stop.sigval) from None
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        rank, failure = error.get_first_failure()
        if EXIT_USER_ERROR in codes.values():
            user_rank = min(rank for rank, code in codes.items() if code == EXIT_USER_ERROR)
            if user_rank % cluster.num_cards == 0:  # it said so on this console
                raise SystemExit(EXIT_USER_ERROR) from None
            raise ValueError(f"rank {user_rank} found a mistake; see its log") from None
        raise PartlyFailed(
            f"rank {rank} ended with exit code {failure.exitcode}; its own message stands above, "
            "or in its log"
        ) from None
