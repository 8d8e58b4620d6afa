"""Carries the spool's rows to the matcher: spool → gRPC stream → acks.

Promise: goes on for ever; an outage's age alone never makes it give up, and nothing here drops a
row. Every attempt has a channel of its own (names are resolved afresh, certificates read afresh);
several addresses of one ledger are tried in turn.
Fails: never by raising; `status()` says whether it is connected, refused and why.
Threads: one thread with an event loop, owned here, joined by `stop`; the public methods from any
thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import structlog

from edge.config import TlsConfig, UplinkConfig
from edge.delivery import Outbox
from edge.uplink_call import StreamStats
from edge.uplink_lanes import Poison
from edge.uplink_messages import BoxIdentity
from edge.uplink_retry import Backoff, EndKind, StreamEnd
from edge.uplink_stream import Stream
from reid.clock import Clock
from reid.tls import (
    KEEPALIVE_S,
    KEEPALIVE_TIMEOUT_S,
    TlsError,
    TlsFiles,
    channel_credentials,
    is_loopback,
    require_safe,
)
from reid.tls_diagnose import diagnose

log = structlog.get_logger("edge.uplink")

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
    ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A new channel must not find an old connection or an old address in a shared pool.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True, slots=True)
class UplinkStatus:
    """What the uplink is doing.

    Attributes:
        connected: a stream is past its Welcome.
        address: the matcher tried last, or connected to.
        refused: why the matcher does not take us; empty: it does, or we do not know.
        last_error: why the last stream ended; empty while connected.
        insecure: plain text beyond loopback.
        backlog, backlog_bytes, lag_s: what waits for its ack.
        window, in_flight: sightings.
        bytes_out, batches, sightings_sent, acked, rejected, erased, streams: since the start.
        told_skipped: reason -> keys dropped here that the matcher knows about: by its last
            Welcome, or told since; empty before the first. Agrees with the spool's `skipped`
            (cap, unreadable) while a stream is open and nothing has just been dropped.
        ledger_id, server: of the last Welcome.
    """

    connected: bool
    address: str
    refused: str
    last_error: str
    insecure: bool
    backlog: int
    backlog_bytes: int
    lag_s: float
    window: int
    in_flight: int
    bytes_out: int
    batches: int
    sightings_sent: int
    acked: int
    rejected: int
    erased: int
    streams: int
    ledger_id: str
    server: str
    told_skipped: dict[str, int] = field(default_factory=dict)


class Uplink:
    """The stream to the matcher, for ever.

    Args:
        config: addresses, TLS, batches, times.
        outbox: the spool, open.
        identity: who we are; called before each Hello, so cameras may come and go.
        clock: heartbeats.
        tls_dir: where ca.pem, cert.pem and key.pem stand unless the configuration names files.
        on_fault: told when the thread dies of an unforeseen error; the process should end.
        seed: of the backoff's jitter; None: from the system.
    """

    def __init__(
        self,
        *,
        config: UplinkConfig,
        outbox: Outbox,
        identity: Callable[[], BoxIdentity],
        clock: Clock,
        tls_dir: Path | None = None,
        on_fault: Callable[[str, BaseException], None] | None = None,
        seed: int | None = None,
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._identity = identity
        self._clock = clock
        self._tls_dir = tls_dir
        self._on_fault = on_fault
        self._process_id = uuid.uuid4().hex
        self._stats = StreamStats()
        self._poison = Poison()
        self._seed = seed
        # Wakes drain(); nothing is guarded by it.
        self._settled = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._stop_stream: asyncio.Event | None = None
        self._ready = threading.Event()
        self._stopping = threading.Event()

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; returns once its loop runs."""
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)
        self._thread.start()
        self._ready.wait()
        self._outbox.subscribe(self._wake_up)

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the stream and the thread. May come twice, from any thread.

        Returns:
            Whether the thread ended in time.
        """
        self._stopping.set()
        self._interrupt()
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def reload(self, config: UplinkConfig) -> None:
        """Take a new configuration and certificates: the present stream ends, a new one begins."""
        self._config = config
        self._interrupt()

    def drain(self, timeout_s: float) -> bool:
        """Wait until every row is acked (or a dead letter).

        Returns:
            True: nothing waits. False: time is over, or the matcher refuses us
            (`status().refused`).
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if self._outbox.counters().backlog == 0:
                return True
            left = deadline - time.monotonic()
            if left <= 0 or self._stats.refused or not self.alive():
                return False
            with self._settled:
                self._settled.wait(min(left, 0.2))

    def status(self) -> UplinkStatus:
        """What is going on now."""
        counters = self._outbox.counters()
        stats = self._stats
        address = stats.address or self._config.matchers[0]
        return UplinkStatus(
            connected=stats.connected,
            address=address,
            refused=stats.refused,
            last_error=stats.last_error,
            insecure=self._config.tls.insecure and not is_loopback(address),
            backlog=counters.backlog,
            backlog_bytes=counters.backlog_bytes,
            lag_s=counters.lag_s,
            window=stats.window,
            in_flight=stats.in_flight,
            bytes_out=stats.bytes_out,
            batches=stats.batches,
            sightings_sent=stats.sightings_sent,
            acked=stats.acked,
            rejected=stats.rejected,
            erased=stats.erased,
            streams=stats.streams,
            ledger_id=stats.ledger_id,
            server=stats.server,
            told_skipped=dict(stats.told_skipped),
        )

    # -- the uplink's thread -----------------------------------------------------------------------

    def _wake_up(self) -> None:
        """Something may be ready to send; from any thread."""
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(wake.set)

    def _interrupt(self) -> None:
        loop, stop = self._loop, self._stop_stream
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(stop.set)

    def _on_settled(self) -> None:
        with self._settled:
            self._settled.notify_all()

    def _run(self) -> None:
        try:
            asyncio.run(self._deliver())
        except Exception as fault:
            log.error("the uplink failed", error=repr(fault))
            if self._on_fault is None:
                raise
            self._on_fault("uplink", fault)
        finally:
            self._ready.set()
            self._stats.connected = False
            self._on_settled()

    async def _deliver(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._stop_stream = asyncio.Event()
        self._ready.set()
        backoff = self._new_backoff()
        attempt = 0
        while not self._stopping.is_set():
            config = self._config
            address = config.matchers[attempt % len(config.matchers)]
            self._stop_stream.clear()
            if self._stopping.is_set():
                break  # stop() set the event just before it was cleared
            end, progressed = await self._attempt(config, address)
            if progressed:
                backoff.succeeded()
            if end.kind is EndKind.OURS:
                if config is not self._config:
                    backoff = self._new_backoff()
                continue
            attempt += 1
            wait_s = backoff.wait_s(end)
            self._say(end, address, wait_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stop_stream.wait()

    def _new_backoff(self) -> Backoff:
        return Backoff(
            retry_min_s=self._config.retry_min_s,
            retry_max_s=self._config.retry_max_s,
            refused_s=self._config.refused_retry_s,
            seed=self._seed,
        )

    async def _attempt(self, config: UplinkConfig, address: str) -> tuple[StreamEnd, bool]:
        assert self._wake is not None
        assert self._stop_stream is not None
        self._stats.address = address
        files = tls_files(config.tls, self._tls_dir, address)
        try:
            channel = _channel(address, files, insecure=config.tls.insecure)
        except TlsError as error:
            return StreamEnd(EndKind.REFUSED, str(error)), False
        self._stats.streams += 1
        try:
            stream = Stream(
                channel=channel,
                outbox=self._outbox,
                config=config,
                identity=self._identity(),
                clock=self._clock,
                process_id=self._process_id,
                poison=self._poison,
                stats=self._stats,
                wake=self._wake,
                stop=self._stop_stream,
                on_settled=self._on_settled,
            )
            end = await stream.run()
        finally:
            await channel.close(grace=None)
        if end.kind is EndKind.TEMPORARY and not end.welcomed and "UNAVAILABLE" in end.reason:
            end = await self._explain(end, address, files)
        return end, stream.progressed

    async def _explain(self, end: StreamEnd, address: str, files: TlsFiles | None) -> StreamEnd:
        """gRPC says only UNAVAILABLE; a connection of our own says which certificate, and why."""
        loop = asyncio.get_running_loop()
        why = await loop.run_in_executor(None, lambda: diagnose(address, files, timeout_s=3.0))
        if why is None:
            return end
        return StreamEnd(end.kind, why, end.retry_after_s, end.server_made, end.welcomed)

    def _say(self, end: StreamEnd, address: str, wait_s: float) -> None:
        changed = end.reason != self._stats.last_error
        self._stats.last_error = end.reason
        self._stats.refused = end.reason if end.kind is EndKind.REFUSED else ""
        self._on_settled()
        if changed or end.kind is EndKind.REFUSED:
            # An outage is said once, not at every attempt; the metrics show that it lasts.
            log.warning(
                "the matcher refuses us" if end.kind is EndKind.REFUSED else "not connected",
                matcher=address,
                reason=end.reason,
                retry_in_s=round(wait_s, 1),
            )


def tls_files(config: TlsConfig, folder: Path | None, address: str) -> TlsFiles | None:
    """The files to use: those named, else (beyond loopback) those in the folder, else none."""
    if config.ca is not None and config.cert is not None and config.key is not None:
        return TlsFiles(config.ca, config.cert, config.key)
    if folder is None or is_loopback(address):
        return None
    return TlsFiles.in_folder(folder)


def _channel(address: str, files: TlsFiles | None, *, insecure: bool) -> grpc.aio.Channel:
    require_safe(address, files, insecure=insecure, flags="--tls-ca, --tls-cert and --tls-key")
    if files is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    return grpc.aio.secure_channel(address, channel_credentials(files), options=_OPTIONS)
