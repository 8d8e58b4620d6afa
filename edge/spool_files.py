"""The files of a spool: lock, database, ballast, marks, and what was set aside.

Promise: a damaged database is rebuilt aside and takes its name only when complete, so a crash at
any point leaves either the old file or the whole new one.

    spool.sqlite (-wal, -shm)   the database
    spool.ballast               see edge.spool_ballast
    spool.marks                 see edge.spool_marks
    spool.lock                  held while a process has the spool open
    spool.resend                a request to send dead letters again
    spool-damaged-*.sqlite      set aside, at most two

Fails: `SpoolInUse`, `SpoolUnusable` at open.
Threads: open() before the writer's thread starts, all else on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from edge.config import SpoolConfig
from edge.delivery import SpaceUse
from edge.spool_ballast import Ballast
from edge.spool_engine import SpoolEngine
from edge.spool_errors import (
    NewerSchema,
    SpoolDamaged,
    SpoolError,
    SpoolFull,
    SpoolInUse,
    SpoolUnusable,
)
from edge.spool_marks import MarkFile, read_marks
from edge.spool_record import RecordHead
from edge.spool_recovery import (
    Remains,
    find_records,
    kept_aside,
    read_tables,
    remove_aside,
    set_aside,
)
from edge.spool_rows import RowSet, Writer
from edge.spool_schema import ACKED, DEAD
from edge.spool_seal import Sealer
from edge.spool_store import NewRow, SpoolStore
from reid.clock import Clock
from reid.ranges import KeyRanges
from reid.v1 import sighting_pb2
from reid.v1.ingest_pb2 import SKIP_REASON_ERASED, SKIP_REASON_UNREADABLE

DATABASE_NAME = "spool.sqlite"
BALLAST_NAME = "spool.ballast"
MARKS_NAME = "spool.marks"
LOCK_NAME = "spool.lock"
REQUEST_NAME = "spool.resend"

_REBUILD_ROWS = 256
# A torn table may claim any number: what neither rows nor marks support by so much is not believed.
_BELIEVED_BEYOND = 100_000

log = structlog.get_logger("edge.spool")


class FolderLock:
    """One process at a time in a data folder.

    Args:
        folder: the data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._fd = -1

    def acquire(self) -> None:
        """Take it; may come twice. Raises SpoolInUse where another process has it, SpoolUnusable
        on a bad disk."""
        if self._fd >= 0:
            return
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SpoolUnusable(self._path, error.strerror or str(error)) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise SpoolInUse(self._path) from error
        self._fd = fd

    def release(self) -> None:
        """May come twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a writer's rows stand in a rebuilt file."""

    first_row: int
    last_seq: int


