"""The spool's bounds: queue, bytes, ages, a full disk; what goes first, and that it is counted."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.config import SpoolConfig
from edge.spool_status import spool_report
from reid.clock import ManualClock
from reid.ranges import KeyRanges
from tests.conftest import skip_or_fail
from tests.unit.edge.spool_support import (
    LEDGER,
    NONE,
    eventually,
    fill,
    keys,
    new_sighting,
    open_spool,
    take_all,
)


def test_a_full_queue_refuses_without_waiting_and_counts(tmp_path: Path) -> None:
    with open_spool(tmp_path, queue_rows=4, group_s=5.0) as spool:
        taken = [spool.put(new_sighting(n)) for n in range(10)]

        assert taken == [True] * 4 + [False] * 6
        assert spool.counters().lost_before_spool == 6


def test_the_cap_bounds_the_files_and_the_counters_equal_what_is_missing(tmp_path: Path) -> None:
    cap = 2 << 20
    with open_spool(tmp_path, max_bytes=cap) as spool:
        largest = 0
        for start in range(0, 4000, 100):
            fill(spool, 100, first=start, camera=f"camera-{start % 3}", size=1400)
            largest = max(largest, spool.counters().bytes)
        counters = spool.counters()
        told = sum(e.range.last - e.range.first + 1 for e in spool.new_skipped())
        waiting = take_all(spool)

    assert largest <= cap
    assert counters.committed == 4000
    assert counters.skipped == {"cap": 4000 - len(waiting)}
    assert told == counters.skipped["cap"]
    assert spool_report(tmp_path).skipped["cap"] == told


def test_a_cap_lowered_while_running_is_reached_without_a_new_row(tmp_path: Path) -> None:
    with open_spool(tmp_path, max_bytes=100 << 20) as spool:
        fill(spool, 3000, size=1400)
        before = spool.counters().bytes
        spool.set_config(SpoolConfig(ballast_bytes=0, max_bytes=2 << 20))

        eventually(lambda: spool.counters().bytes <= 2 << 20, spool.counters)
        assert spool.stop(20)
        counters = spool.counters()
        told = sum(entry.range.last - entry.range.first + 1 for entry in spool.new_skipped())

    assert before > 3 << 20
    assert counters.backlog > 500
    assert counters.skipped["cap"] == told == 3000 - counters.backlog


def test_a_cap_lowered_between_two_starts_is_reached_and_a_raised_one_is_used(
    tmp_path: Path,
) -> None:
    with open_spool(tmp_path, max_bytes=100 << 20) as spool:
        fill(spool, 3000, size=1400)
    with open_spool(tmp_path, max_bytes=2 << 20) as spool:
        eventually(lambda: spool.counters().bytes <= 2 << 20, spool.counters)
        spool.set_config(SpoolConfig(ballast_bytes=0, max_bytes=100 << 20))
        fill(spool, 2000, first=3001, size=1400)

        assert spool.counters().backlog == 5000 - spool.counters().skipped["cap"]
        assert spool.counters().bytes > 2 << 20


def test_eviction_takes_acked_rows_before_any_that_wait(tmp_path: Path) -> None:
    with open_spool(tmp_path, max_bytes=2 << 20) as spool:
        fill(spool, 500, size=1400)
        take_all(spool)
        spool.ack(keys(spool.writer_id, 101, 500))
        spool.release(list(range(1, 101)))

        fill(spool, 400, first=1000, size=1400)

        assert spool.counters().skipped == {}
        assert spool.waiting(after=0, upto=100) == 100


def test_eviction_takes_superseded_revisions_before_newest_ones(tmp_path: Path) -> None:
    with open_spool(tmp_path, max_bytes=2 << 20) as spool:
        for tracklet in range(300):
            for revision in (1, 2):
                new = new_sighting(tracklet, revision=revision, final=revision == 2, size=1400)
                assert spool.put(new, timeout_s=5)
        fill(spool, 150, first=1000, size=1400)

        counters = spool.counters()
        gone = KeyRanges(entry.range for entry in spool.new_skipped())

        assert counters.superseded == counters.skipped["cap"] > 0
        assert all(gone.contains(spool.writer_id, seq) is False for seq in range(2, 601, 2))


def test_one_busy_camera_does_not_push_out_a_quiet_one(tmp_path: Path) -> None:
    with open_spool(tmp_path, max_bytes=2 << 20) as spool:
        fill(spool, 20, camera="quiet", size=1400)
        fill(spool, 3000, first=100, camera="busy", size=1400)

        assert spool.counters().skipped["cap"] > 0
        assert spool.waiting(after=0, upto=20) == 20


def test_rows_in_flight_are_not_evicted(tmp_path: Path) -> None:
    with open_spool(tmp_path, max_bytes=2 << 20) as spool:
        fill(spool, 64, size=1400)
        flying = spool.take(after=0, upto=None, max_rows=64, max_bytes=1 << 20)

        fill(spool, 3000, first=100, size=1400)

        gone = KeyRanges(entry.range for entry in spool.new_skipped())
        assert gone
        assert not any(gone.contains(spool.writer_id, row.row) for row in flying)


def test_acked_rows_are_deleted_after_their_time_and_a_clock_step_deletes_nothing(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    with open_spool(tmp_path, clock=clock, acked_keep_s=100.0) as spool:
        fill(spool, 5)
        take_all(spool)
        spool.ack(keys(spool.writer_id, 1, 5))
    clock.step_utc(36_000)

    with open_spool(tmp_path, clock=clock, acked_keep_s=100.0) as spool:
        fill(spool, 1)
        kept = len(spool.held().held)
        clock.advance(101)
        eventually(lambda: len(spool.held().held) == 1, lambda: spool.held(), within_s=20)

    assert kept == 6


def test_unacked_rows_have_no_age_cap_unless_one_is_set(tmp_path: Path) -> None:
    clock = ManualClock()
    with open_spool(tmp_path, clock=clock) as spool:
        fill(spool, 5)
        clock.advance(400 * 86400)
        fill(spool, 1)
        kept = spool.counters().backlog
    with open_spool(tmp_path, clock=clock, unacked_keep_s=86400.0) as spool:
        eventually(lambda: spool.counters().skipped == {"cap": 5}, spool.counters)

        assert kept == 6
        assert spool.counters().backlog == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        skip_or_fail("no right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(folder: Path) -> Path:
    """A file that takes all that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def test_a_full_disk_takes_the_ballast_first_then_old_rows_and_delivers(small_disk: Path) -> None:
    with open_spool(small_disk / "box", ballast_bytes=8 << 20) as spool:
        fill(spool, 1000, size=1400)
        fill_up(small_disk)

        fill(spool, 3000, first=2000, size=1400)
        spool.welcome(LEDGER, NONE, NONE)
        newest = take_all(spool)[-1]

        counters = spool.counters()
        assert counters.committed == 4000
        assert counters.lost_before_spool == 0
        assert newest == 4000
        assert counters.backlog + counters.skipped["cap"] == 4000
        assert not (small_disk / "box" / "spool.ballast").exists()


def test_a_disk_without_any_room_is_said_and_left_behind_when_there_is_room(
    small_disk: Path,
) -> None:
    with open_spool(small_disk / "box", queue_rows=8) as spool:
        fill(spool, 5)
        filler = fill_up(small_disk)
        for number in range(10, 400):
            spool.put(new_sighting(number, size=100_000))
        eventually(lambda: bool(spool.counters().degraded), spool.counters)

        filler.unlink()
        eventually(lambda: not spool.counters().degraded, spool.counters)

        counters = spool.counters()
        assert counters.lost_before_spool > 0
        assert spool.flush(10)
        assert take_all(spool)[:5] == [1, 2, 3, 4, 5]
