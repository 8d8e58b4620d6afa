"""Capture times: sender reports, learned delay, steps of clocks."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from edge.sources.capture_time import FileTimes, Instant, LiveTimes
from edge.types import CaptureTime, TimeSource

NOON = 1_750_000_000_000_000_000
SECOND = 1_000_000_000


def instant(seconds: float, *, utc_step_s: float = 0.0) -> Instant:
    return Instant(NOON + round((seconds + utc_step_s) * 1e9), round(seconds * 1e9))


def stream(times: LiveTimes, delays_s: list[float], **options: float) -> list[CaptureTime]:
    """Frames at 25/s, each arriving its delay after its exposure."""
    return [
        times.captured(
            arrival=instant(100 + number / 25 + delay, **options),
            pts_s=7000 + number / 25,
            report_unix_nanos=None,
        )
        for number, delay in enumerate(delays_s)
    ]


def test_a_frames_delay_beyond_the_smallest_is_taken_off() -> None:
    rng = random.Random(2)
    delays = [0.2 + rng.uniform(0.0, 0.1) for _ in range(250)]

    captured = stream(LiveTimes(), delays)

    errors_ms = [
        (time.unix_nanos - (NOON + (100 + number / 25) * SECOND)) / 1e6
        for number, time in enumerate(captured)
    ]
    assert all(195.0 < error < 215.0 for error in errors_ms[25:])
    assert captured[-1].source is TimeSource.ARRIVAL
    assert captured[-1].uncertainty_ms >= 215.0  # the constant part cannot be seen


def test_a_sender_report_beats_the_arrival() -> None:
    exposed = NOON + 5 * SECOND

    captured = LiveTimes().captured(arrival=instant(5.15), pts_s=1.0, report_unix_nanos=exposed)

    assert captured.source is TimeSource.SENDER_REPORT
    assert captured.unix_nanos == exposed
    assert captured.uncertainty_ms == pytest.approx(20.0)


@pytest.mark.parametrize("off_s", [-3600.0, -11.0, 1.5, 86400.0])
def test_a_camera_whose_clock_is_not_set_is_not_believed(off_s: float) -> None:
    captured = LiveTimes().captured(
        arrival=instant(5.0), pts_s=1.0, report_unix_nanos=NOON + round((5.0 + off_s) * 1e9)
    )

    assert captured.source is TimeSource.ARRIVAL
    assert captured.unix_nanos == NOON + 5 * SECOND


def test_a_camera_clock_a_little_ahead_widens_the_uncertainty() -> None:
    captured = LiveTimes().captured(
        arrival=instant(5.0), pts_s=1.0, report_unix_nanos=NOON + round(5.4 * 1e9)
    )

    assert captured.source is TimeSource.SENDER_REPORT
    assert captured.uncertainty_ms == pytest.approx(420.0)


def test_monotonic_times_grow_and_do_not_follow_a_step_of_utc() -> None:
    times = LiveTimes()

    before = stream(times, [0.2] * 25)
    after = [
        times.captured(
            arrival=instant(101.2 + number / 25, utc_step_s=-30.0),
            pts_s=7001 + number / 25,
            report_unix_nanos=None,
        )
        for number in range(25)
    ]

    monotonic = [time.monotonic_nanos for time in before + after]
    assert all(b > a for a, b in pairwise(monotonic))
    assert monotonic[25] - monotonic[24] == pytest.approx(SECOND / 25, abs=2e6)
    assert after[0].unix_nanos < before[-1].unix_nanos


def test_a_burst_after_a_stall_keeps_its_exposure_times() -> None:
    stall = [0.2] * 50 + [0.2 + (25 - number) / 25 for number in range(25)] + [0.2] * 25

    captured = stream(LiveTimes(), stall)

    steps_s = [(b.seconds - a.seconds) for a, b in pairwise(captured)]
    assert all(step == pytest.approx(0.04, abs=0.001) for step in steps_s)


def test_a_jump_of_the_timestamps_is_learned_anew() -> None:
    times = LiveTimes()
    stream(times, [0.2] * 25)

    jumped = times.captured(arrival=instant(101.2), pts_s=10.0, report_unix_nanos=None)

    assert jumped.unix_nanos == NOON + round(101.2 * 1e9)


def test_a_camera_that_sends_fewer_frames_than_it_says_is_followed() -> None:
    times = LiveTimes()

    # says 25 frames/s, sends 21
    late_s = 0.0
    for number in range(21 * 60):
        arrival = instant(100 + number / 21)
        captured = times.captured(arrival=arrival, pts_s=number / 25, report_unix_nanos=None)
        late_s = max(late_s, (arrival.monotonic_nanos - captured.monotonic_nanos) * 1e-9)

    assert late_s < 2.0


def test_frames_without_timestamps_have_their_arrival() -> None:
    captured = LiveTimes().captured(arrival=instant(5.0), pts_s=None, report_unix_nanos=None)

    assert (captured.unix_nanos, captured.monotonic_nanos) == (NOON + 5 * SECOND, 5 * SECOND)


def test_file_times_never_stand_still() -> None:
    times = FileTimes(
        start_unix_nanos=NOON,
        start_monotonic_nanos=0,
        source=TimeSource.FILE,
        uncertainty_ms=1.0,
    )

    captured = [times.captured(offset) for offset in (0.0, 0.1, 0.1, 0.05, 0.2)]

    monotonic = [time.monotonic_nanos for time in captured]
    assert monotonic == sorted(set(monotonic))
