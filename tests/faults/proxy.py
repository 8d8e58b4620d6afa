"""A TCP proxy that misbehaves on demand: delay, reset, half-open, byte limit, cut.

The kernel's own tools for this (tc netem) are not everywhere; a proxy between box and matcher is,
and a seed makes its faults repeatable. One thread with an event loop; `set` from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Behaviour:
    """How the proxy treats bytes.

    Attributes:
        cut: refuse new connections and reset those there are.
        half_open: take connections and bytes, and pass nothing on, in either direction.
        delay_s: hold every piece so long.
        byte_limit: reset a connection after so many bytes; 0: never.
    """

    cut: bool = False
    half_open: bool = False
    delay_s: float = 0.0
    byte_limit: int = 0


class FaultProxy:
    """Listens on a free port of loopback and passes bytes to a target that may change.

    Attributes:
        address: HOST:PORT to connect to.
    """

    def __init__(self) -> None:
        self.address = ""
        self.target = ("127.0.0.1", 0)
        self._behaviour = Behaviour()
        self._changed: asyncio.Event | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        """Listen; returns when `address` is known."""
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        """Close everything and join the thread."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def set(self, behaviour: Behaviour) -> None:
        """Behave like this from now on; connections in the old way of a cut are reset."""
        self._behaviour = behaviour
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._apply)

    def reset(self) -> None:
        """Reset every connection once."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._reset_all)

    def _apply(self) -> None:
        if self._behaviour.cut:
            self._reset_all()

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        self._reset_all()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._behaviour.cut:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        except OSError:
            pass  # one side is gone: both are
        finally:
            self._writers -= {writer, far_writer}
            _reset(writer)
            _reset(far_writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await reader.read(1 << 16):
            behaviour = self._behaviour
            if behaviour.delay_s:
                await asyncio.sleep(behaviour.delay_s)
            while self._behaviour.half_open:
                await asyncio.sleep(0.02)
            passed += len(data)
            if behaviour.byte_limit and passed > behaviour.byte_limit:
                writer.write(data[: len(data) // 2])
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, not FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
