"""What the uplink decides without a network: lanes, window, poison, retries, bytes."""

from __future__ import annotations

import math

import grpc
import pytest

from edge.delivery import Held, SpoolCounters
from edge.uplink_lanes import BURY_AFTER_STREAMS, Lane, Lanes, Poison
from edge.uplink_messages import (
    BoxIdentity,
    batch_message,
    coarse,
    heartbeat,
    hello,
    skipped_messages,
)
from edge.uplink_retry import Backoff, EndKind, StreamEnd, end_of_goodbye, end_of_status
from reid.clock import ManualClock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from reid.v1.sighting_pb2 import Key, Sighting, SightingRecord

TEMPORARY = StreamEnd(EndKind.TEMPORARY, "gone", welcomed=True)


def lanes(window: int = 100, batch: int = 10) -> Lanes:
    return Lanes(window=window, batch_rows=batch, batch_age_s=0.064)


def test_a_live_row_waits_for_company_and_then_goes() -> None:
    stream = lanes()

    first = stream.plan(10.0, live=1, backlog=0)
    later = stream.plan(10.064, live=1, backlog=0)

    assert first.lane is None
    assert first.wait_s == pytest.approx(0.064)
    assert later.lane is Lane.LIVE


def test_a_full_batch_does_not_wait() -> None:
    assert lanes(batch=10).plan(0.0, live=10, backlog=0).lane is Lane.LIVE


def test_live_rows_do_not_wait_behind_the_backlog() -> None:
    stream = lanes(window=40, batch=10)
    sent = []
    row = 0
    for _ in range(4):
        plan = stream.plan(0.0, live=1000, backlog=1000)
        assert plan.lane is not None
        stream.sent(range(row, row + plan.max_rows), plan.lane)
        row += plan.max_rows
        sent.append((plan.lane, plan.max_rows))

    assert sorted(sent, key=lambda s: s[0].name) == [(Lane.BACKLOG, 10)] * 2 + [(Lane.LIVE, 10)] * 2
    assert stream.plan(0.0, live=1000, backlog=1000).lane is None


def test_the_backlog_has_the_whole_window_while_nothing_is_live() -> None:
    stream = lanes(window=40, batch=10)
    for start in range(0, 40, 10):
        plan = stream.plan(0.0, live=0, backlog=1000)
        assert plan.lane is Lane.BACKLOG
        stream.sent(range(start, start + 10), plan.lane)

    assert stream.plan(0.0, live=0, backlog=1000).lane is None
    assert stream.in_flight == 40


def test_a_window_of_zero_pauses_and_an_ack_opens_it() -> None:
    stream = lanes(window=10, batch=10)
    stream.sent(range(10), Lane.BACKLOG)
    assert stream.plan(0.0, live=0, backlog=5).lane is None

    stream.settled(range(10))
    opened = stream.plan(0.0, live=0, backlog=5)
    stream.window = 0
    paused = stream.plan(0.0, live=0, backlog=5)

    assert opened.lane is Lane.BACKLOG
    assert paused.lane is None


def test_a_nearly_full_window_does_not_make_tiny_batches() -> None:
    stream = lanes(window=100, batch=20)
    stream.sent(range(99), Lane.BACKLOG)

    one_free = stream.plan(0.0, live=0, backlog=500)
    stream.settled(range(19))
    twenty_free = stream.plan(0.0, live=0, backlog=500)

    assert one_free.lane is None
    assert (twenty_free.lane, twenty_free.max_rows) == (Lane.BACKLOG, 20)


def die(poison: Poison, batch: list[int], *, times: int, alone: bool = False) -> list[int | None]:
    return [poison.stream_ended(batch, alone=alone, proven=alone) for _ in range(times)]


def test_a_batch_that_three_streams_died_with_is_halved_and_goes_alone() -> None:
    poison = Poison()

    die(poison, list(range(1, 65)), times=2)
    before = poison.probe(1)
    die(poison, list(range(1, 65)), times=1)

    assert before is None
    assert poison.probe(1) == 32


def test_one_sighting_that_kills_five_proven_streams_is_buried_and_its_neighbours_are_not() -> None:
    poison = Poison()
    waiting = list(range(1, 65))
    bad = 37
    buried: list[int] = []
    streams = 0
    while bad in waiting and streams < 200:
        limit = poison.probe(waiting[0])
        batch = waiting[: limit or 64]
        if bad in batch:
            streams += 1
            victim = poison.stream_ended(batch, alone=limit is not None, proven=limit is not None)
            if victim is not None:
                buried.append(victim)
                waiting.remove(victim)
        else:
            waiting = waiting[len(batch) :]

    assert buried == [bad]
    assert poison.probe(waiting[0] if waiting else 100) in (None, 1)


def test_a_network_that_dies_again_and_again_buries_nothing() -> None:
    poison = Poison()

    victims = [poison.stream_ended([5], alone=False, proven=False) for _ in range(200)]
    unproven = [poison.stream_ended([5], alone=True, proven=False) for _ in range(200)]

    assert victims == unproven == [None] * 200


def test_progress_clears_the_suspicion() -> None:
    poison = Poison()
    die(poison, [1, 2, 3, 4], times=3)

    assert poison.probe(1) == 2
    assert poison.probe(5) is None
    assert poison.probe(1) is None


def test_the_fifth_proof_buries() -> None:
    poison = Poison()
    die(poison, [9], times=3)

    victims = die(poison, [9], times=BURY_AFTER_STREAMS, alone=True)

    assert victims == [None] * (BURY_AFTER_STREAMS - 1) + [9]


