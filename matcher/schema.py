"""The files of the matcher on disk: their tables, how they are opened, how they grow.

Promise: a file of an older release is brought to the present tables in one transaction; one of a
newer release, of another kind, or damaged raises LedgerUnusable and is not touched.

    DATA_DIR/ledger.db        the ledger: log, receipts, skipped keys, boxes (writer: ledger thread)
    DATA_DIR/identities.db    what association made of it; may be deleted and is then made again
    DATA_DIR/forgotten.jsonl  what was forgotten, applied again at every start (not in backups)
    DATA_DIR/lock             held by the process that serves

The log is one table in order of commit. Kinds other than SIGHTING tell association what it must
know to reach the same result again when it reads the log from zero.
"""

from __future__ import annotations

import enum
import fcntl
import os
import secrets
import sqlite3
import threading
from pathlib import Path

import structlog

from matcher.errors import LedgerLocked, LedgerUnusable

LEDGER_FILE = "ledger.db"
IDENTITIES_FILE = "identities.db"
FORGOTTEN_FILE = "forgotten.jsonl"
LOCK_FILE = "lock"
APPLICATION_ID = 0x45524C44  # "ERLD"
LEDGER_VERSION = 1
BUSY_S = 10.0  # how long a statement waits for a lock of another program
INTERRUPT_AGAIN_S = 0.002
RESTORED_GAP = 1 << 32  # positions given after the backup was made are never given again
_ROLLBACK_JOURNAL = b"\x01\x01"  # in a SQLite file's header; a file in WAL mode has 2, 2
_log = structlog.get_logger("ledger")


class EntryKind(enum.IntEnum):
    """What an entry of the log is."""

    SIGHTING = 1  # body: serialised Sighting
    WRITER_ENDED = 2  # body: {"writer_id"}: nothing more of this writer will come
    CLOCK = 3  # body: {"boot_id", ...}: what is known of a boot's clock from here on
    MERGE = 4  # body: {"identity_id", "other_identity_id"}
    SPLIT = 5  # body: {"identity_id", "tracklet_ids"}
    FORGET = 6  # body: {"identity_id", "tracklet_ids"}
    RETENTION = 7  # body: {"identity_s"}
    TICK = 8  # body: {}: time passed without anything else to tell
    MAP = 9  # body: {"number", "card", "content"} of a site's map; {"number": 0}: none any more


_LEDGER_TABLES = (
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """CREATE TABLE writers(
        id INTEGER PRIMARY KEY, writer_id TEXT NOT NULL UNIQUE, site TEXT NOT NULL,
        edge_id TEXT NOT NULL, ended INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE log(
        position INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, site TEXT NOT NULL,
        edge_id TEXT NOT NULL, writer INTEGER, seq INTEGER, content_hash BLOB, tracklet_id TEXT,
        seen_ns INTEGER NOT NULL, committed_ns INTEGER NOT NULL, body BLOB NOT NULL)""",
    "CREATE UNIQUE INDEX log_key ON log(writer, seq) WHERE writer IS NOT NULL",
    "CREATE INDEX log_tracklet ON log(tracklet_id) WHERE tracklet_id IS NOT NULL",
    "CREATE INDEX log_seen ON log(seen_ns)",
    """CREATE TABLE receipts(
        writer INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        PRIMARY KEY(writer, first)) WITHOUT ROWID""",
    """CREATE TABLE skipped(
        writer INTEGER NOT NULL, reason INTEGER NOT NULL, first INTEGER NOT NULL,
        last INTEGER NOT NULL, PRIMARY KEY(writer, reason, first)) WITHOUT ROWID""",
    """CREATE TABLE edges(
        site TEXT NOT NULL, edge_id TEXT NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY(site, edge_id)) WITHOUT ROWID""",
    """CREATE TABLE retention(
        site TEXT PRIMARY KEY, ledger_s REAL NOT NULL, identity_s REAL NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE audit(
        id INTEGER PRIMARY KEY, unix_ns INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
        detail TEXT NOT NULL)""",
)


