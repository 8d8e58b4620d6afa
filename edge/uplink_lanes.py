"""What to send next: lanes, window, batches, and what to do about a poisonous batch.

Promise: decisions without socket, thread or clock. Live rows (written since Welcome) go in order
and do not wait behind the backlog; while both wait, each has half of the window. A batch goes when
it is full, or when its oldest live row has waited long enough. After a stream has died three times
with the same batch at its head, that batch is halved and goes alone; one sighting that kills five
streams, each of which had just proven to be alive, is a dead letter.
Threads: the uplink's alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from reid.v1 import ingest_pb2 as pb

HALVE_AFTER_STREAMS = 3
BURY_AFTER_STREAMS = 5


class Lane(IntEnum):
    """Which rows: those since Welcome, or the rest."""

    LIVE = pb.LANE_LIVE
    BACKLOG = pb.LANE_BACKLOG


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do next.

    Attributes:
        lane: send from here now; None: nothing now.
        max_rows: at most so many.
        wait_s: look again after so long at the latest, unless woken.
    """

    lane: Lane | None
    max_rows: int = 0
    wait_s: float = 1.0


class Lanes:
    """One stream's window.

    Args:
        window: sightings in flight at most; 0 pauses.
        batch_rows: most in a batch, >= 1.
        batch_age_s: longest wait of a live row for company.
    """

    def __init__(self, *, window: int, batch_rows: int, batch_age_s: float) -> None:
        self.window = window
        self._batch_rows = batch_rows
        self._batch_age_s = batch_age_s
        self._in_flight: OrderedDict[int, Lane] = OrderedDict()
        self._counts = {Lane.LIVE: 0, Lane.BACKLOG: 0}
        self._live_since: float | None = None
        self._turn = Lane.LIVE

    @property
    def in_flight(self) -> int:
        """Rows sent and not settled."""
        return len(self._in_flight)

    def rows(self) -> list[int]:
        """Rows in flight, in the order of sending."""
        return list(self._in_flight)

    def plan(self, now_s: float, *, live: int, backlog: int) -> Plan:
        """Decide.

        Args:
            now_s: monotonic.
            live, backlog: rows that wait in each lane and are not in flight.
        """
        if live and self._live_since is None:
            self._live_since = now_s
        if not live:
            self._live_since = None
        aged = self._live_since is not None and now_s - self._live_since >= self._batch_age_s
        live_room = self._room(Lane.LIVE, live, other_waits=backlog > 0)
        backlog_room = self._room(Lane.BACKLOG, backlog, other_waits=live > 0)
        live_ready = live > 0 and live_room > 0 and (aged or live >= self._batch_rows)
        backlog_ready = backlog > 0 and backlog_room > 0
        if live_ready and (not backlog_ready or self._turn is Lane.LIVE):
            return Plan(Lane.LIVE, min(self._batch_rows, live_room))
        if backlog_ready:
            return Plan(Lane.BACKLOG, min(self._batch_rows, backlog_room))
        if self._live_since is not None and live_room > 0:
            return Plan(None, wait_s=max(0.001, self._live_since + self._batch_age_s - now_s))
        return Plan(None)

    def _room(self, lane: Lane, waiting: int, *, other_waits: bool) -> int:
        free = self.window - len(self._in_flight)
        if other_waits:
            free = min(free, max(1, self.window // 2) - self._counts[lane])
        # A nearly full window opens by a few rows at a time: many tiny batches cost more than they
        # bring, so a lane with more to send waits for a fair piece of room.
        if free < min(waiting, self._batch_rows, max(1, self.window // 4)):
            return 0
        return free

    def sent(self, rows: Iterable[int], lane: Lane) -> None:
        """These are in flight now."""
        for row in rows:
            self._in_flight[row] = lane
            self._counts[lane] += 1
        self._turn = Lane.BACKLOG if lane is Lane.LIVE else Lane.LIVE
        if lane is Lane.LIVE:
            self._live_since = None

    def settled(self, rows: Iterable[int]) -> int:
        """These were acked, rejected or erased; returns how many of them were in flight."""
        count = 0
        for row in rows:
            lane = self._in_flight.pop(row, None)
            if lane is not None:
                self._counts[lane] -= 1
                count += 1
        return count


@dataclass(slots=True)
class _Suspicion:
    """Rows first..last died together; `limit` of them go at a time, alone."""

    first: int
    last: int
    limit: int
    failures: int = 0
    solo_failures: int = 0


class Poison:
    """Remembers, over streams, which batch they died with."""

    def __init__(self) -> None:
        self._suspicion: _Suspicion | None = None

    def probe(self, first_waiting: int | None) -> int | None:
        """How many rows may go next, alone and after a proof of life; None: no suspicion.

        Args:
            first_waiting: the oldest row that waits.
        """
        s = self._suspicion
        if s is None or first_waiting is None:
            return None
        if first_waiting > s.last:
            self._suspicion = None  # all of it was settled
            return None
        return s.limit if s.failures >= HALVE_AFTER_STREAMS or s.limit < _span(s) else None

    def stream_ended(self, batch: list[int], *, alone: bool, proven: bool) -> int | None:
        """A stream ended badly.

        Args:
            batch: rows of the oldest batch that it had not settled; empty: none was.
            alone: nothing else was in flight.
            proven: the stream was alive when the batch was sent, and the server ended it soon
            after.
        Returns:
            A row that is to become a dead letter; None: none.
        """
        if not batch:
            return None
        s = self._suspicion
        if s is None or not s.first <= batch[0] <= s.last:
            self._suspicion = _Suspicion(batch[0], batch[-1], len(batch), failures=1)
            return None
        if batch[0] != s.first:
            # The rows before it were settled: what is left is looked at anew, as finely as before.
            s.first, s.failures, s.solo_failures = batch[0], 0, 0
        s.failures += 1
        if len(batch) == 1 and alone and proven:
            s.solo_failures += 1
            if s.solo_failures >= BURY_AFTER_STREAMS:
                s.first, s.failures, s.solo_failures = batch[0] + 1, 0, 0
                if s.first > s.last:
                    self._suspicion = None
                return batch[0]
        if s.failures >= HALVE_AFTER_STREAMS and s.limit > 1:
            s.limit = (min(s.limit, len(batch)) + 1) // 2
            s.failures = 0
        return None


def _span(suspicion: _Suspicion) -> int:
    return suspicion.last - suspicion.first + 1