REFUSALS = ["UNAUTHENTICATED", "PERMISSION_DENIED", "FAILED_PRECONDITION", "UNIMPLEMENTED"]


@pytest.mark.parametrize("name", [*REFUSALS, "INVALID_ARGUMENT"])
def test_a_refusal_at_hello_waits_and_says_so(name: str) -> None:
    end = end_of_status(grpc.StatusCode[name], "no", welcomed=False)

    wait = Backoff(retry_min_s=0.5, retry_max_s=30, refused_s=60, seed=1).wait_s(end)

    assert end.kind is EndKind.REFUSED
    assert end.reason == f"{name}: no"
    assert 54 <= wait <= 66


@pytest.mark.parametrize(
    "code", [c for c in grpc.StatusCode if c.name not in [*REFUSALS, "INVALID_ARGUMENT"]]
)
def test_any_other_status_backs_off(code: grpc.StatusCode) -> None:
    assert end_of_status(code, "", welcomed=False).kind is EndKind.TEMPORARY
    assert end_of_status(code, "", welcomed=True).kind is EndKind.TEMPORARY


def test_the_backoff_grows_to_its_bound_and_never_gives_up() -> None:
    backoff = Backoff(retry_min_s=0.5, retry_max_s=30, refused_s=60, seed=1)

    waits = [backoff.wait_s(TEMPORARY) for _ in range(5000)]
    backoff.succeeded()
    after = backoff.wait_s(TEMPORARY)

    assert 0.25 <= waits[0] <= 0.5
    assert all(15 <= wait <= 30 for wait in waits[10:])
    assert len(set(waits[10:])) > 1000
    assert 0.25 <= after <= 0.5


@pytest.mark.parametrize(
    ("wish", "least", "most"), [(5.0, 5, 5), (1e9, 600, 600), (math.nan, 0, 0.5), (-3.0, 0, 0.5)]
)
def test_a_goodbye_says_how_long_to_wait_within_reason(
    wish: float, least: float, most: float
) -> None:
    goodbye = pb.Goodbye(reason=pb.GOODBYE_REASON_SHUTDOWN, message="bye", retry_after_s=wish)
    end = end_of_goodbye(goodbye, welcomed=True)

    wait = Backoff(retry_min_s=0.5, retry_max_s=30, refused_s=60, seed=1).wait_s(end)

    assert end.kind is EndKind.TEMPORARY
    assert least <= wait <= most


@pytest.mark.parametrize("reason", [pb.GOODBYE_REASON_CLONED, pb.GOODBYE_REASON_OTHER_LEDGER])
def test_a_clone_and_another_ledger_are_refusals(reason: pb.GoodbyeReason) -> None:
    end = end_of_goodbye(pb.Goodbye(reason=reason, message="why"), welcomed=True)

    assert end.kind is EndKind.REFUSED
    assert end.reason.endswith(": why")


def test_a_batch_is_put_together_as_protobuf_would() -> None:
    records = [
        SightingRecord(
            key=Key(writer_id="ab" * 16, seq=n),
            content_hash=bytes(32),
            sighting=Sighting(site="s" * (n * 50)),
        )
        for n in range(1, 8)
    ]
    for lane in (pb.LANE_UNSPECIFIED, pb.LANE_LIVE, pb.LANE_BACKLOG):
        message = batch_message([r.SerializeToString() for r in records], lane)

        expected = pb.StreamRequest(batch=pb.Batch(records=records, lane=lane))
        assert message == expected.SerializeToString()


def test_hello_announces_the_spaces_of_backlog_and_of_running_embedders() -> None:
    held = Held("ab" * 16, KeyRanges(), KeyRanges(), {"old/1": (4, ("f32",))}, "cd" * 16)
    box = BoxIdentity("e", "s", "x/1", {"gate": (640, 480)}, {"new/1": (8, ("f32", "i8"))})

    message = hello(box, held, clock=ManualClock(), process_id="p", accept_ledger=False).hello

    spaces = [(s.space_id, s.dimension, list(s.variant_ids)) for s in message.spaces]
    assert spaces == [("new/1", 8, ["f32", "i8"]), ("old/1", 4, ["f32"])]
    assert (message.last_ledger_id, message.wire_version) == ("cd" * 16, 1)


def test_too_many_ranges_are_joined_over_their_smallest_holes() -> None:
    keys = KeyRanges()
    for first, last in ((1, 2), (4, 5), (100, 200), (1000, 1001)):
        keys.add_range("w", first, last)

    joined = [(r.first, r.last) for r in coarse(keys, 3)]

    assert joined == [(1, 5), (100, 200), (1000, 1001)]
    assert len(coarse(keys, 100)) == 4


def test_skipped_ranges_are_told_in_messages_of_at_most_256() -> None:
    messages = skipped_messages([pb.SkippedRange()] * 600)

    assert [len(m.skipped.ranges) for m in messages] == [256, 256, 88]


def test_a_heartbeat_tells_backlog_losses_and_the_last_reply() -> None:
    clock = ManualClock()
    skipped = {"cap": 4, "unreadable": 1}
    counters = SpoolCounters(backlog=3, bytes=9, lag_s=1.5, lost_before_spool=2, skipped=skipped)

    beat = heartbeat(clock, counters, reply_to=7, reply_received=8).heartbeat

    assert (beat.backlog_sightings, beat.spool_bytes, beat.lag_s) == (3, 9, 1.5)
    assert (beat.lost_before_spool, beat.skipped_by_cap, beat.skipped_unreadable) == (2, 4, 1)
    assert (beat.reply_to_monotonic_nanos, beat.reply_received_monotonic_nanos) == (7, 8)
    assert beat.boot_id == clock.boot_id
