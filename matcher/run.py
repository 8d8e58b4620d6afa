"""Runs the matcher as a process: signals, the parent's end, exit codes.

Promise: SIGTERM and SIGINT drain and give 0; a fault gives its stated code. Main thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable

import structlog

from matcher.config import MatcherConfig
from matcher.errors import ExitCode, LedgerUnusable
from matcher.server import MatcherServer

_log = structlog.get_logger("server")


def serve(
    config: MatcherConfig,
    *,
    ready: Callable[[MatcherServer], None] | None = None,
    watch_stdin: bool = False,
) -> ExitCode:
    """Run the matcher until SIGTERM or SIGINT; returns the exit code.

    Args:
        ready: called once, when every address is listened on.
        watch_stdin: end as if by SIGTERM when standard input closes (the parent died).
    """
    # The writer thread and the event loop hand the interpreter's lock over per statement; at the
    # default of 5 ms each hand-over would cost more than a commit.
    sys.setswitchinterval(0.0005)
    return asyncio.run(_serve(config, ready, watch_stdin))


async def _serve(
    config: MatcherConfig, ready: Callable[[MatcherServer], None] | None, watch_stdin: bool
) -> ExitCode:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = MatcherServer(config)
    stopping = asyncio.create_task(stop.wait())
    starting = asyncio.create_task(server.start())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        _log.info("told to end before the start was through")
        return ExitCode.DONE
    try:
        await starting
    finally:
        if starting.exception() is not None:
            stopping.cancel()
    if watch_stdin:
        await _watch_stdin(loop, stop)
    if ready is not None:
        ready(server)
    _log.info(
        "listening",
        listen=[*config.listen],
        ports=list(server.ports),
        ledger=server.ledger.ledger_id,
        data_dir=str(config.data_dir),
    )
    running = asyncio.create_task(server.run())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    code = ExitCode.DONE
    if running.done() and not running.cancelled():
        failure = running.exception()
        code = ExitCode.LEDGER if isinstance(failure, LedgerUnusable) else ExitCode.FAULT
        _log.error("the server ends", error=failure)
    else:
        running.cancel()
        _log.info("draining")
    await server.stop()
    await asyncio.gather(running, stopping, return_exceptions=True)
    return code


class _StdinClosed(asyncio.Protocol):
    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop.set()


async def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    await loop.connect_read_pipe(lambda: _StdinClosed(stop), sys.stdin)
