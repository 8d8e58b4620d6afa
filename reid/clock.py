"""The clocks, replaceable in tests.

Promise: UTC is for the wire, the monotonic clock is for durations; nothing else reads the system's
time. Any thread may call.
"""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path
from typing import Protocol

_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What is known about now."""

    @property
    def boot_id(self) -> str:
        """The boot whose monotonic clock this is, 36 characters."""

    def unix_nanos(self) -> int:
        """UTC, nanoseconds since 1970-01-01T00:00:00Z; may step."""

    def monotonic_nanos(self) -> int:
        """Nanoseconds since some instant of this boot; never steps."""


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        try:
            self._boot_id = _BOOT_ID_FILE.read_text().strip()
        except OSError:
            # Not Linux: an id of this process keeps monotonic times of other boots apart.
            self._boot_id = str(uuid.uuid4())

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def unix_nanos(self) -> int:
        return time.time_ns()

    def monotonic_nanos(self) -> int:
        return time.monotonic_ns()


class ManualClock:
    """A clock that moves only when told to; for tests."""

    def __init__(self, unix_nanos: int = 1_750_000_000_000_000_000, boot_id: str = "") -> None:
        self._lock = threading.Lock()
        self._unix = unix_nanos
        self._monotonic = 1_000_000_000
        self._boot_id = boot_id or "00000000-0000-4000-8000-000000000001"

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def unix_nanos(self) -> int:
        with self._lock:
            return self._unix

    def monotonic_nanos(self) -> int:
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass: both clocks move."""
        with self._lock:
            self._unix += round(seconds * 1e9)
            self._monotonic += round(seconds * 1e9)

    def step_utc(self, seconds: float) -> None:
        """Set UTC forward or back; the monotonic clock does not notice."""
        with self._lock:
            self._unix += round(seconds * 1e9)
