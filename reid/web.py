"""Health, readiness and metrics over HTTP, in a thread with an owner: one web stack for both ends.

Promise: the port is bound in `start()`, so a port in use is said before anything else runs; after
`stop()` the thread is gone. `start` and `stop` belong to the owner; the callables that answer are
called from the web thread and must be quick.

    /healthz  200 while the process lives and none of its threads has died
    /readyz   200 when everything works, else 503; a JSON object names what is degraded
    /metrics  Prometheus text
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

Readiness = Callable[[], dict[str, Any]]


class WebError(OSError):
    """An address that cannot be listened on; the text says which and what to do."""


def parse_address(address: str, *, what: str) -> tuple[str, int]:
    """Split HOST:PORT ([::1]:80 for IPv6).

    Raises:
        WebError: not of that form.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise WebError(f"{what}: {address!r} is not HOST:PORT, such as 127.0.0.1:9464")
    return host.strip("[]"), int(port)


def bind(address: str, *, what: str) -> socket.socket:
    """Bind a listening socket.

    Args:
        address: HOST:PORT; port 0 takes a free one.
        what: whose port it is, for the message.
    Raises:
        WebError: not an address, or in use.
    """
    host, port = parse_address(address, what=what)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise WebError(
            f"{what}: cannot listen on {address}: {error.strerror or error}; "
            "stop what uses the port or choose another one"
        ) from error
    return listener


class WebServer:
    """A Starlette application in a thread of its own."""

    def __init__(self, address: str, routes: Sequence[BaseRoute], *, what: str) -> None:
        """
        Args:
            address: HOST:PORT to listen on; port 0 takes a free one.
            routes: what is served.
            what: name of this server for messages and its thread.
        """
        self._address = address
        self._what = what
        self._routes = list(routes)
        self._listener: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port listened on; only after `start`."""
        if self._listener is None:
            raise RuntimeError(f"{self._what} is not started")
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Bind and serve. Raises WebError where the address cannot be listened on."""
        self._listener = bind(self._address, what=self._what)
        config = uvicorn.Config(
            Starlette(routes=self._routes),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name=self._what
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Stop serving and join; may be called twice."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def status_routes(
    registry: CollectorRegistry,
    *,
    alive: Callable[[], bool],
    readiness: Readiness,
) -> list[BaseRoute]:
    """The three routes that both processes serve.

    Args:
        registry: the metrics.
        alive: False once a thread has died.
        readiness: {"ready": bool, "degraded": [texts], ...}; anything else is shown as it is.
    """

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse(
            "ok\n" if alive() else "a thread has died\n", 200 if alive() else 503
        )

    async def readyz(_request: Request) -> Response:
        state = readiness()
        return JSONResponse(state, 200 if state["ready"] else 503)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
