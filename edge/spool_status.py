"""What stands in a spool, for a person: `edge-run --spool-status`, beside a running box or without.

Promise: reads only (a second, read-only connection), except `request_resend`, which sends dead
letters again: at once where no box runs, by a request that the running box follows within seconds.
Fails: `SpoolUnusable` where there is no readable spool.
Threads: any.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from edge.config import SpoolConfig
from edge.spool_errors import READ_ERRORS, SpoolError, SpoolInUse, SpoolUnusable, translate
from edge.spool_files import DATABASE_NAME, REQUEST_NAME, FolderLock
from edge.spool_recovery import kept_aside
from edge.spool_schema import ACKED, DEAD, WAITING, connect_reader
from edge.spool_seal import KEY_ID_BYTES, load_sealer
from edge.spool_store import SpoolStore
from reid.v1.ingest_pb2 import SkipReason


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A sighting that the matcher will not take as it is.

    Attributes:
        writer_id, seq: its key.
        camera: where it was seen.
        reason: INVALID, UNKNOWN_SPACE, FOREIGN, TOO_LARGE, or POISON.
        message: the matcher's words.
        unix_nanos: when it was put aside.
    """

    writer_id: str
    seq: int
    camera: str
    reason: str
    message: str
    unix_nanos: int


@dataclass(frozen=True, slots=True)
class SpoolReport:
    """What `edge-run --spool-status` shows.

    Attributes:
        path: the database.
        running: a box has it open.
        waiting, acked: rows; dead_letters: each of them, oldest first, at most 1000.
        dead: how many dead letters there are.
        waiting_by_camera: camera -> (rows, bytes).
        oldest_unix_nanos: when the oldest waiting row was written; 0: none waits.
        skipped: reason -> keys that will never come, since the spool exists.
        bytes: database and WAL.
        ledger_id: the ledger that acked last.
        writers: how many processes' rows it remembers.
        sealed_with: key ids (hexadecimal) that rows are sealed with -> rows; "" for rows in the
        clear. set_aside: files that were found damaged.
    """

    path: Path
    running: bool
    waiting: int
    acked: int
    dead: int
    dead_letters: tuple[DeadLetter, ...]
    waiting_by_camera: dict[str, tuple[int, int]]
    oldest_unix_nanos: int
    skipped: dict[str, int]
    bytes: int
    ledger_id: str
    writers: int
    sealed_with: dict[str, int]
    set_aside: tuple[Path, ...]


def spool_report(data_dir: Path) -> SpoolReport:
    """Read the spool of a data folder.

    Raises:
        SpoolUnusable: there is none, or it cannot be read.
    """
    path = data_dir / DATABASE_NAME
    if not path.exists():
        raise SpoolUnusable(path, "no spool here; give the box's --data-dir")
    lock = FolderLock(data_dir)
    try:
        lock.acquire()
        running = False
    except SpoolInUse:
        running = True
    finally:
        lock.release()  # at once: a box that starts meanwhile must not find it taken
    try:
        db = connect_reader(path)
        try:
            return _read(db, path, running)
        except READ_ERRORS as error:
            raise translate(error) from error
        finally:
            db.close()
    except SpoolUnusable:
        raise
    except SpoolError as error:
        reason = f"{error}; edge-run saves what is readable at its start"
        raise SpoolUnusable(path, reason) from error


def _read(db: sqlite3.Connection, path: Path, running: bool) -> SpoolReport:
    states = dict(db.execute("SELECT state, count(*) FROM sighting GROUP BY state"))
    by_camera = {
        name: (rows, size)
        for name, rows, size in db.execute(
            "SELECT c.name, count(*), sum(s.bytes) FROM sighting s"
            " JOIN camera c ON c.number = s.camera WHERE s.state = ? GROUP BY c.name",
            (WAITING,),
        )
    }
    oldest = db.execute(
        "SELECT ifnull(min(appended_unix_nanos), 0) FROM sighting WHERE state = ?", (WAITING,)
    ).fetchone()[0]
    dead = tuple(
        DeadLetter(*found)
        for found in db.execute(
            "SELECT w.writer_id, d.row - w.first_row + 1, c.name, d.reason, d.message,"
            " d.unix_nanos FROM dead_letter d JOIN sighting s USING (row)"
            " JOIN camera c ON c.number = s.camera"
            " JOIN writer w ON d.row BETWEEN w.first_row AND w.first_row + w.last_seq - 1"
            " ORDER BY d.row LIMIT 1000"
        )
    )
    sealed = {
        ("" if not flag else bytes(key).hex()): rows
        for flag, key, rows in db.execute(
            "SELECT sealed, CASE WHEN sealed THEN substr(record, 1, ?) ELSE x'' END AS key,"
            " count(*) FROM body GROUP BY sealed, key",
            (KEY_ID_BYTES,),
        )
    }
    names = dict(SkipReason.items())
    skipped = {
        name.removeprefix("skipped.SKIP_REASON_").lower(): value
        for name, value in db.execute("SELECT name, value FROM counter")
        if name.removeprefix("skipped.") in names
    }
    ledger = db.execute("SELECT value FROM fact WHERE name = 'ledger_id'").fetchone()
    size = sum(
        file.stat().st_size for file in (path, path.with_name(path.name + "-wal")) if file.exists()
    )
    return SpoolReport(
        path=path,
        running=running,
        waiting=states.get(WAITING, 0),
        acked=states.get(ACKED, 0),
        dead=states.get(DEAD, 0),
        dead_letters=dead,
        waiting_by_camera=by_camera,
        oldest_unix_nanos=oldest,
        skipped=skipped,
        bytes=size,
        ledger_id=str(ledger[0]) if ledger else "",
        writers=db.execute("SELECT count(*) FROM writer").fetchone()[0],
        sealed_with=sealed,
        set_aside=tuple(kept_aside(path)),
    )


def request_resend(data_dir: Path, *, config: SpoolConfig) -> int | None:
    """Send all dead letters again.

    Returns:
        How many wait for the matcher again; None: a box runs and will see to it.
    Raises:
        SpoolUnusable: there is no spool, or it cannot be written.
    """
    path = data_dir / DATABASE_NAME
    if not path.exists():
        raise SpoolUnusable(path, "no spool here; give the box's --data-dir")
    lock = FolderLock(data_dir)
    try:
        lock.acquire()
    except SpoolInUse:
        request = data_dir / REQUEST_NAME
        try:
            request.touch()
        except OSError as error:
            raise SpoolUnusable(request, error.strerror or str(error)) from error
        return None
    store = SpoolStore(path, sealer=load_sealer(config.key_file), max_bytes=config.max_bytes)
    try:
        dead = store.open().index.dead
        with store.transaction():
            store.set_state(dead, WAITING, running_nanos=0)
        return len(dead)
    except SpoolError as error:
        raise SpoolUnusable(path, str(error)) from error
    finally:
        store.close()
        lock.release()
