"""The alarm of a box that drops without telling: when it comes, and when it must not."""

from __future__ import annotations

from matcher.told import ToldCheck
from reid.v1.ingest_pb2 import (
    SKIP_REASON_CAP,
    SKIP_REASON_DEAD_LETTER,
    SKIP_REASON_ERASED,
    SKIP_REASON_UNREADABLE,
    Heartbeat,
)


def beat(cap: int, unreadable: int = 0) -> Heartbeat:
    return Heartbeat(skipped_by_cap=cap, skipped_unreadable=unreadable)


def after_the_base(cap: int, unreadable: int = 0) -> ToldCheck:
    """A stream whose second heartbeat said so much."""
    check = ToldCheck()
    for _ in range(2):
        assert not check.heartbeat(beat(cap, unreadable))
    return check


def test_a_drop_that_is_not_told_before_the_next_heartbeat_is_said_with_its_reason() -> None:
    check = after_the_base(cap=0)

    assert not check.heartbeat(beat(5, 2)), "it may still be on its way"
    check.told(SKIP_REASON_CAP, 3)

    assert check.heartbeat(beat(5, 2)) == {"CAP": 2, "UNREADABLE": 2}


def test_what_is_told_late_after_all_clears_it() -> None:
    check = after_the_base(cap=0)
    check.heartbeat(beat(5))
    assert check.heartbeat(beat(5))

    check.told(SKIP_REASON_CAP, 5)

    assert not check.heartbeat(beat(5))


def test_drops_of_earlier_streams_are_no_concern_of_this_one() -> None:
    """Told to a ledger that forgot them, committed after all, or of writers long forgotten."""
    check = after_the_base(cap=104_468, unreadable=15)

    assert not check.heartbeat(beat(104_468, 15))


def test_what_was_due_from_before_the_stream_does_not_hide_what_is_dropped_on_it() -> None:
    check = ToldCheck()
    check.heartbeat(beat(100))
    check.told(SKIP_REASON_CAP, 100)
    check.heartbeat(beat(100))

    check.heartbeat(beat(107))

    assert check.heartbeat(beat(107)) == {"CAP": 7}


def test_other_reasons_are_not_counted_for_it() -> None:
    check = after_the_base(cap=0)
    check.told(SKIP_REASON_ERASED, 50)
    check.told(SKIP_REASON_DEAD_LETTER, 50)
    check.told(SKIP_REASON_UNREADABLE, 50)
    check.heartbeat(beat(1))

    assert check.heartbeat(beat(1)) == {"CAP": 1}


def test_a_spool_that_was_rebuilt_and_counts_less_is_no_alarm() -> None:
    check = after_the_base(cap=500)

    assert not check.heartbeat(beat(20))
    assert not check.heartbeat(beat(20))
