"""Signals: SIGTERM and Ctrl-C ask for the end, SIGHUP for a reload. Main thread only."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(BaseException):
    """SIGTERM came before the box ran. No error: only who began the start may take it."""


@contextmanager
def stops_start() -> Iterator[None]:
    """SIGTERM raises Stopped, so that what was opened so far is closed.

    Its usual course closes nothing; for the first process of a container there is none.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ends(told_to_stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT ask for the end; a second Ctrl-C takes its usual course.

    A second SIGTERM changes nothing: a supervisor that signals a whole group, beside a wrapper that
    passes the signal on, sends two at once, and the end is bounded in time as it is.
    """
    before: dict[int, Any] = {}

    def handle(number: int, _frame: FrameType | None) -> None:
        told_to_stop.set()
        if number == signal.SIGINT:
            signal.signal(number, before[number])

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
