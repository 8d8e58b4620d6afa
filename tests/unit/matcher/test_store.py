"""The ledger's tables: a key is stored once, receipts outlive rows, forgotten stays forgotten."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.records import Room, Row
from matcher.schema import open_ledger
from matcher.store import LedgerStore
from matcher.writers import FORGOTTEN
from reid.ranges import KeyRanges, RangeSet

WRITER = "a" * 32
OTHER = "b" * 32


def row(
    seq: int,
    *,
    writer: str = WRITER,
    content: bytes = b"c" * 32,
    tracklet: str = "t",
    seen: int = 1000,
) -> Row:
    return (writer, seq, content, tracklet, seen, b"body")


@pytest.fixture
def store(tmp_path: Path) -> LedgerStore:
    connection = open_ledger(tmp_path / "ledger.db")
    return LedgerStore(connection)


def append(
    store: LedgerStore,
    *rows: Row,
    site: str = "s",
    edge: str = "e",
    now: int = 2000,
    expired_before: int = 0,
) -> list[tuple[str, int, int]]:
    result = store.append(site, edge, rows, now_ns=now, expired_before_ns=expired_before)
    store.flush()
    return [(one.writer_id, one.first, one.last) for one in result.acked.messages()]


def log_seqs(store: LedgerStore) -> list[int]:
    return [
        seq for (seq,) in store._db.execute("SELECT seq FROM log WHERE kind = 1 ORDER BY position")
    ]


def test_rows_of_any_number_are_stored_in_order(store: LedgerStore) -> None:
    assert append(store, *[row(seq) for seq in range(1, 200)]) == [(WRITER, 1, 199)]

    assert log_seqs(store) == list(range(1, 200))


def test_the_same_key_twice_in_one_batch_is_stored_once(store: LedgerStore) -> None:
    result = store.append("s", "e", [row(1), row(1)], now_ns=1, expired_before_ns=0)
    store.flush()

    assert (result.stored, result.duplicates) == (1, 1)
    assert log_seqs(store) == [1]


def test_other_content_under_a_key_is_a_conflict_in_the_same_batch_too(store: LedgerStore) -> None:
    result = store.append(
        "s", "e", [row(1), row(1, content=b"x" * 32)], now_ns=1, expired_before_ns=0
    )

    assert result.conflicts == [(WRITER, 1)]


def test_a_duplicate_of_a_deleted_row_is_acked_and_not_stored(store: LedgerStore) -> None:
    append(store, row(1, seen=10), row(2, seen=5000))
    assert store.delete_older("s", 100, limit=10) == 1

    assert append(store, row(1, content=b"z" * 32)) == [(WRITER, 1, 1)]
    assert log_seqs(store) == [2]


def test_an_expired_row_is_receipted_and_not_stored(store: LedgerStore) -> None:
    assert append(store, row(1, seen=10), row(2, seen=30), expired_before=20) == [(WRITER, 1, 2)]

    assert log_seqs(store) == [2]


def test_receipts_are_read_again_after_reload(store: LedgerStore) -> None:
    append(store, row(1), row(2), row(9))
    store.reload()

    known = store.hello("s", "e", OTHER, KeyRanges(), _all(1, 10), now_ns=1)

    assert [(m.first, m.last) for m in known.committed.messages()] == [(1, 2), (9, 9)]


def test_what_was_not_flushed_is_forgotten_by_reload(store: LedgerStore) -> None:
    store._db.execute("BEGIN")
    store.append("s", "e", [row(1)], now_ns=1, expired_before_ns=0)
    store._db.execute("ROLLBACK")
    store.reload()

    assert append(store, row(1)) == [(WRITER, 1, 1)]
    assert log_seqs(store) == [1]


def test_an_older_writer_is_ended_once_when_nothing_of_it_is_left(store: LedgerStore) -> None:
    append(store, row(1), row(2))

    held = _all(1, 3)
    first = store.hello("s", "e", OTHER, held, held, now_ns=1)
    append(store, row(3))
    second = store.hello("s", "e", OTHER, held, held, now_ns=1)
    third = store.hello("s", "e", OTHER, held, held, now_ns=1)

    assert first.unfinished == {WRITER: RangeSet([(3, 3)])}
    assert (first.ended, second.ended, third.ended) == ([], [WRITER], [])


def test_what_the_box_no_longer_holds_and_the_ledger_lacks_is_a_hole(store: LedgerStore) -> None:
    append(store, row(1))

    known = store.hello("s", "e", OTHER, _all(4, 5), _all(1, 5), now_ns=1)

    assert [(m.first, m.last) for m in known.hole.messages()] == [(2, 3)]


def test_keys_of_another_boxs_writer_are_not_answered(store: LedgerStore) -> None:
    append(store, row(1))

    known = store.hello("s", "thief", OTHER, _all(1, 5), _all(1, 5), now_ns=1)

    assert known.foreign == [WRITER]
    assert not known.committed


def test_forget_deletes_rows_and_refuses_later_ones_of_the_tracklet(store: LedgerStore) -> None:
    append(store, row(1, tracklet="gone"), row(2, tracklet="stays"))

    deleted, keys = store.forget("s", "identity", ["gone"], now_ns=1)
    result = store.append("s", "e", [row(3, tracklet="gone")], now_ns=1, expired_before_ns=0)
    store.flush()

    assert deleted == 1
    assert [(m.first, m.last) for m in keys["e"].messages()] == [(1, 1)]
    assert (result.forgotten, len(result.acked)) == (1, 1)
    assert log_seqs(store) == [2]
    known = store.hello("s", "e", WRITER, _all(1, 3), KeyRanges(), now_ns=1)
    assert [(m.first, m.last) for m in known.erase.messages()] == [(1, 1), (3, 3)]
    store.skip("s", "e", [(WRITER, 1, 1, 3)])
    known = store.hello("s", "e", WRITER, _all(1, 3), KeyRanges(), now_ns=1)
    assert [(m.first, m.last) for m in known.erase.messages()] == [(3, 3)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "skip", "delete", "reload"]),
            st.integers(1, 40),
            st.integers(0, 6),
        ),
        max_size=30,
    )
)
def test_tables_agree_with_plain_sets_whatever_happens(steps: list[tuple[str, int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        connection = open_ledger(Path(folder) / "ledger.db")
        store = LedgerStore(connection)
        receipted: set[int] = set()
        skipped: set[int] = set()
        rows: set[int] = set()
        for what, first, more in steps:
            seqs = range(first, first + more + 1)
            if what == "append":
                append(store, *[row(seq, seen=seq) for seq in seqs])
                rows |= set(seqs) - receipted
                receipted |= set(seqs)
            elif what == "skip":
                store.skip("s", "e", [(WRITER, first, first + more, 1)])
                skipped |= set(seqs)
            elif what == "delete":
                store.delete_older("s", first, limit=100)
                rows -= set(range(first))
            else:
                store.reload()
        known = store.hello("s", "e", OTHER, KeyRanges(), _all(1, 60), now_ns=1)
        stored = sorted(log_seqs(store))
        counted, there = store._writers._ranges["s", "e"], _ranges(store)
        connection.close()
    assert _expand(known.committed) == receipted
    assert _expand(known.skipped) == skipped - receipted
    assert stored == sorted(rows)
    assert counted == there


def _ranges(store: LedgerStore) -> int:
    """How many ranges the tables hold."""
    return sum(
        int(store._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        for table in ("receipts", "skipped")
    )


def test_a_box_that_takes_too_much_room_is_refused_and_another_is_not(store: LedgerStore) -> None:
    room = Room(writers=3, ranges=10)
    ids = [f"{n:032x}" for n in range(1, 6)]
    rows = [row(1, writer=one) for one in ids]

    many = store.append("s", "e", rows, now_ns=1, expired_before_ns=0, room=room)
    known = store.append("s", "e", rows[:3], now_ns=1, expired_before_ns=0, room=room)
    other = store.append("s", "f", [row(1)], now_ns=1, expired_before_ns=0, room=room)
    store.flush()
    gaps = store.skip("s", "e", [(ids[0], n, n, 1) for n in range(3, 99, 2)], room=room)
    full = store.append("s", "e", [row(2, writer=ids[0])], now_ns=1, expired_before_ns=0, room=room)

    assert many.stored == 3
    assert "limits.writers is 3" in many.crowded
    assert (known.duplicates, known.crowded) == (3, "")
    assert (other.stored, other.crowded) == (1, "")
    assert gaps[0] == []
    assert "10 ranges" in gaps[1]
    assert full.stored == 0
    assert len(full.acked) == 0
    assert "limits.ranges is 10" in full.crowded
    assert _ranges(store) == 11  # ten of the one, one of the other


def test_a_hello_beyond_the_writers_of_a_box_is_refused_until_one_is_forgotten(
    store: LedgerStore,
) -> None:
    room = Room(writers=2, ranges=4096)

    def hello(writer: int, *named: int) -> str:
        issued = KeyRanges()
        for one in named:
            issued.add_range(f"{one:032x}", 1, 1)
        name = f"{writer:032x}"
        return store.hello(
            "s", "e", name, KeyRanges(), issued, now_ns=1, names_all=True, room=room
        ).crowded

    assert hello(1) == hello(2, 1) == ""
    assert "limits.writers is 2" in hello(3, 1, 2)
    assert hello(2, 1) == "", "one that is known is no further one"
    assert hello(3, 2) == "", "the box has forgotten the first"


def test_a_skipped_range_costs_the_same_however_many_there_are(store: LedgerStore) -> None:
    """Counted in SQLite's own steps: 20,000 ranges once took 40 s, in which nobody had an ack."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    def cost(first: int) -> int:
        nonlocal steps
        steps = 0
        store.skip("s", "e", [(WRITER, n, n, 1) for n in range(first, first + 200, 2)])
        return steps

    store._db.execute("BEGIN")
    store._db.set_progress_handler(count, 1)
    few = cost(1)
    store._db.set_progress_handler(None, 1)
    store.skip("s", "e", [(WRITER, n, n, 1) for n in range(1001, 9001, 2)])
    store._db.set_progress_handler(count, 1)
    many = cost(20_001)
    again = cost(20_001)
    store._db.set_progress_handler(None, 1)
    store._db.execute("COMMIT")

    assert few > 100
    assert many < 2 * few
    assert again < 2 * few


