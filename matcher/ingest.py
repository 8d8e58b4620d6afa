"""IngestService: from a stream of sightings to the ledger, and acks back.

Promise: a key is acked after the ledger's commit that holds it, never before. A bad record is
rejected alone. A newer stream of a box ends its older one. Whatever refuses for the time being says
Goodbye with a time to wait; nothing that a box sends can stop another box's stream.
Full: a stream that has more in flight than twice its window, or a ledger with too much waiting, is
not read on; the box feels it through HTTP/2's flow control and stays connected.
Threads: everything runs in the event loop; the ledger calls back into it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import structlog
from prometheus_client import CollectorRegistry

from matcher.admission import Admission
from matcher.box_stream import BoxStream, goodbye_name
from matcher.clocks import ClockEstimate
from matcher.config import LimitsConfig
from matcher.edges import EdgeBook
from matcher.errors import StorageFull
from matcher.heartbeats import Heartbeats
from matcher.ingest_metrics import IngestMetrics
from matcher.ledger import Ledger
from matcher.records import Appended
from matcher.schema import EntryKind
from matcher.store import LedgerStore
from reid.clock import Clock
from reid.limits import (
    BATCH_SIGHTINGS,
    DEAD_AFTER_S,
    RANGES,
    is_writer_id,
)
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2, ingest_pb2_grpc
from reid.v1.ingest_pb2 import (
    SKIP_REASON_UNSPECIFIED,
    GoodbyeReason,
    SkipReason,
    StreamResponse,
)
from reid.v1.sighting_pb2 import Key

NS = 1_000_000_000
RANGES_A_SIGHTING = 8  # skipped ranges that count as one sighting against a box's rate
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
_log = structlog.get_logger("ingest")


class IngestService(ingest_pb2_grpc.IngestServiceServicer):
    """The servicer. One per server."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        edges: EdgeBook,
        limits: LimitsConfig,
        retention_ns: Callable[[str], int],
        clock: Clock,
        registry: CollectorRegistry,
    ) -> None:
        """
        Args:
            retention_ns: site -> age in nanoseconds at which sightings are deleted.
        """
        self._ledger = ledger
        self._edges = edges
        self._limits = limits
        self._retention_ns = retention_ns
        self._clock = clock
        self._heartbeats = Heartbeats(edges=edges, clock=clock, note=self._note_clock)
        self._open: set[BoxStream] = set()
        self._closing = asyncio.Event()
        self.metrics = IngestMetrics(registry)
        self._door = Admission(
            ledger=ledger,
            edges=edges,
            limits=limits,
            clock=clock,
            metrics=self.metrics,
            end=self._end,
            storage_failed=self._storage_failed,
        )

    # --- for the server ---------------------------------------------------------------------------

    def connected(self, site: str, edge_id: str) -> bool:
        """Whether a stream of this box is open."""
        return self._door.streams.get((site, edge_id)) is not None

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return len(self._open)

    def sweep(self) -> None:
        """End streams that have been silent too long; called every second."""
        now = self._clock.monotonic_nanos()
        for stream in list(self._open):
            if now - stream.heard_ns > DEAD_AFTER_S * NS:
                self._end(
                    stream,
                    ingest_pb2.GOODBYE_REASON_SILENT,
                    f"no message for {DEAD_AFTER_S:g} s",
                    0.5,
                )

    def set_limits(self, limits: LimitsConfig) -> None:
        """Take new limits, for open streams too; cameras count at a box's next Hello."""
        self._limits = limits
        self._door.limits = limits
        for stream in self._open:
            stream.set_limits(limits)

    def shut_down(self, retry_after_s: float) -> None:
        """Say Goodbye to every stream, now and to come."""
        self._door.closing = ("the server stops", retry_after_s)
        self._closing.set()
        for stream in list(self._open):
            self._end(stream, ingest_pb2.GOODBYE_REASON_SHUTDOWN, "the server stops", retry_after_s)

    def erase(self, site: str, keys: dict[str, KeyRanges]) -> int:
        """Tell connected boxes to erase keys; others hear it at their next Hello."""
        told = 0
        for edge_id, ranges in keys.items():
            told += len(ranges)
            stream = self._door.streams.get((site, edge_id))
            if stream is not None:
                self._send_erase(stream, ranges)
        return told

    # --- the stream -------------------------------------------------------------------------------

    async def Stream(  # noqa: N802
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """See proto/reid/v1/ingest.proto."""
        first = await self._first(context)
        if first is _EOF:
            return
        hello = await self._door.greet(first, context)
        stream = BoxStream(
            hello=hello,
            limits=self._limits,
            now_ns=self._clock.monotonic_nanos(),
            estimate=lambda boot: self._heartbeats.estimate(hello.site, hello.edge_id, boot),
        )
        if not await self._door.admit(stream, hello, context):
            return
        self._open.add(stream)
        self.metrics.streams.set(len(self._open))
        try:
            known = await self._door.known(stream, hello)
            if known is not None:
                await context.write(self._door.welcome(stream, known))
                self._send_erase(stream, known.erase)
            await self._converse(stream, context, read=known is not None)
        finally:
            self._open.discard(stream)
            self._door.streams.closed(stream.box, stream)
            self.metrics.streams.set(len(self._open))
            _log.info(
                "stream ended", site=stream.box[0], edge=stream.box[1], reason=self._reason(stream)
            )

    async def _first(self, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """The first message; the call ends where none comes, or the server stops meanwhile."""
        read = asyncio.ensure_future(context.read())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait(
                {read, closing}, timeout=DEAD_AFTER_S, return_when=asyncio.FIRST_COMPLETED
            )
            if read.done():
                return read.result()
        finally:
            read.cancel()
            closing.cancel()
            await asyncio.gather(read, closing, return_exceptions=True)
        if self._closing.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no Hello within 20 s")

    async def _converse(
        self, stream: BoxStream, context: grpc.aio.ServicerContext[Any, Any], *, read: bool
    ) -> None:
        """Read and write until the box closes, or Goodbye is said."""
        writer = asyncio.create_task(self._write(stream, context))
        tasks: set[asyncio.Task[None]] = {writer}
        if read:
            tasks.add(asyncio.create_task(self._read(stream, context)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if writer not in done:
                for task in done:
                    task.result()
                # The box closed its side: it still gets the acks of what it sent.
                stream.end(ingest_pb2.GOODBYE_REASON_UNSPECIFIED, "", retry_after_s=0.0)
                await writer
            else:
                writer.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, stream: BoxStream, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async for message in stream.outgoing():
            if message.HasField("goodbye") and not message.goodbye.reason:
                return  # the box has gone: nobody to say it to
            await context.write(message)

    async def _read(self, stream: BoxStream, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        while stream.goodbye is None:
            await stream.readable()
            await self._ledger.room()
            message = await context.read()
            if message is _EOF:
                return
            stream.heard_ns = self._clock.monotonic_nanos()
            kind = message.WhichOneof("message")
            if kind is not None and stream.past_skipped(kind):
                self._look_at_hole(stream)
            match kind:
                case "batch":
                    await self._batch(stream, message.batch)
                case "heartbeat":
                    reply = self._heartbeats.answer(stream, message.heartbeat)
                    stream.send(StreamResponse(heartbeat_reply=reply))
                    # It may become an entry of the log.
                    await self._hold(stream, 1)
                case "skipped":
                    self._skipped(stream, message.skipped)
                    # As many bytes here as so many sightings.
                    await self._hold(stream, len(message.skipped.ranges) / RANGES_A_SIGHTING)
                case "hello":
                    await context.abort(
                        grpc.StatusCode.INVALID_ARGUMENT, "a second Hello on one stream"
                    )
                case _:
                    self.metrics.unknown.inc()
        # Goodbye waits for the commits; what comes meanwhile is not taken.
        await asyncio.Event().wait()

    async def _hold(self, stream: BoxStream, cost: float) -> None:
        """Count against the box's rate; beyond it the next message is read later."""
        wait_s = stream.rate.take(cost, now_ns=stream.heard_ns)
        if wait_s > 0:
            await asyncio.sleep(min(wait_s, 5.0))

    # --- batches ----------------------------------------------------------------------------------

    async def _batch(self, stream: BoxStream, batch: ingest_pb2.Batch) -> None:
        arrived = self._clock.monotonic_nanos()
        self.metrics.by_lane.get(batch.lane, self.metrics.unknown).inc()
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
            room = self._limits.room

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
        elif stream.window < self._limits.window_sightings and stream.rate.relaxed:
            stream.window = self._limits.window_sightings
            stream.send(StreamResponse(window=ingest_pb2.Window(sightings=stream.window)))

    def _slow_down(self, stream: BoxStream) -> None:
        """A box sends faster than its limit: let it have two seconds' worth in flight."""
        slow = max(1, round(self._limits.sightings_per_s * 2))
        if stream.window > slow:
            stream.window = slow
            stream.send(StreamResponse(window=ingest_pb2.Window(sightings=slow)))
            _log.warning(
                "a box sends more than its limit and is slowed",
                site=stream.box[0],
                edge=stream.box[1],
                sightings_per_s=self._limits.sightings_per_s,
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
        metrics = self.metrics
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
            self._send_erase(stream, result.erase)
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
            self._quietly(lambda store: [store.end_writer(one, now_ns=now) for one in ended])

    def _reject(self, stream: BoxStream, reject: ingest_pb2.Reject) -> None:
        self.metrics.sightings.labels("rejected").inc()
        self._edges.get(*stream.box).rejected += 1
        _log.warning(
            "sighting rejected",
            site=stream.box[0],
            edge=stream.box[1],
            key=f"{reject.key.writer_id}/{reject.key.seq}",
            why=reject.message,
        )
        stream.send(StreamResponse(reject=reject))

    # --- the rest ---------------------------------------------------------------------------------

    def _note_clock(self, site: str, edge_id: str, estimate: ClockEstimate) -> None:
        body = estimate.as_dict()
        now = self._clock.unix_nanos()
        self._quietly(lambda store: store.note(EntryKind.CLOCK, site, edge_id, body, now))

    def _skipped(self, stream: BoxStream, skipped: ingest_pb2.Skipped) -> None:
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

        room = self._limits.room

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

    def _look_at_hole(self, stream: BoxStream) -> None:
        """Once the Skipped that came before are committed, what is left is an alarm."""

        def done(_result: None, error: BaseException | None) -> None:
            if error is None:
                self._door.has_explained(stream)

        self._ledger.submit(lambda store: None, done)

    def _send_erase(self, stream: BoxStream, keys: KeyRanges) -> None:
        messages = keys.messages()
        for start in range(0, len(messages), RANGES):
            stream.send(
                StreamResponse(erase=ingest_pb2.Erase(ranges=messages[start : start + RANGES]))
            )

    def _storage_failed(self, stream: BoxStream, error: BaseException | None) -> None:
        wait_s = 30.0 if isinstance(error, StorageFull) else 5.0
        self._end(
            stream, ingest_pb2.GOODBYE_REASON_STORAGE, f"the server cannot store: {error}", wait_s
        )

    def _quietly(self, job: Any) -> None:
        """Run a job whose failure only means that it is done again later."""

        def done(_result: Any, error: BaseException | None) -> None:
            if error is not None:
                _log.warning("a note could not be written to the ledger", error=error)

        self._ledger.submit(job, done)

    def _end(
        self, stream: BoxStream, reason: GoodbyeReason, message: str, retry_after_s: float
    ) -> None:
        if stream.end(reason, message, retry_after_s=retry_after_s):
            self.metrics.goodbyes.labels(goodbye_name(reason)).inc()

    def _reason(self, stream: BoxStream) -> str:
        goodbye = stream.goodbye
        return goodbye_name(goodbye.reason) if goodbye and goodbye.reason else "closed by the box"
