"""IngestService: the streams of all boxes, each from Hello to Goodbye; matcher.intake stores.

Promise: acks go out as the ledger commits. A newer stream of a box ends its older one. Whatever
refuses for the time being says Goodbye with a time to wait; nothing that a box sends can stop
another box's stream.
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
from matcher.intake import Intake, quietly
from matcher.ledger import Ledger
from matcher.schema import EntryKind
from reid.clock import Clock
from reid.limits import (
    DEAD_AFTER_S,
)
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2, ingest_pb2_grpc
from reid.v1.ingest_pb2 import (
    GoodbyeReason,
    StreamResponse,
)

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
        self._limits = limits
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
        self._intake = Intake(
            ledger=ledger,
            edges=edges,
            door=self._door,
            limits=limits,
            retention_ns=retention_ns,
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
        self._intake.limits = limits
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
                stream.send_erase(ranges)
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
                stream.send_erase(known.erase)
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
                self._intake.look_at_hole(stream)
            match kind:
                case "batch":
                    await self._intake.batch(stream, message.batch)
                case "heartbeat":
                    reply = self._heartbeats.answer(stream, message.heartbeat)
                    stream.send(StreamResponse(heartbeat_reply=reply))
                    # It may become an entry of the log.
                    await self._hold(stream, 1)
                case "skipped":
                    self._intake.skipped(stream, message.skipped)
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

    # --- the rest ---------------------------------------------------------------------------------

    def _note_clock(self, site: str, edge_id: str, estimate: ClockEstimate) -> None:
        body = estimate.as_dict()
        now = self._clock.unix_nanos()
        quietly(self._ledger, lambda store: store.note(EntryKind.CLOCK, site, edge_id, body, now))

    def _storage_failed(self, stream: BoxStream, error: BaseException | None) -> None:
        wait_s = 30.0 if isinstance(error, StorageFull) else 5.0
        self._end(
            stream, ingest_pb2.GOODBYE_REASON_STORAGE, f"the server cannot store: {error}", wait_s
        )

    def _end(
        self, stream: BoxStream, reason: GoodbyeReason, message: str, retry_after_s: float
    ) -> None:
        if stream.end(reason, message, retry_after_s=retry_after_s):
            self.metrics.goodbyes.labels(goodbye_name(reason)).inc()

    def _reason(self, stream: BoxStream) -> str:
        goodbye = stream.goodbye
        return goodbye_name(goodbye.reason) if goodbye and goodbye.reason else "closed by the box"