def _all(first: int, last: int) -> KeyRanges:
    keys = KeyRanges()
    keys.add_range(WRITER, first, last)
    return keys


def _expand(keys: KeyRanges) -> set[int]:
    return {seq for first, last in keys.of(WRITER) for seq in range(first, last + 1)}


def test_counts_tell_what_is_skipped_and_never_came(store: LedgerStore, tmp_path: Path) -> None:
    from matcher.views import Views

    append(store, row(1), row(2))
    store.skip("s", "e", [(WRITER, 2, 5, 1), (WRITER, 9, 9, FORGOTTEN)])
    views = Views(data_dir=tmp_path)
    try:
        assert views.edge_counts() == {("s", "e"): (2, {1: 3})}
    finally:
        views.close()


def test_the_schema_is_pinned_by_its_statements(store: LedgerStore) -> None:
    """A change of the tables needs a migration and a fixture of the old file: then change this."""
    columns = {
        table: [name for _, name, *_ in store._db.execute(f"PRAGMA table_info({table})")]
        for (table,) in store._db.execute(
            "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite%'"
        ).fetchall()
    }

    assert columns == {
        "meta": ["name", "value"],
        "writers": ["id", "writer_id", "site", "edge_id", "ended"],
        "log": [
            "position",
            "kind",
            "site",
            "edge_id",
            "writer",
            "seq",
            "content_hash",
            "tracklet_id",
            "seen_ns",
            "committed_ns",
            "body",
        ],
        "receipts": ["writer", "first", "last"],
        "skipped": ["writer", "reason", "first", "last"],
        "edges": ["site", "edge_id", "state"],
        "retention": ["site", "ledger_s", "identity_s"],
        "audit": ["id", "unix_ns", "who", "what", "detail"],
    }
    assert isinstance(store._db, sqlite3.Connection)
    assert len(secrets.token_hex(16)) == len(store.ledger_id)


