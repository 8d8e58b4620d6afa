"""What the box serves to people and probes: metrics, health, and the preview for mounting.

Promise: each starts only where the configuration names an address, and is stopped by the stack it
was given. The preview shows pictures, so it leaves this machine in plain HTTP only where the owner
insists, and then says so at every start. Threads: the main thread only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack

import structlog

from edge.config import Config
from edge.exit_codes import ExitCode
from edge.preview import Preview
from edge.refusals import CannotStart
from edge.status import BoxStatus, readiness, registry_for
from reid.tls import is_loopback
from reid.web import WebServer, parse_address, status_routes

log = structlog.get_logger("edge")


def start_status(
    config: Config, *, status: BoxStatus, alive: Callable[[], bool], stack: ExitStack
) -> None:
    """Serve metrics, healthz and readyz.

    Args:
        alive: whether the process is sound; false turns healthz red.
    """
    address = config.status.metrics
    if address is None or address == "off":
        return
    routes = status_routes(
        registry_for(status), alive=alive, readiness=lambda: readiness(status.snapshot())
    )
    server = WebServer(address, routes, what="metrics")
    _serve(server, stack)
    log.info("metrics and health", port=server.port)


def start_preview(
    config: Config, cameras: list[str], *, status: BoxStatus, stack: ExitStack
) -> Preview | None:
    """Serve the preview and print its link.

    Raises:
        CannotStart: its address is not on this machine and plain HTTP was not accepted.
    """
    address = config.status.preview
    if address is None or address == "off":
        return None
    preview = Preview(cameras)
    host, _ = parse_address(address, what="preview")
    if not is_loopback(address):
        if not config.uplink.tls.insecure:
            raise CannotStart(
                ExitCode.USAGE,
                f"preview: {address} is not on this machine, and the page shows pictures in "
                "plain HTTP; give 127.0.0.1:PORT and forward the port over SSH, or --insecure "
                "if you accept that",
            )
        text = f"the preview shows pictures in plain HTTP on {address} (--insecure)"
        log.warning(text)
        status.warn("preview", text)
    server = WebServer(address, preview.routes(), what="preview")
    _serve(server, stack)
    print(f"preview, good for one browser: {preview.link(server.port, host)}", file=sys.stderr)
    return preview


def _serve(server: WebServer, stack: ExitStack) -> None:
    server.start()
    stack.callback(server.stop)
