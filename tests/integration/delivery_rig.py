"""A real spool and a real uplink that deliver, and a receiver that does one thing wrong."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from itertools import islice
from pathlib import Path
from typing import Any

import grpc

from edge.config import SpoolConfig, UplinkConfig
from edge.spool import Spool
from edge.uplink import Uplink
from edge.uplink_messages import BoxIdentity
from reid.clock import SystemClock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from reid.v1 import ingest_pb2_grpc
from tests.faults.oracle import Ledger
from tests.faults.sightings import Walkers
from tests.support.waiting import eventually

FAST: dict[str, Any] = {
    "heartbeat_s": 0.2, "dead_after_s": 1.0, "connect_timeout_s": 3.0, "ack_timeout_s": 5.0,
    "retry_min_s": 0.05, "retry_max_s": 0.2, "refused_retry_s": 0.3,
}  # fmt: skip


class DeliveringBox:
    """A real spool and a real uplink, and made-up sightings."""

    def __init__(
        self,
        folder: Path,
        *matchers: str,
        spool: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.spool = Spool(
            config=SpoolConfig(ballast_bytes=0, group_s=0.005, **(spool or {})),
            data_dir=folder,
            clock=SystemClock(),
        )
        self.spool.open()
        self.uplink = Uplink(
            config=UplinkConfig(matchers=matchers, **{**FAST, **settings}),
            outbox=self.spool,
            identity=lambda: BoxIdentity("edge-1", "site-1", "test/1", {}, {}),
            clock=SystemClock(),
            seed=1,
        )
        self.uplink.start()
        self._walkers = iter(Walkers(self.spool.writer_id, seed=3))

    def capture(self, count: int) -> None:
        """So many sightings, committed in the spool."""
        for new in islice(self._walkers, count):
            assert self.spool.put(new, timeout_s=5)
        assert self.spool.flush(20)

    def delivered(self, within_s: float = 30) -> None:
        """Wait until nothing waits."""
        eventually(
            lambda: self.spool.counters().backlog == 0,
            within_s=within_s,
            state=lambda: (self.uplink.status(), self.spool.counters()),
        )

    def close(self) -> None:
        assert self.uplink.stop(10)
        assert self.spool.stop(10)


@contextlib.contextmanager
def delivering(folder: Path, *matchers: str, **settings: Any) -> Iterator[DeliveringBox]:
    """One such box, closed at the end."""
    box = DeliveringBox(folder, *matchers, **settings)
    try:
        yield box
    finally:
        box.close()


def ledger(folder: Path) -> Ledger:
    return Ledger.read(folder / "ledger.db")


class Misbehaving(ingest_pb2_grpc.IngestServiceServicer):
    """A server that does one thing wrong; the rest of the wire as it should be."""

    def __init__(
        self,
        wrong: Callable[[pb.StreamRequest, Any], Iterator[pb.StreamResponse]],
        limits: pb.Limits | None = None,
    ) -> None:
        self._wrong = wrong
        self._limits = limits
        self.streams = 0
        self.lock = threading.Lock()

    def Stream(self, requests: Any, context: Any) -> Iterator[pb.StreamResponse]:  # noqa: N802
        with self.lock:
            self.streams += 1
        next(requests)
        welcome = pb.Welcome(ledger_id="cd" * 16, window_sightings=256, limits=self._limits)
        yield pb.StreamResponse(welcome=welcome)
        for request in requests:
            if request.HasField("heartbeat"):
                reply = pb.HeartbeatReply(sent_unix_nanos=request.heartbeat.unix_nanos)
                yield pb.StreamResponse(heartbeat_reply=reply)
            yield from self._wrong(request, context)


@contextlib.contextmanager
def misbehaving(
    wrong: Callable[[pb.StreamRequest, Any], Iterator[pb.StreamResponse]],
    limits: pb.Limits | None = None,
    listen: str = "127.0.0.1:0",
) -> Iterator[tuple[str, Misbehaving]]:
    service = Misbehaving(wrong, limits)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    host = listen.rpartition(":")[0]
    port = server.add_insecure_port(listen)
    server.start()
    try:
        yield f"{host}:{port}", service
    finally:
        server.stop(None).wait(10)


def ack_of(batch: pb.Batch) -> pb.StreamResponse:
    keys = KeyRanges()
    for record in batch.records:
        keys.add_key(record.key)
    return pb.StreamResponse(ack=pb.Ack(ranges=keys.messages()))
