"""How a camera's frames pass from its reader to whoever analyses them.

Promise: bounded. Live: one place, the newest frame wins. Files: a few places, every frame passes
and the reader waits. Full: live replaces and counts, files block. Closed: `offer` says so at once,
`take` gives what is left and then None.
Threads: one reader offers, one consumer takes, anyone closes.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from edge.sources.base import Reading

# Two: one being analysed, one ready; a 1080p picture as BGR is 6 MB.
FILE_PLACES = 2
# A camera's frames jitter; a frame this share of an interval early still counts as due.
EARLY = 0.25


class RateLimit:
    """Which frames of a live camera are due at a limited rate; no clock of its own."""

    def __init__(self, max_fps: float | None) -> None:
        self._interval_s = 1.0 / max_fps if max_fps else 0.0
        self._next_s: float | None = None

    def due(self, captured_s: float) -> bool:
        """True where the frame of this instant (seconds, not falling) is to be analysed."""
        if self._next_s is None:
            self._next_s = captured_s
        late_s = captured_s - self._next_s
        if late_s < -EARLY * self._interval_s:
            return False
        # the average rate is kept, but a gap is not made up for
        behind = late_s > self._interval_s
        self._next_s = (captured_s if behind else self._next_s) + self._interval_s
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Numbered:
    """A reading with its number in its camera."""

    index: int
    reading: Reading


class Handover(Protocol):
    """What a reader and a consumer share."""

    dropped: int  # due, and replaced before anyone took it
    skipped: int  # not due at the limited rate

    def offer(self, item: Numbered) -> bool:
        """Hand one over; False: closed, read no more."""

    def take(self, timeout_s: float) -> Numbered | None:
        """The next one; None: none came in time, or closed and empty."""

    def close(self) -> None:
        """No more will come or be wanted; wakes both sides."""

    def __len__(self) -> int:
        """How many wait."""


class NewestFrame:
    """One place; a newer frame takes the place of an older one."""

    def __init__(self, limit: RateLimit) -> None:
        self.dropped = 0
        self.skipped = 0
        self._limit = limit
        self._changed = threading.Condition()  # guards all below
        self._waiting: Numbered | None = None
        self._closed = False

    def offer(self, item: Numbered) -> bool:
        due = self._limit.due(item.reading.captured.seconds)
        with self._changed:
            if self._closed:
                return False
            if self._waiting is None and not due:
                self.skipped += 1
            elif self._waiting is None:
                self._waiting = item
                self._changed.notify_all()
            else:
                # fresher is better even where the newer one was not due itself
                self._waiting = item
                self.dropped += due
                self.skipped += not due
            return True

    def take(self, timeout_s: float) -> Numbered | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closed, timeout_s)
            item, self._waiting = self._waiting, None
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return 0 if self._waiting is None else 1


class EveryFrame:
    """A short queue; the reader waits while it is full."""

    def __init__(self, places: int = FILE_PLACES) -> None:
        self.dropped = 0
        self.skipped = 0
        self._places = places
        self._changed = threading.Condition()  # guards all below
        self._waiting: deque[Numbered] = deque()
        self._closed = False

    def offer(self, item: Numbered) -> bool:
        # the decoder runs beside the analysis, so the conversion belongs on this side
        reading = item.reading
        image = reading.to_bgr()
        converted = Reading.of_image(image, reading.captured, reading.corrupt)
        with self._changed:
            while len(self._waiting) >= self._places and not self._closed:
                self._changed.wait(1.0)
            if self._closed:
                return False
            self._waiting.append(Numbered(item.index, converted))
            self._changed.notify_all()
            return True

    def take(self, timeout_s: float) -> Numbered | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closed, timeout_s)
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._waiting)
