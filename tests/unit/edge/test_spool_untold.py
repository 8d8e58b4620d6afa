"""What the matcher has not heard is kept until it has: however old, however many writers."""

from __future__ import annotations

from pathlib import Path

import pytest

import edge.spool_engine
from edge.delivery import Held
from edge.spool import Spool
from edge.uplink_messages import HELLO_RANGES, BoxIdentity, hello
from reid.clock import ManualClock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from tests.unit.edge.spool_support import LEDGER, NONE, fill, keys, open_spool

MONTH_S = 31 * 86400.0
CAP = 1 << 20


def upkeep(spool: Spool) -> None:
    spool._writer.call(lambda: spool._opened().engine.upkeep())


def overflow(folder: Path, clock: ManualClock) -> tuple[str, KeyRanges]:
    """A process whose rows all went by the cap or the age, and what it has to tell."""
    with open_spool(folder, clock=clock, max_bytes=CAP, unacked_keep_s=60.0) as spool:
        fill(spool, 3)
        clock.advance(61)
        upkeep(spool)
        assert not spool.held().held
        return spool.writer_id, keys(spool.writer_id, 1, 3)


def told(spool: Spool, skipped: KeyRanges = NONE) -> KeyRanges:
    """What the spool tells a matcher that knows these as skipped."""
    return KeyRanges(e.range for e in spool.welcome(LEDGER, NONE, skipped).tell)


def test_what_was_skipped_is_told_after_more_than_thirty_days_without_a_matcher(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    _, skipped = overflow(tmp_path, clock)

    with open_spool(tmp_path, clock=clock) as spool:
        clock.advance(MONTH_S)
        upkeep(spool)

        assert told(spool) == skipped


def test_what_was_skipped_is_told_however_many_writers_came_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.spool_engine, "WRITERS_KEPT", 2)
    clock = ManualClock()
    skipped = KeyRanges()
    for _ in range(5):
        skipped.update(overflow(tmp_path, clock)[1])

    with open_spool(tmp_path, clock=clock) as spool:
        upkeep(spool)

        assert told(spool) == skipped


def test_a_writer_of_which_the_matcher_knows_all_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.spool_engine, "WRITERS_KEPT", 2)
    clock = ManualClock()
    skipped = KeyRanges()
    for _ in range(5):
        skipped.update(overflow(tmp_path, clock)[1])

    with open_spool(tmp_path, clock=clock) as spool:
        assert not told(spool, skipped)
        upkeep(spool)
        remembered = spool.held().issued
        clock.advance(MONTH_S)
        upkeep(spool)
        at_last = spool.held().issued

    assert len(remembered.writers()) == 2
    assert not at_last


def test_a_forgotten_writer_is_not_taken_for_a_lost_one_at_the_next_start(tmp_path: Path) -> None:
    clock = ManualClock()
    _, skipped = overflow(tmp_path, clock)
    with open_spool(tmp_path, clock=clock) as spool:
        fill(spool, 2)
        told(spool, skipped)
        clock.advance(MONTH_S)
        upkeep(spool)
        fill(spool, 1, first=9)
        ours = spool.writer_id

    with open_spool(tmp_path, clock=clock) as spool:
        assert spool.held().issued == keys(ours, 1, 3)
        assert not told(spool)


def test_many_evictions_without_a_matcher_are_remembered_as_few_ranges(tmp_path: Path) -> None:
    with open_spool(tmp_path, max_bytes=CAP) as spool:
        fill(spool, 3000, size=1400)
        skipped = spool.counters().skipped["cap"]

        entries = spool.new_skipped()

    assert sum(e.range.last - e.range.first + 1 for e in entries) == skipped > 2000
    assert len(entries) == 1
    assert {e.reason for e in entries} == {pb.SKIP_REASON_CAP}


def test_a_hello_that_cannot_name_all_writers_names_those_that_have_something_to_tell() -> None:
    issued = KeyRanges()
    for number in range(HELLO_RANGES + 10):
        issued.add_range(f"{number:032x}", 1, 5)
    untold = frozenset(f"{number:032x}" for number in range(3))
    box = BoxIdentity("e", "s", "x/1", {}, {})

    cut, whole = (
        hello(
            box,
            Held("f" * 32, NONE, of, {}, "", unsettled=untold),
            clock=ManualClock(),
            process_id="p",
            accept_ledger=False,
        )
        for of in (issued, keys("0" * 32, 1, 5))
    )

    assert len(cut.hello.issued) == HELLO_RANGES
    assert untold <= {entry.writer_id for entry in cut.hello.issued}
    assert len(whole.hello.issued) == 1
