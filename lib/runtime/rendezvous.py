"""The meeting of several machines before their processes start: who is waited for is said."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

from lib.runtime.text import duration, printable

_ANSWER_S = 10.0  # in which a place that is there answers
_NO_PLACE = "machines cannot meet at {}: {} ({})"
_KEY = "hrnet/machine_{}"
MEANING = (
    "--nproc counts machines, --dn is the number of this one and --addr the address of machine 0; "
    "processes that load data are --workers, cards --cards"
)


@dataclass(frozen=True)
class Place:
    """Where machines meet, and which of them this one is."""

    machine_rank: int
    num_machines: int
    address: str
    port: int

    def __str__(self) -> str:
        return f"{printable(self.address)}:{self.port}"


@dataclass(frozen=True)
class Patience:
    """How long to wait, and how often to say it."""

    say_every_s: float = 30.0
    give_up_s: float = 1800.0  # as HCCL does for a machine whose operators are being compiled
    look_every_s: float = 0.5


def meet(place: Place, patience: Patience | None = None) -> object:
    """Wait until all machines are there; return what keeps the place open while it is held.

    Says at once who is waited for, and again every half minute. Raises ValueError where machines
    cannot meet at the place, TimeoutError after half an hour.
    """
    waiting = _Waiting(place, patience or Patience())
    held = _listen(place) if place.machine_rank == 0 else None
    while reason := _unreachable(place):
        if held is not None:
            raise ValueError(_NO_PLACE.format(place, "is --addr an address of machine 0?", reason))
        waiting.say(f"machine 0 at {place} ({reason})")
    store = _join(place)
    store.set(_KEY.format(place.machine_rank), "here")
    while missing := [n for n in range(place.num_machines) if not store.check([_KEY.format(n)])]:
        names = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
        waiting.say(f"machine{'s' if len(missing) > 1 else ''} {names} to come to {place}")
    if waiting.has_said:
        print(f"all {place.num_machines} machines are there", flush=True)
    return held, store


class _Waiting:
    """Says now and then what is waited for, and makes the pauses."""

    def __init__(self, place: Place, patience: Patience):
        self.has_said = False
        self._place, self._patience = place, patience
        self._started = self._last = time.monotonic()

    def say(self, what: str) -> None:
        """Raises TimeoutError when it takes too long."""
        now = time.monotonic()
        if now - self._started > self._patience.give_up_s:
            waited = duration(now - self._started)
            raise TimeoutError(f"gave up after {waited} of waiting for {what}; {MEANING}")
        if not self.has_said or now - self._last >= self._patience.say_every_s:
            place = self._place
            remark = "" if self.has_said else f"; {_own_remark(place)}{MEANING}"
            print(
                f"machine {place.machine_rank} of {place.num_machines}: waiting for {what}{remark}",
                flush=True,
            )
            self.has_said, self._last = True, now
        time.sleep(self._patience.look_every_s)


def _unreachable(place: Place) -> str:
    """Return why nothing answers at the place; '' where something does."""
    try:
        socket.create_connection((place.address, place.port), timeout=_ANSWER_S).close()
    except UnicodeError:
        return "this can be no machine's name"
    except OSError as error:  # an unknown name too, since it may become known
        return printable(error.strerror or str(error))
    return ""


def _listen(place: Place) -> TCPStore:  # type: ignore[name-defined]  # noqa: F821  loads torch
    """Make the store at the place; torchrun's own, at the same port, is this one."""
    try:
        return _store("localhost", place.port, is_master=True)
    except RuntimeError as error:
        advice = "is the port free? otherwise give all machines another --port"
        raise ValueError(_NO_PLACE.format(place, advice, _first_line(error))) from None


def _join(place: Place) -> TCPStore:  # type: ignore[name-defined]  # noqa: F821
    """Return machine 0's store. Another service may answer there, or take what it gets and wait."""
    outcome: list[object] = ["no answer"]

    def connect() -> None:
        try:
            outcome[0] = _store(place.address, place.port, is_master=False)
        except RuntimeError as error:
            outcome[0] = _first_line(error)

    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(2 * _ANSWER_S)
    if isinstance(outcome[0], str):
        advice = "something else answers there: give all machines another --port"
        raise ValueError(_NO_PLACE.format(place, advice, outcome[0]))
    return outcome[0]


def _store(address: str, port: int, *, is_master: bool) -> TCPStore:  # type: ignore[name-defined]  # noqa: F821
    from torch.distributed import TCPStore

    return TCPStore(
        address,
        port,
        is_master=is_master,
        timeout=timedelta(seconds=_ANSWER_S),
        wait_for_workers=False,
        multi_tenant=True,
    )


def _first_line(error: RuntimeError) -> str:
    return printable(str(error).partition("\n")[0])


def _own_remark(place: Place) -> str:
    """Return a remark where the address is this machine's own: the default, most often a slip."""
    try:
        is_own = ipaddress.ip_address(place.address).is_loopback
    except ValueError:
        is_own = place.address == "localhost"
    return f"{printable(place.address)} is this machine itself: is that meant? " if is_own else ""
