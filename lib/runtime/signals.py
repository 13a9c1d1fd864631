"""Ctrl-C and SIGTERM: noted for work that asks for them, or raised within work that can't."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lib.runtime.cli import Stopped

Check = Callable[[], None]


@contextmanager
def deferred_signals() -> Iterator[Check]:
    """Note Ctrl-C and SIGTERM within the block; yield a function that raises what was noted.

    An exception raised by a signal itself may come anywhere, within a destructor too, where Python
    drops it. A second signal does raise at once. Off the main thread nothing changes.

    Raises (from that function): KeyboardInterrupt, Stopped.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        _raise_first(noted)
        noted.append(number)

    with _handled_by(note):
        yield lambda: _raise_first(noted)


class _Noted(BaseException):
    """No Exception: what a library does about its own errors must not swallow a stop."""


@contextmanager
def signals_as_exceptions() -> Iterator[Check]:
    """Let Ctrl-C and SIGTERM end the block by an exception, so that its `finally` parts run.

    Yields a function that raises the stop again, if there was one: to be called before what can't
    be taken back, since Python drops what is raised within a destructor. Whatever else leaves the
    block after a stop is taken for its consequence. Off the main thread nothing changes.

    Raises:
        Stopped: upon SIGTERM.
        KeyboardInterrupt: upon Ctrl-C.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        raise _Noted

    with _handled_by(note):
        try:
            yield lambda: _raise_first(noted)
        except BaseException:
            _raise_first(noted)
            raise
        _raise_first(noted)


def _raise_first(noted: list[int]) -> None:
    if noted:
        raise KeyboardInterrupt if noted[0] == signal.SIGINT else Stopped(noted[0])


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give both signals to `handler` meanwhile, on the main thread."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    # An ignored signal stays so: a shell's background jobs ignore Ctrl-C.
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
