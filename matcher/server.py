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

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, Gauge

from matcher.admin import AdminService
from matcher.associate.prior import PriorAssociator
from matcher.associate.worker import AssociationWorker
from matcher.config import AssociationConfig, MatcherConfig
from matcher.edges import EdgeBook
from matcher.errors import LedgerLocked, MatcherError, ServerFault
from matcher.ingest import IngestService
from matcher.ledger import Ledger
from matcher.map_keeper import MapKeeper, MapMetrics
from matcher.query import QueryService, ReadPool
from matcher.retention import Ages, RetentionBook, RetentionSweep
from matcher.schema import LEDGER_FILE, DataLock, connect
from matcher.signal import Signal
from reid.clock import Clock, SystemClock
from reid.limits import MESSAGE_BYTES
from reid.tls import (
    KEEPALIVE_S,
    KEEPALIVE_TIMEOUT_S,
    SERVER_MIN_PING_S,
    Bundle,
    ServerCertificates,
    TlsError,
    TlsFiles,
    is_loopback,
    require_safe,
)
from reid.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    query_pb2,
    query_pb2_grpc,
)
from reid.web import WebError, WebServer, status_routes

FLUSH_S = 5.0  # how often what is known of boxes is written; a crash loses so much of it
_OVERHEAD_BYTES = 64 * 1024  # framing and Hello's ranges beside a message of the full size
_log = structlog.get_logger("server")


class AddressInUse(MatcherError):
    """An address cannot be listened on."""


class MatcherServer:
    """Everything `edge-match serve` runs. `start` and `stop` belong to one event loop.

    Attributes:
        ports: the ports listened on, in the order of config.listen; after `start`.
    """

    def __init__(self, config: MatcherConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._registry = CollectorRegistry()
        self._edges = EdgeBook()
        self._ledger = Ledger(data_dir=config.data_dir, clock=self._clock)
        self._lock: DataLock | None = None
        self._grpc: grpc.aio.Server | None = None
        self._web: WebServer | None = None
        self._ingest: IngestService | None = None
        self._pool = ReadPool(data_dir=config.data_dir)
        self._associator = associator_of(config.association)
        self._worker: AssociationWorker | None = None
        self._following = asyncio.Event()  # set: followed streams end
        self._retention = RetentionBook(
            Ages(config.retention.ledger_s, config.retention.identity_s)
        )
        self._certificates: ServerCertificates | None = None
        self._tls_problem = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._fault: asyncio.Future[None] | None = None
        self._stopped = False
        self._health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self.ports: tuple[int, ...] = ()

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
        files = self._tls_files()
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
            await self._start_grpc(files)
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
        if self._grpc is not None:
            await self._health.enter_graceful_shutdown()
            assert self._ingest is not None
            self._ingest.shut_down(self._config.retry_after_s)
            self._following.set()
            await self._grpc.stop(grace=(end - time()) / 2)
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

    # --- parts ------------------------------------------------------------------------------------

    def _tls_files(self) -> TlsFiles | None:
        tls = self._config.tls
        if tls.ca is not None and tls.cert is not None and tls.key is not None:
            return TlsFiles(tls.ca, tls.cert, tls.key)
        return TlsFiles.in_folder(self._config.data_dir / "tls")

    async def _start_grpc(self, files: TlsFiles | None) -> None:
        config = self._config
        self._ingest = IngestService(
            ledger=self._ledger,
            edges=self._edges,
            limits=config.limits,
            retention_ns=self._retention.ledger_ns,
            clock=self._clock,
            registry=self._registry,
        )
        server = grpc.aio.server(options=server_options())
        add_ingest: Any = ingest_pb2_grpc.add_IngestServiceServicer_to_server
        add_ingest(self._ingest, server)
        self._add_readers(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (
            ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name,
            query_pb2.DESCRIPTOR.services_by_name["QueryService"].full_name,
            admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
            health.SERVICE_NAME,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, server)
        credentials: grpc.ServerCredentials | None = None
        if files is not None:
            self._certificates = ServerCertificates(
                files, on_reload=self._certificate_changed, on_error=self._certificate_problem
            )
            credentials = self._certificates.credentials()
        ports = []
        for address in config.listen:
            try:
                if credentials is None:
                    ports.append(server.add_insecure_port(address))
                else:
                    ports.append(server.add_secure_port(address, credentials))
            except RuntimeError as error:
                raise AddressInUse(
                    f"cannot listen on {address}: the port is in use, or the address is not of "
                    "this machine; stop what uses it or give another --listen"
                ) from error
        self._grpc = server
        await server.start()
        self.ports = tuple(ports)
        for name in ("", *names[:3]):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

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

    def _add_readers(self, server: grpc.aio.Server) -> None:
        assert self._ingest is not None
        assert self._worker is not None
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
        add_query: Any = query_pb2_grpc.add_QueryServiceServicer_to_server
        add_query(query, server)
        add_admin: Any = admin_pb2_grpc.add_AdminServiceServicer_to_server
        add_admin(admin, server)

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
        if self._worker is not None and self._worker.left_out:
            degraded.append(
                f"association left out {len(self._worker.left_out)} entries that it failed at"
            )
        if self._tls_problem:
            degraded.append(self._tls_problem)
        insecure = self._config.tls.insecure and self._certificates is None
        if insecure:
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
            "degraded": [*degraded, *self._keeper.problems.values()],
            "maps": {site: one.card.space_id for site, one in sorted(maps.items())},
            "ledger_id": self._ledger.ledger_id,
            "streams": self._ingest.open_streams if self._ingest else 0,
            "alarms": alarms,
        }

    def _certificate_changed(self, bundle: Bundle) -> None:
        self._tls_problem = ""
        _log.info("took up a new certificate", ends=f"{bundle.not_after:%Y-%m-%d %H:%M} UTC")

    def _certificate_problem(self, error: TlsError) -> None:
        self._tls_problem = str(error)
        _log.error("the new certificate is not used, the old one stays", error=error)

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
        if self._certificates is not None:
            self._certificates.check_expiry()
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


def server_options() -> list[tuple[str, Any]]:
    """gRPC's settings of the server; the client's stand in the box's uplink."""
    return [
        ("grpc.max_receive_message_length", MESSAGE_BYTES + _OVERHEAD_BYTES),
        ("grpc.max_send_message_length", 4 * MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", round(KEEPALIVE_S * 1000)),
        ("grpc.keepalive_timeout_ms", round(KEEPALIVE_TIMEOUT_S * 1000)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", round(SERVER_MIN_PING_S * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", round(SERVER_MIN_PING_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Two processes must not share a port by accident: a port in use is an error.
        ("grpc.so_reuseport", 0),
    ]
