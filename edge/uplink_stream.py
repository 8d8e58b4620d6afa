"""One stream to one matcher: Hello, Welcome, then batches out and acks in, until it ends.

Promise: `run` returns how the stream ended and never raises for what a network or a server can do.
A row leaves the flight only by ack, reject, erase, or by the stream's end. A slow matcher slows
this sender (window, HTTP/2 flow control) and nothing before the spool.
Threads: the uplink's event loop alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

import grpc
import structlog

from edge.config import UplinkConfig
from edge.delivery import Outbox, OutboxUnavailable
from edge.uplink_call import Ended, StreamCall, StreamStats
from edge.uplink_lanes import Lane, Lanes, Poison
from edge.uplink_messages import (
    HELLO_RANGES,
    WELCOME_RANGES,
    BoxIdentity,
    batch_message,
    heartbeat,
    hello,
    skipped_messages,
)
from edge.uplink_retry import EndKind, StreamEnd, end_of_goodbye
from reid import limits
from reid.clock import Clock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb

# A server that ends the stream so soon after a lone batch did so because of it.
_PROOF_S = 10.0


class Stream:
    """One attempt.

    Args:
        channel: an open or opening channel with TLS or not, closed by the caller.
        outbox: the spool.
        config: batches, heartbeats, deadlines.
        identity: who we are, read at Hello.
        clock: heartbeats.
        process_id: distinguishes copies of one box.
        poison: memory over streams.
        stats: counts over streams.
        wake: set whenever there may be something to send; cleared here.
        stop: set to end the stream.
        on_settled: called after each ack or reject, on the loop.
    """

    def __init__(
        self,
        *,
        channel: grpc.aio.Channel,
        outbox: Outbox,
        config: UplinkConfig,
        identity: BoxIdentity,
        clock: Clock,
        process_id: str,
        poison: Poison,
        stats: StreamStats,
        wake: asyncio.Event,
        stop: asyncio.Event,
        on_settled: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._outbox = outbox
        self._config = config
        self._identity = identity
        self._clock = clock
        self._process_id = process_id
        self._poison = poison
        self._stats = stats
        self._wake = wake
        self._stop = stop
        self._on_settled = on_settled
        self._log = structlog.get_logger("edge.uplink").bind(matcher=stats.address)
        self._lanes = Lanes(window=0, batch_rows=1, batch_age_s=config.batch_age_s)
        self._boundary = 0
        self._asked_all = True
        self._announced: dict[str, set[str]] = {}
        self._message_bytes = limits.MESSAGE_BYTES
        self._batch_rows = config.batch_sightings
        self._welcomed = False
        self._progressed = False
        self._alive_proven = False
        self._probing: list[int] = []
        self._probe_sent_s = 0.0
        self._last_heard_s = 0.0
        self._last_settled_s = 0.0
        self._reply_to = 0
        self._reply_received = 0

    @property
    def progressed(self) -> bool:
        """Whether the matcher took anything, or had nothing to take and greeted us."""
        return self._progressed

    async def run(self) -> StreamEnd:
        """Everything, from Hello to the end."""
        loop = asyncio.get_running_loop()
        call = StreamCall(self._channel, stats=self._stats)
        started = loop.time()
        try:
            end = await self._converse(call, started)
        except Ended as ended:
            end = ended.end
        except OutboxUnavailable as error:
            end = StreamEnd(EndKind.TEMPORARY, f"the spool: {error}", welcomed=self._welcomed)
        finally:
            self._stats.connected = False
            call.cancel()
        self._finish(end, loop.time())
        return end

    def _finish(self, end: StreamEnd, now_s: float) -> None:
        rows = self._lanes.rows()
        if rows and self._welcomed and end.kind is EndKind.TEMPORARY and not end.retry_after_s:
            alone = bool(self._probing) and set(rows) <= set(self._probing)
            soon = now_s - self._probe_sent_s <= _PROOF_S
            head = sorted(self._probing if alone else rows[: self._batch_rows])
            victim = self._poison.stream_ended(
                head, alone=alone, proven=alone and soon and not end.reason.startswith("DEAD")
            )
            if victim is not None:
                self._outbox.bury(victim, f"{end.reason} (five streams ended with it)")
        self._outbox.release(rows)
        self._stats.in_flight = 0

    async def _converse(self, call: StreamCall, started: float) -> StreamEnd:
        loop = asyncio.get_running_loop()
        held = self._outbox.held()
        message = hello(
            self._identity,
            held,
            clock=self._clock,
            process_id=self._process_id,
            accept_ledger=self._config.accept_ledger,
        )
        self._announced = {space.space_id: set(space.variant_ids) for space in message.hello.spaces}
        # Where Hello could not name every writer, the answer cannot either.
        self._asked_all = len(message.hello.issued) < HELLO_RANGES
        await call.write(message.SerializeToString())
        responses = call.responses()
        await self._welcome(call, responses, held.last_ledger_id)
        self._last_heard_s = self._last_settled_s = loop.time()
        tasks = [
            asyncio.create_task(self._receive(call, responses), name="receive"),
            asyncio.create_task(self._send(call, started), name="send"),
            asyncio.create_task(self._beat(call), name="heartbeat"),
            asyncio.create_task(self._until_stopped(), name="stop"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # An end that a message told is better than the broken write that followed it.
            for task in sorted(done, key=tasks.index):
                error = task.exception()
                if error is not None:
                    raise error
            raise AssertionError("a part of the stream returned; each only raises")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _welcome(
        self,
        call: StreamCall,
        responses: AsyncIterator[pb.StreamResponse],
        last_ledger_id: str,
    ) -> None:
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                message = await anext(responses)
        except TimeoutError as error:
            wait = self._config.connect_timeout_s
            raise Ended(StreamEnd(EndKind.TEMPORARY, f"no Welcome within {wait:g} s")) from error
        kind = message.WhichOneof("message")
        if kind == "goodbye":
            raise Ended(end_of_goodbye(message.goodbye, welcomed=False))
        if kind != "welcome":
            raise Ended(StreamEnd(EndKind.REFUSED, f"first message is {kind}, not Welcome"))
        welcome = message.welcome
        if (
            last_ledger_id
            and welcome.ledger_id != last_ledger_id
            and not self._config.accept_ledger
        ):
            raise Ended(
                StreamEnd(
                    EndKind.REFUSED,
                    f"this matcher's ledger is {welcome.ledger_id}, ours was {last_ledger_id}; "
                    "if the new one is right, start once with --accept-ledger",
                )
            )
        loop = asyncio.get_running_loop()
        longest = max(len(welcome.committed), len(welcome.skipped))
        complete = self._asked_all and longest < WELCOME_RANGES
        outcome = await loop.run_in_executor(
            None,
            partial(self._outbox.welcome, complete=complete),
            welcome.ledger_id,
            KeyRanges(welcome.committed),
            KeyRanges(welcome.skipped),
        )
        self._welcomed = call.welcomed = True
        self._boundary = outcome.boundary
        if welcome.limits.message_bytes:
            self._message_bytes = min(self._message_bytes, welcome.limits.message_bytes)
        if welcome.limits.batch_sightings:
            self._batch_rows = min(self._batch_rows, welcome.limits.batch_sightings)
        self._lanes = Lanes(
            window=max(1, welcome.window_sightings),
            batch_rows=self._batch_rows,
            batch_age_s=self._config.batch_age_s,
        )
        self._stats.connected = True
        self._stats.refused = ""
        self._stats.last_error = ""
        self._stats.ledger_id = welcome.ledger_id
        self._stats.server = welcome.software
        self._stats.window = welcome.window_sightings
        self._stats.told_skipped = dict(outcome.told)
        self._log.info(
            "connected", ledger=welcome.ledger_id, refilled=outcome.refilled, holes=outcome.holes
        )
        await self._beat_once(call)
        await self._tell(call, outcome.tell)
        self._on_settled()

    # -- out -------------------------------------------------------------------------------------

    async def _send(self, call: StreamCall, started: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            await self._tell(call, self._outbox.new_skipped())
            now = loop.time()
            if now - started > self._config.stream_age_s and not self._lanes.in_flight:
                raise Ended(StreamEnd(EndKind.OURS, "renewed", welcomed=True))
            if self._has_new_space():
                # The server knows only what Hello announced; another would be rejected for ever.
                raise Ended(StreamEnd(EndKind.OURS, "a new space is announced", welcomed=True))
            wait_s = await self._send_one(call, now, started)
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()

    async def _send_one(self, call: StreamCall, now: float, started: float) -> float:
        """Send a batch if there is one; returns how long to wait otherwise, 0: not at all."""
        live = self._outbox.waiting(after=self._boundary, upto=None)
        backlog = self._outbox.waiting(after=0, upto=self._boundary)
        if now - started > self._config.stream_age_s:
            return 0.05  # let the flight land, then renew
        probe = self._suspected() if live or backlog else None
        if probe is not None:
            return await self._send_probe(call, now, probe)
        plan = self._lanes.plan(now, live=live, backlog=backlog)
        if plan.lane is None:
            return plan.wait_s
        after, upto = (self._boundary, None) if plan.lane is Lane.LIVE else (0, self._boundary)
        sent = await self._send_rows(call, plan.lane, after, upto, plan.max_rows)
        # Nothing although rows wait: they could not be read just now.
        return 0.0 if sent else 0.1

    def _has_new_space(self) -> bool:
        return any(
            not set(variants) <= self._announced.get(space, set())
            for space, (_, variants) in self._outbox.spaces().items()
        )

    def _suspected(self) -> int | None:
        if self._lanes.in_flight and not self._probing:
            return None
        if self._probing:
            return len(self._probing)
        first = self._outbox.first_waiting()
        return self._poison.probe(first)

    async def _send_probe(self, call: StreamCall, now: float, rows: int) -> float:
        """A suspected batch goes alone, on a stream that has just proven to be alive."""
        if self._lanes.in_flight:
            return 1.0
        if self._probing:
            self._probing = []  # it was settled: innocent
            return 0.0
        if not self._alive_proven:
            return 0.2
        self._alive_proven = False
        self._probe_sent_s = now
        self._probing = await self._send_rows(call, Lane.BACKLOG, 0, None, rows)
        return 0.0

    async def _send_rows(
        self,
        call: StreamCall,
        lane: Lane,
        after: int,
        upto: int | None,
        max_rows: int,
    ) -> list[int]:
        if not self._lanes.in_flight:
            self._last_settled_s = asyncio.get_running_loop().time()
        rows = self._outbox.take(
            after=after, upto=upto, max_rows=max_rows, max_bytes=self._message_bytes - 64
        )
        if not rows:
            return []
        if len(rows[0].record) > self._message_bytes - 64:  # taken alone, whatever the bound
            self._outbox.bury(
                rows[0].row,
                f"{len(rows[0].record)} bytes; this matcher takes messages of at most "
                f"{self._message_bytes}",
                reason="TOO_LARGE",
            )
            return []
        numbers = [row.row for row in rows]
        self._lanes.sent(numbers, lane)
        message = batch_message([row.record for row in rows], lane.value)
        await call.write(message)
        self._stats.batches += 1
        self._stats.sightings_sent += len(rows)
        self._stats.in_flight = self._lanes.in_flight
        return numbers

    async def _tell(self, call: StreamCall, ranges: tuple[pb.SkippedRange, ...]) -> None:
        for message in skipped_messages(ranges):
            await call.write(message.SerializeToString())
        for entry in ranges:
            if entry.reason in (pb.SKIP_REASON_CAP, pb.SKIP_REASON_UNREADABLE):
                name = pb.SkipReason.Name(entry.reason).removeprefix("SKIP_REASON_").lower()
                told = self._stats.told_skipped
                told[name] = told.get(name, 0) + entry.range.last - entry.range.first + 1

    async def _beat(self, call: StreamCall) -> None:
        """Heartbeats out; and the two ways in which a silent stream is found dead."""
        loop = asyncio.get_running_loop()
        next_beat = loop.time() + self._config.heartbeat_s
        while True:
            await asyncio.sleep(min(1.0, self._config.heartbeat_s / 4))
            now = loop.time()
            silent = now - self._last_heard_s
            if silent > self._config.dead_after_s:
                raise Ended(
                    StreamEnd(
                        EndKind.TEMPORARY,
                        f"DEAD: no message for {silent:.0f} s",
                        welcomed=True,
                    )
                )
            unsettled = now - self._last_settled_s
            if (
                self._lanes.in_flight
                and self._lanes.window > 0
                and unsettled > self._config.ack_timeout_s
            ):
                raise Ended(
                    StreamEnd(
                        EndKind.TEMPORARY,
                        f"DEAD: {self._lanes.in_flight} sightings without an ack for "
                        f"{unsettled:.0f} s",
                        welcomed=True,
                    )
                )
            if now >= next_beat:
                next_beat = now + self._config.heartbeat_s
                await self._beat_once(call)

    async def _beat_once(self, call: StreamCall) -> None:
        message = heartbeat(
            self._clock,
            self._outbox.counters(),
            reply_to=self._reply_to,
            reply_received=self._reply_received,
        )
        await call.write(message.SerializeToString())

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        raise Ended(StreamEnd(EndKind.OURS, "stopped", welcomed=True))

    # -- in --------------------------------------------------------------------------------------

    async def _receive(self, call: StreamCall, responses: AsyncIterator[pb.StreamResponse]) -> None:
        loop = asyncio.get_running_loop()
        async for message in responses:
            self._last_heard_s = loop.time()
            kind = message.WhichOneof("message")
            if kind == "ack":
                self._settle(self._outbox.ack(KeyRanges(message.ack.ranges)), "acked")
            elif kind == "heartbeat_reply":
                self._alive_proven = True
                self._reply_to = message.heartbeat_reply.sent_monotonic_nanos
                self._reply_received = self._clock.monotonic_nanos()
            elif kind == "window":
                self._lanes.window = message.window.sightings
                self._stats.window = message.window.sightings
                self._last_settled_s = loop.time()
            elif kind == "reject":
                self._reject(message.reject)
            elif kind == "erase":
                await self._erase(call, message.erase)
            elif kind == "goodbye":
                raise Ended(end_of_goodbye(message.goodbye, welcomed=True))
            else:
                self._stats.unknown_messages += 1
                continue
            self._wake.set()

    def _settle(self, rows: list[int], what: str) -> None:
        count = self._lanes.settled(rows)
        if rows:
            self._progressed = True
            self._last_settled_s = asyncio.get_running_loop().time()
        setattr(self._stats, what, getattr(self._stats, what) + len(rows))
        self._stats.in_flight = self._lanes.in_flight
        if count or rows:
            self._on_settled()

    def _reject(self, reject: pb.Reject) -> None:
        row = self._outbox.reject(
            reject.key.writer_id, reject.key.seq, reject.reason, reject.message
        )
        if row is not None:
            self._settle([row], "rejected")

    async def _erase(self, call: StreamCall, erase: pb.Erase) -> None:
        keys = KeyRanges(erase.ranges)
        loop = asyncio.get_running_loop()
        told = await loop.run_in_executor(None, self._outbox.erase, keys)
        in_flight = self._outbox.gone(self._lanes.rows())
        self._lanes.settled(in_flight)
        self._stats.erased += sum(e.range.last - e.range.first + 1 for e in told)
        await self._tell(call, told)
        self._on_settled()
