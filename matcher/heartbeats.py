"""Heartbeats of all boxes: answered, their clocks learned, their state kept for people.

Promise: what is learned of a boot's clock is handed to `note` when it says more than before, so
that it becomes an entry of the log; `estimate` is what is believed now. Event loop only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import structlog

from matcher.box_stream import BoxStream
from matcher.clocks import BootClock, ClockEstimate
from matcher.edges import EdgeBook, EdgeState
from matcher.told import untold_text
from reid.clock import Clock
from reid.limits import STRING_BYTES
from reid.v1 import ingest_pb2

BOOTS_KEPT = 64  # clocks remembered of each box; the log has what left
_log = structlog.get_logger("ingest")


class Heartbeats:
    """Answers heartbeats and learns from them."""

    def __init__(
        self,
        *,
        edges: EdgeBook,
        clock: Clock,
        note: Callable[[str, str, ClockEstimate], None],
    ) -> None:
        """
        Args:
            note: (site, edge_id, estimate): writes an entry of the log.
        """
        self._edges = edges
        self._clock = clock
        self._note = note
        # Each box has its own, so that none can push out what is known of another.
        self._boots: dict[tuple[str, str], OrderedDict[str, BootClock]] = {}

    def answer(self, stream: BoxStream, beat: ingest_pb2.Heartbeat) -> ingest_pb2.HeartbeatReply:
        """Take a heartbeat; what to reply."""
        received = self._clock.unix_nanos()
        boot = self._boot(*stream.box, beat.boot_id or stream.boot_id)
        t1 = beat.monotonic_nanos
        if t1 > 0:
            boot.one_way(t1, received)
        known = stream.heartbeats.returned(beat.reply_to_monotonic_nanos)
        if known is not None:
            boot.exchange(
                beat.reply_to_monotonic_nanos, *known, beat.reply_received_monotonic_nanos
            )
        state = self._edges.get(*stream.box)
        state.last_heard_ns = received
        state.backlog = beat.backlog_sightings
        state.lag_s = beat.lag_s
        state.spool_bytes = beat.spool_bytes
        state.lost_before_spool = beat.lost_before_spool
        self._compare(stream, beat, state)
        self._learn(stream, boot, beat, state)
        replied = self._clock.unix_nanos()
        stream.heartbeats.answered(t1, received, replied)
        return ingest_pb2.HeartbeatReply(
            sent_unix_nanos=beat.unix_nanos,
            received_unix_nanos=received,
            replied_unix_nanos=replied,
            sent_monotonic_nanos=t1,
        )

    def estimate(self, site: str, edge_id: str, boot_id: str) -> ClockEstimate | None:
        """What is believed of a boot's clock."""
        boot = self._boots.get((site, edge_id), OrderedDict()).get(boot_id)
        return None if boot is None else boot.current

    def _learn(
        self, stream: BoxStream, boot: BootClock, beat: ingest_pb2.Heartbeat, state: EdgeState
    ) -> None:
        estimate = boot.current
        if estimate is None:
            return
        # The box's UTC against ours, for people: what NTP on the box would have to mend.
        state.clock_offset_ms = (beat.unix_nanos - estimate.utc(beat.monotonic_nanos)) / 1e6
        state.clock_uncertainty_ms = estimate.uncertainty_ns / 1e6
        news = boot.worth_noting()
        if news is not None:
            self._note(*stream.box, news)

    def _compare(self, stream: BoxStream, beat: ingest_pb2.Heartbeat, state: EdgeState) -> None:
        """What the box dropped on this stream, beside what it told."""
        untold = stream.skips.heartbeat(beat)
        if not untold:
            state.alarms.pop("untold", None)
            return
        text = untold_text(untold)
        if state.alarms.get("untold") != text:
            _log.error("drops untold", site=state.site, edge=state.edge_id, what=text)
        state.alarm("untold", text)

    def _boot(self, site: str, edge_id: str, boot_id: str) -> BootClock:
        boots = self._boots.setdefault((site, edge_id), OrderedDict())
        name = boot_id[:STRING_BYTES]
        known = boots.get(name)
        if known is None:
            known = boots[name] = BootClock(name)
        boots.move_to_end(name)
        while len(boots) > BOOTS_KEPT:
            boots.popitem(last=False)
        return known
