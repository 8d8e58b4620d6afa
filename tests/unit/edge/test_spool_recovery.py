"""Damage: what proves itself is saved, the rest is told UNREADABLE, the file is set aside."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.spool import Spool
from edge.spool_errors import SpoolDamaged
from edge.spool_marks import MarkFile, read_marks
from edge.spool_record import make_record, read_record
from edge.spool_schema import SCHEMA
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from reid.v1.sighting_pb2 import Key, Sighting, SightingRecord
from tests.unit.edge.spool_support import LEDGER, NONE, eventually, fill, keys, open_spool

FIXTURES = Path(__file__).parent / "fixtures"


def filled(folder: Path, rows: int = 60) -> tuple[str, dict[int, bytes]]:
    """A closed spool; returns its writer and seq -> payload."""
    with open_spool(folder) as spool:
        fill(spool, rows, size=1400)
        heads = [read_record(r.record) for r in taken(spool)]
    return heads[0].writer_id, {head.seq: head.payload for head in heads}


def taken(spool: Spool) -> list:  # type: ignore[type-arg]
    return spool.take(after=0, upto=None, max_rows=10_000, max_bytes=1 << 30)


def flip_bytes(folder: Path, seed: int, count: int = 40) -> None:
    """Change bytes of the database at random places."""
    path = folder / "spool.sqlite"
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    for _ in range(count):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def tear_page(folder: Path, seed: int) -> None:
    """Overwrite half of three random pages."""
    path = folder / "spool.sqlite"
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    for _ in range(3):
        at = chance.randrange(len(data) // 2048) * 2048
        data[at : at + 1024] = chance.randbytes(1024)
    path.write_bytes(data)


def tear_header(folder: Path, seed: int) -> None:
    """Overwrite the first page."""
    path = folder / "spool.sqlite"
    data = bytearray(path.read_bytes())
    data[:2048] = random.Random(seed).randbytes(2048)
    path.write_bytes(data)


def truncate(folder: Path, seed: int) -> None:
    """Cut the file at a random place."""
    path = folder / "spool.sqlite"
    os.truncate(path, random.Random(seed).randrange(2048, path.stat().st_size))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("damage", [flip_bytes, tear_page, tear_header, truncate])
def test_every_row_of_a_damaged_spool_is_delivered_unchanged_or_told_unreadable(
    tmp_path: Path, damage: Callable[[Path, int], None], seed: int
) -> None:
    writer, payloads = filled(tmp_path)
    damage(tmp_path, seed)

    with open_spool(tmp_path) as spool:
        delivered, told = deliver(spool)

    assert all(payloads[seq] == payload for seq, payload in delivered.items())
    assert told.writers() in ([], [writer])
    lost = {seq for first, last in told.of(writer) for seq in range(first, last + 1)}
    assert lost == set(payloads) - set(delivered)


def deliver(spool: Spool) -> tuple[dict[int, bytes], KeyRanges]:
    """Take rows until none waits: (seq -> payload of what came, what was told as skipped)."""
    delivered: dict[int, bytes] = {}
    told: list[pb.SkippedRange] = []

    def nothing_waits() -> bool:
        for row in taken(spool):
            head = read_record(row.record)
            assert head.seq not in delivered
            delivered[head.seq] = head.payload
        return spool.counters().backlog == len(delivered)

    def welcomed() -> bool:
        try:
            told.extend(spool.welcome(LEDGER, NONE, NONE).tell)
        except SpoolDamaged:
            return False  # the uplink's next stream tries again
        return True

    eventually(welcomed, spool.counters)
    eventually(nothing_waits, spool.counters, within_s=30)
    told.extend(spool.new_skipped())
    return delivered, KeyRanges(entry.range for entry in told)


def test_a_wal_cut_short_is_noticed_and_told_exactly(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        for n in range(1, 21):
            fill(spool, 1, first=n, size=1400)
        writer = spool.writer_id
        shutil.copytree(tmp_path, tmp_path / "copy")
    wal = tmp_path / "copy" / "spool.sqlite-wal"
    os.truncate(wal, wal.stat().st_size // 2)

    with open_spool(tmp_path / "copy") as spool:
        kept = {read_record(r.record).seq for r in taken(spool)}
        tell = spool.welcome(LEDGER, NONE, NONE).tell

    assert 0 < len(kept) < 20
    told = KeyRanges(entry.range for entry in tell)
    assert {n for a, b in told.of(writer) for n in range(a, b + 1)} == set(range(1, 21)) - kept
    assert {entry.reason for entry in tell} == {pb.SKIP_REASON_UNREADABLE}


def test_lost_rows_that_the_ledger_has_are_not_told(tmp_path: Path) -> None:
    writer, _ = filled(tmp_path, 20)
    (tmp_path / "spool.sqlite").unlink()

    with open_spool(tmp_path) as spool:
        outcome = spool.welcome(LEDGER, keys(writer, 1, 15), NONE)

        told = [(e.range.first, e.range.last) for e in outcome.tell]
        assert told == [(16, 20)]
        assert spool.counters().skipped == {"unreadable": 5}


def test_a_database_rolled_back_to_an_older_copy_tells_what_it_lost(tmp_path: Path) -> None:
    writer, _ = filled(tmp_path / "box", 10)
    shutil.copy(tmp_path / "box" / "spool.sqlite", tmp_path / "old.sqlite")
    second, _ = filled(tmp_path / "box", 7)
    shutil.copy(tmp_path / "old.sqlite", tmp_path / "box" / "spool.sqlite")

    with open_spool(tmp_path / "box") as spool:
        tell = spool.welcome(LEDGER, NONE, NONE).tell
        kept = {(h.writer_id, h.seq) for h in (read_record(r.record) for r in taken(spool))}

    assert second == writer or {w for w, _ in kept} == {writer}
    assert {(e.range.writer_id, e.range.first, e.range.last) for e in tell} >= {
        (w, 1, n) for w, n in read_marks(tmp_path / "box" / "spool.marks").items()
        if w not in (writer, spool.writer_id)
    }  # fmt: skip
    assert len(kept) == 10


def test_what_a_rolled_back_database_lost_is_told_however_often_the_box_starts_before(
    tmp_path: Path,
) -> None:
    database = tmp_path / "box" / "spool.sqlite"
    with open_spool(tmp_path / "box") as spool:
        fill(spool, 2)
        spool._opened().engine._store.checkpoint(truncate=True)
        shutil.copy(database, tmp_path / "old.sqlite")
        fill(spool, 20, first=3)
        writer = spool.writer_id
    shutil.copy(tmp_path / "old.sqlite", database)

    for start in range(3):
        with open_spool(tmp_path / "box") as spool:
            fill(spool, 1, first=100 + start)
    with open_spool(tmp_path / "box") as spool:
        issued = spool.held().issued.of(writer)
        outcome = spool.welcome(LEDGER, keys(writer, 1, 15), NONE)

    assert list(issued) == [(1, 22)]
    assert [(e.range.first, e.range.last, e.reason) for e in outcome.tell] == [
        (16, 22, pb.SKIP_REASON_UNREADABLE)
    ]
    assert outcome.holes == 0


@pytest.mark.parametrize("kind", ["foreign", "text", "empty", "newer"])
def test_a_file_that_is_no_spool_of_ours_is_set_aside_and_the_box_goes_on(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "spool.sqlite"
    if kind == "foreign":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE music (title TEXT)")
        other.close()
    elif kind == "text":
        path.write_text("this is not a database, " * 500)
    elif kind == "newer":
        filled(tmp_path, 12)
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
        db.close()
    else:
        path.touch()

    with open_spool(tmp_path) as spool:
        fill(spool, 3, first=100)
        rows = taken(spool)

    aside = list(tmp_path.glob("spool-damaged-*.sqlite"))
    assert len(aside) == (0 if kind == "empty" else 1)
    assert len(rows) == 3 + (12 if kind == "newer" else 0)


def test_damage_found_while_running_is_mended_without_a_restart(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        fill(spool, 3000, size=1400)
        spool._opened().engine._store.checkpoint(truncate=True)
        writer = spool.writer_id
        tear_page(tmp_path, 3)
        delivered, told = deliver(spool)
        fill(spool, 5, first=9000)
        live = [read_record(row.record) for row in taken(spool)]

    lost = {n for a, b in told.of(writer) for n in range(a, b + 1)}
    assert set(delivered) | lost == set(range(1, 3001))
    assert not set(delivered) & lost
    assert [(head.writer_id, head.seq) for head in live] == [(writer, n) for n in range(3001, 3006)]


def test_a_crash_while_rebuilding_leaves_the_old_file_or_the_whole_new_one(tmp_path: Path) -> None:
    filled(tmp_path, 10)
    rebuilt = tmp_path / "spool.sqlite.rebuilt"
    rebuilt.write_bytes(b"half")

    with open_spool(tmp_path) as spool:
        before_rename = len(taken(spool))
    (tmp_path / "spool.sqlite").rename(rebuilt)
    with open_spool(tmp_path) as spool:
        between_renames = len(taken(spool))

    assert (before_rename, between_renames) == (10, 10)


@pytest.mark.parametrize("schema", [1])
def test_a_backlog_of_an_older_release_is_delivered(tmp_path: Path, schema: int) -> None:
    shutil.copy(FIXTURES / f"spool-schema-{schema}.sqlite", tmp_path / "spool.sqlite")

    with open_spool(tmp_path) as spool:
        heads = [read_record(row.record) for row in taken(spool)]
        outcome = spool.welcome(LEDGER, NONE, NONE)

    assert [head.seq for head in heads] == [3, 4, 5]
    assert {head.writer_id for head in heads} == {"11" * 16}
    assert Sighting.FromString(heads[0].payload).tracklet_id == f"{'11' * 16}/3"
    assert outcome.refilled == 2  # rows 1 and 2 were acked, and this ledger has none of them


def test_every_schema_up_to_the_present_one_has_a_file_of_its_time() -> None:
    found = {path.name for path in FIXTURES.glob("spool-schema-*.sqlite")}

    assert found == {f"spool-schema-{schema}.sqlite" for schema in range(1, SCHEMA + 1)}


def test_a_backlog_in_a_file_of_schema_2_is_delivered_with_all_that_stood_beside_it(
    tmp_path: Path,
) -> None:
    shutil.copy(FIXTURES / "spool-schema-2.sqlite", tmp_path / "spool.sqlite")
    writer = "22" * 16

    with open_spool(tmp_path) as spool:
        heads = [read_record(row.record) for row in taken(spool)]
        outcome = spool.welcome(LEDGER, keys(writer, 1, 1), NONE)
        dead = spool.counters().dead_letters

    assert [(head.writer_id, head.seq) for head in heads] == [(writer, 5), (writer, 6)]
    assert Sighting.FromString(heads[0].payload).tracklet_id == f"{writer}/5"
    assert outcome.refilled == 1  # row 2 was acked, and this ledger lists row 1 alone
    assert (dead, outcome.holes) == (1, 0)
    assert {(e.range.first, e.range.last, e.reason) for e in outcome.tell} == {
        (3, 3, pb.SKIP_REASON_DEAD_LETTER), (4, 4, pb.SKIP_REASON_ERASED)
    }  # fmt: skip


def test_the_record_is_the_wire_form_byte_for_byte() -> None:
    payload = Sighting(site="s", edge_id="e").SerializeToString()
    record = make_record("ab" * 16, 300, payload)

    parsed = SightingRecord.FromString(record)

    assert record.hex().startswith("0a250a20" + b"ab".hex() * 16 + "10ac02" + "1220")
    assert parsed.key == Key(writer_id="ab" * 16, seq=300)
    assert parsed.SerializeToString() == record
    assert read_record(record).content_hash == parsed.content_hash


def test_marks_are_pinned_and_a_damaged_one_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "spool.marks"
    marks = MarkFile(path)
    marks.start({"aa" * 16: 7}, "bb" * 16)
    marks.set("bb" * 16, 258)
    marks.close()

    first = bytes.fromhex("aa" * 16) + (7).to_bytes(8, "little")
    second = bytes.fromhex("bb" * 16) + (258).to_bytes(8, "little")
    expected = b"".join(b + zlib.crc32(b).to_bytes(4, "little") for b in (first, second))
    assert path.read_bytes() == expected
    path.write_bytes(b"x" + expected[1:])
    assert read_marks(path) == {"bb" * 16: 258}
