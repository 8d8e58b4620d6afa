"""The server's side of the stream, over real gRPC and a real SQLite ledger."""

from __future__ import annotations

import secrets
import sqlite3
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import structlog

from matcher.client import MatcherClient
from matcher.log import LogReader
from matcher.store import LedgerStore
from reid.clock import SystemClock
from reid.codec import encode
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2
from reid.v1.sighting_pb2 import KeyRange, SightingRecord
from tests.integration.matcher_rig import Box, Serving, record
from tests.support.waiting import eventually


def rows(data_dir: Path) -> list[tuple[str, int]]:
    """Keys in the ledger's log, in order."""
    reader = LogReader(data_dir=data_dir)
    try:
        entries = reader.read(0, limit=10_000, sightings_only=True)
    finally:
        reader.close()
    return [(entry.writer_id, entry.seq) for entry in entries]


def test_sightings_are_acked_after_they_are_in_the_ledger(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()

        box.batch(*[record(box.writer_id, seq) for seq in range(1, 201)])
        keys = box.acked(200)

        assert keys.of(box.writer_id) == KeyRanges(
            [KeyRange(writer_id=box.writer_id, first=1, last=200)]
        ).of(box.writer_id)
        assert rows(tmp_path) == [(box.writer_id, seq) for seq in range(1, 201)]


def test_a_repeated_sighting_is_acked_again_and_stored_once(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        one = record(box.writer_id, 1)

        box.batch(one)
        box.acked(1)
        box.batch(one, one)
        box.acked(1)

        assert rows(tmp_path) == [(box.writer_id, 1)]


def test_a_key_with_other_content_is_rejected_and_raises_an_alarm(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        box.batch(record(box.writer_id, 1, camera="door"))
        box.acked(1)

        box.batch(record(box.writer_id, 1, camera="yard"))
        answer = box.read()

        assert answer.reject.reason == ingest_pb2.REJECT_REASON_KEY_CONFLICT
        assert rows(tmp_path) == [(box.writer_id, 1)]
        assert "other content" not in str(serving.server.readiness()["degraded"])
        assert "another content" in str(serving.server.readiness()["alarms"]["site/box"])


def test_a_bad_record_is_rejected_alone_with_the_field_that_is_wrong(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        bad = record(box.writer_id, 2, person=1)
        bad.sighting.shots[0].box.x2 = 1.5

        box.batch(record(box.writer_id, 1), bad, record(box.writer_id, 3))
        answer = box.read()
        keys = box.acked(2)

        assert answer.reject.key.seq == 2
        assert answer.reject.reason == ingest_pb2.REJECT_REASON_INVALID
        assert "shots[0].box" in answer.reject.message
        assert not keys.contains(box.writer_id, 2)


def test_a_sighting_of_another_box_is_rejected_as_foreign(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()

        box.batch(record(box.writer_id, 1, edge_id="neighbour"))

        assert box.read().reject.reason == ingest_pb2.REJECT_REASON_FOREIGN
        assert rows(tmp_path) == []


def test_a_box_cannot_receipt_the_keys_of_another_boxs_writer(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving:
        with Box(serving.address, edge_id="one") as one:
            one.welcome()
            one.batch(record(one.writer_id, 1, edge_id="one"))
            one.acked(1)
        with Box(serving.address, edge_id="two") as two:
            two.welcome()

            two.batch(record(one.writer_id, 2, edge_id="two"))
            answer = two.read()
            two.send(
                skipped=ingest_pb2.Skipped(
                    ranges=[
                        ingest_pb2.SkippedRange(
                            range=KeyRange(writer_id=one.writer_id, first=2, last=9),
                            reason=ingest_pb2.SKIP_REASON_CAP,
                        )
                    ]
                )
            )
            two.batch(record(two.writer_id, 1, edge_id="two"))
            two.acked(1)

        assert answer.reject.reason == ingest_pb2.REJECT_REASON_FOREIGN
        with Box(
            serving.address,
            edge_id="one",
            writer_id=one.writer_id,
            issued=[KeyRange(writer_id=one.writer_id, first=1, last=9)],
        ) as again:
            welcome = again.welcome()
        assert [(r.first, r.last) for r in welcome.committed] == [(1, 1)]
        assert list(welcome.skipped) == []


def test_welcome_lists_committed_and_skipped_keys_apart(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path) as serving:
        with Box(serving.address, writer_id=writer) as box:
            box.welcome()
            box.batch(*[record(writer, seq) for seq in (1, 2, 3, 7)])
            box.acked(4)
            box.send(
                skipped=ingest_pb2.Skipped(
                    ranges=[
                        ingest_pb2.SkippedRange(
                            range=KeyRange(writer_id=writer, first=3, last=5),
                            reason=ingest_pb2.SKIP_REASON_CAP,
                        )
                    ]
                )
            )
            box.batch(record(writer, 8))
            box.acked(1)

        issued = [KeyRange(writer_id=writer, first=1, last=10)]
        with Box(serving.address, writer_id=writer, issued=issued, held=issued) as box:
            welcome = box.welcome()

    assert [(r.first, r.last) for r in welcome.committed] == [(1, 3), (7, 8)]
    assert [(r.first, r.last) for r in welcome.skipped] == [(4, 5)]


def test_a_commit_beats_a_skipped(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving:
        with Box(serving.address) as box:
            box.welcome()
            box.send(
                skipped=ingest_pb2.Skipped(
                    ranges=[
                        ingest_pb2.SkippedRange(
                            range=KeyRange(writer_id=box.writer_id, first=1, last=2),
                            reason=ingest_pb2.SKIP_REASON_DEAD_LETTER,
                        )
                    ]
                )
            )

            box.batch(record(box.writer_id, 1))
            box.acked(1)

        issued = [KeyRange(writer_id=box.writer_id, first=1, last=2)]
        with Box(serving.address, writer_id=box.writer_id, issued=issued) as again:
            welcome = again.welcome()
    assert [(r.first, r.last) for r in welcome.committed] == [(1, 1)]
    assert [(r.first, r.last) for r in welcome.skipped] == [(2, 2)]


def test_receipts_outlive_a_restart(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        box.batch(*[record(box.writer_id, seq) for seq in range(1, 70)])
        box.acked(69)
        first_id = serving.server.ledger.ledger_id

    held = [KeyRange(writer_id=box.writer_id, first=1, last=100)]
    with (
        Serving(tmp_path) as serving,
        Box(serving.address, writer_id=box.writer_id, held=held, last_ledger_id=first_id) as box,
    ):
        welcome = box.welcome()

    assert welcome.ledger_id == first_id
    assert [(r.first, r.last) for r in welcome.committed] == [(1, 69)]


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


def test_an_implausible_time_is_stored_and_an_old_sighting_is_acked_and_not(
    tmp_path: Path,
) -> None:
    now = time.time_ns()
    day = 86_400_000_000_000
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()

        box.batch(
            record(box.writer_id, 1, base_ns=1),
            record(box.writer_id, 2, base_ns=now + 400 * day),
            record(box.writer_id, 3, base_ns=now - 31 * day),
        )
        box.acked(3)

        assert rows(tmp_path) == [(box.writer_id, 1), (box.writer_id, 2)]
        assert serving.server.edges.get("site", "box").expired == 1


def _with_hole(serving: Serving, writer: str) -> Box:
    """A box of whose keys 1 to 10 the first five are nowhere."""
    return Box(
        serving.address,
        writer_id=writer,
        issued=[KeyRange(writer_id=writer, first=1, last=10)],
        held=[KeyRange(writer_id=writer, first=6, last=10)],
    )


def _skipped(writer: str, last: int, reason: ingest_pb2.SkipReason) -> ingest_pb2.Skipped:
    told = KeyRange(writer_id=writer, first=1, last=last)
    return ingest_pb2.Skipped(ranges=[ingest_pb2.SkippedRange(range=told, reason=reason)])


def _beat(box: Box, number: int) -> None:
    """A heartbeat and its answer."""
    box.send(heartbeat=ingest_pb2.Heartbeat(boot_id="boot", monotonic_nanos=number))
    assert box.read().HasField("heartbeat_reply")


@pytest.mark.parametrize("by_batch", [True, False])
def test_a_hole_between_ledger_and_box_raises_an_alarm(tmp_path: Path, by_batch: bool) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path) as serving, _with_hole(serving, writer) as box:
        box.welcome()
        _beat(box, 1)
        if by_batch:
            box.batch(record(writer, 6))
        else:
            _beat(box, 2)

        alarms = serving.server.edges.get("site", "box").alarms
        eventually(
            lambda: "5 sightings were issued" in alarms.get("hole", ""),
            within_s=10,
            state=lambda: alarms,
        )


def test_keys_that_the_box_then_tells_as_skipped_raise_no_alarm(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with (
        structlog.testing.capture_logs() as logs,
        Serving(tmp_path) as serving,
        _with_hole(serving, writer) as box,
    ):
        box.welcome()
        _beat(box, 1)
        box.send(skipped=_skipped(writer, 5, ingest_pb2.SKIP_REASON_CAP))
        box.batch(*[record(writer, seq) for seq in range(6, 11)])
        box.acked(5)

        assert "hole" not in serving.server.edges.get("site", "box").alarms
    assert "hole" not in [line["event"] for line in logs]


def test_a_stream_that_breaks_before_the_box_has_told_its_skipped_raises_no_alarm(
    tmp_path: Path,
) -> None:
    writer = secrets.token_hex(16)
    with structlog.testing.capture_logs() as logs, Serving(tmp_path) as serving:
        with _with_hole(serving, writer) as box:
            box.welcome()
            _beat(box, 1)

        assert "hole" not in serving.server.edges.get("site", "box").alarms
    assert "hole" not in [line["event"] for line in logs]


def test_what_an_older_stream_left_open_is_no_alarm_beside_a_newer_one(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path) as serving, _with_hole(serving, writer) as older:
        older.welcome()
        ingest = serving.server._ingest
        assert ingest is not None
        stream = ingest._door.streams.get(("site", "box"))
        assert stream is not None
        with Box(serving.address) as newer:  # its Hello names no key that is nowhere
            newer.welcome()

            async def late() -> None:
                """The older stream's commit comes only now."""
                ingest._door.has_explained(stream)

            serving.call(late())

            assert len(stream.hole) == 5
            assert "hole" not in serving.server.edges.get("site", "box").alarms


@pytest.mark.parametrize(("told", "left"), [(5, 0), (3, 2)])
def test_the_alarm_of_a_hole_goes_for_keys_that_the_box_tells_later_as_unreadable(
    tmp_path: Path, told: int, left: int
) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path) as serving, _with_hole(serving, writer) as box:
        box.welcome()
        box.batch(record(writer, 6))
        alarms = serving.server.edges.get("site", "box").alarms
        eventually(
            lambda: "5 sightings were issued" in alarms.get("hole", ""),
            within_s=10,
            state=lambda: alarms,
        )

        box.send(skipped=_skipped(writer, told, ingest_pb2.SKIP_REASON_UNREADABLE))

        expected = f"{left} sightings were issued" if left else ""
        eventually(
            lambda: (
                alarms.get("hole", "").startswith(expected) and bool(left) == ("hole" in alarms)
            ),
            within_s=10,
            state=lambda: alarms,
        )
        with MatcherClient(serving.address) as client:
            (edge,) = client.edges()
        assert edge.skipped == told


def test_a_box_that_drops_without_telling_raises_an_alarm_until_it_tells(tmp_path: Path) -> None:
    def beats(box: Box, cap: int, count: int) -> None:
        for _ in range(count):
            box.send(heartbeat=ingest_pb2.Heartbeat(boot_id="boot", skipped_by_cap=cap))
            assert box.read().HasField("heartbeat_reply")

    def alarms() -> list[str]:
        with MatcherClient(serving.address) as client:
            (edge,) = client.edges()
            return list(edge.alarms)

    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        beats(box, cap=70, count=3)  # of an earlier ledger, or forgotten: no concern of this stream
        before = alarms()
        beats(box, cap=72, count=2)
        untold = alarms()
        readyz = serving.server.readiness()["alarms"]
        keys = KeyRange(writer_id=box.writer_id, first=1, last=2)
        told = ingest_pb2.SkippedRange(range=keys, reason=ingest_pb2.SKIP_REASON_CAP)
        box.send(skipped=ingest_pb2.Skipped(ranges=[told]))
        beats(box, cap=72, count=1)
        after = alarms()
        # A commit beats a Skipped: what comes after all takes nothing back from what was told.
        box.batch(record(box.writer_id, 1))
        box.acked(1)
        beats(box, cap=72, count=2)
        committed = alarms()

    assert before == after == committed == []
    assert "2 as CAP" in untold[0]
    assert untold == readyz["site/box"]


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


def test_the_ledger_belongs_to_one_server_at_a_time(tmp_path: Path) -> None:
    from matcher.errors import LedgerLocked

    with (
        Serving(tmp_path),
        pytest.raises(LedgerLocked, match="another edge-match"),
        Serving(tmp_path, lock_wait_s=0.0),
    ):
        pass


def test_a_port_in_use_says_which_and_what_to_do(tmp_path: Path) -> None:
    from matcher.listener import AddressInUse

    with (
        Serving(tmp_path / "one") as serving,
        pytest.raises(AddressInUse, match=f"{serving.address}.*--listen"),
        Serving(tmp_path / "two", listen=(serving.address,)),
    ):
        pass


def test_several_addresses_are_one_ledger(tmp_path: Path) -> None:
    with Serving(tmp_path, listen=("127.0.0.1:0", "127.0.0.1:0")) as serving:
        first, second = serving.server.ports
        with Box(f"127.0.0.1:{first}") as box:
            box.welcome()
            box.batch(record(box.writer_id, 1))
            box.acked(1)
        held = [KeyRange(writer_id=box.writer_id, first=1, last=1)]
        with Box(f"127.0.0.1:{second}", writer_id=box.writer_id, held=held) as box:
            welcome = box.welcome()

    assert [(r.first, r.last) for r in welcome.committed] == [(1, 1)]


def test_a_full_disk_says_goodbye_storage_and_acks_nothing_that_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        ledger = serving.server.ledger
        # SQLite's own bound gives the error of a full disk at an exact place.
        serving.call(ledger.run(lambda store: limit_pages(store, 4)))
        monkeypatch.setattr(ledger, "_free_bytes", lambda: 0)

        acked = KeyRanges()
        box.batch(*[record(box.writer_id, seq, person=seq) for seq in range(1, 641)])
        while True:
            message = box.read()
            if message.HasField("goodbye"):
                break
            for one in message.ack.ranges:
                acked.add_range(one.writer_id, one.first, one.last)

        assert message.goodbye.reason == ingest_pb2.GOODBYE_REASON_STORAGE
        stored = {seq for _, seq in rows(tmp_path)}
        assert len(stored) < 640
        assert all(
            seq in stored
            for first, last in acked.of(box.writer_id)
            for seq in range(first, last + 1)
        )
        assert not serving.server.readiness()["ready"]

        monkeypatch.undo()
        serving.call(ledger.run(lambda store: limit_pages(store, 100_000), deletes=True))
        eventually(lambda: serving.server.readiness()["ready"] or _hello(serving), within_s=10)
        with Box(serving.address, writer_id=box.writer_id) as again:
            again.welcome()
            again.batch(*[record(box.writer_id, seq, person=seq) for seq in range(1000, 1064)])
            again.acked(64)


def limit_pages(store: LedgerStore, extra: int) -> None:
    """Let the file grow by so many pages only: beyond, SQLite says that the disk is full."""
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + extra}")


def _hello(serving: Serving) -> bool:
    """Ask once: the ledger looks for room when it is asked for something."""
    with Box(serving.address) as box:
        return box.read().HasField("welcome")


def test_a_damaged_ledger_is_refused_with_the_cure(tmp_path: Path) -> None:
    from matcher.errors import LedgerUnusable

    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        box.batch(*[record(box.writer_id, seq) for seq in range(1, 65)])
        box.acked(64)
    path = tmp_path / "ledger.db"
    content = bytearray(path.read_bytes())
    content[:64] = b"x" * 64
    path.write_bytes(content)

    with pytest.raises(LedgerUnusable, match=r"damaged.*backup"), Serving(tmp_path):
        pass


def test_a_ledger_of_a_newer_release_is_not_touched(tmp_path: Path) -> None:
    from matcher.errors import LedgerUnusable

    with Serving(tmp_path):
        pass
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(LedgerUnusable, match="newer release"), Serving(tmp_path):
        pass

    assert path.read_bytes() == before
