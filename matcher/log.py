"""Reading the ledger as a log: from a position, in order of commit.

Promise: every entry after the position is given once, in order; a read holds no transaction open
between calls, so checkpoints are never blocked for long. Each reader belongs to one thread.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from matcher.schema import LEDGER_FILE, EntryKind, connect, unusable

_COLUMNS = "position, kind, site, edge_id, writer, seq, content_hash, seen_ns, committed_ns, body"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log.

    Attributes:
        position: growing, not without gaps.
        kind: what it is.
        site, edge_id: whose.
        writer_id, seq, content_hash: key and hash of a sighting; empty otherwise.
        seen_ns: from when its age counts, UTC.
        committed_ns: when, UTC.
        body: serialised Sighting, or JSON of another kind.
    """

    position: int
    kind: EntryKind
    site: str
    edge_id: str
    writer_id: str
    seq: int
    content_hash: bytes
    seen_ns: int
    committed_ns: int
    body: bytes


class LogReader:
    """A reader of ledger.db with a connection of its own, opened at the first use."""

    def __init__(self, *, data_dir: Path) -> None:
        self._path = data_dir / LEDGER_FILE
        self._db: sqlite3.Connection | None = None
        self._writers: dict[int, str] = {}

    def read(
        self, after: int, *, limit: int, site: str = "", sightings_only: bool = False
    ) -> list[Entry]:
        """Entries after a position, at most `limit`.

        Raises:
            LedgerUnusable: the file cannot be read.
        """
        conditions, values = ["position > ?"], [after]
        texts: list[str] = []
        if site:
            conditions.append("site = ?")
            texts.append(site)
        if sightings_only:
            conditions.append(f"kind = {EntryKind.SIGHTING.value}")
        where = " AND ".join(conditions)
        try:
            rows = self._connection().execute(
                f"SELECT {_COLUMNS} FROM log WHERE {where} ORDER BY position LIMIT ?",
                (*values, *texts, limit),
            )
            return [self._entry(*row) for row in rows.fetchall()]
        except sqlite3.Error as error:
            raise unusable(self._path, error) from error

    def _entry(
        self,
        position: int,
        kind: int,
        site: str,
        edge_id: str,
        number: int | None,
        seq: int | None,
        content_hash: bytes | None,
        seen_ns: int,
        committed_ns: int,
        body: bytes,
    ) -> Entry:
        return Entry(
            position,
            EntryKind(kind),
            site,
            edge_id,
            self._writer(number),
            seq or 0,
            content_hash or b"",
            seen_ns,
            committed_ns,
            body,
        )

    def end(self) -> int:
        """The last position; 0 where the log is empty."""
        try:
            row = self._connection().execute("SELECT max(position) FROM log").fetchone()
        except sqlite3.Error as error:
            raise unusable(self._path, error) from error
        return int(row[0] or 0)

    def interrupt(self) -> None:
        """End the read that runs, from any thread: it raises LedgerUnusable."""
        if self._db is not None:
            self._db.interrupt()

    def close(self) -> None:
        """Close the connection; may be called twice."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = connect(self._path, read_only=True)
        return self._db

    def _writer(self, number: int | None) -> str:
        if number is None:
            return ""
        known = self._writers.get(number)
        if known is None:
            row = (
                self._connection()
                .execute("SELECT writer_id FROM writers WHERE id = ?", (number,))
                .fetchone()
            )
            known = self._writers[number] = "" if row is None else str(row[0])
        return known
