"""Whole streams against the real ingest service and a real ledger, without a socket.

A stream is a Hello and up to six messages of any kind, made of plausible and implausible values, or
whatever bytes parse as requests. What must hold, whatever comes: the call ends by itself or by a
status; every record that was taken is acked or rejected, unless the stream was ended; afterwards no
stream is open, the ledger works, and a sound box is served.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry

from matcher.config import LimitsConfig
from matcher.edges import EdgeBook
from matcher.ingest import IngestService
from matcher.ledger import Ledger
from reid import WIRE_VERSION
from reid.clock import ManualClock
from reid.limits import BATCH_SIGHTINGS, is_writer_id
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from reid.v1.sighting_pb2 import KeyRange, SightingRecord

WRITERS = ["ab" * 16, "cd" * 16, "ef" * 16]
RENEWED = 400  # a fresh ledger after so many streams, so that none grows without end
_TIMEOUT_S = 20.0
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
_UNIT = b"\x00\x3c" + b"\x00\x00" * 3  # (1, 0, 0, 0) as float16


class Aborted(Exception):
    """The service ended the call with a status."""


class Line:
    """Stands where gRPC's context does: gives the box's messages, keeps the server's.

    Args:
        messages: of the box.
        settled: waits until the server has committed what it took.
    """

    def __init__(
        self, messages: Sequence[pb.StreamRequest], settled: Callable[[], Awaitable[None]]
    ) -> None:
        self._messages = list(messages)
        self._settled = settled
        self.read_so_far: list[pb.StreamRequest] = []
        self.written: list[pb.StreamResponse] = []

    async def read(self) -> Any:
        await asyncio.sleep(0)
        if not self._messages:
            await self._settled()  # a box that has closed its side is told acks only
            return _EOF
        self.read_so_far.append(self._messages.pop(0))
        return self.read_so_far[-1]

    async def write(self, message: pb.StreamResponse) -> None:
        message.SerializeToString()
        self.written.append(message)

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        details.encode()
        raise Aborted(code, details)

    def auth_context(self) -> Mapping[str, Any]:
        return {}

    def peer(self) -> str:
        return "fuzz"


class Site:
    """A ledger and its ingest service, made anew now and then.

    Args:
        folder: for the ledger.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._raised: list[object] = []  # in callbacks, which the loop would only log
        self._loop.set_exception_handler(lambda _, context: self._raised.append(context))
        self._clock = ManualClock(1_790_000_000_000_000_000)
        self._streams = 0
        self._ledger: Ledger | None = None
        self._service: IngestService

    def serve(self, messages: Sequence[pb.StreamRequest]) -> None:
        """One stream with these messages; then a sound one.

        Raises:
            AssertionError: something of the module's promise does not hold.
        """
        if self._ledger is None or self._streams % RENEWED == 0:
            self._renew()
        self._streams += 1
        self._loop.run_until_complete(asyncio.wait_for(self._serve(messages), _TIMEOUT_S))
        assert self._ledger is not None
        assert self._ledger.fault is None, self._ledger.fault
        assert not self._raised, self._raised

    def close(self) -> None:
        """End ledger and loop."""
        if self._ledger is not None:
            self._ledger.close()
        self._loop.close()

    def _renew(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._ledger = Ledger(data_dir=self._folder, clock=self._clock)
        self._ledger.open(self._loop)
        self._service = IngestService(
            ledger=self._ledger,
            edges=EdgeBook(),
            limits=LimitsConfig(sightings_per_s=0),
            retention_ns=lambda _: 30 * 86400 * 10**9,
            clock=self._clock,
            registry=CollectorRegistry(),
        )

    async def _serve(self, messages: Sequence[pb.StreamRequest]) -> None:
        line = Line(messages, self._settled)
        ended = False
        try:
            await self._service.Stream(None, line)  # type: ignore[arg-type]
        except Aborted:
            ended = True
        ended |= any(one.HasField("goodbye") for one in line.written)
        if not ended:
            _everything_is_answered(line)
        assert self._service.open_streams == 0
        # Silence that ends what was remembered of copies of this box.
        self._clock.advance(1000.0)
        beat = pb.StreamRequest(heartbeat=pb.Heartbeat(monotonic_nanos=1))
        sound = Line([sound_hello(), beat], self._settled)
        await self._service.Stream(None, sound)  # type: ignore[arg-type]
        kinds = [one.WhichOneof("message") for one in sound.written]
        assert kinds[0] == "welcome", kinds
        assert "heartbeat_reply" in kinds, kinds
        self._clock.advance(1000.0)

    async def _settled(self) -> None:
        assert self._ledger is not None
        await self._ledger.run(lambda _: None)


def _everything_is_answered(line: Line) -> None:
    acked = KeyRanges()
    rejected = set()
    for one in line.written:
        acked.update(KeyRanges(one.ack.ranges))
        if one.HasField("reject"):
            rejected.add((one.reject.key.writer_id, one.reject.key.seq))
    for message in line.read_so_far[1:]:
        for record in message.batch.records:
            key = (record.key.writer_id, record.key.seq)
            known = is_writer_id(key[0]) and 0 < key[1] < 1 << 63 and acked.contains(*key)
            assert known or key in rejected, f"{key} was neither acked nor rejected"


def sound_hello() -> pb.StreamRequest:
    """What a box says."""
    hello = pb.Hello(
        edge_id="box", site="site", writer_id=WRITERS[0], boot_id="boot",
        software="fuzz", wire_version=WIRE_VERSION, process_id="process",
    )  # fmt: skip
    hello.cameras.add(name="hall", width=640, height=480)
    hello.spaces.add(space_id="space", dimension=4, variant_ids=["float32"])
    return pb.StreamRequest(hello=hello)


def parsed_stream(data: bytes) -> list[pb.StreamRequest]:
    """A sound Hello, then whatever the pieces of these bytes parse to."""
    messages = [sound_hello()]
    for piece in data.split(b"\xfe\xfd")[:6]:
        try:
            messages.append(pb.StreamRequest.FromString(piece))
        except DecodeError:
            continue
    return messages


def made_stream(source: Any) -> list[pb.StreamRequest]:
    """A stream of all kinds of messages.

    Args:
        source: an atheris.FuzzedDataProvider, or tests.fuzz.choices.Choices.
    """
    messages = [sound_hello()]
    if source.ConsumeBool():
        _bend_hello(source, messages[0].hello)
    for _ in range(source.ConsumeIntInRange(0, 6)):
        match source.ConsumeIntInRange(0, 9):
            case 0 | 1 | 2 | 3:
                messages.append(_batch(source))
            case 4 | 5:
                messages.append(_skipped(source))
            case 6 | 7:
                messages.append(_heartbeat(source))
            case 8:
                messages.append(pb.StreamRequest())  # a kind that this release does not know
            case _:
                messages.append(sound_hello())
                _bend_hello(source, messages[-1].hello)
    return messages if source.ConsumeProbability() < 0.98 else messages[1:]


def _bend_hello(source: Any, hello: pb.Hello) -> None:
    for _ in range(source.ConsumeIntInRange(1, 3)):
        match source.ConsumeIntInRange(0, 9):
            case 0:
                hello.writer_id = source.PickValueInList([*WRITERS, "", "AB" * 16, "x"])
            case 1:
                hello.edge_id = _text(source)
            case 2:
                hello.boot_id, hello.process_id = _text(source), _text(source)
            case 3:
                hello.wire_version = source.ConsumeIntInRange(0, (1 << 32) - 1)
            case 4:
                hello.cameras.add(name=_text(source), width=_uint(source, 32))
            case 5:
                hello.spaces.add(space_id=_text(source), dimension=_uint(source, 32))
            case 6:
                hello.held.extend(_ranges(source))
            case 7:
                hello.issued.extend(_ranges(source))
            case 8:
                hello.last_ledger_id, hello.accept_ledger = _text(source), source.ConsumeBool()
            case _:
                hello.software = source.ConsumeUnicodeNoSurrogates(300)


def _batch(source: Any) -> pb.StreamRequest:
    batch = pb.Batch(lane=source.ConsumeIntInRange(0, 3))
    count = source.ConsumeIntInRange(0, 4)
    if source.ConsumeProbability() < 0.01:
        count = BATCH_SIGHTINGS + 1
    for number in range(count):
        record = batch.records.add()
        record.CopyFrom(sound_record(source.ConsumeIntInRange(1, 200)))
        if number < 4:
            for _ in range(source.ConsumeIntInRange(0, 2)):
                _bend_record(source, record)
    return pb.StreamRequest(batch=batch)


def sound_record(seq: int) -> SightingRecord:
    """A record of the first writer that is taken."""
    record = SightingRecord(content_hash=bytes([seq % 256]) * 32)
    record.key.writer_id, record.key.seq = WRITERS[0], seq
    seen = record.sighting
    seen.site, seen.edge_id, seen.camera = "site", "box", "hall"
    seen.tracklet_id, seen.revision = f"{WRITERS[0]}/{seq}", 1
    seen.frame_width, seen.frame_height = 640, 480
    for time in (seen.first_seen, seen.last_seen):
        time.unix_nanos, time.monotonic_nanos = 1_790_000_000_000_000_000, seq
    shot = seen.shots.add(quality=0.5, detector_score=0.5)
    shot.box.x2 = shot.box.y2 = 1.0
    shot.embeddings.add(space_id="space", variant_id="float32", encoding=1, values=_UNIT)
    return record


def _bend_record(source: Any, record: SightingRecord) -> None:
    seen = record.sighting
    match source.ConsumeIntInRange(0, 13):
        case 0:
            record.key.writer_id = source.PickValueInList([*WRITERS, "", "AB" * 16])
        case 1:
            record.key.seq = _uint(source, 64)
        case 2:
            record.content_hash = source.ConsumeBytes(32)
        case 3:
            seen.camera = _text(source)
        case 4:
            seen.tracklet_id, seen.revision = _text(source), _uint(source, 32)
        case 5:
            time = source.PickValueInList([seen.first_seen, seen.last_seen])
            time.unix_nanos = source.ConsumeInt(8)
            time.monotonic_nanos = source.ConsumeInt(8)
            time.source = source.ConsumeIntInRange(0, 6)
        case 6:
            seen.last_seen.uncertainty_ms = source.ConsumeFloat()
            seen.first_seen.boot_id = _text(source)
        case 7:
            seen.shots[0].box.x1 = source.ConsumeFloat()
        case 8:
            seen.shots[0].embeddings[0].values = source.ConsumeBytes(8)
        case 9:
            seen.shots[0].embeddings.add(
                space_id=_text(source), encoding=source.ConsumeIntInRange(0, 4),
                values=source.ConsumeBytes(8), scale=source.ConsumeFloat(),
            )  # fmt: skip
        case 10:
            seen.statistics.add(
                space_id=_text(source), count=_uint(source, 32),
                similarity_mean=source.ConsumeFloat(), similarity_variance=source.ConsumeFloat(),
            )  # fmt: skip
        case 11:
            seen.path.add(offset_nanos=source.ConsumeInt(8)).box.y1 = source.ConsumeFloat()
        case 12:
            seen.seen_with.append(_text(source))
            seen.final = source.ConsumeBool()
        case _:
            seen.site, seen.edge_id = _text(source), _text(source)


def _skipped(source: Any) -> pb.StreamRequest:
    """Dropped, damaged, or the answer to an Erase."""
    skipped = pb.Skipped()
    for one in _ranges(source):
        skipped.ranges.add(
            range=one, reason=source.ConsumeIntInRange(0, 5),
            skipped_unix_nanos=source.ConsumeInt(8),
        )  # fmt: skip
    return pb.StreamRequest(skipped=skipped)


def _heartbeat(source: Any) -> pb.StreamRequest:
    return pb.StreamRequest(
        heartbeat=pb.Heartbeat(
            boot_id=_text(source),
            monotonic_nanos=source.ConsumeInt(8),
            unix_nanos=source.ConsumeInt(8),
            backlog_sightings=_uint(source, 64),
            spool_bytes=_uint(source, 64),
            lag_s=source.ConsumeFloat(),
            lost_before_spool=_uint(source, 64),
            skipped_by_cap=_uint(source, 64),
            reply_to_monotonic_nanos=source.ConsumeInt(8),
            reply_received_monotonic_nanos=source.ConsumeInt(8),
        )
    )


def _ranges(source: Any) -> list[KeyRange]:
    return [
        KeyRange(
            writer_id=source.PickValueInList([*WRITERS, "", "AB" * 16]),
            first=_number(source),
            last=_number(source),
        )
        for _ in range(source.ConsumeIntInRange(0, 4))
    ]


def _number(source: Any) -> int:
    """A small key, mostly."""
    return _uint(source, 64) if source.ConsumeBool() else int(source.ConsumeIntInRange(0, 300))


def _uint(source: Any, bits: int) -> int:
    return int(source.ConsumeIntInRange(0, (1 << bits) - 1))


def _text(source: Any) -> str:
    if source.ConsumeBool():
        return str(source.PickValueInList(["", "box", "site", "hall", "space", "boot", "ä" * 65]))
    return str(source.ConsumeUnicodeNoSurrogates(140))
