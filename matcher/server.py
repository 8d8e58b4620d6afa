"""The running matcher: ledger, ingest, association, query and admin joined in one process.

Promise: `start` binds every address before anything is taken, or says which one is in use. `stop`
drains: streams get their last acks and Goodbye, the ledger commits what waits, threads end. A
thread of ours that dies ends the process with a stated code, so that a supervisor starts it anew.
Threads: the event loop (gRPC, all decisions), the ledger's writer, association, the web server, and
a small pool for reading queries.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Gauge

from matcher.admin import AdminService
from matcher.associate.prior import PriorAssociator
from matcher.associate.worker import AssociationWorker
from matcher.config import AssociationConfig, MatcherConfig
from matcher.edges import EdgeBook
from matcher.errors import LedgerLocked, MatcherError, ServerFault
from matcher.ingest import IngestService
from matcher.ledger import Ledger
from matcher.listener import AddressInUse, Listener, tls_files
from matcher.map_keeper import MapKeeper, MapMetrics
from matcher.query import QueryService, ReadPool
from matcher.retention import Ages, RetentionBook, RetentionSweep
from matcher.schema import LEDGER_FILE, DataLock, connect
from matcher.signal import Signal
from reid import logs
from reid.clock import Clock, SystemClock
from reid.tls import is_loopback, require_safe
from reid.web import WebError, WebServer, status_routes

FLUSH_S = 5.0  # how often what is known of boxes is written; a crash loses so much of it
_log = structlog.get_logger("server")


class MatcherServer:
    """Everything `edge-match serve` runs. `start` and `stop` belong to one event loop."""

    def __init__(self, config: MatcherConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._registry = CollectorRegistry()
        self._edges = EdgeBook()
        self._ledger = Ledger(data_dir=config.data_dir, clock=self._clock)
        self._lock: DataLock | None = None
        self._listener: Listener | None = None
        self._plain = False
        self._web: WebServer | None = None
        self._ingest: IngestService | None = None
        self._pool = ReadPool(data_dir=config.data_dir)
        self._associator = associator_of(config.association)
        self._worker: AssociationWorker | None = None
        self._following = asyncio.Event()  # set: followed streams end
        self._retention = RetentionBook(
            Ages(config.retention.ledger_s, config.retention.identity_s)
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._fault: asyncio.Future[None] | None = None
        self._stopped = False
        self._reload_problem = ""

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports listened on, in the order of config.listen; after `start`."""
        assert self._listener is not None
        return self._listener.ports

    @property
    def ledger(self) -> Ledger:
        """The ledger, for tests and tools in this process."""
        return self._ledger

    @property
    def edges(self) -> EdgeBook:
        """What is known of the boxes."""
        return self._edges

    @property
    def association(self) -> AssociationWorker:
        """The association thread; after `start`."""
        assert self._worker is not None
        return self._worker

    @property
    def web_port(self) -> int | None:
        """Where /metrics is; None where it is off."""
        return None if self._web is None else self._web.port

    async def start(self) -> None:
        """Open and bind everything.

        Raises:
            LedgerUnusable, AddressInUse, TlsError: as they say.
        """
        config = self._config
        files = tls_files(config)
        self._plain = files is None
        for address in config.listen:
            require_safe(
                address,
                files,
                insecure=config.tls.insecure,
                flags="--tls-ca, --tls-cert and --tls-key",
            )
        loop = asyncio.get_running_loop()
        self._fault = loop.create_future()
        self._lock = await take_lock(config.data_dir, wait_s=config.lock_wait_s)
        try:
            self._ledger.open(loop)
            reader = connect(config.data_dir / LEDGER_FILE, read_only=True)
            with contextlib.closing(reader):
                self._edges.load(reader)
                self._retention.load(reader)
            self._start_association(loop)
            self._start_web()
            self._listener = Listener(config.listen, files)
            await self._start_grpc(self._listener)
        except BaseException:
            await self.stop()
            raise
        self._tasks = [
            asyncio.create_task(self._guard(self._every(1.0, self._tick), "sweep")),
            asyncio.create_task(self._guard(self._flush_loop(), "flush")),
            asyncio.create_task(self._guard(self._retention_loop(), "retention")),
            asyncio.create_task(self._guard(self._keeper.run(), "maps")),
        ]
        if files is None and not all(is_loopback(address) for address in config.listen):
            _log.warning(
                "listening in the open (--insecure): anybody on the network can send and "
                "read embeddings",
                listen=list(config.listen),
            )

    async def run(self) -> None:
        """Wait until a thread or task of ours fails.

        Raises:
            MatcherError: what failed.
        """
        assert self._fault is not None
        await asyncio.shield(self._fault)

    async def stop(self) -> None:
        """Drain and end everything, within shutdown_s; may be called twice.

        Half of the time is for streams to get their acks, half of the rest for association to read
        what is committed; what it has not read then it reads at the next start.
        """
        if self._stopped:
            return
        self._stopped = True
        time = asyncio.get_running_loop().time
        end = time() + self._config.shutdown_s
        if self._listener is not None:
            await self._listener.not_serving()
            if self._ingest is not None:
                self._ingest.shut_down(self._config.retry_after_s)
            self._following.set()
            await self._listener.stop((end - time()) / 2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ledger.alive and self._ledger.fault is None:
            with contextlib.suppress(MatcherError):
                await self._flush()
                if self._worker is not None:
                    # What was acked is shown by `who --data-dir` after the end, if time allows.
                    last = await self._ledger.run(lambda store: store.last_position())
                    left_s = max(0.0, end - time()) / 2
                    await asyncio.to_thread(self._worker.wait_for, last, left_s)
        parts = [self._pool.close]
        if self._worker is not None:
            parts.append(self._worker.stop)
        if self._web is not None:
            parts.append(self._web.stop)
        await asyncio.gather(*(asyncio.to_thread(part) for part in parts))
        await asyncio.to_thread(self._ledger.close)
        if self._lock is not None:
            self._lock.release()
        if self._fault is not None and not self._fault.done():
            self._fault.cancel()

    def reload(self, config: MatcherConfig) -> None:
        """Take over the limits of a new configuration; what else differs waits for the next start.

        Certificates need no reload: their files are looked at before each handshake.
        """
        assert self._ingest is not None
        later = sorted(
            name
            for name in MatcherConfig.model_fields
            if name != "limits" and getattr(config, name) != getattr(self._config, name)
        )
        self._config = self._config.model_copy(update={"limits": config.limits})
        self._ingest.set_limits(config.limits)
        self._reload_problem = ""
        _log.info("limits reloaded", **config.limits.model_dump())
        if later:
            _log.warning("these settings are taken at the next start only", settings=later)

    def reload_refused(self, problem: str) -> None:
        """A new configuration cannot be used: the old one stays, and readyz says why."""
        self._reload_problem = f"reload refused, everything stays as it was: {problem}"
        _log.error(self._reload_problem)

    # --- parts ------------------------------------------------------------------------------------

    async def _start_grpc(self, listener: Listener) -> None:
        assert self._worker is not None
        config = self._config
        self._ingest = IngestService(
            ledger=self._ledger,
            edges=self._edges,
            limits=config.limits,
            retention_ns=self._retention.ledger_ns,
            clock=self._clock,
            registry=self._registry,
        )
        query = QueryService(
            pool=self._pool,
            edges=self._edges,
            connected=self._ingest.connected,
            committed=self._committed,
            decided=self._decided,
            stopping=self._following,
        )
        admin = AdminService(
            ledger=self._ledger,
            pool=self._pool,
            worker=self._worker,
            associator=self._associator,
            ingest=self._ingest,
            retention=self._retention,
            clock=self._clock,
        )
        await listener.start(self._ingest, query, admin)

    def _start_association(self, loop: asyncio.AbstractEventLoop) -> None:
        self._committed, self._decided = Signal(loop), Signal(loop)
        self._worker = AssociationWorker(
            data_dir=self._config.data_dir,
            associator=self._associator,
            generation=self._ledger.generation,
            salt=self._ledger.identity_salt,
            identity_life_ns=round(self._config.retention.identity_s * 1e9),
            busy=lambda: self._ledger.pending_rows > 0,
            on_progress=self._decided.notify,
        )
        self._keeper = MapKeeper(
            folder=self._config.maps,
            ledger=self._ledger,
            in_force=lambda: self.association.maps,
            reached=lambda: self.association.position,
            clock=self._clock,
        )
        self._ledger.on_commit(self._worker.wake)
        self._ledger.on_commit(self._committed.notify)
        self._worker.start()

    def _start_web(self) -> None:
        if not self._config.metrics:
            return
        pending = Gauge(
            "reid_matcher_pending_sightings",
            "Sightings that wait for a commit",
            registry=self._registry,
        )
        pending.set_function(lambda: self._ledger.pending_rows)
        commits = Gauge(
            "reid_matcher_commits_total",
            "Transactions committed since start",
            registry=self._registry,
        )
        commits.set_function(lambda: self._ledger.commits)
        self._registry.register(MapMetrics(lambda: self.association.maps))
        routes = status_routes(self._registry, alive=self._alive, readiness=self.readiness)
        try:
            web = WebServer(self._config.metrics, routes, what="metrics")
            web.start()
        except WebError as error:
            raise AddressInUse(str(error)) from error
        self._web = web

    def _alive(self) -> bool:
        worker = self._worker is not None and self._worker.alive
        return self._stopped or (self._ledger.alive and worker)

    def readiness(self) -> dict[str, Any]:
        """What /readyz says: ready, and what is degraded."""
        degraded = []
        if self._ledger.fault is not None:
            degraded.append(str(self._ledger.fault))
        if self._ledger.full:
            degraded.append("the disk of the ledger is full; boxes keep their sightings")
        if self._worker is not None and self._worker.waiting:
            degraded.append(self._worker.waiting)
        if self._worker is not None and self._worker.left_out:
            degraded.append(
                f"association left out {len(self._worker.left_out)} entries that it failed at"
            )
        if self._listener is not None and self._listener.tls_problem:
            degraded.append(self._listener.tls_problem)
        notes = [text for text in (self._reload_problem, logs.problem()) if text]
        if self._config.tls.insecure and self._plain:
            degraded.append("plain beyond loopback (--insecure)")
        alarms = {
            f"{edge.site}/{edge.edge_id}": list(edge.alarms.values())
            for edge in self._edges.all()
            if edge.alarms
        }
        blocking = [
            text for text in degraded if "--insecure" not in text and "left out" not in text
        ]
        maps = {} if self._worker is None else self._worker.maps
        return {
            "ready": not blocking and not self._stopped,
            "degraded": [*degraded, *notes, *self._keeper.problems.values()],
            "maps": {site: one.card.space_id for site, one in sorted(maps.items())},
            "ledger_id": self._ledger.ledger_id,
            "streams": self._ingest.open_streams if self._ingest else 0,
            "alarms": alarms,
        }

    # --- what runs beside the streams -------------------------------------------------------------

    async def _guard(self, work: Any, name: str) -> None:
        """A task of ours that fails ends the process with its name."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            _log.exception("a part of the server failed", part=name)
            if self._fault is not None and not self._fault.done():
                self._fault.set_exception(ServerFault(f"{name} failed: {error}"))
            raise

    async def _every(self, period_s: float, tick: Callable[[], None]) -> None:
        while True:
            tick()
            await asyncio.sleep(period_s)

    def _tick(self) -> None:
        assert self._ingest is not None
        self._ingest.sweep()
        if self._listener is not None:
            self._listener.look()
        if self._fault is None or self._fault.done():
            return
        if self._ledger.fault is not None:
            self._fault.set_exception(self._ledger.fault)
        elif not self._ledger.alive:
            self._fault.set_exception(ServerFault("the ledger's thread died"))
        elif self._worker is not None and self._worker.fault is not None:
            self._fault.set_exception(self._worker.fault)

    async def _flush_loop(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self._flush()
            except MatcherError as error:
                _log.warning("the state of the boxes could not be written", error=error)

    async def _retention_loop(self) -> None:
        assert self._worker is not None
        sweep = RetentionSweep(
            ledger=self._ledger,
            book=self._retention,
            delete_tracklets=self._worker.delete_older,
            clock=self._clock,
        )
        while True:
            await sweep.sweep()
            await asyncio.sleep(self._config.retention.sweep_s)

    async def _flush(self) -> None:
        rows = self._edges.take_dirty()
        if rows:
            await self._ledger.run(lambda store: store.save_edges(rows))


async def take_lock(data_dir: Path, *, wait_s: float) -> DataLock:
    """Take the right to serve a data folder.

    Args:
        wait_s: how long to wait for a predecessor that is draining (a rolling restart).
    Raises:
        LedgerLocked: another process has it still.
    """
    time = asyncio.get_running_loop().time
    deadline = time() + wait_s
    told = False
    while True:
        try:
            return DataLock(data_dir)
        except LedgerLocked as error:
            if time() >= deadline:
                raise
            if not told:
                _log.info("waiting for the process before", why=error, wait_s=wait_s)
                told = True
        await asyncio.sleep(0.05)


def associator_of(config: AssociationConfig) -> PriorAssociator:
    """The decider that the configuration names."""
    return PriorAssociator(
        thresholds=config.thresholds,
        default_threshold=config.default_threshold,
        window_ns=round(config.window_s * 1e9),
        uncertain_ns=round(config.uncertain_time_ms * 1e6),
    )