class SpoolFiles:
    """Opens the database, whatever state it is in.

    Args:
        data_dir, config, sealer, clock, writer_id: as `Spool`.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        config: SpoolConfig,
        sealer: Sealer,
        clock: Clock,
        writer_id: str,
    ) -> None:
        self.path = data_dir / DATABASE_NAME
        self.sealer = sealer
        self._config = config
        self._clock = clock
        self._marks_path = data_dir / MARKS_NAME
        self._store = SpoolStore(self.path, sealer=sealer, max_bytes=config.max_bytes)
        self._ballast = Ballast(data_dir / BALLAST_NAME, config.ballast_bytes)
        self.engine = SpoolEngine(
            store=self._store,
            config=config,
            sealer=sealer,
            clock=clock,
            ballast=self._ballast,
            marks=MarkFile(self._marks_path),
            writer_id=writer_id,
        )

    def open(self) -> int:
        """Open the database; a damaged one is saved first.

        Returns:
            How many files were set aside: 0 or 1.
        Raises:
            SpoolUnusable: nothing can be opened or written here.
        """
        marks = read_marks(self._marks_path)
        rebuilt = self._rebuilt_path()
        try:
            if rebuilt.exists():
                # A crash while rebuilding: whole if the old file was renamed already, else rubbish.
                if self.path.exists():
                    _remove(rebuilt)
                else:
                    rebuilt.rename(self.path)
            try:
                self.engine.open(marks)
                return 0
            except SpoolFull:
                self._store.close()
                self._ballast.release()
                self.engine.open(marks)
                return 0
            except SpoolDamaged as damage:
                self._store.close()
                self._say(damage)
                saved = self._rebuild(marks)
                log.warning("saved what was readable of the spool", rows=len(saved))
                self.engine.open(marks)
                return 1
        except SpoolUnusable:
            raise
        except SpoolError as error:
            self._store.close()
            raise SpoolUnusable(self.path, f"{error}; free or repair the disk") from error
        except OSError as error:
            self._store.close()
            raise SpoolUnusable(self.path, error.strerror or str(error)) from error

    def recover_running(self) -> bool:
        """The file was found damaged while running: rebuild it under the same row numbers.

        Returns:
            Whether there was damage: False where a check finds none.
        """
        state = self.engine.state
        try:
            if not self._store.integrity_problem():
                return False
        except SpoolError:
            pass  # so damaged that it cannot even be checked
        self._store.close()
        with state.lock:
            places = {w.writer_id: _Place(w.first_row, w.last_seq) for w in state.index.writers}
            held = state.index.held()
            acked, dead = RowSet(state.index.acked), RowSet(state.index.dead)
        saved = self._rebuild({}, places)
        self._store.open()
        lost = RowSet(held.minus(saved))
        lost_acked = RowSet(lost.intersection(acked))
        lost_waiting = RowSet(lost.minus(acked))
        now = self._clock.unix_nanos()
        with state.lock:
            keys = state.index.keys_of(lost_waiting)
            released = state.index.keys_of(lost_acked)
        with self._store.transaction():
            running = state.running_nanos()
            self._store.set_state(RowSet(acked.intersection(saved)), ACKED, running_nanos=running)
            self._store.set_state(RowSet(dead.intersection(saved)), DEAD, running_nanos=running)
            told = self._store.put_skipped(keys, SKIP_REASON_UNREADABLE, now)
            self._store.put_released(released)
            waiting = RowSet(saved.minus(acked).minus(dead))
            waiting_bytes = self._store.bytes_of(waiting)
        with state.lock:
            state.index.drop(lost)
            # Found again although the index had let them go: deleted rows stay deleted.
            state.untold.add(told)
            state.skipped["SKIP_REASON_UNREADABLE"] += len(keys)
            state.waiting_bytes = waiting_bytes
        log.error("the spool was damaged and is rebuilt", rows=len(saved), lost=len(lost))
        return True

    def set_config(self, config: SpoolConfig) -> None:
        """Take new caps and times; ballast and keys wait for the next start."""
        self._config = config
        self.engine.set_config(config)

    def disk_bytes(self) -> int:
        """Database and WAL on the disk."""
        return self._store.disk_bytes()

    def remove_set_aside(self) -> None:
        """Delete files set aside: they may hold who was to be forgotten."""
        for old in kept_aside(self.path):
            remove_aside(old)

    def close(self) -> None:
        """May come twice."""
        self.engine.close()

    def _say(self, damage: SpoolDamaged) -> None:
        what = "written by a newer release" if isinstance(damage, NewerSchema) else "damaged"
        log.error(
            f"the spool is {what}; saving what is readable, setting the file aside",
            path=str(self.path),
            reason=str(damage),
        )

    def _rebuilt_path(self) -> Path:
        return self.path.with_name(self.path.name + ".rebuilt")

    def _rebuild(self, marks: dict[str, int], places: dict[str, _Place] | None = None) -> RowSet:
        """Write a new file of what is readable, set the old one aside; returns the rows saved."""
        remains = read_tables(self.path)
        if places is None:
            places = self._places(remains, marks)
        rebuilt = self._rebuilt_path()
        _remove(rebuilt)
        store = SpoolStore(rebuilt, sealer=self.sealer, max_bytes=self._config.max_bytes)
        store.open()
        try:
            self._write_tables(store, remains, places)
            saved = self._write_rows(store, remains, places)
            store.checkpoint(truncate=True)
        finally:
            store.close()
        set_aside(self.path, self._clock.unix_nanos() // 10**9)
        rebuilt.rename(self.path)
        store.sync_folder()
        return saved

    def _places(self, remains: Remains, marks: dict[str, int]) -> dict[str, _Place]:
        """Give each writer a stretch of rows, in the old order, none overlapping."""
        order: dict[str, int] = {}
        last: dict[str, int] = {}
        for row, head, _ in find_records(self.path, self.sealer):
            order[head.writer_id] = min(order.get(head.writer_id, 1 << 62), row - head.seq + 1)
            last[head.writer_id] = max(last.get(head.writer_id, 0), head.seq)
        for writer_id, seq in marks.items():
            last[writer_id] = max(last.get(writer_id, 0), seq)
        for writer_id, (first_row, seq) in remains.writers.items():
            order[writer_id] = first_row
            if seq <= last.get(writer_id, 0) + _BELIEVED_BEYOND:
                last[writer_id] = max(last.get(writer_id, 0), seq)
        places: dict[str, _Place] = {}
        following = 1
        for writer_id in sorted(last, key=lambda w: (order.get(w, 1 << 62), w)):
            places[writer_id] = _Place(following, last[writer_id])
            following += max(1, last[writer_id])
        return places

    def _write_tables(self, store: SpoolStore, remains: Remains, places: dict[str, _Place]) -> None:
        with store.transaction():
            for writer_id, place in places.items():
                store.put_writer(Writer(writer_id, place.first_row, place.last_seq, 0))
            for name, value in remains.facts:
                store.put_fact(name, value)
            for name, total in remains.counters:
                if not name.startswith("skipped."):
                    store.count(name, total)
            for space_id, variant_id, dimension in remains.spaces:
                if 1 <= dimension <= 4096:
                    store.put_space(SpaceUse(space_id, dimension, variant_id))
            for writer_id, first, last, reason, unix in remains.skipped:
                keys = _believed(places, writer_id, first, last)
                store.put_skipped(keys, reason, unix)  # type: ignore[arg-type]
            for writer_id, first, last in remains.released:
                store.put_released(_believed(places, writer_id, first, last))

    def _write_rows(self, store: SpoolStore, remains: Remains, places: dict[str, _Place]) -> RowSet:
        saved = RowSet()
        erased = KeyRanges()
        for writer_id, first, last, reason, _ in remains.skipped:
            if reason == SKIP_REASON_ERASED:
                erased.add_range(writer_id, first, last)
        pending: list[tuple[int, RecordHead, bytes]] = []
        for _, head, record in find_records(self.path, self.sealer):
            place = places.get(head.writer_id)
            if place is None or not 1 <= head.seq <= place.last_seq:
                continue
            row = place.first_row + head.seq - 1
            if row in saved or erased.contains(head.writer_id, head.seq):
                continue
            saved.add(row)
            pending.append((row, head, record))
            if len(pending) >= _REBUILD_ROWS:
                self._write_group(store, pending)
                pending = []
        self._write_group(store, pending)
        return saved

    def _write_group(self, store: SpoolStore, found: list[tuple[int, RecordHead, bytes]]) -> None:
        with store.transaction():
            rows = []
            for row, head, record in found:
                sighting = _parsed(head.payload)
                for space in _spaces(sighting):
                    store.put_space(space)
                number = sighting.tracklet_id.rpartition("/")[2]
                rows.append(
                    NewRow(
                        row,
                        store.put_camera(sighting.camera),
                        int(number) if number.isdecimal() else 0,
                        sighting.revision,
                        sighting.final,
                        record,
                    )
                )
            store.append(
                rows,
                running_nanos=self.engine.state.running_nanos(),
                unix_nanos=self._clock.unix_nanos(),
            )


def _believed(places: dict[str, _Place], writer_id: str, first: int, last: int) -> KeyRanges:
    """A range out of a damaged table; empty where it cannot be true."""
    keys = KeyRanges()
    place = places.get(writer_id)
    if place is not None and 1 <= first <= last <= place.last_seq:
        keys.add_range(writer_id, first, last)
    return keys


def _parsed(payload: bytes) -> sighting_pb2.Sighting:
    """The sighting; an empty one where it cannot be parsed (its hash is right: it goes as is)."""
    try:
        return sighting_pb2.Sighting.FromString(payload)
    except DecodeError:
        return sighting_pb2.Sighting()


def _spaces(sighting: sighting_pb2.Sighting) -> set[SpaceUse]:
    sizes = {
        sighting_pb2.EMBEDDING_ENCODING_FLOAT16: 2,
        sighting_pb2.EMBEDDING_ENCODING_FLOAT32: 4,
        sighting_pb2.EMBEDDING_ENCODING_INT8: 1,
    }
    return {
        SpaceUse(e.space_id, len(e.values) // sizes.get(e.encoding, 1), e.variant_id)
        for shot in sighting.shots
        for e in shot.embeddings
    }


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).unlink()
