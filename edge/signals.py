"""Signals: SIGTERM and Ctrl-C ask for the end, SIGHUP for a reload. Main thread only."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(BaseException):
    """The end was asked for before the box ran. No error: only who began the start may take it."""


class Start:
    """A start that the end may break off, but only where that leaves nothing behind.

    An exception that a signal raises anywhere may come between a thread's start and the line that
    writes it down: nobody would join that thread, and the process would never end.
    """

    def __init__(self, told_to_stop: threading.Event) -> None:
        self.told_to_stop = told_to_stop
        self._may_break = False

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Raises Stopped at any point within, once the end is asked for. Starts no thread."""
        self._may_break = True
        try:
            self.go_on()
            yield
        finally:
            self._may_break = False
        self.go_on()

    def go_on(self) -> None:
        """Between two steps.

        Raises:
            Stopped: the end was asked for.
        """
        if self.told_to_stop.is_set():
            raise Stopped

    def _told(self) -> None:
        self.told_to_stop.set()
        if self._may_break:
            self._may_break = False  # what is closed on the way out is closed whole
            raise Stopped


@contextmanager
def stops_start(told_to_stop: threading.Event) -> Iterator[Start]:
    """SIGTERM and Ctrl-C ask for the end of a start; a second Ctrl-C takes its usual course.

    The usual course of SIGTERM closes nothing; for the first process of a container there is none.
    """
    start = Start(told_to_stop)
    with _handled(start._told):
        yield start


@contextmanager
def ends(told_to_stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT ask for the end; a second Ctrl-C takes its usual course.

    A second SIGTERM changes nothing: a supervisor that signals a whole group, beside a wrapper that
    passes the signal on, sends two at once, and the end is bounded in time as it is.
    """
    with _handled(told_to_stop.set):
        yield


@contextmanager
def _handled(told: Callable[[], None]) -> Iterator[None]:
    before: dict[int, Any] = {}

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        told()

    for number in (int(signal.SIGTERM), int(signal.SIGINT)):
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def reloads(told_to_reload: threading.Event) -> Iterator[None]:
    """SIGHUP asks for a reload; its usual course would end the process."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        told_to_reload.set()

    before = signal.signal(signal.SIGHUP, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