def greet(store: LedgerStore, writer: str, issued: KeyRanges, *, names_all: bool = True) -> None:
    store.hello("s", "e", writer, KeyRanges(), issued, now_ns=3000, names_all=names_all)


def writers(store: LedgerStore) -> set[str]:
    found = {name for (name,) in store._db.execute("SELECT writer_id FROM writers")}
    store.reload()
    assert found == {name for name, _ in store._writers.by_number().values()}
    return found


def test_writers_that_a_box_forgot_go_once_retention_has_taken_their_sightings(
    store: LedgerStore,
) -> None:
    for number in range(100):  # a box that starts a hundred times
        writer = f"{number:032x}"
        greet(store, writer, KeyRanges())
        append(store, row(1, writer=writer, seen=1000 + number, tracklet=str(number)))
    store.skip("s", "e", [("1".zfill(32), 2, 9, 1)])
    assert len(writers(store)) == 100

    store.delete_older("s", 1090, limit=1000)
    greet(store, OTHER, KeyRanges())

    assert writers(store) == {f"{number:032x}" for number in range(90, 100)} | {OTHER}
    assert store._db.execute("SELECT count(*) FROM receipts").fetchone() == (10,)
    assert store._db.execute("SELECT count(*) FROM skipped").fetchone() == (0,)


