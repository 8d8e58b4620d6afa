"""Faults from a seed, judged by the oracle; and the oracle itself, judged by planted bugs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from reid.v1.ingest_pb2 import SKIP_REASON_CAP, SKIP_REASON_UNREADABLE
from tests.conftest import skip_or_fail
from tests.faults.judge import acked_but_absent, judge
from tests.faults.oracle import Captured, Ledger, Process, Restore, SpoolState, hole_alarms
from tests.faults.run import run, schedule
from tests.faults.soak import beyond_limit
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
    ("bug", "order", "signs"),
    [
        ("early-ack", ["kill_matcher", "kill_matcher"], ["acked, but not committed"]),
        ("seq-reuse", ["kill_box", "kill_box"], ["two contents"]),
        # What a spool or a ledger that was put back excuses ends with the keys that it touched:
        ("evict-silently", ["rolled_back_spool", "overflow"], ["unreadable on a sound disk"]),
        (
            "uncounted",
            ["rolled_back_spool", "overflow"],
            ["CAP: ", "refused before the spool", "counted as lost before the spool"],
        ),
        ("false-hole", ["restored_ledger", "kill_box"], ["a hole where there is none"]),
    ],
)
def test_the_oracle_catches_a_planted_bug(
    tmp_path: Path, bug: str, order: list[str], signs: list[str]
) -> None:
    _, verdict = run(tmp_path / "world", count=2, seed=3, order=order, plant=bug)

    assert not verdict.holds
    for sign in signs:
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
    captured.forgotten.add(("w", 1))
    captured.holes = 1

    silent = judge(captured, Ledger(), [SpoolState()])
    alarmed = judge(captured, Ledger(), [SpoolState()], alarmed=True)
    captured.holes = 2
    miscounted = judge(captured, Ledger(), [SpoolState()], alarmed=True)

    assert (alarmed.holes, alarmed.lost, alarmed.holds) == (1, 0, True)
    assert not silent.holds
    assert any("the box counts 2" in problem for problem in miscounted.problems)


def test_a_restored_ledger_excuses_a_key_only_until_it_is_acked_again(tmp_path: Path) -> None:
    before = "R w\nS w 1 aa w/1/1\nS w 2 aa w/2/1\nH 0\nA w 1 2\n"
    journal = tmp_path / "journal"
    journal.write_text(before + "A w 1 1\nH 0\nA w 2 2\n")
    restore = Restore(frozenset({("w", 1), ("w", 2)}), {journal: len(before)})

    captured = Captured.read([journal], [restore])
    verdict = judge(captured, Ledger(), [SpoolState()], alarmed=True)

    # The ack of 1 was still the old ledger's: no Welcome had come since.
    assert captured.forgotten == {("w", 1)}
    assert acked_but_absent(captured, Ledger()) == {("w", 2)}
    assert (verdict.holes, verdict.lost) == (1, 1)


def test_a_spool_put_back_excuses_unreadable_keys_of_the_writers_since_the_copy_only() -> None:
    captured = Captured(rows={("old", 1): (HASH_A, "o/1/1"), ("new", 1): (HASH_A, "n/1/1")})
    skipped = {("old", 1): SKIP_REASON_UNREADABLE, ("new", 1): SKIP_REASON_UNREADABLE}
    spool = SpoolState(skipped=dict(skipped), counters={"skipped.SKIP_REASON_UNREADABLE": 2})

    verdict = judge(captured, Ledger(skipped=dict(skipped)), [spool], rolled_back={"new"})

    assert len(verdict.problems) == 1
    assert "1 keys unreadable on a sound disk: [('old', 1)]" in verdict.problems[0]


def test_what_a_spool_told_before_it_was_put_back_is_told() -> None:
    captured = _captured(s1=HASH_A)
    ledger = Ledger(skipped={("w", 1): SKIP_REASON_CAP})

    excused = judge(captured, ledger, [SpoolState()], rolled_back={"w"})
    otherwise = judge(captured, ledger, [SpoolState()])

    assert (excused.missing, excused.holds) == ({"cap": 1}, True)
    assert otherwise.lost == 1
    assert any("skipped in the ledger, but not here" in one for one in otherwise.problems)


def test_the_verdict_sees_a_counter_of_drops_that_never_were() -> None:
    spool = SpoolState(counters={"skipped.SKIP_REASON_CAP": 1})

    verdict = judge(Captured(), Ledger(), [spool], rolled_back={"w"})

    assert any("0 keys skipped, but 1 counted" in problem for problem in verdict.problems)


def test_the_verdict_sees_keys_that_nobody_captured() -> None:
    captured = _captured(s1=HASH_A)
    captured.processes.append(Process("w"))
    near = Ledger(rows={("w", 1): HASH_A, ("w", 2): HASH_A})
    far = Ledger(rows={("w", 1): HASH_A, ("w", 1000): HASH_A})

    killed, beyond = judge(captured, near, [SpoolState()]), judge(captured, far, [SpoolState()])
    captured.processes[0] = Process("w", committed=1, ended=(1, 0, 0))
    ended = judge(captured, near, [SpoolState()])

    # A kill between a commit and its line in the journal hides one transaction, no more.
    assert killed.holds
    for verdict in (beyond, ended):
        assert any("nobody captured" in problem for problem in verdict.problems)


@pytest.mark.parametrize("lines", ["L 2 1\n", "E 5 1 1\n", "E 4 3 1\n"])
def test_the_verdict_sees_refusals_that_are_not_counted_exactly(tmp_path: Path, lines: str) -> None:
    (tmp_path / "good").write_text("R w\nS w 1 aa w/1/1\nK w 2 aa w/1/2\nL 1 1\nE 3 1 2\n")
    (tmp_path / "bad").write_text("R w\nS w 1 aa w/1/1\nS w 2 aa w/2/1\nS w 3 aa w/3/1\n" + lines)
    ledger = Ledger(rows={("w", seq): "aa" for seq in (1, 2, 3)})

    good = judge(Captured.read([tmp_path / "good"]), ledger, [SpoolState()])
    bad = judge(Captured.read([tmp_path / "bad"]), ledger, [SpoolState()])

    assert good.lost_before_spool == 2
    assert not any("before the spool" in problem for problem in good.problems)
    assert any("before the spool" in problem for problem in bad.problems)


def test_an_alarm_of_a_hole_must_name_a_key_that_a_ledger_forgot_before(tmp_path: Path) -> None:
    line = (
        "2026-01-01T00:00:00Z [error] hole edge=e what='1 sightings were issued by the box, are not"
        " in this ledger, and the box no longer holds them (first: 0123abcd…/{}); was it?'\n"
    )
    log = tmp_path / "log"
    log.write_text(line.format(7) + line.format(7) + line.format(8))
    key = ("0123abcd" + "0" * 24, 7)
    restore = Restore(frozenset({key}), log_bytes=len(line.format(7).encode()))

    alarms = hole_alarms(log, [restore])

    verdicts = [judge(Captured(), Ledger(), [], alarms=[alarm]) for alarm in alarms]
    assert [verdict.holds for verdict in verdicts] == [False, True, False]


def test_the_verdict_sees_another_content_under_a_key() -> None:
    verdict = judge(_captured(s1=HASH_A), Ledger(rows={("w", 1): HASH_B}), [SpoolState()])

    assert any("another content" in problem for problem in verdict.problems)


def test_a_soak_fails_by_a_slope_of_megabytes_beyond_the_limit_up_or_down() -> None:
    slopes = {"up_mb": 1.1, "down_mb": -1.1, "nothing_mb": math.nan, "level_mb": 0.9, "files": 5.0}

    assert beyond_limit(slopes) == ["up_mb", "down_mb", "nothing_mb"]


def test_a_world_without_the_right_to_mount_offers_no_disk_faults(tmp_path: Path) -> None:
    kinds = World(tmp_path, tmpfs=False).faults()

    assert not {"full_disk", "read_only_disk"} & set(kinds)
