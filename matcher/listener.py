"""The gRPC server: addresses, certificates, services, health.

Promise: every address is bound before anything is taken, or it is said which one is in use. Beyond
loopback a client needs a certificate of our CA; changed certificate files are taken up at the next
handshake, and files that do not fit are said (`tls_problem`) while the last good ones stay.
Threads: the event loop; gRPC's own threads call back about certificates.
"""

from __future__ import annotations

from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from matcher.admin import AdminService
from matcher.config import MatcherConfig
from matcher.errors import MatcherError
from matcher.ingest import IngestService
from matcher.query import QueryService
from reid.limits import MESSAGE_BYTES
from reid.tls import (
    KEEPALIVE_S,
    KEEPALIVE_TIMEOUT_S,
    SERVER_MIN_PING_S,
    Bundle,
    ServerCertificates,
    TlsError,
    TlsFiles,
)
from reid.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    query_pb2,
    query_pb2_grpc,
)

_OVERHEAD_BYTES = 64 * 1024  # framing and Hello's ranges beside a message of the full size
_log = structlog.get_logger("server")


class AddressInUse(MatcherError):
    """An address cannot be listened on."""


def tls_files(config: MatcherConfig) -> TlsFiles | None:
    """The files of the configuration, else those in the data folder, else none."""
    tls = config.tls
    if tls.ca is not None and tls.cert is not None and tls.key is not None:
        return TlsFiles(tls.ca, tls.cert, tls.key)
    return TlsFiles.in_folder(config.data_dir / "tls")


class Listener:
    """See the module.

    Attributes:
        ports: the ports listened on, in the order of the addresses; after `start`.
        tls_problem: why new certificate files are not used; empty: none.
    """

    def __init__(self, addresses: tuple[str, ...], files: TlsFiles | None) -> None:
        """
        Args:
            addresses: HOST:PORT each; port 0: any free one.
            files: None: plain.
        """
        self._addresses = addresses
        self._files = files
        self._certificates: ServerCertificates | None = None
        self._server: grpc.aio.Server | None = None
        self._health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self.ports: tuple[int, ...] = ()
        self.tls_problem = ""

    async def start(self, ingest: IngestService, query: QueryService, admin: AdminService) -> None:
        """Bind and serve.

        Raises:
            AddressInUse, TlsError: as they say.
        """
        server = grpc.aio.server(options=server_options())
        add_ingest: Any = ingest_pb2_grpc.add_IngestServiceServicer_to_server
        add_ingest(ingest, server)
        add_query: Any = query_pb2_grpc.add_QueryServiceServicer_to_server
        add_query(query, server)
        add_admin: Any = admin_pb2_grpc.add_AdminServiceServicer_to_server
        add_admin(admin, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (
            ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name,
            query_pb2.DESCRIPTOR.services_by_name["QueryService"].full_name,
            admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
            health.SERVICE_NAME,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, server)
        self._server = server
        self.ports = self._bind(server)
        await server.start()
        for name in ("", *names[:3]):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def _bind(self, server: grpc.aio.Server) -> tuple[int, ...]:
        credentials: grpc.ServerCredentials | None = None
        if self._files is not None:
            self._certificates = ServerCertificates(
                self._files, on_reload=self._certificate_changed, on_error=self._certificate_problem
            )
            credentials = self._certificates.credentials()
        ports = []
        for address in self._addresses:
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
        return tuple(ports)

    async def not_serving(self) -> None:
        """Say by the health service that the end has begun."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; those that run have so long. May be called without `start`."""
        if self._server is not None:
            await self._server.stop(grace=grace_s)

    def look(self) -> None:
        """Report a certificate that has ended; called every second."""
        if self._certificates is not None:
            self._certificates.check_expiry()

    def _certificate_changed(self, bundle: Bundle) -> None:
        self.tls_problem = ""
        _log.info("took up a new certificate", ends=f"{bundle.not_after:%Y-%m-%d %H:%M} UTC")

    def _certificate_problem(self, error: TlsError) -> None:
        self.tls_problem = str(error)
        _log.error("the new certificate is not used, the old one stays", error=error)


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
