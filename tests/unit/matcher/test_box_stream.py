"""One stream of a box: what waits for it is bounded."""

from __future__ import annotations

import asyncio

from matcher.box_stream import OUT_MOST, BoxStream
from matcher.config import LimitsConfig
from reid.v1 import ingest_pb2
from reid.v1.ingest_pb2 import HeartbeatReply, StreamResponse

REPLY = StreamResponse(heartbeat_reply=HeartbeatReply(sent_unix_nanos=1))


def test_a_box_that_reads_no_answers_is_not_read_on_until_it_does() -> None:
    async def work() -> tuple[bool, bool, bool]:
        stream = BoxStream(
            hello=ingest_pb2.Hello(site="s", edge_id="e", writer_id="a" * 32),
            limits=LimitsConfig(),
            now_ns=0,
            estimate=lambda boot: None,
        )
        for _ in range(OUT_MOST - 1):
            stream.send(REPLY)
        before = await _readable(stream)
        stream.send(REPLY)
        full = await _readable(stream)
        stream.submitted(1)
        stream.settled(1, None)
        still = await _readable(stream)
        await anext(stream.outgoing())
        assert await _readable(stream)
        return before, full, still

    assert asyncio.run(work()) == (True, False, False)


async def _readable(stream: BoxStream) -> bool:
    task = asyncio.create_task(stream.readable())
    await asyncio.sleep(0)
    task.cancel()
    return (await asyncio.gather(task, return_exceptions=True))[0] is None
