"""What becomes of each key: acked once stored, rejected, skipped, or a hole that is said."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import pytest
import structlog

from matcher.client import MatcherClient
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2
from reid.v1.sighting_pb2 import KeyRange
from tests.integration.matcher_rig import Box, Serving, record, rows
from tests.support.waiting import eventually


def skipped(
    writer_id: str,
    first: int,
    last: int,
    reason: ingest_pb2.SkipReason = ingest_pb2.SKIP_REASON_CAP,
) -> ingest_pb2.Skipped:
    """What a box says of keys that will never come."""
    keys = KeyRange(writer_id=writer_id, first=first, last=last)
    return ingest_pb2.Skipped(ranges=[ingest_pb2.SkippedRange(range=keys, reason=reason)])


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
            two.send(skipped=skipped(one.writer_id, 2, 9))
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
            box.send(skipped=skipped(writer, 3, 5))
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
                skipped=skipped(box.writer_id, 1, 2, reason=ingest_pb2.SKIP_REASON_DEAD_LETTER)
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