def test_writers_that_the_box_still_names_or_could_not_name_are_kept(store: LedgerStore) -> None:
    append(store, row(1))
    store.delete_older("s", 9999, limit=1000)
    named = KeyRanges()
    named.add(WRITER, 1)

    greet(store, OTHER, named)
    greet(store, OTHER, KeyRanges(), names_all=False)
    store.hello("s", "other box", "c" * 32, KeyRanges(), KeyRanges(), now_ns=1, names_all=True)

    assert writers(store) == {WRITER, OTHER, "c" * 32}
    assert append(store, row(1)) == [(WRITER, 1, 1)]
    assert log_seqs(store) == []


def test_an_old_spool_that_comes_back_after_its_writer_was_forgotten_brings_no_row_back(
    store: LedgerStore,
) -> None:
    append(store, row(1, seen=1000))
    store.delete_older("s", 2000, limit=1000)
    greet(store, OTHER, KeyRanges())
    assert writers(store) == {OTHER}

    assert append(store, row(1, seen=1000), expired_before=2000) == [(WRITER, 1, 1)]

    assert log_seqs(store) == []


def test_the_largest_key_can_be_skipped_and_committed(store: LedgerStore) -> None:
    """A box may name any key, and must not stop the writer thread with one."""
    largest = (1 << 63) - 1

    store.skip("s", "e", [(WRITER, 5, largest, 1), (WRITER, 2, largest, 1)])

    assert append(store, row(largest)) == [(WRITER, largest, largest)]
    known = store.hello("s", "e", WRITER, KeyRanges(), _all(1, largest), now_ns=1)
    assert [(m.first, m.last) for m in known.skipped.messages()] == [(2, largest - 1)]


def test_no_number_of_a_forgotten_writer_is_given_again(store: LedgerStore) -> None:
    """Readers of the log remember writers by number."""
    named = KeyRanges()
    named.add(WRITER, 1)
    greet(store, WRITER, named)
    greet(store, OTHER, named)
    highest = store._db.execute("SELECT max(id) FROM writers").fetchone()[0]

    greet(store, WRITER, named)  # it speaks again; of the other there is nothing here
    greet(store, "c" * 32, named)

    numbers = dict(store._db.execute("SELECT writer_id, id FROM writers"))
    assert numbers["c" * 32] > highest
