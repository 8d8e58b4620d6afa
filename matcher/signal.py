"""Wakes coroutines when a thread has something new.

Promise: whoever waits with the number it saw last is woken by the next `notify`, also one that came
before it began to wait. `notify` from any thread; `wait` in the loop that was given.
"""

from __future__ import annotations

import asyncio


class Signal:
    """A counter that coroutines can wait on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()
        self.count = 0

    def notify(self) -> None:
        """Something is new."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._bump)

    def _bump(self) -> None:
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until the counter is above `seen`, at most timeout_s; the counter."""
        if self.count <= seen:
            try:
                await asyncio.wait_for(self._event.wait(), timeout_s)
            except TimeoutError:
                pass
        return self.count
