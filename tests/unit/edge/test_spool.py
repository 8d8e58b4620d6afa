"""The spool's promises: existence, keys, acks, the matcher's word, seals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.config import SpoolConfig
from edge.spool import Spool
from edge.spool_errors import SpoolInUse, SpoolKeyError
from edge.spool_record import read_record
from edge.spool_status import request_resend, spool_report
from reid.clock import ManualClock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from reid.v1.sighting_pb2 import SightingRecord
from tests.unit.edge.spool_support import LEDGER, NONE, eventually, fill, keys, open_spool, take_all


def test_rows_come_back_in_order_with_growing_keys(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        fill(spool, 5)

        rows = spool.take(after=0, upto=None, max_rows=10, max_bytes=1 << 20)

        records = [SightingRecord.FromString(row.record) for row in rows]
        assert [record.key.seq for record in records] == [1, 2, 3, 4, 5]
        assert {record.key.writer_id for record in records} == {spool.writer_id}
        tracklets = [record.sighting.tracklet_id.rpartition("/")[2] for record in records]
        assert tracklets == ["1", "2", "3", "4", "5"]


def test_a_row_in_flight_is_not_taken_twice_and_waits_again_when_released(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        fill(spool, 3)
        first = take_all(spool)

        nothing = take_all(spool)
        spool.release(first)
        again = take_all(spool)

        assert nothing == []
        assert again == first == [1, 2, 3]


def test_unacked_rows_are_there_after_a_restart_and_acked_ones_do_not_wait(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        fill(spool, 10)
        take_all(spool)
        spool.ack(keys(spool.writer_id, 1, 4))
        old = spool.writer_id

    with open_spool(tmp_path) as spool:
        rows = spool.take(after=0, upto=None, max_rows=64, max_bytes=1 << 20)

        found = [read_record(row.record) for row in rows]
        assert [(head.writer_id, head.seq) for head in found] == [(old, n) for n in range(5, 11)]
        assert spool.held().held == keys(old, 1, 10)


def test_every_start_has_a_new_writer(tmp_path: Path) -> None:
    writers = set()
    for _ in range(3):
        with open_spool(tmp_path) as spool:
            fill(spool, 2)
            writers.add(spool.writer_id)

    assert len(writers) == 3


def test_the_whole_folder_rolled_back_never_gives_an_old_key_to_new_content(tmp_path: Path) -> None:
    folder, copy = tmp_path / "box", tmp_path / "copy"
    with open_spool(folder) as spool:
        fill(spool, 5)
    subprocess.run(["cp", "-a", folder, copy], check=True)
    with open_spool(folder) as spool:
        fill(spool, 5, first=100)
        given = {read_record(r.record).payload: read_record(r.record) for r in _taken(spool)}
    subprocess.run(["rm", "-r", folder], check=True)
    copy.rename(folder)

    with open_spool(folder) as spool:
        fill(spool, 5, first=200)
        after = [read_record(row.record) for row in _taken(spool)]

    key_of = {(head.writer_id, head.seq): payload for payload, head in given.items()}
    for head in after:
        assert key_of.get((head.writer_id, head.seq), head.payload) == head.payload


def _taken(spool: Spool) -> list:  # type: ignore[type-arg]
    return spool.take(after=0, upto=None, max_rows=1000, max_bytes=1 << 20)


def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with open_spool(tmp_path):
        other = Spool(config=SpoolConfig(), data_dir=tmp_path, clock=ManualClock())

        with pytest.raises(SpoolInUse) as error:
            other.open()

        assert "--data-dir" in str(error.value)


def test_welcome_marks_what_the_ledger_has_and_sends_the_rest_again(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        fill(spool, 10)
        take_all(spool)
        spool.ack(keys(spool.writer_id, 1, 10))

        outcome = spool.welcome(LEDGER, keys(spool.writer_id, 1, 6), NONE)

        assert outcome.refilled == 4
        assert take_all(spool) == [7, 8, 9, 10]


def _ten_acked_and_gone(folder: Path, clock: ManualClock) -> str:
    """A spool whose ten rows went after their ack, by age; their writer."""
    with open_spool(folder, clock=clock, acked_keep_s=60.0) as spool:
        fill(spool, 10)
        take_all(spool)
        spool.ack(keys(spool.writer_id, 1, 10))
        writer = spool.writer_id
    with open_spool(folder, clock=clock, acked_keep_s=60.0) as spool:
        clock.advance(61)
        eventually(lambda: not spool.held().held, spool.held)
    return writer


def test_welcome_says_a_hole_when_neither_side_has_a_key(tmp_path: Path) -> None:
    clock = ManualClock()
    writer = _ten_acked_and_gone(tmp_path, clock)
    with open_spool(tmp_path, clock=clock) as spool:
        outcome = spool.welcome(LEDGER, keys(writer, 1, 7), NONE)

        assert outcome.holes == 3


def test_an_answer_that_was_cut_raises_no_alarm_and_gives_nothing_up(tmp_path: Path) -> None:
    clock = ManualClock()
    writer = _ten_acked_and_gone(tmp_path, clock)
    (tmp_path / "spool.sqlite").unlink()
    with open_spool(tmp_path, clock=clock) as spool:
        cut = spool.welcome(LEDGER, keys(writer, 1, 7), NONE, complete=False)
        whole = spool.welcome(LEDGER, keys(writer, 1, 9), NONE)

        assert (cut.holes, cut.tell) == (0, ())
        assert [(e.range.first, e.range.last) for e in whole.tell] == [(10, 10)]


def test_skipped_is_told_until_welcome_lists_it(tmp_path: Path) -> None:
    with open_spool(tmp_path, max_bytes=2 << 20) as spool:
        fill(spool, 2000, size=1400)
        first = spool.welcome(LEDGER, NONE, NONE).tell
        listed = KeyRanges(entry.range for entry in first)

        again = spool.welcome(LEDGER, NONE, NONE).tell
        after = spool.welcome(LEDGER, NONE, listed).tell

        assert first
        assert KeyRanges(entry.range for entry in again) == listed
        assert after == ()
        assert {entry.reason for entry in first} == {pb.SKIP_REASON_CAP}


def test_a_rejected_row_is_a_dead_letter_until_it_is_sent_again(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        fill(spool, 3)
        take_all(spool)
        row = spool.reject(spool.writer_id, 2, pb.REJECT_REASON_INVALID, "revision: 0")
        spool.release([1, 3])
        assert row == 2
        assert take_all(spool) == [1, 3]
        assert spool.counters().dead_letters == 1
    report = spool_report(tmp_path)
    assert [(d.seq, d.reason, d.message) for d in report.dead_letters] == [
        (2, "INVALID", "revision: 0")
    ]

    resent = request_resend(tmp_path, config=SpoolConfig())

    assert resent == 1
    with open_spool(tmp_path) as spool:
        assert take_all(spool) == [1, 2, 3]


def test_dead_letters_of_a_running_box_are_sent_again_by_request(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        fill(spool, 1)
        take_all(spool)
        spool.reject(spool.writer_id, 1, pb.REJECT_REASON_INVALID, "no")

        asked = request_resend(tmp_path, config=SpoolConfig())

        assert asked is None
        eventually(lambda: spool.counters().dead_letters == 0, spool.counters)
        assert take_all(spool) == [1]


def test_a_dead_letter_is_told_and_not_taken_for_committed(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        fill(spool, 2)
        take_all(spool)
        spool.reject(spool.writer_id, 1, pb.REJECT_REASON_INVALID, "no")

        told = spool.welcome(LEDGER, keys(spool.writer_id, 2, 2), NONE).tell
        spool.welcome(LEDGER, keys(spool.writer_id, 2, 2), keys(spool.writer_id, 1, 1))

        assert [entry.reason for entry in told] == [pb.SKIP_REASON_DEAD_LETTER]
        assert spool.counters().dead_letters == 1


def test_a_key_conflict_writes_the_row_under_a_new_key(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        fill(spool, 3)
        before = {r.row: read_record(r.record) for r in _taken(spool)}

        spool.reject(spool.writer_id, 2, pb.REJECT_REASON_KEY_CONFLICT, "other content")

        eventually(lambda: spool.counters().rekeyed == 1, spool.counters)
        fresh = [read_record(row.record) for row in _taken(spool)]
        assert [(head.seq, head.payload) for head in fresh] == [(4, before[2].payload)]
        outcome = spool.welcome(LEDGER, keys(spool.writer_id, 2, 2), NONE)
        assert outcome.holes == 0


def test_erased_rows_are_gone_and_told(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        fill(spool, 6, size=800)
        take_all(spool)
        spool.ack(keys(spool.writer_id, 1, 3))

        told = spool.erase(keys(spool.writer_id, 2, 5))

        assert [(e.range.first, e.range.last, e.reason) for e in told] == [
            (2, 5, pb.SKIP_REASON_ERASED)
        ]
        assert spool.held().held == KeyRanges(
            [k for r in ((1, 1), (6, 6)) for k in keys(spool.writer_id, *r).messages()]
        )
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert (1).to_bytes(8, "little") * 90 in content
    assert (4).to_bytes(8, "little") * 90 not in content


def test_lag_is_right_though_the_clock_was_set_since_and_counts_the_time_switched_off(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    with open_spool(tmp_path, clock=clock) as spool:
        fill(spool, 1)
        clock.advance(10)
        clock.step_utc(56 * 365 * 86400)  # it came up in 1970, and a time server was found
        lag_s = spool.counters().lag_s
        fill(spool, 1)
        take_all(spool)
        spool.ack(keys(spool.writer_id, 1, 1))
    clock.step_utc(3600)  # switched off: UTC goes on, the spool's running time does not

    with open_spool(tmp_path, clock=clock) as spool:
        after_s = spool.counters().lag_s

    assert lag_s == pytest.approx(10, abs=0.1)
    assert after_s == pytest.approx(3600, abs=0.1)


def test_a_killed_process_leaves_every_row_whose_commit_had_returned(tmp_path: Path) -> None:
    script = (
        "import sys, itertools\n"
        "from pathlib import Path\n"
        "from tests.unit.edge.spool_support import *\n"
        "with open_spool(Path(sys.argv[1])) as spool:\n"
        "    print(spool.writer_id, flush=True)\n"
        "    for n in itertools.count(1):\n"
        "        fill(spool, 7, first=n)\n"
        "        print(spool.counters().committed, flush=True)\n"
    )
    for _ in range(3):
        box = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert box.stdout is not None
        writer = box.stdout.readline().strip()
        for _ in range(10):
            box.stdout.readline()
        os.kill(box.pid, signal.SIGKILL)
        told = box.stdout.read().split()
        box.wait()
        box.stdout.close()
        committed = int(told[-1]) if told else 70

        with open_spool(tmp_path) as spool:
            held = spool.held().held.of(writer)

            assert next(iter(held))[0] == 1
            assert len(held) >= committed
            rows = [r for r in _taken(spool) if read_record(r.record).writer_id == writer]
            assert len(rows) == len(held)


def test_sealed_rows_open_with_their_key_and_do_not_show_on_disk(tmp_path: Path) -> None:
    key_file = tmp_path / "keys"
    key_file.write_text("# first\n" + "11" * 32 + "\n")
    with open_spool(tmp_path / "box", key_file=key_file) as spool:
        fill(spool, 3, size=800)
        writer = spool.writer_id
    on_disk = b"".join(file.read_bytes() for file in (tmp_path / "box").iterdir())

    key_file.write_text("22" * 32 + "\n" + "11" * 32 + "\n")
    with open_spool(tmp_path / "box", key_file=key_file) as spool:
        fill(spool, 2, first=10)
        rows = [read_record(row.record) for row in _taken(spool)]

    assert (1).to_bytes(8, "little") * 10 not in on_disk
    assert [head.seq for head in rows if head.writer_id == writer] == [1, 2, 3]
    assert sorted(spool_report(tmp_path / "box").sealed_with.values()) == [2, 3]


def test_rows_sealed_with_a_missing_key_refuse_the_start_and_are_not_lost(tmp_path: Path) -> None:
    key_file = tmp_path / "keys"
    key_file.write_text("11" * 32)
    with open_spool(tmp_path / "box", key_file=key_file) as spool:
        fill(spool, 3)
    other = tmp_path / "other"
    other.write_text("22" * 32)

    with pytest.raises(SpoolKeyError) as error, open_spool(tmp_path / "box", key_file=other):
        pass

    assert "older key" in str(error.value)
    with open_spool(tmp_path / "box", key_file=key_file) as spool:
        assert len(take_all(spool)) == 3


@pytest.mark.parametrize("text", ["", "# nothing\n", "abc", "zz" * 32])
def test_a_wrong_key_file_is_refused_without_showing_its_content(tmp_path: Path, text: str) -> None:
    key_file = tmp_path / "keys"
    key_file.write_text(text)

    with pytest.raises(SpoolKeyError) as error, open_spool(tmp_path / "box", key_file=key_file):
        pass

    assert "zz" not in str(error.value)
    assert str(key_file) in str(error.value)
