"""A TCP relay that keeps a copy of what the client sent."""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class Tap:
    """Relays one port of this machine to another and records the client's bytes.

    Args:
        target: HOST:PORT to relay to.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sent: list[bytes] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def sent(self) -> bytes:
        """Everything the client sent so far."""
        return b"".join(list(self._sent))

    def __enter__(self) -> Tap:
        self._spawn(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in [self._listener, *self._sockets]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was closed from the other side
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            self._spawn(self._relay, client, server, self._sent)
            self._spawn(self._relay, server, client, None)

    @staticmethod
    def _relay(source: socket.socket, sink: socket.socket, keep: list[bytes] | None) -> None:
        try:
            while data := source.recv(65536):
                if keep is not None:
                    keep.append(data)
                sink.sendall(data)
        except OSError:
            return
        finally:
            try:
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it was closed from the other side
