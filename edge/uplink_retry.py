"""What the uplink does after a stream has ended: go on at once, back off, or wait as refused.

Promise: decisions without socket, thread or clock; nothing here ever gives up, and nothing drops a
row. The table of docs/protocol.md, as code:

    UNAVAILABLE DEADLINE_EXCEEDED RESOURCE_EXHAUSTED ABORTED INTERNAL UNKNOWN CANCELLED,
    and any other code                       back off 0.5 s → 30 s with jitter, next address
    UNAUTHENTICATED PERMISSION_DENIED        refused: 60 s, not ready, said why
    FAILED_PRECONDITION UNIMPLEMENTED
    INVALID_ARGUMENT                         refused at Hello; later: back off (maybe poison)
    Goodbye CLONED, OTHER_LEDGER             refused
    Goodbye, any other reason                back off, at least its retry_after_s
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

import grpc

from reid.v1 import ingest_pb2 as pb

# A server's wish to be left alone is followed up to here: a wrong number must not silence a box.
RETRY_AFTER_MAX_S = 600.0

_REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
_REFUSED_AT_HELLO = {
    *_REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
}
# Codes that only the server's own handling of a message brings about.
_SERVER_MADE = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class EndKind(Enum):
    """How a stream ended."""

    OURS = "ours"  # stop, reload, or its planned age: go on at once
    TEMPORARY = "temporary"  # back off
    REFUSED = "refused"  # wait, and say so


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The end of one stream.

    Attributes:
        kind: what to do.
        reason: for people: what happened and what to do.
        retry_after_s: wait at least so long.
        server_made: the server's handling of a message ended it, not the network.
        welcomed: the stream had got as far as Welcome.
    """

    kind: EndKind
    reason: str
    retry_after_s: float = 0.0
    server_made: bool = False
    welcomed: bool = False


def end_of_status(code: grpc.StatusCode, details: str, *, welcomed: bool) -> StreamEnd:
    """What a status means."""
    refused = code in (_REFUSED if welcomed else _REFUSED_AT_HELLO)
    reason = f"{code.name}: {details}" if details else code.name
    return StreamEnd(
        kind=EndKind.REFUSED if refused else EndKind.TEMPORARY,
        reason=reason,
        server_made=code in _SERVER_MADE,
        welcomed=welcomed,
    )


def end_of_goodbye(goodbye: pb.Goodbye, *, welcomed: bool) -> StreamEnd:
    """What a Goodbye means."""
    refused = goodbye.reason in (pb.GOODBYE_REASON_CLONED, pb.GOODBYE_REASON_OTHER_LEDGER)
    known = goodbye.reason in pb.GoodbyeReason.values()
    name = pb.GoodbyeReason.Name(goodbye.reason) if known else str(goodbye.reason)
    wait = goodbye.retry_after_s
    return StreamEnd(
        kind=EndKind.REFUSED if refused else EndKind.TEMPORARY,
        reason=f"{name.removeprefix('GOODBYE_REASON_')}: {goodbye.message}",
        # A NaN fails the comparison and counts as no wish.
        retry_after_s=min(wait, RETRY_AFTER_MAX_S) if wait > 0 else 0.0,
        welcomed=welcomed,
    )


class Backoff:
    """How long to wait before the next stream.

    Args:
        retry_min_s, retry_max_s: bounds of the growing wait.
        refused_s: the wait after a refusal.
        seed: of the jitter; None: from the system.
    """

    def __init__(
        self,
        *,
        retry_min_s: float,
        retry_max_s: float,
        refused_s: float,
        seed: int | None = None,
    ) -> None:
        self._min = retry_min_s
        self._max = retry_max_s
        self._refused = refused_s
        self._random = random.Random(seed)
        self._failures = 0

    def succeeded(self) -> None:
        """The matcher took something: the next wait is the shortest again."""
        self._failures = 0

    def wait_s(self, end: StreamEnd) -> float:
        """The wait after this end: half to all of the bound, so that boxes do not come together."""
        if end.kind is EndKind.OURS:
            return 0.0
        if end.kind is EndKind.REFUSED:
            return max(end.retry_after_s, self._refused * self._random.uniform(0.9, 1.1))
        # The exponent is bounded: after weeks 2**n would overflow a float.
        bound = min(self._max, self._min * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return max(end.retry_after_s, bound * self._random.uniform(0.5, 1.0))
