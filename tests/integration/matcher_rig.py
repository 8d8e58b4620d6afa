"""A real matcher in a thread, a small box that speaks the wire by hand, and what came of it."""

from __future__ import annotations

import asyncio
import hashlib
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from matcher.client import LocalSource, MatcherClient
from matcher.config import MatcherConfig
from matcher.log import LogReader
from matcher.server import MatcherServer
from reid.clock import Clock
from reid.codec import encode
from reid.ranges import KeyRanges
from reid.tls import TlsFiles, channel_credentials
from reid.v1 import ingest_pb2, ingest_pb2_grpc
from reid.v1.query_pb2 import SightingFilter
from reid.v1.sighting_pb2 import TIME_SOURCE_ARRIVAL, Key, Sighting, SightingRecord

WAIT_S = 20.0
DIMENSION = 32
SPACE = "space/1"
SETTINGS = {"association": {"default_threshold": 0.8}}


class Serving:
    """A MatcherServer with an event loop of its own; a context manager."""

    def __init__(self, data_dir: Path, *, clock: Clock | None = None, **settings: Any) -> None:
        settings.setdefault("listen", ("127.0.0.1:0",))
        settings.setdefault("metrics", "")
        settings.setdefault("shutdown_s", 5.0)
        settings.setdefault("lock_wait_s", 5.0)
        self.config = MatcherConfig.model_validate({"data_dir": data_dir, **settings})
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-server")
        self.server: MatcherServer

    def __enter__(self) -> Serving:
        self._thread.start()
        try:
            self.server = self.call(self._make())
        except BaseException:
            self._end_loop()
            raise
        return self

    async def _make(self) -> MatcherServer:
        server = MatcherServer(self.config, clock=self._clock)
        await server.start()
        return server

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Drain and end; may be called twice."""
        if self._thread.is_alive():
            self.call(self.server.stop())
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, coroutine: Any) -> Any:
        """Run a coroutine in the server's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server.ports[0]}"

    def caught_up(self) -> None:
        """Wait until association has read everything that is committed."""
        end = self.call(self.server.ledger.run(lambda store: store.last_position()))
        assert self.server.association.wait_for(end, WAIT_S), "association did not catch up"


