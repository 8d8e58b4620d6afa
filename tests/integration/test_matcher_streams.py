"""A box's stream from Hello to Goodbye, and what too much of one box does to no other."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from reid.clock import SystemClock
from reid.codec import encode
from reid.v1 import ingest_pb2
from reid.v1.sighting_pb2 import KeyRange, SightingRecord
from tests.integration.matcher_rig import Box, Serving, record, rows


def test_a_newer_stream_of_a_box_supersedes_the_older(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as old:
        old.welcome()
        with Box(serving.address, process_id="process") as new:
            new.welcome()

            goodbye = old.goodbye()

            assert goodbye.reason == ingest_pb2.GOODBYE_REASON_SUPERSEDED
            new.batch(record(new.writer_id, 1))
            new.acked(1)


def test_two_processes_of_one_edge_id_in_turn_are_told_that_they_are_cloned(
    tmp_path: Path,
) -> None:
    with Serving(tmp_path) as serving:
        boxes: list[Box] = []
        reasons: list[int] = []
        try:
            for turn in range(6):
                box = Box(serving.address, process_id="a" if turn % 2 else "b")
                boxes.append(box)
                message = box.read()
                if message.HasField("goodbye"):
                    reasons.append(message.goodbye.reason)
                    assert "--new-edge-id" in message.goodbye.message
            last_good = boxes[3].goodbye()
        finally:
            for box in boxes:
                box.close()

        assert reasons == [ingest_pb2.GOODBYE_REASON_CLONED] * 2
        assert last_good.reason == ingest_pb2.GOODBYE_REASON_CLONED
        assert "new-edge-id" in str(serving.server.readiness()["alarms"])


def test_another_ledger_is_refused_until_the_owner_accepts_it(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving:
        with Box(serving.address, last_ledger_id="f" * 32) as box:
            goodbye = box.goodbye()
        with Box(serving.address, last_ledger_id="f" * 32, accept_ledger=True) as box:
            welcome = box.welcome()

    assert goodbye.reason == ingest_pb2.GOODBYE_REASON_OTHER_LEDGER
    assert "--accept-ledger" in goodbye.message
    assert welcome.ledger_id


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({"wire_version": 2}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"edge_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"writer_id": "no"}, grpc.StatusCode.INVALID_ARGUMENT),
        (
            {"cameras": [ingest_pb2.Camera(name=f"c{n}") for n in range(33)]},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            {"spaces": [ingest_pb2.Space(space_id="s", dimension=0)]},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ],
    ids=["wire version", "no edge id", "no writer id", "too many cameras", "no dimension"],
)
def test_a_hello_that_can_never_be_taken_ends_with_its_status(
    tmp_path: Path, hello: dict[str, object], code: grpc.StatusCode
) -> None:
    with Serving(tmp_path) as serving:
        box = Box.__new__(Box)
        given = dict(hello)
        writer = given.pop("writer_id", None)
        edge_id = given.pop("edge_id", "box")
        Box.__init__(box, serving.address, writer_id=writer, edge_id=edge_id, **given)  # type: ignore[arg-type]
        with box:
            assert box.status() is code
            assert box.call.details()


def test_a_stream_that_does_not_begin_with_hello_is_an_invalid_argument(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()

        box.send(hello=ingest_pb2.Hello(edge_id="box", site="site"))

        assert box.status() is grpc.StatusCode.INVALID_ARGUMENT


def test_heartbeats_are_answered_and_teach_the_boots_clock(tmp_path: Path) -> None:
    clock = SystemClock()
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        replied, arrived = 0, 0
        for _ in range(4):
            # The box's UTC is an hour ahead; its monotonic clock is the machine's.
            box.send(
                heartbeat=ingest_pb2.Heartbeat(
                    boot_id="boot",
                    monotonic_nanos=clock.monotonic_nanos(),
                    unix_nanos=clock.unix_nanos() + 3_600_000_000_000,
                    backlog_sightings=7,
                    lag_s=2.5,
                    reply_to_monotonic_nanos=replied,
                    reply_received_monotonic_nanos=arrived,
                )
            )
            answer = box.read().heartbeat_reply
            replied, arrived = answer.sent_monotonic_nanos, clock.monotonic_nanos()
            assert answer.received_unix_nanos <= answer.replied_unix_nanos

        edge = serving.server.edges.get("site", "box")
        assert edge.backlog == 7
        assert edge.clock_offset_ms == pytest.approx(3_600_000, abs=500)
        assert 0 < edge.clock_uncertainty_ms < 500


def test_a_silent_stream_is_ended_after_twenty_seconds(tmp_path: Path) -> None:
    class Fast(SystemClock):
        """Lets test time pass twenty times as fast on the monotonic clock."""

        def monotonic_nanos(self) -> int:
            return super().monotonic_nanos() * 20

    with Serving(tmp_path, clock=Fast()) as serving, Box(serving.address) as box:
        box.welcome()

        goodbye = box.goodbye()

        assert goodbye.reason == ingest_pb2.GOODBYE_REASON_SILENT


def test_shutdown_acks_what_was_sent_and_says_goodbye(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        box.batch(*[record(box.writer_id, seq) for seq in range(1, 65)])
        box.acked(64)

        serving.stop()
        goodbye = box.goodbye()

        assert goodbye.reason == ingest_pb2.GOODBYE_REASON_SHUTDOWN
        assert goodbye.retry_after_s > 0
        with pytest.raises(StopIteration):
            box.read()


def test_a_half_closed_stream_still_gets_its_acks(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        box.batch(*[record(box.writer_id, seq) for seq in range(1, 129)])
        box._out.put(None)

        keys = box.acked(128)

        assert len(keys) == 128
        assert box.status() is grpc.StatusCode.OK


def test_a_box_over_its_rate_is_slowed_and_another_is_not(tmp_path: Path) -> None:
    limits = {"sightings_per_s": 16.0}
    with Serving(tmp_path, limits=limits) as serving, Box(serving.address) as fast:
        fast.welcome()
        fast.batch(*[record(fast.writer_id, seq) for seq in range(1, 16 * 60 + 65)])
        windows: list[int] = []
        acked = 0
        while not windows:
            message = fast.read()
            if message.HasField("window"):
                windows.append(message.window.sightings)
            acked += sum(r.last - r.first + 1 for r in message.ack.ranges)

        with Box(serving.address, edge_id="other") as other:
            other.welcome()
            began = time.monotonic()
            other.batch(record(other.writer_id, 1, edge_id="other"))
            other.acked(1)
            took = time.monotonic() - began

    assert windows == [32]
    assert took < 5.0


def test_a_message_over_the_limit_ends_its_own_stream_and_no_other(tmp_path: Path) -> None:
    with (
        Serving(tmp_path) as serving,
        Box(serving.address, edge_id="other") as other,
        Box(serving.address) as box,
    ):
        most = box.welcome().limits.message_bytes
        other.welcome()
        huge = record(box.writer_id, 1)
        huge.sighting.camera = "x" * (most + (128 << 10))
        box.batch(huge)
        code, details = box.status(), box.call.details()
        for seq in range(1, 4):
            other.batch(record(other.writer_id, seq, edge_id="other"))
            other.acked(1)
        # The box may come again at once, with a message as large as is allowed.
        wide = [ingest_pb2.Space(space_id="wide", dimension=4096)]
        with Box(serving.address, writer_id=box.writer_id, spaces=wide) as again:
            again.welcome()
            large = [_large(again.writer_id, seq) for seq in range(1, 61)]
            size = ingest_pb2.StreamRequest(batch=ingest_pb2.Batch(records=large)).ByteSize()
            again.batch(*large)
            again.acked(len(large))
        stored = len(rows(tmp_path))

    assert most == 1 << 20
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in details
    assert 0.9 * most < size <= most
    assert stored == 63


def _large(writer: str, seq: int) -> SightingRecord:
    """A valid record of 17 kB: one vector of 4096 numbers in float32, and float16."""
    one = record(writer, seq)
    shot = one.sighting.shots.add(quality=0.8, detector_score=0.9)
    shot.captured.CopyFrom(one.sighting.last_seen)
    shot.box.x2, shot.box.y2 = 0.2, 0.5
    vector = np.full(4096, 1 / 64, np.float32)
    shot.embeddings.append(encode(vector, space_id="wide", variant_id="v", encoding="float32"))
    return one


@pytest.mark.parametrize("by", ["batch", "skipped", "hello"])
def test_a_box_that_names_ever_more_writers_is_sent_away_and_another_goes_on(
    tmp_path: Path, by: str
) -> None:
    ids = [f"{n:032x}" for n in range(1, 41)]
    # Of a writer that its box names none is forgotten.
    named = [KeyRange(writer_id=one, first=1, last=1) for one in ids] if by == "hello" else []
    with (
        Serving(tmp_path, limits={"writers": 16}) as serving,
        Box(serving.address, edge_id="other") as other,
    ):
        other.welcome()
        if by == "hello":
            for writer in ids[:16]:
                with Box(serving.address, writer_id=writer, issued=named) as box:
                    box.welcome()
        writer = ids[16 if by == "hello" else 0]
        with Box(serving.address, writer_id=writer, issued=named) as box:
            if by == "batch":
                box.welcome()
                box.batch(*[record(writer, 1) for writer in ids])
            elif by == "skipped":
                box.welcome()
                told = [
                    ingest_pb2.SkippedRange(
                        range=KeyRange(writer_id=writer, first=1, last=1),
                        reason=ingest_pb2.SKIP_REASON_CAP,
                    )
                    for writer in ids
                ]
                box.send(skipped=ingest_pb2.Skipped(ranges=told))
            goodbye = box.goodbye()
        alarms = serving.server.readiness()["alarms"]
        other.batch(record(other.writer_id, 1, edge_id="other"))
        others = other.acked(1)
    with sqlite3.connect(tmp_path / "ledger.db") as ledger:
        (count,) = ledger.execute("SELECT count(*) FROM writers WHERE edge_id = 'box'").fetchone()

    assert goodbye.reason == ingest_pb2.GOODBYE_REASON_OVERLOAD
    assert goodbye.retry_after_s == 60
    assert "limits.writers is 16" in goodbye.message
    assert alarms == {"site/box": [goodbye.message]}
    assert count == 16
    assert len(others) == 1


def test_a_box_that_tells_ever_more_skipped_ranges_is_slowed_and_another_is_not(
    tmp_path: Path,
) -> None:
    """At 16 sightings a second a minute's worth are 960, or 7,680 ranges."""

    def gaps(start: int) -> ingest_pb2.Skipped:
        return ingest_pb2.Skipped(
            ranges=[
                ingest_pb2.SkippedRange(
                    range=KeyRange(writer_id="a" * 32, first=at, last=at),
                    reason=ingest_pb2.SKIP_REASON_CAP,
                )
                for at in range(start, start + 512, 2)
            ]
        )

    with (
        Serving(tmp_path, limits={"sightings_per_s": 16}) as serving,
        Box(serving.address) as box,
        Box(serving.address, edge_id="other") as other,
    ):
        box.welcome()
        other.welcome()
        for message in range(60):
            box.send(skipped=gaps(1 + 512 * message))
        other.batch(record(other.writer_id, 1, edge_id="other"))
        others = other.acked(1)
        stored = serving.call(serving.server.ledger.run(lambda store: store.last_position()))
        with sqlite3.connect(tmp_path / "ledger.db") as ledger:
            (count,) = ledger.execute("SELECT count(*) FROM skipped").fetchone()

    assert len(others) == stored == 1
    assert count < 60 * 256 - 2000, "what is over a minute's worth is read slowly: 128 a second"


def test_a_box_that_floods_with_hellos_is_put_off_and_another_is_not(tmp_path: Path) -> None:
    reasons = []
    with Serving(tmp_path) as serving, Box(serving.address, edge_id="other") as other:
        other.welcome()
        for _ in range(200):
            with Box(serving.address) as box:
                answer = box.read()
                reasons.append(answer.goodbye.reason if answer.HasField("goodbye") else None)
            if reasons[-1] is not None:
                break
        with Box(serving.address, edge_id="third") as third:
            third.welcome()
        other.batch(record(other.writer_id, 1, edge_id="other"))
        others = other.acked(1)

    assert len(reasons) > 120
    assert set(reasons[:120]) == {None}
    assert reasons[-1] == ingest_pb2.GOODBYE_REASON_OVERLOAD
    assert (answer.goodbye.retry_after_s, len(others)) == (5, 1)
