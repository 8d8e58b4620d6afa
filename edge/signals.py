"""Signals as events: SIGTERM and Ctrl-C ask for the end, SIGHUP for a reload. Main thread only."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def signals(told_to_stop: threading.Event, told_to_reload: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT ask for the end, a second one takes its usual course; SIGHUP reloads."""
    before: dict[int, Any] = {}

    def handle(number: int, _frame: FrameType | None) -> None:
        told_to_stop.set()
        signal.signal(number, before[number])

    def reload(_number: int, _frame: FrameType | None) -> None:
        told_to_reload.set()

    before[int(signal.SIGHUP)] = signal.signal(signal.SIGHUP, reload)

    for number in (int(signal.SIGTERM), int(signal.SIGINT)):
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
