"""What a box sends, from the message to the ledger, and what the ledger's answer means for the box.

Promise: a key is acked after the ledger's commit that holds it, never before. A bad record is
rejected alone. Keys told as skipped are recorded in the order in which they came.
Full: a box that sends more than its limit is slowed by its window; a batch that is too large, or a
ledger that cannot store, ends the stream with a time to wait.
Threads: everything runs in the event loop; the ledger calls back into it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from matcher.admission import Admission, End
from matcher.box_stream import BoxStream
from matcher.config import LimitsConfig
from matcher.edges import EdgeBook
from matcher.ingest_metrics import IngestMetrics
from matcher.ledger import Ledger
from matcher.records import Appended
from matcher.store import LedgerStore
from reid.clock import Clock
from reid.limits import BATCH_SIGHTINGS, RANGES, is_writer_id
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2
from reid.v1.ingest_pb2 import SKIP_REASON_UNSPECIFIED, SkipReason, StreamResponse
from reid.v1.sighting_pb2 import Key

_log = structlog.get_logger("ingest")


class Intake:
    """See the module's text.

    Attributes:
        limits: of each box; may be exchanged while streams are open.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        edges: EdgeBook,
        door: Admission,
        limits: LimitsConfig,
        retention_ns: Callable[[str], int],
        clock: Clock,
        metrics: IngestMetrics,
        end: End,
        storage_failed: Callable[[BoxStream, BaseException | None], None],
    ) -> None:
        """
        Args:
            door: what it knows of a box's holes is settled by what comes here.
            retention_ns: site -> age in nanoseconds at which sightings are deleted.
            end, storage_failed: as of Admission.
        """
        self._ledger = ledger
        self._edges = edges
        self._door = door
        self.limits = limits
        self._retention_ns = retention_ns
        self._clock = clock
        self._metrics = metrics
        self._end = end
        self._storage_failed = storage_failed

    async def batch(self, stream: BoxStream, batch: ingest_pb2.Batch) -> None:
        arrived = self._clock.monotonic_nanos()
        self._metrics.by_lane.get(batch.lane, self._metrics.unknown).inc()
        now = self._clock.unix_nanos()
        count = len(batch.records)
        if count > BATCH_SIGHTINGS:
            self._end(
                stream,
                ingest_pb2.GOODBYE_REASON_OVERLOAD,
                f"{count} records in a batch; at most {BATCH_SIGHTINGS}",
                5.0,
            )
            return
        checked = stream.check.check(batch, now_ns=now)
        for reject in checked.rejects:
            self._reject(stream, reject)
        rows = len(checked.rows)
        if rows:
            site, edge_id = stream.box
            expired_before = now - self._retention_ns(site)
            room = self.limits.room

            def job(store: LedgerStore) -> Appended:
                return store.append(
                    site,
                    edge_id,
                    checked.rows,
                    now_ns=now,
                    expired_before_ns=expired_before,
                    room=room,
                )

            def done(result: Appended | None, error: BaseException | None) -> None:
                self._settled(stream, rows, result, error, arrived)

            stream.submitted(rows)
            self._ledger.submit(job, done, rows=rows)
        wait_s = stream.rate.take(count, now_ns=arrived)
        if wait_s > 0:
            self._slow_down(stream)
            await asyncio.sleep(min(wait_s, 5.0))
        elif stream.window < self.limits.window_sightings and stream.rate.relaxed:
            stream.window = self.limits.window_sightings
            stream.send(StreamResponse(window=ingest_pb2.Window(sightings=stream.window)))

    def _slow_down(self, stream: BoxStream) -> None:
        """A box sends faster than its limit: let it have two seconds' worth in flight."""
        slow = max(1, round(self.limits.sightings_per_s * 2))
        if stream.window > slow:
            stream.window = slow
            stream.send(StreamResponse(window=ingest_pb2.Window(sightings=slow)))
            _log.warning(
                "a box sends more than its limit and is slowed",
                site=stream.box[0],
                edge=stream.box[1],
                sightings_per_s=self.limits.sightings_per_s,
            )

    def _settled(
        self,
        stream: BoxStream,
        rows: int,
        result: Appended | None,
        error: BaseException | None,
        arrived_ns: int,
    ) -> None:
        if result is None:
            stream.settled(rows, None)
            self._storage_failed(stream, error)
            return
        metrics = self._metrics
        metrics.commit_s.observe((self._clock.monotonic_nanos() - arrived_ns) / 1e9)
        metrics.stored.inc(result.stored)
        stream.settled(rows, result.acked)
        for name, count in (
            ("duplicate", result.duplicates),
            ("expired", result.expired),
            ("forgotten", result.forgotten),
        ):
            if count:
                metrics.sightings.labels(name).inc(count)
        if result.expired:
            self._edges.get(*stream.box).expired += result.expired
        for writer_id, seq in result.conflicts:
            self._conflict(stream, writer_id, seq)
        for writer_id, seq in result.foreign:
            self._reject(
                stream,
                ingest_pb2.Reject(
                    key=Key(writer_id=writer_id, seq=seq),
                    reason=ingest_pb2.REJECT_REASON_FOREIGN,
                    message="this writer belongs to another box",
                ),
            )
        if result.erase:
            stream.send_erase(result.erase)
        if result.crowded:
            self._door.crowded(stream, result.crowded)
        if stream.hole:
            self._door.explained(stream, result.acked)
        if stream.unfinished:
            self._finish_writers(stream, result.acked)

    def _conflict(self, stream: BoxStream, writer_id: str, seq: int) -> None:
        text = f"key {writer_id}/{seq} came with another content than the ledger holds"
        state = self._edges.get(*stream.box)
        state.conflicts += 1
        state.alarm("conflict", f"{text}; was the spool restored or copied?")
        _log.error("key conflict", site=stream.box[0], edge=stream.box[1], what=text)
        self._reject(
            stream,
            ingest_pb2.Reject(
                key=Key(writer_id=writer_id, seq=seq),
                reason=ingest_pb2.REJECT_REASON_KEY_CONFLICT,
                message=text,
            ),
        )

    def _finish_writers(self, stream: BoxStream, came: KeyRanges) -> None:
        """Older writers whose last held row has come are ended, so their tracklets can be."""
        ended = []
        for writer_id, left in stream.unfinished.items():
            for first, last in came.of(writer_id):
                left.remove(first, last)
            if not left:
                ended.append(writer_id)
        for writer_id in ended:
            del stream.unfinished[writer_id]
        if ended:
            now = self._clock.unix_nanos()
            quietly(
                self._ledger, lambda store: [store.end_writer(one, now_ns=now) for one in ended]
            )

    def _reject(self, stream: BoxStream, reject: ingest_pb2.Reject) -> None:
        self._metrics.sightings.labels("rejected").inc()
        self._edges.get(*stream.box).rejected += 1
        _log.warning(
            "sighting rejected",
            site=stream.box[0],
            edge=stream.box[1],
            key=f"{reject.key.writer_id}/{reject.key.seq}",
            why=reject.message,
        )
        stream.send(StreamResponse(reject=reject))

    def skipped(self, stream: BoxStream, skipped: ingest_pb2.Skipped) -> None:
        site, edge_id = stream.box
        ranges = [
            (
                one.range.writer_id,
                one.range.first,
                min(one.range.last, (1 << 63) - 1),
                # A reason of a newer contract is none that we know; 100 is one of our own.
                one.reason if one.reason in SkipReason.values() else SKIP_REASON_UNSPECIFIED,
            )
            for one in skipped.ranges[:RANGES]
            if is_writer_id(one.range.writer_id)
            and 1 <= one.range.first <= one.range.last
            and one.range.first < 1 << 63
        ]
        told = KeyRanges()
        for writer_id, first, last, reason in ranges:
            told.add_range(writer_id, first, last)
            stream.skips.told(reason, last - first + 1)

        room = self.limits.room

        def done(result: tuple[list[str], str] | None, error: BaseException | None) -> None:
            if result is None:
                self._storage_failed(stream, error)
                return
            foreign, crowded = result
            if crowded:
                self._door.crowded(stream, crowded)
            elif foreign:
                _log.warning(
                    "keys of another box told as skipped, not recorded",
                    site=site,
                    edge=edge_id,
                    writers=foreign,
                )
            else:
                if stream.hole:
                    self._door.explained(stream, told)
                if stream.unfinished:
                    self._finish_writers(stream, told)

        self._ledger.submit(lambda store: store.skip(site, edge_id, ranges, room=room), done)

    def look_at_hole(self, stream: BoxStream) -> None:
        """Once the Skipped that came before are committed, what is left is an alarm."""

        def done(_result: None, error: BaseException | None) -> None:
            if error is None:
                self._door.has_explained(stream)

        self._ledger.submit(lambda store: None, done)


def quietly(ledger: Ledger, job: Callable[[LedgerStore], Any]) -> None:
    """Run a job whose failure only means that it is done again later."""

    def done(_result: Any, error: BaseException | None) -> None:
        if error is not None:
            _log.warning("a note could not be written to the ledger", error=error)

    ledger.submit(job, done)
