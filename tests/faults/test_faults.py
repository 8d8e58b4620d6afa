"""Faults from a seed, judged by the oracle; and the oracle itself, judged by planted bugs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import skip_or_fail
from tests.faults.oracle import Captured, Ledger, SpoolState, judge
from tests.faults.run import run, schedule
from tests.faults.world import World, faketime_library

pytestmark = pytest.mark.slow

HASH_A, HASH_B = "aa" * 32, "bb" * 32


@pytest.mark.timeout(420)
def test_no_sighting_is_lost_or_doubled_by_one_fault_of_each_kind(tmp_path: Path) -> None:
    world, verdict = run(tmp_path / "world", count=16, seed=7)

    assert verdict.holds, verdict.problems
    assert verdict.captured > 200
    if len(world.counts) < 16:
        skip_or_fail(f"no right to mount, or no faketime ({faketime_library()}): {world.counts}")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("bug", "kinds", "sign"),
    [
        ("early-ack", ["kill_matcher"], "acked, but not committed"),
        ("evict-silently", ["overflow"], "unreadable on a sound disk"),
        ("seq-reuse", ["kill_box"], "two contents"),
    ],
)
def test_the_oracle_catches_a_planted_bug(
    tmp_path: Path, bug: str, kinds: list[str], sign: str
) -> None:
    _, verdict = run(tmp_path / "world", count=2, seed=3, kinds=kinds, plant=bug)

    assert not verdict.holds
    assert any(sign in problem for problem in verdict.problems), verdict.problems


def test_kinds_of_faults_come_equally_often_in_an_order_that_the_seed_fixes() -> None:
    kinds = ["a", "b", "c"]

    order = schedule(kinds, 30, seed=5)

    assert {kind: order.count(kind) for kind in kinds} == {"a": 10, "b": 10, "c": 10}
    assert order == schedule(kinds, 30, seed=5)
    assert order != schedule(kinds, 30, seed=6)


def _captured(**rows: str) -> Captured:
    return Captured(rows={("w", int(k[1:])): (h, f"w/{k[1:]}/1") for k, h in rows.items()})


def test_the_verdict_counts_what_is_nowhere_as_lost() -> None:
    captured = _captured(s1=HASH_A, s2=HASH_A, s3=HASH_A)
    ledger = Ledger(rows={("w", 1): HASH_A}, skipped={("w", 2): 1})
    spool = SpoolState(skipped={("w", 2): 1}, counters={"skipped.SKIP_REASON_CAP": 1})

    verdict = judge(captured, ledger, [spool])

    assert (verdict.lost, verdict.missing) == (1, {"cap": 1})
    assert not verdict.holds


def test_the_verdict_sees_counters_that_do_not_agree_with_what_is_missing() -> None:
    captured = _captured(s1=HASH_A, s2=HASH_A)
    ledger = Ledger(rows={("w", 1): HASH_A}, skipped={("w", 2): 1})
    spool = SpoolState(skipped={("w", 2): 1}, counters={"skipped.SKIP_REASON_CAP": 2})

    verdict = judge(captured, ledger, [spool])

    assert verdict.lost == 0
    assert any("counted" in problem for problem in verdict.problems)


def test_the_verdict_sees_a_content_that_stands_twice() -> None:
    captured = _captured(s1=HASH_A)
    ledger = Ledger(rows={("w", 1): HASH_A, ("w", 9): HASH_A})
    ledger.contents.update(["w/1/1", "w/1/1"])

    verdict = judge(captured, ledger, [SpoolState()])

    assert verdict.doubled == 1
    assert not verdict.holds


def test_a_hole_that_a_restored_ledger_left_needs_an_alarm() -> None:
    captured = _captured(s1=HASH_A)
    captured.acked.add(("w", 1))
    captured.holes = 1
    forgotten = {("w", 1)}

    silent = judge(captured, Ledger(), [SpoolState()], forgotten=forgotten)
    alarmed = judge(captured, Ledger(), [SpoolState()], forgotten=forgotten, alarmed=True)
    captured.holes = 2
    miscounted = judge(captured, Ledger(), [SpoolState()], forgotten=forgotten, alarmed=True)

    assert (alarmed.holes, alarmed.lost, alarmed.holds) == (1, 0, True)
    assert not silent.holds
    assert any("the box counts 2" in problem for problem in miscounted.problems)


def test_the_verdict_sees_another_content_under_a_key() -> None:
    verdict = judge(_captured(s1=HASH_A), Ledger(rows={("w", 1): HASH_B}), [SpoolState()])

    assert any("another content" in problem for problem in verdict.problems)


def test_a_world_without_the_right_to_mount_offers_no_disk_faults(tmp_path: Path) -> None:
    kinds = World(tmp_path, tmpfs=False).faults()

    assert not {"full_disk", "read_only_disk"} & set(kinds)
