"""Does a signal break off a start only where that leaves nothing behind, and is none lost?"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from edge.signals import Start, Stopped, ends, stops_start

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


def stopped(begin: Callable[[Start], None]) -> bool:
    """Whether a start ended because it was asked to."""
    try:
        with stops_start(threading.Event()) as start:
            begin(start)
    except Stopped:
        return True
    return False


@BOTH
def test_a_start_is_broken_off_at_once_where_it_may_be(number: signal.Signals) -> None:
    reached = []

    def begin(start: Start) -> None:
        with start.breakable():
            signal.raise_signal(number)
            reached.append("behind the signal")

    assert stopped(begin)
    assert not reached


@BOTH
def test_elsewhere_a_step_is_done_whole_before_the_start_ends(number: signal.Signals) -> None:
    reached = []

    def begin(start: Start) -> None:
        signal.raise_signal(number)
        reached.append("a thread begun and written down")
        start.go_on()
        reached.append("the next step")

    assert stopped(begin)
    assert reached == ["a thread begun and written down"]


def test_a_signal_is_not_lost_where_its_exception_is() -> None:
    reached = []

    def begin(start: Start) -> None:
        with start.breakable():
            try:
                signal.raise_signal(signal.SIGTERM)
            except Stopped:  # as Python drops what is raised in a destructor
                reached.append("dropped")
        reached.append("the next step")

    assert stopped(begin)
    assert reached == ["dropped"]


def test_what_is_closed_on_the_way_out_is_closed_whole() -> None:
    closed = []

    def begin(start: Start) -> None:
        with start.breakable():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)
                closed.append("all")

    assert stopped(begin)
    assert closed == ["all"]


def test_a_second_ctrl_c_takes_its_usual_course() -> None:
    told = threading.Event()

    with stops_start(told), ends(told):
        signal.raise_signal(signal.SIGINT)
        assert told.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@BOTH
def test_handlers_are_as_before_afterwards(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with stops_start(threading.Event()), ends(threading.Event()):
        assert signal.getsignal(number) != before

    assert signal.getsignal(number) == before
