"""A name server on loopback that knows one address at a time (RFC 1035, A records, UDP)."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType

_A = 1


class NameServer:
    """Answers every question for an A record with `address`, and others with nothing.

    Attributes:
        address: IPv4; may be changed at any time.
        port: where it listens, on 127.0.0.1.
        asked: how many A records were asked for.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.port = int(self._socket.getsockname()[1])
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="name-server")

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                question, asker = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            self._socket.sendto(self._answer(question), asker)

    def _answer(self, question: bytes) -> bytes:
        end = 12
        while question[end]:
            end += question[end] + 1
        (kind,) = struct.unpack_from(">H", question, end + 1)
        answer = b""
        if kind == _A:
            self.asked += 1
            # The name is that of the question (offset 12); class IN, to be kept for 0 s.
            answer = struct.pack(">HHHIH", 0xC00C, _A, 1, 0, 4) + socket.inet_aton(self.address)
        head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, bool(answer), 0, 0)
        return head + question[12 : end + 5] + answer

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join()
        self._socket.close()
