"""The door of the ingest service: which Hello is taken, and what it is told.

Promise: a permanent refusal ends the call with its status, a temporary one says Goodbye with a time
to wait; of two streams of one box the newer is admitted and the older ended; Welcome tells what the
ledger knows, or, where it cannot say, the stream ends with STORAGE. Event loop only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import structlog

from matcher.box_stream import BoxStream, goodbye_name
from matcher.config import LimitsConfig
from matcher.edges import EdgeBook
from matcher.errors import MatcherError
from matcher.greeting import (
    MAX_WELCOME_RANGES,
    binding_problem,
    hello_problem,
    hole_text,
    joined,
    largest,
)
from matcher.ingest_metrics import IngestMetrics
from matcher.ledger import Ledger
from matcher.records import KnownKeys
from matcher.store import LedgerStore
from matcher.streams import RateLimit, StreamBook
from reid import SOFTWARE, WIRE_VERSION
from reid.clock import Clock
from reid.limits import BATCH_SIGHTINGS, MESSAGE_BYTES, STRING_BYTES
from reid.peer import peer_from_context
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2
from reid.v1.ingest_pb2 import GoodbyeReason, StreamRequest, StreamResponse

# Each Hello asks the one writer of the ledger. A box renews its stream once an hour, or after 0.5 s
# and more when it breaks: two a second, 120 at once, are far beyond that.
HELLOS_PER_S = 2.0
RANGES_A_HELLO = 4096  # a box whose keys lie in many ranges costs more to look up (9 us each)
HELLO_WAIT_S = 5.0
End = Callable[[BoxStream, GoodbyeReason, str, float], None]
_log = structlog.get_logger("ingest")


class Admission:
    """See the module's text.

    Attributes:
        streams: who speaks for each box.
        closing: why nobody is admitted any more, and how long to wait; None while open.
        limits: what a box may do; replaced at a reload.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        edges: EdgeBook,
        limits: LimitsConfig,
        clock: Clock,
        metrics: IngestMetrics,
        end: End,
        storage_failed: Callable[[BoxStream, BaseException | None], None],
    ) -> None:
        """
        Args:
            end: says Goodbye to a stream: reason, text, seconds to wait.
            storage_failed: says that the ledger cannot store.
        """
        self._ledger = ledger
        self._edges = edges
        self.limits = limits
        self._clock = clock
        self._metrics = metrics
        self._end = end
        self._storage_failed = storage_failed
        self._hellos: dict[tuple[str, str], RateLimit] = {}
        self.streams: StreamBook[BoxStream] = StreamBook()
        self.closing: tuple[str, float] | None = None

    async def greet(
        self, first: StreamRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ingest_pb2.Hello:
        """Check Hello; a permanent refusal ends the call with its status."""

        async def refuse(code: grpc.StatusCode, why: str) -> None:
            self._metrics.refused.labels(code.name).inc()
            _log.warning("hello refused", peer=context.peer(), code=code.name, why=why)
            await context.abort(code, why)

        if first.WhichOneof("message") != "hello":
            await refuse(grpc.StatusCode.INVALID_ARGUMENT, "the first message of a stream is Hello")
        hello = first.hello
        if hello.wire_version != WIRE_VERSION:
            await refuse(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"wire version {hello.wire_version}; this server speaks {WIRE_VERSION}; update "
                "the older of the two",
            )
        problem = hello_problem(hello, self.limits)
        if problem:
            await refuse(grpc.StatusCode.INVALID_ARGUMENT, problem)
        peer = peer_from_context(context.auth_context())
        problem = binding_problem(hello, peer)
        if problem:
            await refuse(grpc.StatusCode.PERMISSION_DENIED, problem)
        return hello

    async def admit(
        self,
        stream: BoxStream,
        hello: ingest_pb2.Hello,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> bool:
        """Decide between streams of one box; False where this one was sent away."""
        refusal: tuple[GoodbyeReason, str, float] | None = None
        ledger_id = self._ledger.ledger_id
        if self.closing is not None:
            refusal = (ingest_pb2.GOODBYE_REASON_SHUTDOWN, *self.closing)
        elif not self._hello_allowed(stream.box):
            refusal = (
                ingest_pb2.GOODBYE_REASON_OVERLOAD,
                f"more than {HELLOS_PER_S:g} Hellos a second of this box over a minute",
                HELLO_WAIT_S,
            )
        elif hello.last_ledger_id not in ("", ledger_id) and not hello.accept_ledger:
            refusal = (
                ingest_pb2.GOODBYE_REASON_OTHER_LEDGER,
                f"this is ledger {ledger_id}, the box last talked to {hello.last_ledger_id}; if "
                "that is right, start the box once with --accept-ledger",
                60.0,
            )
        else:
            admission = self.streams.hello(
                stream.box, stream.process_id, stream, now_ns=self._clock.monotonic_nanos()
            )
            clone = (
                f"two processes use edge id {stream.box[1]!r} at site {stream.box[0]!r} in turn; "
                "start the copy once with --new-edge-id"
            )
            if admission.cloned:
                refusal = (ingest_pb2.GOODBYE_REASON_CLONED, clone, 60.0)
                self._edges.get(*stream.box).alarm("cloned", clone)
            if admission.ended is not None:
                if admission.cloned:
                    self._end(admission.ended, ingest_pb2.GOODBYE_REASON_CLONED, clone, 60.0)
                else:
                    self._end(
                        admission.ended,
                        ingest_pb2.GOODBYE_REASON_SUPERSEDED,
                        "a newer stream of this box took over",
                        5.0,
                    )
        if refusal is None:
            return True
        reason, text, wait_s = refusal
        self._metrics.goodbyes.labels(goodbye_name(reason)).inc()
        _log.warning("hello put off", site=stream.box[0], edge=stream.box[1], why=text)
        goodbye = ingest_pb2.Goodbye(
            reason=reason,
            message=text,
            retry_after_s=wait_s,
        )
        await context.write(StreamResponse(goodbye=goodbye))
        return False

    def _hello_allowed(self, box: tuple[str, str]) -> bool:
        limit = self._hellos.setdefault(box, RateLimit(HELLOS_PER_S))
        return limit.take_if_there(now_ns=self._clock.monotonic_nanos())

    async def known(self, stream: BoxStream, hello: ingest_pb2.Hello) -> KnownKeys | None:
        """What the ledger knows of the box's keys; None where it cannot say (Goodbye is set)."""
        held, issued = KeyRanges(hello.held), KeyRanges(hello.issued)
        site, edge_id = stream.box
        now = self._clock.unix_nanos()
        room = self.limits.room

        def job(store: LedgerStore) -> KnownKeys:
            return store.hello(
                site,
                edge_id,
                hello.writer_id,
                held,
                issued,
                now_ns=now,
                names_all=len(hello.issued) < MAX_WELCOME_RANGES,
                room=room,
            )

        try:
            known = await self._ledger.run(job)
        except MatcherError as error:
            self._storage_failed(stream, error)
            return None
        self._hellos[stream.box].take(
            known.ranges / RANGES_A_HELLO, now_ns=self._clock.monotonic_nanos()
        )
        if known.crowded:
            self.crowded(stream, known.crowded)
            return None
        stream.unfinished = known.unfinished
        state = self._edges.get(site, edge_id)
        state.software = hello.software[:STRING_BYTES]
        state.cameras = [camera.name for camera in hello.cameras]
        state.first_heard_ns = state.first_heard_ns or now
        state.last_heard_ns = now
        if state.process_id != stream.process_id:
            state.process_id = stream.process_id
            state.lost_earlier += state.lost_before_spool
            state.lost_before_spool = 0
        if not self.streams.is_cloned(stream.box):
            state.alarms.pop("cloned", None)
        state.alarms.pop("untold", None)  # told by now, or a hole
        state.alarms.pop("crowded", None)
        stream.hole = known.hole
        if not stream.hole:
            state.alarms.pop("hole", None)
        _log.info(
            "box connected",
            site=site,
            edge=edge_id,
            software=hello.software,
            held=len(held),
            missing=len(held.minus(known.committed)),
        )
        known.committed, known.skipped = joined(known.committed, known.skipped, held)
        return known

    def crowded(self, stream: BoxStream, why: str) -> None:
        """A box takes more room than it may: it is sent away for a while, others are not."""
        state = self._edges.get(*stream.box)
        if state.alarms.get("crowded") != why:
            _log.error("a box takes too much room", site=state.site, edge=state.edge_id, why=why)
        state.alarm("crowded", why)
        self._end(stream, ingest_pb2.GOODBYE_REASON_OVERLOAD, why, 60.0)

    def has_explained(self, stream: BoxStream) -> None:
        """The box has had its chance to tell what it skipped: what is left is a hole."""
        stream.hole_is_sure = True
        self._hole(stream)

    def explained(self, stream: BoxStream, keys: KeyRanges) -> None:
        """Keys were told as skipped, or came after all: they are no hole any more."""
        left = stream.hole.minus(keys)
        if len(left) == len(stream.hole):
            return
        state = self._edges.get(*stream.box)
        _log.info(
            "keys of a hole explained",
            site=state.site,
            edge=state.edge_id,
            keys=len(stream.hole) - len(left),
            left=len(left),
        )
        stream.hole = left
        if stream.hole_is_sure or not left:
            self._hole(stream)

    def _hole(self, stream: BoxStream) -> None:
        state, hole = self._edges.get(*stream.box), stream.hole
        if self.streams.get(stream.box) is not stream:
            return  # what a newer stream of the box says counts
        if not hole:
            state.alarms.pop("hole", None)
            return
        text = hole_text(hole)
        if state.alarms.get("hole") != text:
            _log.error("hole", site=state.site, edge=state.edge_id, what=text)
        state.alarm("hole", text)

    def welcome(self, stream: BoxStream, known: KnownKeys) -> StreamResponse:
        limits = self.limits
        return StreamResponse(
            welcome=ingest_pb2.Welcome(
                ledger_id=self._ledger.ledger_id,
                committed=largest(known.committed),
                skipped=largest(known.skipped),
                window_sightings=stream.window,
                limits=ingest_pb2.Limits(
                    message_bytes=MESSAGE_BYTES,
                    batch_sightings=BATCH_SIGHTINGS,
                    cameras=limits.cameras,
                    sightings_per_second=limits.sightings_per_s,
                ),
                unix_nanos=self._clock.unix_nanos(),
                software=SOFTWARE,
            )
        )
