"""The ledger: durable, append-only, ordered, with receipts; on SQLite.

Promise: a job's callback comes after the commit (synchronous=FULL) of everything it did, or with
the error of a group of which nothing was committed. Jobs run in the order given. Jobs that wait
while a commit runs share the next one.
Full disk: StorageFull until there is room again; deletions still go through (a ballast file is
given up for them). Damage, or a failed fsync, is fatal: `fault` is set and every job fails.
Threads: `submit` from the event loop that was given; everything else happens in the ledger's one
writer thread. Readers have connections of their own (matcher.log).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog

from matcher import forgotten
from matcher.errors import MatcherError, StorageFailed, StorageFull
from matcher.schema import (
    FORGOTTEN_FILE,
    LEDGER_FILE,
    close,
    get_meta,
    open_ledger,
    truncate_wal,
    unusable,
)
from matcher.store import LedgerStore
from reid.clock import Clock

T = TypeVar("T")
Job = Callable[[LedgerStore], T]
Done = Callable[[Any, BaseException | None], None]

GROUP_ROWS = 2048  # rows of one transaction: bounds what a failed group costs and its latency
MAX_PENDING = 16384  # rows waiting, all streams together: 20 MB at 1.2 kB each
BALLAST_BYTES = 8 << 20
IDLE_S = 1.0  # how often an idle writer looks for what is left to do
CUT_WAIT_S = 0.5  # how long commits wait for a reader of another program to let go of the WAL
CLOSE_S = 1.0  # longest time to bring the WAL home at the end; the next start does the rest
_log = structlog.get_logger("ledger")


class Ledger:
    """The one writer of ledger.db.

    Attributes:
        path: the file.
        fault: what ended the writer thread; None while it works.
        full: the disk was full and nothing is appended at present.
        commits, committed_rows: counters since start.
    """

    def __init__(self, *, data_dir: Path, clock: Clock) -> None:
        self.path = data_dir / LEDGER_FILE
        self.fault: MatcherError | None = None
        self.full = False
        self.commits = 0
        self.committed_rows = 0
        self._data_dir = data_dir
        self._clock = clock
        self._ballast = data_dir / "ballast"
        self._jobs: deque[tuple[int, Job[Any], Done, bool]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._wal_held = False  # deleted rows are in the WAL still; writer thread only
        self._pending = 0  # rows in _jobs; changed under _wake
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room: asyncio.Event | None = None
        self._db: sqlite3.Connection | None = None
        self._store: LedgerStore | None = None
        self._listeners: list[Callable[[], None]] = []
        self.ledger_id = ""
        self.generation = ""
        self.identity_salt = ""

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open the file, forget again what was forgotten, start the writer thread.

        Raises:
            LedgerUnusable: damaged, foreign, newer, or not writable.
        """
        self._db = open_ledger(self.path)
        try:
            entries = forgotten.read(self._data_dir / FORGOTTEN_FILE)
            store = LedgerStore(self._db)
            self.ledger_id = store.ledger_id
            self.generation = get_meta(self._db, "generation") or ""
            self.identity_salt = get_meta(self._db, "identity_salt") or ""
            self._forget_again(store, entries)
        except sqlite3.Error as error:
            self._db.close()
            raise unusable(self.path, error) from error
        self._store = store
        self._loop = loop
        self._room = asyncio.Event()
        self._room.set()
        self._make_ballast()
        self._thread = threading.Thread(target=self._run, name="ledger")
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the writer thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def pending_rows(self) -> int:
        """Rows that wait for a commit."""
        return self._pending

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call this after each commit, from the writer thread; it must be quick."""
        self._listeners.append(listener)

    def submit(self, job: Job[T], done: Done, *, rows: int = 0, deletes: bool = False) -> None:
        """Queue a job; `done(result, error)` is called in the event loop after its commit.

        Args:
            rows: how many rows it may append; for the bounds.
            deletes: it makes room, so it runs on a full disk too.
        """
        with self._wake:
            if self._stopping or self.fault is not None or not self.alive:
                error = self.fault or StorageFailed("the ledger is closed")
                assert self._loop is not None
                self._loop.call_soon_threadsafe(done, None, error)
                return
            self._jobs.append((rows, job, done, deletes))
            self._pending += rows
            if self._pending >= MAX_PENDING and self._room is not None:
                self._room.clear()
            self._wake.notify()

    async def room(self) -> None:
        """Wait until fewer than MAX_PENDING rows wait."""
        assert self._room is not None
        await self._room.wait()

    async def run(self, job: Job[T], *, deletes: bool = False) -> T:
        """Queue a job and wait for its commit.

        Raises:
            StorageFailed: nothing was committed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(job, done, deletes=deletes)
        return await future

    def close(self, *, within_s: float = CLOSE_S) -> None:
        """Commit what waits, stop the thread, close the file; may be called twice.

        Args:
            within_s: longest time to bring the WAL home after the last commit. What is left of it
                is as durable, and is brought home by the next start.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._db is not None:
            try:
                if not close(self._db, within_s=within_s):
                    _log.info("the write-ahead log stays; the next start brings it home")
            except sqlite3.Error as error:
                _log.warning("the last checkpoint failed; the next start does it", error=error)
            self._db = None

    # --- the writer thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._jobs and not self._stopping:
                    self._wake.wait(timeout=IDLE_S)
                group = self._take()
                if not group and self._stopping:
                    return
            if not group:
                if self._wal_held and not self._try_cut():
                    return
                continue
            results = self._commit(group)
            with self._wake:
                self._pending -= sum(rows for rows, *_ in group)
                open_again = self._pending < MAX_PENDING
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._deliver, group, results, open_again)
            if self.fault is not None:
                self._fail_rest()
                return

    def _take(self) -> list[tuple[int, Job[Any], Done, bool]]:
        group: list[tuple[int, Job[Any], Done, bool]] = []
        rows = 0
        while self._jobs and (not group or rows + self._jobs[0][0] <= GROUP_ROWS):
            job = self._jobs.popleft()
            rows += job[0]
            group.append(job)
        return group

    def _commit(
        self, group: list[tuple[int, Job[Any], Done, bool]]
    ) -> list[tuple[Any, BaseException | None]]:
        """Run one group in one transaction; what each job gave, or the error of all."""
        assert self._db is not None
        assert self._store is not None
        if self.full:
            self._look_for_room()
        store = self._store
        results: list[tuple[Any, BaseException | None]] = []
        rows = 0
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for _, job, _, deletes in group:
                if self.full and not deletes:
                    results.append((None, StorageFull(self._full_text())))
                    continue
                try:
                    results.append((job(store), None))
                except MatcherError as error:
                    # Raised by a job before it wrote anything: its own affair.
                    results.append((None, error))
            rows = store.pending_rows
            store.flush()
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            failure = self._failed(error)
            return [(None, failure)] * len(group)
        self.commits += 1
        self.committed_rows += rows
        for listener in self._listeners:
            listener()
        return results

    def _failed(self, error: sqlite3.Error) -> MatcherError:
        """Roll back, and say whether it will pass."""
        assert self._db is not None
        assert self._store is not None
        name = getattr(error, "sqlite_errorname", "") or ""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            fatal = name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_FSYNC"))
            if not fatal:
                self._store.reload()
        except sqlite3.Error as second:
            error, fatal = second, True
        if fatal or isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
            self.fault = unusable(self.path, error)
            _log.error("the ledger is unusable", error=self.fault)
            return StorageFailed(str(self.fault))
        if name == "SQLITE_FULL" or self._free_bytes() < BALLAST_BYTES:
            self.full = True
            self._ballast.unlink(missing_ok=True)
            _log.error(
                "the disk of the ledger is full; boxes keep their sightings",
                path=str(self.path),
                free_bytes=self._free_bytes(),
            )
            return StorageFull(self._full_text())
        _log.error("the ledger could not commit", path=str(self.path), error=error)
        return StorageFailed(f"{self.path}: {error}")

    def _deliver(
        self,
        group: list[tuple[int, Job[Any], Done, bool]],
        results: list[tuple[Any, BaseException | None]],
        open_again: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        for (_, _, done, _), (result, error) in zip(group, results, strict=True):
            loop.call_soon(done, result, error)  # one that raises keeps none of the others
        if open_again and self._room is not None:
            self._room.set()

    def _fail_rest(self) -> None:
        with self._wake:
            rest = list(self._jobs)
            self._jobs.clear()
            self._pending = 0
        failure = StorageFailed(str(self.fault))
        results: list[tuple[Any, BaseException | None]] = [(None, failure)] * len(rest)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, rest, results, True)

    # --- disk -------------------------------------------------------------------------------------

    def _free_bytes(self) -> int:
        state = os.statvfs(self._data_dir)
        return state.f_bavail * state.f_frsize

    def _full_text(self) -> str:
        return (
            f"the disk of {self.path} has {self._free_bytes() >> 20} MiB left; make room, or "
            "shorten the retention"
        )

    def _look_for_room(self) -> None:
        if self._free_bytes() >= 3 * BALLAST_BYTES:
            self.full = False
            self._make_ballast()
            _log.info("the disk of the ledger has room again", path=str(self.path))

    def _make_ballast(self) -> None:
        """Keep some room that a full disk does not have: deleting needs room in SQLite."""
        try:
            if self._ballast.exists() and self._ballast.stat().st_size == BALLAST_BYTES:
                return
            with self._ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
        except OSError as error:
            self._ballast.unlink(missing_ok=True)
            _log.warning("no room for the ballast file", error=error)

    def checkpoint(self, store: LedgerStore) -> None:
        """After deletions: bring the WAL home and cut it, so that deleted rows leave the disk.

        Run as a job of its own; it commits the group so far. Where another program's reader holds
        the WAL it is said, and tried again until it succeeds.
        """
        assert self._db is not None
        store.flush()
        self._db.execute("COMMIT")
        self._cut_wal()
        self._db.execute("BEGIN IMMEDIATE")

    def _try_cut(self) -> bool:
        """Once more, between groups; False where that showed the file to be unusable."""
        try:
            self._cut_wal()
        except sqlite3.Error as error:
            self._failed(error)
        if self.fault is not None:
            self._fail_rest()
        return self.fault is None

    def _cut_wal(self) -> None:
        """Where another program's reader holds the WAL, it is tried again every second."""
        assert self._db is not None
        held = not truncate_wal(self._db, wait_s=CUT_WAIT_S)
        if held and not self._wal_held:
            _log.warning(
                "another program reads the ledger: deleted rows stay in its write-ahead log until "
                "it lets go",
                path=str(self.path),
            )
        self._wal_held = held

    # --- forgetting -------------------------------------------------------------------------------

    def _forget_again(self, store: LedgerStore, entries: list[dict[str, Any]]) -> None:
        assert self._db is not None
        for entry in entries:
            for tracklet_id in entry["tracklet_ids"]:
                store.forgotten[tracklet_id] = entry["site"]
        self._db.execute("BEGIN IMMEDIATE")
        for entry in entries:
            places = ",".join("?" * len(entry["tracklet_ids"]))
            if self._db.execute(
                f"SELECT 1 FROM log WHERE tracklet_id IN ({places}) LIMIT 1",
                entry["tracklet_ids"],
            ).fetchone():
                deleted, _ = store.forget(
                    entry["site"],
                    entry["identity_id"],
                    entry["tracklet_ids"],
                    now_ns=self._clock.unix_nanos(),
                )
                _log.info("forgot again what a restored ledger had", sightings=deleted)
        self._db.execute("COMMIT")
        self._cut_wal()

    def remember_forgotten(self, entry: dict[str, Any]) -> None:
        """Write a Forget to its own file, durably, before anything is deleted."""
        forgotten.remember(self._data_dir / FORGOTTEN_FILE, entry)
