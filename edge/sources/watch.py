"""When to give up on a live source and when to try again: decisions without thread or clock."""

from __future__ import annotations

import random

# Cameras with "smart" codecs send a key frame every 10 s or so: until the first picture, data
# that arrives counts as life, but not for ever.
FIRST_FRAME_S = 30.0
# How often the watchdog looks; it adds this much to frame_timeout_s at most.
WATCH_S = 0.25


class Backoff:
    """Waits that double up to a bound, each shortened at random so that cameras spread out."""

    def __init__(self, *, min_s: float, max_s: float, rng: random.Random) -> None:
        self._min_s, self._max_s, self._rng = min_s, max_s, rng
        self._ceiling_s = min_s

    def next_s(self) -> float:
        """The next wait, min_s..max_s."""
        wait_s = self._rng.uniform(self._min_s, self._ceiling_s)
        self._ceiling_s = min(self._ceiling_s * 2.0, self._max_s)
        return wait_s

    def reset(self) -> None:
        """It worked: begin with short waits again."""
        self._ceiling_s = self._min_s


class Watchdog:
    """Decides whether a live source still lives, from what its reader has seen."""

    def __init__(self, *, open_timeout_s: float, frame_timeout_s: float) -> None:
        self._open_s, self._frame_s = open_timeout_s, frame_timeout_s

    def verdict(
        self,
        *,
        now_s: float,
        started_s: float,
        opened_s: float | None,
        data_s: float | None,
        frame_s: float | None,
    ) -> str | None:
        """What is wrong, or None. Instants are monotonic seconds; None: not yet.

        Args:
            started_s: the open began.
            opened_s: the open returned.
            data_s: data was last seen to arrive.
            frame_s: the last frame came.
        """
        if opened_s is None:
            if now_s - started_s > self._open_s:
                return f"it did not open within {self._open_s:g} s"
            return None
        if frame_s is not None:
            if now_s - frame_s > self._frame_s:
                return f"no frame for {now_s - frame_s:.1f} s"
            return None
        alive_s = max(opened_s, data_s or opened_s)
        if now_s - alive_s > self._frame_s or now_s - opened_s > FIRST_FRAME_S:
            return f"no frame {now_s - opened_s:.1f} s after it opened"
        return None