class Box:
    """One stream of a box, by hand. Closed by the context manager."""

    def __init__(
        self,
        address: str,
        *,
        writer_id: str | None = None,
        edge_id: str = "box",
        site: str = "site",
        process_id: str = "process",
        tls: TlsFiles | None = None,
        **hello: Any,
    ) -> None:
        self.writer_id = writer_id or secrets.token_hex(16)
        self.edge_id, self.site = edge_id, site
        self._out: queue.Queue[ingest_pb2.StreamRequest | None] = queue.Queue()
        if tls is None:
            self._channel = grpc.insecure_channel(address)
        else:
            self._channel = grpc.secure_channel(address, channel_credentials(tls))
        stub: Any = ingest_pb2_grpc.IngestServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.call = stub.Stream(self._requests(), timeout=60)
        fields: dict[str, Any] = {
            "edge_id": edge_id,
            "site": site,
            "writer_id": self.writer_id,
            "boot_id": "boot",
            "wire_version": 1,
            "process_id": process_id,
            "software": "test/1",
            "cameras": [ingest_pb2.Camera(name="door")],
            "spaces": [ingest_pb2.Space(space_id=SPACE, dimension=DIMENSION)],
        }
        fields.update(hello)
        self.send(hello=ingest_pb2.Hello(**fields))

    def _requests(self) -> Iterator[ingest_pb2.StreamRequest]:
        while (request := self._out.get()) is not None:
            yield request

    def send(self, **message: Any) -> None:
        """Send one message."""
        self._out.put(ingest_pb2.StreamRequest(**message))

    def batch(self, *records: SightingRecord) -> None:
        """Send records, 64 at a time."""
        for start in range(0, len(records), 64):
            self.send(batch=ingest_pb2.Batch(records=records[start : start + 64]))

    def read(self) -> ingest_pb2.StreamResponse:
        """The next message; raises grpc.RpcError or StopIteration at the end."""
        message: ingest_pb2.StreamResponse = next(self.call)
        return message

    def welcome(self) -> ingest_pb2.Welcome:
        """The answer to Hello."""
        message = self.read()
        assert message.HasField("welcome"), message
        return message.welcome

    def acked(self, count: int) -> KeyRanges:
        """Read until so many keys are acked; other messages are failures."""
        keys = KeyRanges()
        while len(keys) < count:
            message = self.read()
            assert message.HasField("ack"), message
            for one in message.ack.ranges:
                keys.add_range(one.writer_id, one.first, one.last)
        return keys

    def goodbye(self) -> ingest_pb2.Goodbye:
        """Read until Goodbye, over acks."""
        while True:
            message = self.read()
            if message.HasField("goodbye"):
                return message.goodbye

    def status(self) -> grpc.StatusCode:
        """Read to the end; the call's status."""
        try:
            for _ in self.call:
                pass
        except grpc.RpcError:
            pass
        code: grpc.StatusCode = self.call.code()
        return code

    def close(self) -> None:
        """Half-close and disconnect."""
        self._out.put(None)
        self.call.cancel()
        self._channel.close()

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def direction(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A unit vector; equal seeds give equal vectors."""
    vector = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return vector / np.linalg.norm(vector)


def record(
    writer_id: str,
    seq: int,
    *,
    person: int | None = None,
    camera: str = "door",
    tracklet: int | None = None,
    revision: int = 1,
    final: bool = False,
    first_s: float = 0.0,
    last_s: float = 1.0,
    base_ns: int | None = None,
    seen_with: Sequence[str] = (),
    noise: float = 0.0,
    site: str = "site",
    edge_id: str = "box",
    source: int = TIME_SOURCE_ARRIVAL,
    count: int = 0,
) -> SightingRecord:
    """A valid record.

    Args:
        person: seed of its vector; None: no shots.
        tracklet: number of the tracklet; seq where it is not given.
        first_s, last_s: seconds after base_ns (default: now).
    """
    base = time.time_ns() if base_ns is None else base_ns
    sighting = Sighting(
        site=site,
        edge_id=edge_id,
        camera=camera,
        tracklet_id=f"{writer_id}/{seq if tracklet is None else tracklet}",
        revision=revision,
        final=final,
        frame_width=640,
        frame_height=480,
        seen_with=seen_with,
    )
    for time_field, seconds in ((sighting.first_seen, first_s), (sighting.last_seen, last_s)):
        time_field.unix_nanos = base + round(seconds * 1e9)
        time_field.monotonic_nanos = 1_000_000_000 + round(seconds * 1e9)
        time_field.boot_id = "boot"
        time_field.uncertainty_ms = 5.0
        time_field.source = source  # type: ignore[assignment]
    if person is not None:
        shot = sighting.shots.add(quality=0.8, detector_score=0.9)
        shot.captured.CopyFrom(sighting.last_seen)
        shot.box.x2, shot.box.y2 = 0.2, 0.5
        vector = direction(person)
        if noise:
            vector = vector + noise * direction(person * 1000 + seq)
        shot.embeddings.append(encode(vector, space_id=SPACE, variant_id="float32"))
    if count:
        sighting.statistics.add(
            space_id=SPACE, count=count, similarity_mean=0.9, similarity_variance=0.01
        )
    content = sighting.SerializeToString()
    return SightingRecord(
        key=Key(writer_id=writer_id, seq=seq),
        content_hash=hashlib.sha256(content).digest(),
        sighting=sighting,
    )


def deliver(serving: Serving, *records: SightingRecord, **hello: object) -> None:
    """Send records of one box, and wait until association has read them."""
    key = records[0].key.writer_id
    edge_id = records[0].sighting.edge_id
    with Box(serving.address, writer_id=key, edge_id=edge_id, **hello) as box:  # type: ignore[arg-type]
        box.welcome()
        box.batch(*records)
        box.acked(len({one.key.seq for one in records}))
    serving.caught_up()


def rows(data_dir: Path) -> list[tuple[str, int]]:
    """Keys in the ledger's log, in order."""
    reader = LogReader(data_dir=data_dir)
    try:
        entries = reader.read(0, limit=10_000, sightings_only=True)
    finally:
        reader.close()
    return [(entry.writer_id, entry.seq) for entry in entries]


def groups(client: MatcherClient | LocalSource) -> set[frozenset[str]]:
    """Identities as sets of tracklet numbers."""
    return {
        frozenset(one.tracklet_id.rpartition("/")[2] for one in identity.tracklets)
        for identity in client.identities(SightingFilter())
    }