class DataLock:
    """The right to serve a data folder: one process at a time, freed by the system at its death."""

    def __init__(self, data_dir: Path) -> None:
        """Take it.

        Raises:
            LedgerLocked: another process has it.
            LedgerUnusable: the folder cannot be written.
        """
        path = data_dir / LOCK_FILE
        try:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerUnusable(
                data_dir, f"cannot be written ({error.strerror})", "check path, owner and rights"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise LedgerLocked(
                data_dir,
                "another edge-match serves this folder",
                "stop it, or give another --data-dir",
            ) from error

    def release(self) -> None:
        """Give it back; may be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a SQLite file as we use it: WAL, synchronous=FULL, secure_delete, autocommit.

    Raises:
        LedgerUnusable: it cannot be opened or is not a database.
    """
    try:
        mode = "ro" if read_only else "rwc"
        connection = sqlite3.connect(
            f"file:{_quoted(path)}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_S,
            cached_statements=256,
        )
        try:
            if read_only:
                connection.execute("PRAGMA query_only=ON")
            else:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("PRAGMA secure_delete=ON")
                connection.execute("PRAGMA wal_autocheckpoint=4000")
                connection.execute("PRAGMA journal_size_limit=67108864")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    return connection


def truncate_wal(
    connection: sqlite3.Connection, *, wait_s: float, within_s: float | None = None
) -> bool:
    """Bring the WAL home and cut it, so that deleted rows leave the disk.

    Args:
        wait_s: how long to wait for readers that hold it.
        within_s: longest time to copy; None: as long as it takes.
    Returns:
        False where a reader held it, or the time was over: all is as durable as before.
    """
    connection.execute(f"PRAGMA busy_timeout={round(wait_s * 1000)}")
    done = threading.Event()
    timer = threading.Thread(target=_interrupt, args=(connection, within_s, done), name="wal-timer")
    try:
        timer.start()
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
        return False
    finally:
        done.set()
        timer.join()
        connection.execute(f"PRAGMA busy_timeout={round(BUSY_S * 1000)}")


def _interrupt(
    connection: sqlite3.Connection, within_s: float | None, done: threading.Event
) -> None:
    """Interrupt what runs once the time is over, again and again: it may only be about to begin."""
    while not done.wait(within_s):
        connection.interrupt()
        within_s = INTERRUPT_AGAIN_S


def close(connection: sqlite3.Connection, *, within_s: float) -> bool:
    """Close what wrote a database; False where its WAL stays for the next start.

    Args:
        within_s: longest time to bring the WAL home. What is left of it is as durable.
    Raises:
        sqlite3.Error: the WAL could not be brought home; closed all the same.
    """
    try:
        home = truncate_wal(connection, wait_s=0.0, within_s=within_s)
        if not home:
            connection.interrupt()  # else closing would do it after all, for any time
        return home
    finally:
        connection.close()


def open_ledger(path: Path) -> sqlite3.Connection:
    """Open the ledger for writing, making or migrating it.

    Raises:
        LedgerUnusable: damaged, of another kind, or of a newer release.
    """
    new = not path.exists()
    _drop_log_of_another(path)
    connection = connect(path)
    try:
        if new:
            path.chmod(0o600)
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise unusable(path, error) from error
    except LedgerUnusable:
        connection.close()
        raise
    return connection


def _drop_log_of_another(path: Path) -> None:
    """Remove a write-ahead log that a backup found beside itself when it was put in place.

    SQLite would play it into the backup: the restore would be undone, or the file damaged. A ledger
    that ever ran says in its header that it has a log; a copy by `edge-match backup` says it has
    none, so whatever lies there is the log of the file before it.
    """
    try:
        with path.open("rb") as file:
            header = file.read(20)
        leftovers = [path.with_name(path.name + end) for end in ("-wal", "-shm")]
        leftovers = [file for file in leftovers if file.exists()]
        if header[18:] != _ROLLBACK_JOURNAL or not leftovers:
            return
        for leftover in leftovers:
            leftover.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise LedgerUnusable(
            path, f"cannot be read ({error.strerror})", "check path, owner and rights"
        ) from error
    _log.warning(
        "a backup was put in place: removed the write-ahead log of the ledger before it",
        removed=[file.name for file in leftovers],
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    kind = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and kind != APPLICATION_ID:
        raise LedgerUnusable(path, "is not a ledger of edge-match", "give another --data-dir")
    if version > LEDGER_VERSION:
        raise LedgerUnusable(
            path,
            f"was written by a newer release (version {version}, this one knows {LEDGER_VERSION})",
            "install that release again; it is not touched",
        )
    if not tables:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _LEDGER_TABLES:
            connection.execute(statement)
        connection.executemany(
            "INSERT INTO meta VALUES(?, ?)",
            [
                ("ledger_id", secrets.token_hex(16)),
                ("generation", secrets.token_hex(16)),
                ("identity_salt", secrets.token_hex(16)),
            ],
        )
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={LEDGER_VERSION}")
        connection.execute("COMMIT")
    elif get_meta(connection, "backup") is not None:
        _after_restore(connection)


def _after_restore(connection: sqlite3.Connection) -> None:
    """A backup is served for the first time: leave a gap, so that no position means two things."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT OR IGNORE INTO sqlite_sequence(name, seq) SELECT 'log', 0 WHERE NOT "
        "EXISTS (SELECT 1 FROM sqlite_sequence WHERE name='log')"
    )
    connection.execute(
        "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'log'", (RESTORED_GAP,)
    )
    set_meta(connection, "generation", secrets.token_hex(16))
    connection.execute("DELETE FROM meta WHERE name = 'backup'")
    connection.execute("COMMIT")


def get_meta(connection: sqlite3.Connection, name: str) -> str | None:
    """A value of the table meta."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def set_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Set a value of the table meta."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (name, value))


def unusable(path: Path, error: sqlite3.Error) -> LedgerUnusable:
    """Say in words what SQLite says in codes."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB") or name.startswith("SQLITE_CORRUPT"):
        return LedgerUnusable(
            path,
            f"is damaged ({error})",
            "put a backup in its place (edge-match backup made it); the boxes refill what they "
            "still hold",
        )
    return LedgerUnusable(
        path, f"cannot be used ({error})", "check path, owner, rights and free space"
    )


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
