"""The spool's database: its tables, its settings, its migrations.

Promise: a file that `connect` returns is a sound spool of the newest schema; a backlog written by
an older release is brought up to it in one transaction. `application_id` tells our files from
others', `user_version` is the schema's number. Every schema ever released has a file in
tests/unit/edge/fixtures that is opened and delivered by a test.
Fails: `SpoolDamaged` (torn, foreign), `NewerSchema`, `SpoolNotWritable`, `SpoolFull`.

    fact      name, value           spool id, ledger id, running time
    writer    who gave which rows   row = first_row + seq - 1
    sighting  one per row           camera, tracklet, revision, final, bytes, state, stamps
    body      one per row           the record (edge.spool_record), sealed or not
    skipped   ranges of keys        that will never come, and why
    released  ranges of keys        deleted after their ack
    dead_letter, camera, space, counter
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge.spool_errors import READ_ERRORS, NewerSchema, SpoolDamaged, translate

APPLICATION_ID = 0x52454944  # "REID"
SCHEMA = 2

# A row is one to five kilobytes. On small pages it has its pages to itself, so that evicting one
# row out of many frees its room; throughput is that of larger pages (docs/reliability.md).
PAGE_BYTES = 2048

WAITING, ACKED, DEAD = 0, 1, 2

_TABLES_1 = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE writer (
  writer_id TEXT PRIMARY KEY, first_row INTEGER NOT NULL UNIQUE, last_seq INTEGER NOT NULL,
  started_running_nanos INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE camera (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE space (
  space_id TEXT NOT NULL, variant_id TEXT NOT NULL, dimension INTEGER NOT NULL,
  PRIMARY KEY (space_id, variant_id)) WITHOUT ROWID;
CREATE TABLE sighting (
  row INTEGER PRIMARY KEY, camera INTEGER NOT NULL, tracklet INTEGER NOT NULL,
  revision INTEGER NOT NULL, bytes INTEGER NOT NULL, state INTEGER NOT NULL,
  stamp_running_nanos INTEGER NOT NULL, appended_unix_nanos INTEGER NOT NULL);
CREATE TABLE body (row INTEGER PRIMARY KEY, sealed INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE skipped (
  writer_id TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, reason INTEGER NOT NULL,
  unix_nanos INTEGER NOT NULL, PRIMARY KEY (writer_id, first)) WITHOUT ROWID;
CREATE TABLE dead_letter (
  row INTEGER PRIMARY KEY, reason TEXT NOT NULL, message TEXT NOT NULL,
  unix_nanos INTEGER NOT NULL);
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

# 2: keys deleted after their ack are remembered, so that a missing row can be told from a purged
# one; whether a sighting was its tracklet's last is known to eviction.
_TO_2 = """
CREATE TABLE released (
  writer_id TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY (writer_id, first)) WITHOUT ROWID;
ALTER TABLE sighting ADD COLUMN final INTEGER NOT NULL DEFAULT 0;
"""

_STEPS = {1: _TABLES_1, 2: _TO_2}


def connect(path: Path, *, create: bool = True) -> sqlite3.Connection:
    """Open the database for writing, made or migrated as needed. The caller's thread owns it.

    Raises:
        SpoolDamaged, NewerSchema, SpoolNotWritable, SpoolFull: see the module.
    """
    mode = "rwc" if create else "rw"
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=5.0,
        )
        _settle(connection, path)
    except READ_ERRORS as error:
        if connection is not None:
            connection.close()
        raise translate(error) from error
    except SpoolDamaged:
        if connection is not None:
            connection.close()
        raise
    return connection


def _settle(connection: sqlite3.Connection, path: Path) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    owner = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if tables and owner != APPLICATION_ID:
        raise SpoolDamaged(f"{path}: a database, but not a spool of ours")
    if version > SCHEMA:
        raise NewerSchema(path, version, SCHEMA)
    if not tables:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # Deleted sightings are personal data: their bytes are overwritten, not only unlinked.
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -4096")
    if version < SCHEMA:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for step in range(version + 1, SCHEMA + 1):
                for statement in _STEPS[step].split(";"):
                    if statement.strip():
                        connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute("COMMIT")
        except READ_ERRORS:
            connection.execute("ROLLBACK")
            raise


def connect_reader(path: Path) -> sqlite3.Connection:
    """A second connection that only reads; sees what was committed when its statement began."""
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=5.0,
        )
        connection.execute("PRAGMA cache_size = -1024")
    except sqlite3.Error as error:
        raise translate(error) from error
    return connection
