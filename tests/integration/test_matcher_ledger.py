"""One ledger: its one server, its addresses, a full disk, damage, a newer release."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from matcher.store import LedgerStore
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2
from reid.v1.sighting_pb2 import KeyRange
from tests.integration.matcher_rig import Box, Serving, record, rows
from tests.support.waiting import eventually


def test_the_ledger_belongs_to_one_server_at_a_time(tmp_path: Path) -> None:
    from matcher.errors import LedgerLocked

    with (
        Serving(tmp_path),
        pytest.raises(LedgerLocked, match="another edge-match"),
        Serving(tmp_path, lock_wait_s=0.0),
    ):
        pass


def test_a_port_in_use_says_which_and_what_to_do(tmp_path: Path) -> None:
    from matcher.listener import AddressInUse

    with (
        Serving(tmp_path / "one") as serving,
        pytest.raises(AddressInUse, match=f"{serving.address}.*--listen"),
        Serving(tmp_path / "two", listen=(serving.address,)),
    ):
        pass


def test_several_addresses_are_one_ledger(tmp_path: Path) -> None:
    with Serving(tmp_path, listen=("127.0.0.1:0", "127.0.0.1:0")) as serving:
        first, second = serving.server.ports
        with Box(f"127.0.0.1:{first}") as box:
            box.welcome()
            box.batch(record(box.writer_id, 1))
            box.acked(1)
        held = [KeyRange(writer_id=box.writer_id, first=1, last=1)]
        with Box(f"127.0.0.1:{second}", writer_id=box.writer_id, held=held) as box:
            welcome = box.welcome()

    assert [(r.first, r.last) for r in welcome.committed] == [(1, 1)]


def test_a_full_disk_says_goodbye_storage_and_acks_nothing_that_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        ledger = serving.server.ledger
        # SQLite's own bound gives the error of a full disk at an exact place.
        serving.call(ledger.run(lambda store: limit_pages(store, 4)))
        monkeypatch.setattr(ledger, "_free_bytes", lambda: 0)

        acked = KeyRanges()
        box.batch(*[record(box.writer_id, seq, person=seq) for seq in range(1, 641)])
        while True:
            message = box.read()
            if message.HasField("goodbye"):
                break
            for one in message.ack.ranges:
                acked.add_range(one.writer_id, one.first, one.last)

        assert message.goodbye.reason == ingest_pb2.GOODBYE_REASON_STORAGE
        stored = {seq for _, seq in rows(tmp_path)}
        assert len(stored) < 640
        assert all(
            seq in stored
            for first, last in acked.of(box.writer_id)
            for seq in range(first, last + 1)
        )
        assert not serving.server.readiness()["ready"]

        monkeypatch.undo()
        serving.call(ledger.run(lambda store: limit_pages(store, 100_000), deletes=True))
        eventually(lambda: serving.server.readiness()["ready"] or _hello(serving), within_s=10)
        with Box(serving.address, writer_id=box.writer_id) as again:
            again.welcome()
            again.batch(*[record(box.writer_id, seq, person=seq) for seq in range(1000, 1064)])
            again.acked(64)


def limit_pages(store: LedgerStore, extra: int) -> None:
    """Let the file grow by so many pages only: beyond, SQLite says that the disk is full."""
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + extra}")


def _hello(serving: Serving) -> bool:
    """Ask once: the ledger looks for room when it is asked for something."""
    with Box(serving.address) as box:
        return box.read().HasField("welcome")


def test_a_damaged_ledger_is_refused_with_the_cure(tmp_path: Path) -> None:
    from matcher.errors import LedgerUnusable

    with Serving(tmp_path) as serving, Box(serving.address) as box:
        box.welcome()
        box.batch(*[record(box.writer_id, seq) for seq in range(1, 65)])
        box.acked(64)
    path = tmp_path / "ledger.db"
    content = bytearray(path.read_bytes())
    content[:64] = b"x" * 64
    path.write_bytes(content)

    with pytest.raises(LedgerUnusable, match=r"damaged.*backup"), Serving(tmp_path):
        pass


def test_a_ledger_of_a_newer_release_is_not_touched(tmp_path: Path) -> None:
    from matcher.errors import LedgerUnusable

    with Serving(tmp_path):
        pass
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(LedgerUnusable, match="newer release"), Serving(tmp_path):
        pass

    assert path.read_bytes() == before
