"""lib/runtime/signals.py: a signal ends the block, and nothing within it can hide that."""

import os
import signal
import threading

import pytest

from lib.runtime.cli import Stopped
from lib.runtime.signals import signals_as_exceptions

each_stop = pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)]
)


def kill(number):
    os.kill(os.getpid(), number)


@each_stop
def test_a_stop_ends_the_block_and_the_handlers_are_put_back(number, expected):
    before = signal.getsignal(number)
    cleaned = []
    with pytest.raises(expected), signals_as_exceptions():
        try:
            kill(number)
            pytest.fail("the block went on")
        finally:
            cleaned.append(True)
    assert cleaned and signal.getsignal(number) == before


@each_stop
def test_a_librarys_care_for_its_own_errors_does_not_swallow_a_stop(number, expected):
    with pytest.raises(expected), signals_as_exceptions():
        try:
            kill(number)
        except Exception as error:
            raise ValueError("this file is damaged") from error


@each_stop
def test_another_exception_after_a_stop_is_its_consequence(number, expected):
    with pytest.raises(expected), signals_as_exceptions():
        try:
            kill(number)
        except BaseException:
            raise RuntimeError("a library's own error") from None


class _Destroyed:
    def __init__(self, number):
        self.number = number

    def __del__(self):
        kill(self.number)


@each_stop
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_within_a_destructor_is_raised_where_it_is_asked_for(number, expected):
    """Python drops what is raised there."""
    with pytest.raises(expected), signals_as_exceptions() as check:
        things = [_Destroyed(number)]
        things.clear()
        check()
        pytest.fail("the block went on")
    with pytest.raises(expected), signals_as_exceptions():
        things = [_Destroyed(number)]
        things.clear()


def test_without_a_stop_nothing_is_raised_but_what_the_block_raises():
    with signals_as_exceptions() as check:
        check()
    with pytest.raises(ValueError, match="mine"), signals_as_exceptions():
        raise ValueError("mine")


def test_an_ignored_signal_stays_ignored_and_other_threads_are_left_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_as_exceptions():
            kill(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    failed = []

    def work():
        try:
            with signals_as_exceptions() as check:
                check()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []
