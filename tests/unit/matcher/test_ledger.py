"""The ledger's end and its write-ahead log: bounded in time, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matcher.backup import backup
from matcher.errors import LedgerUnusable, StorageFailed
from matcher.ledger import Ledger
from matcher.log import LogReader
from matcher.query import ReadPool
from matcher.records import Row
from matcher.schema import RESTORED_GAP, connect, open_ledger, truncate_wal
from reid.clock import SystemClock
from tests.support.waiting import eventually

WRITER = "a" * 32
SECRET = b"what must leave the disk"


def row(seq: int, body: bytes = b"x") -> Row:
    return (WRITER, seq, bytes(32), f"{WRITER}/{seq}", seq, body)


async def opened(folder: Path) -> Ledger:
    ledger = Ledger(data_dir=folder, clock=SystemClock())
    ledger.open(asyncio.get_running_loop())
    return ledger


async def append(ledger: Ledger, *rows: Row) -> None:
    await ledger.run(
        lambda store: store.append("site", "box", rows, now_ns=10**18, expired_before_ns=0)
    )


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Another program in the middle of a read."""
    with contextlib.closing(
        sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    ) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM log").fetchone()
        yield


def on_disk(folder: Path) -> bytes:
    return b"".join(
        path.read_bytes() for path in (folder / "ledger.db", folder / "ledger.db-wal")
        if path.exists()
    )  # fmt: skip


def test_the_end_does_not_wait_for_another_programs_reader_and_loses_nothing(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        ledger = await opened(tmp_path)
        with reading(ledger.path):
            await append(ledger, *[row(seq) for seq in range(1, 101)])
            await asyncio.wait_for(asyncio.to_thread(ledger.close), 5)
            assert (tmp_path / "ledger.db-wal").stat().st_size > 0

    asyncio.run(work())
    reader = LogReader(data_dir=tmp_path)
    found = [entry.seq for entry in reader.read(0, limit=1000)]
    reader.close()

    assert found == list(range(1, 101))


def test_a_large_write_ahead_log_is_brought_home_as_far_as_time_allows(tmp_path: Path) -> None:
    path = tmp_path / "large.db"
    with contextlib.closing(connect(path)) as db:
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("PRAGMA synchronous=OFF")
        db.execute("CREATE TABLE log(body BLOB)")
        for _ in range(64):
            db.execute("INSERT INTO log VALUES(?)", (bytes(1 << 20),))

        in_time = truncate_wal(db, wait_s=0.0, within_s=0.0)
        left = path.with_name("large.db-wal").stat().st_size
        with_more_time = truncate_wal(db, wait_s=0.0, within_s=60.0)

        assert not in_time
        assert left > 0
        assert with_more_time
        assert path.with_name("large.db-wal").stat().st_size == 0
        assert db.execute("SELECT count(*) FROM log").fetchone() == (64,)


def test_deleted_rows_leave_the_disk_as_soon_as_another_programs_reader_lets_go(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        ledger = await opened(tmp_path)
        try:
            await append(ledger, row(1, SECRET))
            with reading(ledger.path):
                await ledger.run(
                    lambda store: store.delete_older("site", 10, limit=9), deletes=True
                )
                await ledger.run(ledger.checkpoint, deletes=True)
                assert SECRET in on_disk(tmp_path)
                await append(ledger, row(2))  # commits go on

            await asyncio.to_thread(
                eventually, lambda: SECRET not in on_disk(tmp_path), within_s=10
            )
        finally:
            await asyncio.to_thread(ledger.close)

    asyncio.run(work())


def test_closing_the_readers_ends_a_long_read(tmp_path: Path) -> None:
    endless = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
        "SELECT count(began()) FROM n"
    )
    began = threading.Event()

    def read(log: LogReader) -> None:
        connection = log._connection()
        connection.create_function("began", 0, began.set)
        try:
            connection.execute(endless).fetchone()
        except sqlite3.Error as error:
            raise LedgerUnusable(tmp_path, str(error), "") from error

    async def work() -> None:
        ledger = await opened(tmp_path)
        pool = ReadPool(data_dir=tmp_path)
        try:
            reading = asyncio.create_task(pool.log(read))
            await asyncio.to_thread(began.wait, 10)

            await asyncio.wait_for(asyncio.to_thread(pool.close), 10)

            with pytest.raises(LedgerUnusable, match="interrupted"):
                await reading
        finally:
            await asyncio.to_thread(ledger.close)

    asyncio.run(work())


def test_an_answer_that_nobody_can_take_keeps_none_of_the_others_from_theirs(
    tmp_path: Path,
) -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        ledger = await opened(tmp_path)
        answers: list[str] = []
        raised: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: raised.append(repr(context["exception"])))

        def cannot(_result: object, _error: BaseException | None) -> None:
            raise ValueError("not this one")

        gate = threading.Event()
        ledger.submit(lambda _store: gate.wait(10), lambda _r, _e: None)
        ledger.submit(lambda _store: "first", cannot)
        ledger.submit(lambda _store: "second", lambda result, _error: answers.append(str(result)))
        gate.set()
        await ledger.run(lambda _store: None)
        await asyncio.to_thread(ledger.close)
        return answers, raised

    answers, raised = asyncio.run(scenario())

    assert answers == ["second"]
    assert raised == ["ValueError('not this one')"]


