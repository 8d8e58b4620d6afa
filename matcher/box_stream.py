"""One open stream of a box: what waits to be sent, what is in flight, when it ends.

Promise: an ack is queued only by `settled`, after the ledger's commit; Goodbye is the last message
and comes after the acks of all that is in flight. Full: `readable` waits while twice the window is
in flight, or OUT_MOST answers wait for a box that does not read them: it is then heard no more, and
ends as silent. Event loop only; no socket: the service reads and writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from matcher.clocks import ClockEstimate, HeartbeatMemory
from matcher.config import LimitsConfig
from matcher.streams import RateLimit
from matcher.told import ToldCheck
from matcher.validate import BatchCheck
from reid.limits import RANGES
from reid.ranges import KeyRanges, RangeSet
from reid.v1 import ingest_pb2
from reid.v1.ingest_pb2 import GoodbyeReason, StreamResponse

OUT_MOST = 1024  # answers that wait; a box that reads has a handful


class BoxStream:
    """See the module's text.

    Attributes:
        box: (site, edge_id).
        unfinished: older writers of the box whose held rows are still to come.
        hole: keys issued, not here and not held, that the box has not explained yet.
        hole_is_sure: the box has had its chance to explain them; what is left is an alarm.
        heard_ns: monotonic time of the last message.
    """

    def __init__(
        self,
        *,
        hello: ingest_pb2.Hello,
        limits: LimitsConfig,
        now_ns: int,
        estimate: Callable[[str], ClockEstimate | None],
    ) -> None:
        self.box = (hello.site, hello.edge_id)
        self.process_id = hello.process_id or hello.writer_id
        self.writer_id = hello.writer_id
        self.boot_id = hello.boot_id
        self.check = BatchCheck(
            site=hello.site,
            edge_id=hello.edge_id,
            spaces={space.space_id: space.dimension for space in hello.spaces},
            boot_id=hello.boot_id,
            estimate=estimate,
        )
        self.rate = RateLimit(limits.sightings_per_s)
        self.heartbeats = HeartbeatMemory()
        self.skips = ToldCheck()
        self.unfinished: dict[str, RangeSet] = {}
        self.hole = KeyRanges()
        self.hole_is_sure = False
        self.heard_ns = now_ns
        self.window = limits.window_sightings
        self.in_flight = 0
        self.goodbye: ingest_pb2.Goodbye | None = None
        self._limits = limits
        self._beats = 0
        self._asked_for_hole = False
        self._out: deque[StreamResponse] = deque()
        self._acks = KeyRanges()
        self._wake = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()

    def past_skipped(self, kind: str) -> bool:
        """Whether this message shows, the first to do so, that the box has told what it skipped.

        After Welcome a box sends a heartbeat, then every Skipped that is due, then the rest
        (docs/protocol.md): a batch or a second heartbeat comes behind them.
        """
        self._beats += kind == "heartbeat"
        if self._asked_for_hole or not self.hole or (kind != "batch" and self._beats < 2):
            return False
        self._asked_for_hole = True
        return True

    def send(self, message: StreamResponse) -> None:
        """Queue a message; after Goodbye nothing is queued but acks."""
        if self.goodbye is None:
            self._out.append(message)
            self._wake.set()
            self._look()

    def send_erase(self, keys: KeyRanges) -> None:
        """Queue the order to erase keys."""
        messages = keys.messages()
        for start in range(0, len(messages), RANGES):
            self.send(
                StreamResponse(erase=ingest_pb2.Erase(ranges=messages[start : start + RANGES]))
            )

    def end(self, reason: GoodbyeReason, message: str, *, retry_after_s: float) -> bool:
        """Say Goodbye after the acks of what is in flight; False where it was said before."""
        if self.goodbye is not None:
            return False
        self.goodbye = ingest_pb2.Goodbye(
            reason=reason,
            message=message,
            retry_after_s=retry_after_s,
        )
        self._wake.set()
        return True

    @property
    def _bound(self) -> int:
        return 2 * self._limits.window_sightings

    def set_limits(self, limits: LimitsConfig) -> None:
        """Take new limits; the box hears of another window at once."""
        if limits.sightings_per_s != self._limits.sightings_per_s:
            self.rate = RateLimit(limits.sightings_per_s)
        self._limits = limits
        if self.window != limits.window_sightings:
            self.window = limits.window_sightings
            self.send(StreamResponse(window=ingest_pb2.Window(sightings=self.window)))
        self._look()

    def _look(self) -> None:
        """Whether more may be read."""
        if self.in_flight < self._bound and len(self._out) < OUT_MOST:
            self._free.set()
        else:
            self._free.clear()

    def submitted(self, rows: int) -> None:
        """Rows went to the ledger."""
        self.in_flight += rows
        self._look()

    def settled(self, rows: int, acked: KeyRanges | None) -> None:
        """The ledger answered for rows."""
        self.in_flight -= rows
        self._look()
        if acked is not None:
            self._acks.update(acked)
        self._wake.set()

    async def readable(self) -> None:
        """Wait until fewer rows are in flight, and fewer answers wait, than are bounded."""
        await self._free.wait()

    async def outgoing(self) -> AsyncIterator[StreamResponse]:
        """What to send, until after Goodbye."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._out:
                message = self._out.popleft()
                self._look()
                yield message
            if self._acks:
                ranges, self._acks = self._acks.messages(), KeyRanges()
                for start in range(0, len(ranges), RANGES):
                    yield StreamResponse(ack=ingest_pb2.Ack(ranges=ranges[start : start + RANGES]))
            if self.goodbye is not None and self.in_flight == 0 and not self._acks:
                yield StreamResponse(goodbye=self.goodbye)
                return


def goodbye_name(reason: GoodbyeReason) -> str:
    """A reason in one lower-case word, for metrics and logs."""
    name = ingest_pb2.GoodbyeReason.Name(reason)
    return name.removeprefix("GOODBYE_REASON_").lower()
