"""Clocks of boots: offset, drift, and what a correction is worth."""

from __future__ import annotations

import numpy as np
import pytest

from matcher.clocks import BootClock, ClockEstimate, HeartbeatMemory
from matcher.times import corrected, is_recorded
from reid.v1.sighting_pb2 import TIME_SOURCE_ARRIVAL, TIME_SOURCE_FILE, CaptureTime

MS = 1_000_000
S = 1_000_000_000
OFFSET = 1_790_000_000 * S


def exchanges(
    clock: BootClock,
    *,
    count: int,
    every_s: float,
    drift: float = 0.0,
    seed: int = 1,
    up_ms: float = 5.0,
    down_ms: float = 5.0,
) -> int:
    """Feed exchanges with random queueing; the box's last monotonic time."""
    random = np.random.default_rng(seed)
    mono = S
    for _ in range(count):
        up = round((up_ms + random.exponential(20)) * MS)
        down = round((down_ms + random.exponential(20)) * MS)
        t1 = mono
        t2 = t1 + up + OFFSET + round((t1 + up - S) * drift)
        t3 = t2 + MS
        t4 = t1 + up + MS + down
        clock.exchange(t1, t2, t3, t4)
        mono += round(every_s * S)
    return mono


def test_offset_is_learned_within_its_own_uncertainty() -> None:
    clock = BootClock("boot")

    at = exchanges(clock, count=60, every_s=5)

    estimate = clock.current
    assert estimate is not None
    assert abs(estimate.utc(at) - (at + OFFSET)) <= estimate.uncertainty_ns
    assert estimate.uncertainty_ns < 15 * MS


def test_drift_is_learned_and_used_hours_later() -> None:
    clock = BootClock("boot")
    drift = 40e-6

    at = exchanges(clock, count=720, every_s=5, drift=drift)

    estimate = clock.current
    assert estimate is not None
    assert estimate.drift == pytest.approx(drift, rel=0.1)
    later = at + 3 * 3600 * S
    truth = later + OFFSET + round((later - S) * drift)
    assert abs(estimate.utc(later) - truth) < 60 * MS
    assert abs(later + OFFSET - truth) > 500 * MS


def test_an_exchange_across_a_step_of_our_own_clock_says_nothing() -> None:
    clock = BootClock("boot")

    clock.exchange(S, OFFSET + S, OFFSET + S - 5, S + MS)
    clock.exchange(2 * S, OFFSET, OFFSET + 10 * S, 2 * S + MS)

    assert clock.current is None


def test_one_heartbeat_already_says_something() -> None:
    clock = BootClock("boot")

    clock.one_way(S, OFFSET + S + 30 * MS)

    assert clock.current is not None
    assert clock.current.utc(S) == OFFSET + S + 30 * MS
    assert clock.current.uncertainty_ns == S


def test_only_news_is_worth_noting() -> None:
    clock = BootClock("boot")
    exchanges(clock, count=10, every_s=5)

    first, second = clock.worth_noting(), clock.worth_noting()

    assert first is not None
    assert second is None
    assert ClockEstimate.from_dict(first.as_dict()) == first


def test_answers_are_remembered_until_they_are_returned_once() -> None:
    memory = HeartbeatMemory()
    for t1 in range(1, 12):
        memory.answered(t1, t1 + 1, t1 + 2)

    assert memory.returned(11) == (12, 13)
    assert memory.returned(11) is None
    assert memory.returned(1) is None


def test_a_live_time_is_corrected_and_a_files_time_is_not() -> None:
    estimate = ClockEstimate("boot", S, OFFSET, 0.0, 3 * MS)
    live = CaptureTime(
        unix_nanos=5, source=TIME_SOURCE_ARRIVAL, monotonic_nanos=9 * S, uncertainty_ms=2
    )
    file = CaptureTime(unix_nanos=77 * S, source=TIME_SOURCE_FILE, monotonic_nanos=9 * S)

    assert corrected(live, estimate, OFFSET + 20 * S) == (OFFSET + 9 * S, 5 * MS, True)
    assert corrected(file, estimate, OFFSET)[0] == 77 * S
    assert is_recorded(file)
    assert not is_recorded(live)


@pytest.mark.parametrize(
    ("unix", "why"),
    [(0, "unknown"), (5, "1970"), (OFFSET + 2 * 3600 * S, "two hours ahead of its commit")],
)
def test_a_time_that_cannot_be_true_is_implausible(unix: int, why: str) -> None:
    assert corrected(CaptureTime(unix_nanos=unix), None, OFFSET)[2] is False, why
