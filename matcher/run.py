"""Runs the matcher as a process: signals, the parent's end, exit codes.

Promise: SIGTERM and SIGINT drain and give 0; SIGHUP takes over new limits, or changes nothing and
says why; a fault gives its stated code. Main thread only.
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
from matcher.settings import SettingsError

_log = structlog.get_logger("server")


def serve(
    config: MatcherConfig,
    *,
    ready: Callable[[MatcherServer], None] | None = None,
    reread: Callable[[], MatcherConfig] | None = None,
    watch_stdin: bool = False,
) -> ExitCode:
    """Run the matcher until SIGTERM or SIGINT; returns the exit code.

    Args:
        ready: called once, when every address is listened on.
        reread: gives the configuration anew, for SIGHUP; raises SettingsError. None: SIGHUP ends
            the process, as is its default.
        watch_stdin: end as if by SIGTERM when standard input closes (the parent died).
    """
    # The writer thread and the event loop hand the interpreter's lock over per statement; at the
    # default of 5 ms each hand-over would cost more than a commit.
    sys.setswitchinterval(0.0005)
    return asyncio.run(_serve(config, ready, reread, watch_stdin))


async def _serve(
    config: MatcherConfig,
    ready: Callable[[MatcherServer], None] | None,
    reread: Callable[[], MatcherConfig] | None,
    watch_stdin: bool,
) -> ExitCode:
    loop = asyncio.get_running_loop()
    stop, reload = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if reread is not None:
        loop.add_signal_handler(signal.SIGHUP, reload.set)
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
    reloading = asyncio.create_task(_reload(server, reload, reread))
    await asyncio.wait({running, stopping, reloading}, return_when=asyncio.FIRST_COMPLETED)
    if reloading.done():
        reloading.result()  # it ends only by a fault of ours
    stopping.cancel()
    reloading.cancel()
    code = ExitCode.DONE
    if running.done() and not running.cancelled():
        failure = running.exception()
        code = ExitCode.LEDGER if isinstance(failure, LedgerUnusable) else ExitCode.FAULT
        _log.error("the server ends", error=failure)
    else:
        running.cancel()
        _log.info("draining")
    await server.stop()
    await asyncio.gather(running, stopping, reloading, return_exceptions=True)
    return code


async def _reload(
    server: MatcherServer, told: asyncio.Event, reread: Callable[[], MatcherConfig] | None
) -> None:
    """Take over new limits, once for each SIGHUP."""
    while True:
        await told.wait()
        told.clear()
        assert reread is not None
        try:
            server.reload(reread())
        except SettingsError as error:
            server.reload_refused(str(error))


class _StdinClosed(asyncio.Protocol):
    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop.set()


async def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    await loop.connect_read_pipe(lambda: _StdinClosed(stop), sys.stdin)
