"""One call to one matcher: messages out in turn, messages in, and how it ended.

Promise: writes of several tasks take turns, since gRPC takes one at a time; whatever ends the call
comes out as `Ended` with what the retry rules make of it (edge.uplink_retry).
Threads: the uplink's event loop alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, cast

import grpc

from edge.uplink_retry import EndKind, StreamEnd, end_of_status
from reid.v1 import ingest_pb2 as pb

METHOD = "/reid.v1.IngestService/Stream"
_STATUS_S = 1.0  # how long to wait for the status of a call that a write found broken
# grpc.aio lays this over the server's own status where a write crosses it (grpc/grpc#36066).
_LOST_RACE = "Internal error from Core"

_T = TypeVar("_T")
_Call: TypeAlias = grpc.aio.StreamStreamCall[bytes, pb.StreamResponse]


@dataclass(slots=True)
class StreamStats:
    """What the uplink shows; written by the loop, read by anyone (single fields, no invariants)."""

    connected: bool = False
    address: str = ""
    ledger_id: str = ""
    server: str = ""
    window: int = 0
    in_flight: int = 0
    bytes_out: int = 0
    batches: int = 0
    sightings_sent: int = 0
    acked: int = 0
    rejected: int = 0
    erased: int = 0
    streams: int = 0
    unknown_messages: int = 0
    told_skipped: dict[str, int] = field(default_factory=dict)
    refused: str = ""
    last_error: str = ""


class Ended(Exception):
    """The stream is over.

    Attributes:
        end: how.
    """

    def __init__(self, end: StreamEnd) -> None:
        super().__init__(end.reason)
        self.end = end


class StreamCall:
    """See the module.

    Args:
        channel: open or opening, closed by the caller.
        stats: bytes are counted here.

    Attributes:
        welcomed: Welcome was taken; a refusal means something else from then on.
    """

    def __init__(self, channel: grpc.aio.Channel, *, stats: StreamStats) -> None:
        # The identity serialiser: records go out as they stand in the spool.
        self._call: _Call = channel.stream_stream(
            METHOD,
            request_serializer=lambda message: message,
            response_deserializer=pb.StreamResponse.FromString,
        )()  # type: ignore[call-arg]  # the stubs do not know that the iterator may be left out
        self._stats = stats
        self._turn = asyncio.Lock()
        self._status: asyncio.Future[tuple[grpc.StatusCode, str]] = (
            asyncio.get_running_loop().create_future()
        )
        self._call.add_done_callback(self._keep_status)
        self.welcomed = False

    async def write(self, message: bytes) -> None:
        """Send a serialised StreamRequest. Raises Ended where the call is over."""
        async with self._turn:
            try:
                await self._call.write(message)
            except (asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.AioRpcError) as error:
                raise Ended(await self._end(str(error))) from error
        self._stats.bytes_out += len(message)

    async def responses(self) -> AsyncIterator[pb.StreamResponse]:
        """What comes, for ever. Raises Ended where the call is over."""
        while True:
            try:
                message = await self._call.read()
            except grpc.aio.AioRpcError as error:
                raise Ended(await self._end(str(error.details()))) from error
            if not isinstance(message, pb.StreamResponse):  # grpc.aio.EOF
                raise Ended(await self._end("the matcher closed the stream"))
            yield message

    async def _end(self, fallback: str) -> StreamEnd:
        """How a call ended, as its status tells; `fallback` where none comes or it says nothing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STATUS_S):
                code, details = await asyncio.shield(self._status)
                return end_of_status(code, details or fallback, welcomed=self.welcomed)
        return StreamEnd(EndKind.TEMPORARY, fallback, welcomed=self.welcomed)

    def _keep_status(self, call: _Call) -> None:
        """Called whenever gRPC sets the status; the first of the server's own is kept."""
        if self._status.done():
            return
        code, details = _now(call.code()), _now(call.details())
        if code is grpc.StatusCode.INTERNAL and details == _LOST_RACE:
            return
        self._status.set_result((code, details))

    def cancel(self) -> None:
        """End it now; may come twice."""
        self._call.cancel()


def _now(answer: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine returns that has nothing to wait for, as those of an ended call."""
    try:
        answer.send(None)
    except StopIteration as returned:
        return cast(_T, returned.value)
    answer.close()
    raise RuntimeError("an ended call has no status")
