"""Spool and uplink against receivers of a few lines: poison, limits, windows, refusals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from edge.config import TlsConfig
from edge.spool_record import read_record
from edge.spool_status import spool_report
from edge.uplink_call import Ended, StreamCall, StreamStats
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from reid.v1 import ingest_pb2_grpc
from tests.integration.delivery_rig import ack_of, delivering, misbehaving
from tests.support.dns import NameServer
from tests.support.waiting import eventually
from tests.unit.edge.spool_support import new_sighting


def test_one_poisonous_sighting_becomes_a_dead_letter_and_the_others_arrive(tmp_path: Path) -> None:
    taken: set[int] = set()

    def choke(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        if request.HasField("batch"):
            if any(record.key.seq == 7 for record in request.batch.records):
                context.abort(grpc.StatusCode.INTERNAL, "cannot digest this")
            taken.update(record.key.seq for record in request.batch.records)
            yield ack_of(request.batch)

    with (
        misbehaving(choke) as (address, _),
        delivering(tmp_path / "box", address, retry_max_s=0.05) as box,
    ):
        box.capture(20)
        box.delivered(60)

        assert box.spool.counters().dead_letters == 1
    assert taken == set(range(1, 21)) - {7}


def test_a_server_that_never_acks_does_not_hold_the_rows_for_ever(tmp_path: Path) -> None:
    def swallow(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        yield from ()

    with (
        misbehaving(swallow) as (address, service),
        delivering(tmp_path / "box", address, ack_timeout_s=0.5) as box,
    ):
        box.capture(5)

        eventually(lambda: "without an ack" in box.uplink.status().last_error, within_s=20)
        eventually(lambda: service.streams >= 4, within_s=20)

        assert box.spool.counters().backlog == 5


def test_a_sighting_above_the_receivers_limit_is_a_dead_letter_at_once_and_the_others_arrive(
    tmp_path: Path,
) -> None:
    taken: set[int] = set()
    sizes: list[int] = []

    def modest(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        sizes.append(request.ByteSize())
        if request.HasField("batch"):
            taken.update(record.key.seq for record in request.batch.records)
            yield ack_of(request.batch)

    limits = pb.Limits(message_bytes=4096)
    with misbehaving(modest, limits=limits) as (address, service):
        with delivering(tmp_path / "box", address) as box:
            for number in range(1, 31):
                new = new_sighting(number, size=9000 if number == 7 else 900)
                assert box.spool.put(new, timeout_s=5)
            assert box.spool.flush(20)
            box.delivered()
            streams = service.streams
        dead = spool_report(tmp_path / "box").dead_letters

    assert taken == set(range(1, 31)) - {7}
    assert max(sizes) <= 4096
    assert streams <= 2, "no stream had to end for it"
    assert [(one.seq, one.reason) for one in dead] == [(7, "TOO_LARGE")]
    assert "at most 4096" in dead[0].message


def test_a_rejected_sighting_is_a_dead_letter_and_the_stream_goes_on(tmp_path: Path) -> None:
    def picky(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        for record in request.batch.records:
            if record.key.seq % 4 == 0:
                reject = pb.Reject(
                    key=record.key, reason=pb.REJECT_REASON_INVALID, message="box: outside"
                )
                yield pb.StreamResponse(reject=reject)
            else:
                yield ack_of(pb.Batch(records=[record]))

    with misbehaving(picky) as (address, service), delivering(tmp_path / "box", address) as box:
        box.capture(12)
        box.delivered()

        assert box.spool.counters().dead_letters == 3
        assert box.spool.counters().acked == 9
        assert service.streams <= 2  # one, and one more to announce the space


def test_a_healthy_stream_is_renewed_with_age_and_takes_the_names_new_address(
    tmp_path: Path,
) -> None:
    """gRPC's own resolver asks a name server of ours; both addresses work all the time."""
    taken: dict[str, list[int]] = {"old": [], "new": []}

    def keep(where: str) -> Callable[[pb.StreamRequest, Any], Iterator[pb.StreamResponse]]:
        def answer(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
            if request.HasField("batch"):
                taken[where] += [record.key.seq for record in request.batch.records]
                yield ack_of(request.batch)

        return answer

    with (
        misbehaving(keep("old"), listen="127.0.0.2:0") as (address, old),
        misbehaving(keep("new"), listen=f"127.0.0.3:{address.rpartition(':')[2]}") as (_, new),
        NameServer("127.0.0.2") as names,
    ):
        port = address.rpartition(":")[2]
        name = f"dns://127.0.0.1:{names.port}/matcher.example:{port}"
        plain = TlsConfig(insecure=True)
        with delivering(tmp_path / "box", name, tls=plain, stream_age_s=0.3) as box:
            box.capture(10)
            box.delivered()
            eventually(lambda: old.streams >= 4, within_s=20)
            asked, unused = names.asked, new.streams
            names.address = "127.0.0.3"
            eventually(lambda: new.streams >= 2, within_s=20)
            last = old.streams
            box.capture(10)
            box.delivered()
            eventually(lambda: new.streams >= 4, within_s=20)
            error = box.uplink.status().last_error

        assert asked >= 3, "each channel asks afresh"
        assert unused == 0
        assert old.streams == last
    assert set(taken["old"]) == set(range(1, 11))
    assert set(taken["new"]) == set(range(1, 21)), "its Welcome listed nothing: all came again"
    assert error == "", "no stream ended by a fault"


def test_window_zero_pauses_and_a_later_window_goes_on(tmp_path: Path) -> None:
    opened = threading.Event()

    def narrow(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        if request.HasField("batch"):
            yield ack_of(request.batch)
            if not opened.is_set():
                yield pb.StreamResponse(window=pb.Window(sightings=0))
        elif opened.is_set():
            yield pb.StreamResponse(window=pb.Window(sightings=64))

    with misbehaving(narrow) as (address, _), delivering(tmp_path / "box", address) as box:
        box.capture(300)
        eventually(lambda: box.uplink.status().window == 0, within_s=10)
        eventually(lambda: box.uplink.status().in_flight == 0, within_s=10)
        box.capture(50)
        paused = box.spool.counters().backlog
        opened.set()

        box.delivered()

    assert paused >= 50


def test_what_was_dropped_here_was_told_there_key_by_key(tmp_path: Path) -> None:
    heard = KeyRanges()

    def closed(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        for entry in request.skipped.ranges:
            assert entry.reason == pb.SKIP_REASON_CAP
            heard.add_range(entry.range.writer_id, entry.range.first, entry.range.last)
        yield pb.StreamResponse(window=pb.Window(sightings=0))

    def agrees() -> bool:
        dropped = box.spool.counters().skipped.get("cap", 0)
        return dropped == box.uplink.status().told_skipped.get("cap") == len(heard)

    small = {"max_bytes": 3 << 20}
    with misbehaving(closed) as (address, service):
        with delivering(tmp_path / "box", "127.0.0.1:1", spool=small) as box:
            box.capture(3000)
            before = box.spool.counters().skipped["cap"]
            unknown = box.uplink.status().told_skipped
        with delivering(tmp_path / "box", address, spool=small) as box:
            eventually(agrees, within_s=20, state=lambda: (box.uplink.status(), len(heard)))
            box.capture(500)
            eventually(agrees, within_s=20, state=lambda: (box.uplink.status(), len(heard)))
            after, streams = len(heard), service.streams
            # This matcher's Welcome lists nothing: all is told again, and counted once.
            box.uplink.reload(box.uplink._config)
            eventually(lambda: service.streams > streams, within_s=20)
            eventually(agrees, within_s=20, state=lambda: (box.uplink.status(), len(heard)))

    assert unknown == {}
    assert after > before > 0


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "FAILED_PRECONDITION", "UNIMPLEMENTED"])
def test_a_refusal_is_said_keeps_the_rows_and_is_tried_again(tmp_path: Path, code: str) -> None:
    class Refusing(ingest_pb2_grpc.IngestServiceServicer):
        asked = 0

        def Stream(self, requests: Any, context: Any) -> Any:  # noqa: N802
            Refusing.asked += 1
            context.abort(grpc.StatusCode[code], "not you")

    server = grpc.server(futures.ThreadPoolExecutor(4))
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(Refusing(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with delivering(tmp_path / "box", f"127.0.0.1:{port}") as box:
            box.capture(5)
            eventually(lambda: Refusing.asked >= 2, within_s=20)

            assert box.uplink.status().refused == f"{code}: not you"
            assert not box.uplink.drain(5)
            assert box.spool.counters().backlog == 5
    finally:
        server.stop(None).wait(10)


def test_the_reason_of_a_refusal_survives_a_write_that_crosses_it() -> None:
    """grpc.aio put INTERNAL over one refusal in four (grpc/grpc#36066)."""

    class Refusing(ingest_pb2_grpc.IngestServiceServicer):
        def Stream(self, requests: Any, context: Any) -> Any:  # noqa: N802
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not you")

    async def refusal(address: str) -> str:
        async with grpc.aio.insecure_channel(address) as channel:
            call = StreamCall(channel, stats=StreamStats())
            try:
                await call.write(b"")
                message = await anext(call.responses())
            except Ended as ended:
                return ended.end.reason
            return f"not refused: {message}"

    async def refusals(address: str, n: int) -> set[str]:
        return {await refusal(address) for _ in range(n)}

    server = grpc.server(futures.ThreadPoolExecutor(4))
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(Refusing(), server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        reasons = asyncio.run(refusals(address, 60))
    finally:
        server.stop(None).wait(10)

    assert reasons == {"UNAUTHENTICATED: not you"}


def test_records_travel_as_they_stand_in_the_spool(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def keep(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        if request.HasField("batch"):
            seen.extend(record.SerializeToString() for record in request.batch.records)
            yield ack_of(request.batch)

    with misbehaving(keep) as (address, _), delivering(tmp_path / "box", address) as box:
        box.capture(20)
        box.delivered()

    heads = [read_record(record) for record in seen]
    assert sorted({head.seq for head in heads}) == list(range(1, 21))
