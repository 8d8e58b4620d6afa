"""What is kept of heartbeats is each box's own."""

from __future__ import annotations

from matcher.box_stream import BoxStream
from matcher.config import LimitsConfig
from matcher.edges import EdgeBook
from matcher.heartbeats import BOOTS_KEPT, Heartbeats
from reid.clock import ManualClock
from reid.v1 import ingest_pb2


def stream_of(edge_id: str) -> BoxStream:
    hello = ingest_pb2.Hello(site="site", edge_id=edge_id, boot_id="boot")
    return BoxStream(hello=hello, limits=LimitsConfig(), now_ns=0, estimate=lambda boot: None)


def test_a_box_with_ever_new_boots_pushes_out_its_own_clocks_only() -> None:
    clock = ManualClock()
    heartbeats = Heartbeats(edges=EdgeBook(), clock=clock, note=lambda *_: None)
    honest, hostile = stream_of("honest"), stream_of("hostile")
    heartbeats.answer(honest, ingest_pb2.Heartbeat(boot_id="boot", monotonic_nanos=1))

    for number in range(5000):
        beat = ingest_pb2.Heartbeat(boot_id=f"boot-{number}", monotonic_nanos=1)
        heartbeats.answer(hostile, beat)

    assert heartbeats.estimate("site", "honest", "boot") is not None
    kept = [
        heartbeats.estimate("site", "hostile", f"boot-{number}") is not None
        for number in range(5000)
    ]
    assert sum(kept) == BOOTS_KEPT
    assert all(kept[-BOOTS_KEPT:])
