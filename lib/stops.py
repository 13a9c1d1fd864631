"""Ctrl-C and SIGTERM during work that can't look for them, such as a library's long call."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lib.cli import Stopped


class _Noted(BaseException):
    """No Exception: what a library does about its own errors must not swallow a stop."""


@contextmanager
def stops_raised() -> Iterator[Callable[[], None]]:
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

    def check() -> None:
        if noted:
            raise KeyboardInterrupt if noted[0] == signal.SIGINT else Stopped(noted[0])

    numbers = [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    # An ignored signal stays so: a shell's background jobs ignore Ctrl-C.
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, note)
    try:
        try:
            yield check
        except BaseException:
            check()
            raise
        check()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
