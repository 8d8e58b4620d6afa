"""Says in words what gRPC's native code writes to stderr about refused connections.

A server learns of a handshake that failed only from a line of gRPC's C core on file descriptor 2:
neither the peer's certificate nor its address is told. Promise: while it is installed, lines of
the core about handshakes become records of ours (which certificate problem, and what to do),
counted and at most one a second of each kind; every other line passes through unchanged. One per
process, installed by the command line before gRPC is used; `close` puts descriptor 2 back and
joins.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable

import structlog

_NATIVE = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d")
_FOREIGN = (
    "a client's certificate was signed by another CA; make one from this server's edge-match "
    "certs folder"
)
_CURES = (
    # What the client said of our certificate comes as an alert; those first.
    ("ALERT_CERTIFICATE_EXPIRED", "a client says that our certificate has expired; renew it with "
     "edge-match certs server --renew, or check its clock"),
    ("ALERT_UNKNOWN_CA", "a client does not know the CA of our certificate; copy ca.pem to it"),
    ("ALERT_", "a client refused our certificate; does it trust this server's CA, and is the name "
     "it uses in it?"),
    ("expired", "a client's certificate has expired; make it a new one with edge-match certs"),
    ("not yet valid", "a client's certificate is not valid yet; check the clocks of both ends"),
    ("issuer", _FOREIGN),
    ("self signed", _FOREIGN),
    ("PEER_DID_NOT_RETURN", "a client came without a certificate; edge-match certs makes one"),
    ("WRONG_VERSION", "a client spoke without TLS; start it with certificates"),
    ("HTTP_REQUEST", "a client spoke without TLS; start it with certificates"),
)  # fmt: skip
_log = structlog.get_logger("tls")


def explain(line: str) -> str | None:
    """What a line of gRPC's core means for a person; None where it is not about a handshake."""
    if "andshake failed" not in line:
        return None
    lowered = line.lower()
    lowered = lowered.replace("self-signed", "self signed")
    for mark, text in _CURES:
        if mark.lower() in lowered:
            return f"connection refused: {text}"
    return f"connection refused: the TLS handshake failed ({line.rpartition('] ')[2].strip()})"


class NativeLog:
    """Stands between descriptor 2 and the terminal."""

    def __init__(self, *, count: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            count: called for each refused handshake.
        """
        self.refused = 0
        self._count = count
        self._said: dict[str, tuple[float, int]] = {}  # text -> when said last, kept back since
        self._real = os.dup(2)
        reader, writer = os.pipe()
        sys.stderr.flush()
        os.dup2(writer, 2)
        os.close(writer)
        self._reader = reader
        # Python's own records go to the real place: they must not come through here twice.
        self._stream = os.fdopen(os.dup(self._real), "w", buffering=1, encoding="utf-8")
        self._stderr, sys.stderr = sys.stderr, self._stream
        self._thread = threading.Thread(target=self._run, name="native log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with os.fdopen(self._reader, "rb") as lines:
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                text = explain(line) if _NATIVE.match(line) else None
                if text is None:
                    os.write(self._real, raw)
                    continue
                self.refused += 1
                self._count()
                self._say(text)

    def _say(self, text: str) -> None:
        now = time.monotonic()
        last, kept_back = self._said.get(text, (-1e9, 0))
        if now - last < 1.0:
            self._said[text] = (last, kept_back + 1)
            return
        self._said[text] = (now, 0)
        more = {"times": kept_back + 1} if kept_back else {}
        _log.warning(text, **more)

    def close(self) -> None:
        """Put descriptor 2 back and end the thread; may be called twice."""
        if self._real < 0:
            return
        sys.stderr = self._stderr
        os.dup2(self._real, 2)  # the last writer of the pipe goes: the thread sees its end
        self._thread.join(timeout=2.0)
        os.close(self._real)
        self._real = -1
        self._stream.close()
