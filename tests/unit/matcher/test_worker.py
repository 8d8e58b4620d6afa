"""The association thread: a fault ends it, and the entry it failed at does not stop the next."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from matcher.associate.engine import Engine
from matcher.associate.identities import IdentityStore
from matcher.associate.prior import PriorAssociator
from matcher.associate.worker import AssociationWorker
from matcher.ledger import Ledger
from matcher.log import Entry, LogReader
from reid.clock import SystemClock
from reid.v1.query_pb2 import IDENTITY_EVENT_KIND_EXPIRED, WatchResponse
from reid.v1.sighting_pb2 import Sighting
from tests.integration.matcher_rig import record
from tests.support.waiting import eventually

WRITER = "c" * 32


def filled(data_dir: Path, count: int) -> tuple[str, str]:
    """A ledger with sightings; its generation and salt."""

    async def fill() -> tuple[str, str]:
        ledger = Ledger(data_dir=data_dir, clock=SystemClock())
        ledger.open(asyncio.get_running_loop())
        rows = [
            (WRITER, seq, b"h" * 32, f"{WRITER}/{seq}", seq,
             record(WRITER, seq, person=seq).sighting.SerializeToString())
            for seq in range(1, count + 1)
        ]  # fmt: skip
        await ledger.run(
            lambda store: store.append("site", "box", rows, now_ns=10**18, expired_before_ns=0)
        )
        ledger.close()
        return ledger.generation, ledger.identity_salt

    return asyncio.run(fill())


def worker(
    data_dir: Path, generation: str, salt: str, *, life_ns: int = 10**15
) -> AssociationWorker:
    return AssociationWorker(
        data_dir=data_dir,
        associator=PriorAssociator(
            thresholds={}, default_threshold=0.8, window_ns=10**15, uncertain_ns=10**9
        ),
        generation=generation,
        salt=salt,
        identity_life_ns=life_ns,
        busy=lambda: False,
    )


def test_an_entry_that_fails_ends_the_thread_once_and_is_then_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation, salt = filled(tmp_path, 10)
    real = Engine.apply

    def failing(self: Engine, entry: Entry) -> None:
        if Sighting.FromString(entry.body).tracklet_id.endswith("/7"):
            raise RuntimeError("a planted fault")
        real(self, entry)

    monkeypatch.setattr(Engine, "apply", failing)
    first = worker(tmp_path, generation, salt)
    first.start()
    reached = first.wait_for(10, 10)
    first.stop()
    second = worker(tmp_path, generation, salt)
    second.start()

    caught_up = second.wait_for(10, 10)
    second.stop()

    assert not reached
    assert first.fault is not None
    assert "position 7" in str(first.fault)
    assert caught_up
    assert second.fault is None
    assert second.left_out == {7}


def test_identities_that_cannot_grow_are_waited_for_and_nothing_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation, salt = filled(tmp_path, 100)
    opened: list[sqlite3.Connection] = []
    real = IdentityStore.__init__

    def small(self: IdentityStore, path: Path, *, generation: str) -> None:
        real(self, path, generation=generation)
        # SQLite's own bound gives the error of a full disk at an exact place.
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        self._db.execute(f"PRAGMA max_page_count={pages + 2}")
        opened.append(self._db)

    monkeypatch.setattr(IdentityStore, "__init__", small)
    waits = worker(tmp_path, generation, salt)
    waits.start()
    eventually(lambda: bool(waits.waiting) or waits.fault is not None, within_s=20)
    said, fault, position = waits.waiting, waits.fault, waits.position
    waits.delete_older("site", 1)
    opened[0].execute("PRAGMA max_page_count=100000")

    caught_up = waits.wait_for(100, 20)
    waits.stop()

    assert fault is None
    assert position < 100
    assert "identities.db cannot grow (database or disk is full)" in said
    assert caught_up
    assert waits.waiting == ""
    with sqlite3.connect(tmp_path / "identities.db") as db:
        assert db.execute("SELECT count(*) FROM tracklets").fetchone()[0] == 100


def test_a_restart_at_any_entry_changes_nothing_also_where_identities_end(tmp_path: Path) -> None:
    second = 1_000_000_000

    async def fill(data_dir: Path) -> tuple[str, str]:
        ledger = Ledger(data_dir=data_dir, clock=SystemClock())
        ledger.open(asyncio.get_running_loop())
        for seq in range(1, 61):
            now = 1_790_000_000 * second + seq * 7 * second
            one = record(WRITER, seq, person=seq % 5, base_ns=now - second, noise=0.2)
            row = (WRITER, seq, b"h" * 32, one.sighting.tracklet_id, seq,
                   one.sighting.SerializeToString())  # fmt: skip
            await ledger.run(
                lambda store, row=row, now=now: store.append(  # type: ignore[misc]
                    "site", "box", [row], now_ns=now, expired_before_ns=0
                )
            )
        ledger.close()
        return ledger.generation, ledger.identity_salt

    generation, salt = asyncio.run(fill(tmp_path))

    def beliefs(stops: list[int]) -> list[object]:
        (tmp_path / "identities.db").unlink(missing_ok=True)
        for stop in [*stops, 60]:
            store = IdentityStore(tmp_path / "identities.db", generation=generation)
            one = worker(tmp_path, generation, salt, life_ns=20 * second)
            engine = one._engine(store)
            reader = LogReader(data_dir=tmp_path)
            entries = [
                entry for entry in reader.read(one.position, limit=100) if entry.position <= stop
            ]
            for entry in entries:
                engine.apply(entry)
            store.save(engine.live.take_changes(), engine.calibration, stop)
            reader.close()
            store.close()
        connection = sqlite3.connect(tmp_path / "identities.db")
        rows: list[object] = [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("tracklets", "identities", "events")
        ]
        connection.close()
        return rows

    at_once = beliefs([])
    restarted = beliefs(list(range(3, 60, 3)))

    kinds = [WatchResponse.FromString(row[-1]).kind for row in at_once[2]]  # type: ignore[attr-defined]
    assert kinds.count(IDENTITY_EVENT_KIND_EXPIRED) > 5
    assert restarted == at_once


def test_a_ledger_of_another_generation_makes_the_identities_anew(tmp_path: Path) -> None:
    generation, salt = filled(tmp_path, 5)
    first = worker(tmp_path, generation, salt)
    first.start()
    assert first.wait_for(5, 10)
    first.stop()

    second = worker(tmp_path, "another", salt)
    second.start()
    anew = second.wait_for(5, 10)
    second.stop()
    second.stop()

    assert anew
    assert second.fault is None