def test_a_backup_is_restored_although_the_log_of_the_ledger_before_lies_beside_it(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        run, place, copy = tmp_path / "run", tmp_path / "place", tmp_path / "copy.db"
        run.mkdir()
        place.mkdir()
        ledger = await opened(run)
        await append(ledger, *[row(seq) for seq in range(1, 11)])
        backup(run, copy)
        await append(ledger, *[row(seq) for seq in range(11, 41)])
        # What a matcher that was killed leaves, with the copy put in the place of the ledger alone.
        (place / "ledger.db-wal").write_bytes((run / "ledger.db-wal").read_bytes())
        (place / "ledger.db").write_bytes(copy.read_bytes())
        ledger.close()

        with contextlib.closing(open_ledger(place / "ledger.db")) as restored:
            kept = restored.execute("SELECT count(*) FROM log").fetchone()[0]
            given = restored.execute("SELECT seq FROM sqlite_sequence").fetchone()[0]

        assert kept == 10
        assert given == 10 + RESTORED_GAP

    asyncio.run(work())


def test_the_log_of_a_ledger_that_was_killed_is_played(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        run, place = tmp_path / "run", tmp_path / "place"
        run.mkdir()
        place.mkdir()
        ledger = await opened(run)
        await append(ledger, *[row(seq) for seq in range(1, 11)])
        for name in ("ledger.db", "ledger.db-wal"):
            (place / name).write_bytes((run / name).read_bytes())
        ledger.close()

        with contextlib.closing(open_ledger(place / "ledger.db")) as again:
            kept = again.execute("SELECT count(*) FROM log").fetchone()[0]

        assert kept == 10

    asyncio.run(work())


def test_a_backup_is_never_written_over_the_ledger_or_a_folder(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        ledger = await opened(tmp_path)
        await append(ledger, row(1))
        (tmp_path / "folder").mkdir()

        with pytest.raises(LedgerUnusable, match="is the ledger itself"):
            backup(tmp_path, tmp_path / "ledger.db")
        with pytest.raises(LedgerUnusable, match="cannot be written"):
            backup(tmp_path, tmp_path / "folder")
        with pytest.raises(LedgerUnusable, match="cannot be written"):
            backup(tmp_path, tmp_path / "absent" / "copy.db")

        ledger.close()
        assert not list(tmp_path.glob("*.part"))

    asyncio.run(work())


def test_a_forget_that_cannot_be_written_down_deletes_nothing_and_the_ledger_goes_on(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        ledger = await opened(tmp_path)
        await append(ledger, row(1))
        (tmp_path / "forgotten.jsonl").mkdir()  # what refuses every write
        entry = {"site": "site", "identity_id": "x", "tracklet_ids": [f"{WRITER}/1"]}

        with pytest.raises(StorageFailed, match=r"forgotten\.jsonl: cannot be written"):
            await ledger.run(lambda store: ledger.remember_forgotten(entry), deletes=True)
        await append(ledger, row(2))

        assert ledger.fault is None
        ledger.close()
        assert ledger.committed_rows == 2

    asyncio.run(work())
