"""Reads rows back from the spool's file, beside its writer.

Promise: what is given proves itself: a row whose bytes fail their check, or that is another's, is
named as bad and never returned. A connection of its own, opened at the first reading.
Fails: `SpoolError`, also `SpoolDamaged`; the caller decides what becomes of the file.
Threads: any; one reads at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

import structlog

from edge.spool_errors import READ_ERRORS, translate
from edge.spool_files import SpoolFiles
from edge.spool_record import read_record
from edge.spool_rows import RowSet
from edge.spool_schema import connect_reader

log = structlog.get_logger("edge.spool")


class RowReader:
    """See the module.

    Args:
        files: open.
    """

    def __init__(self, files: SpoolFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None  # guarded by _lock

    def close(self) -> None:
        """Let go of the file; the next reading opens it anew. May come twice."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def stamps(self, row: int) -> tuple[int, int] | None:
        """When a row was written: UTC, and the spool's running time; None: there is no such row."""
        found = self._fetch(
            "SELECT appended_unix_nanos, stamp_running_nanos FROM sighting WHERE row = ?", row
        )
        return (int(found[0][0]), int(found[0][1])) if found else None

    def read(self, rows: Sequence[int], bad: RowSet) -> dict[int, bytes]:
        """Records of rows from the file, each checked; what fails its check is added to bad."""
        files = self._files
        found: dict[int, bytes] = {}
        stored = self._fetch(
            "SELECT row, sealed, record FROM body WHERE row BETWEEN ? AND ?", rows[0], rows[-1]
        )
        wanted = set(rows)
        for row, sealed, record in stored:
            if row not in wanted:
                continue
            try:
                if not isinstance(record, bytes):
                    raise ValueError("not a record")
                clear = files.sealer.open(record) if sealed else record
                head = read_record(clear)
                with files.engine.state.lock:
                    if files.engine.state.index.key(row) != (head.writer_id, head.seq):
                        raise ValueError("another row's record")
            except (ValueError, KeyError) as error:
                log.error("a row is unreadable", row=row, reason=str(error))
                bad.add(row)
                continue
            found[row] = clear
        for row in rows:
            if row not in found:
                bad.add(row)
        return found

    def _fetch(self, statement: str, *values: int) -> list[tuple[int, int, bytes]]:
        try:
            with self._lock:
                if self._connection is None:
                    self._connection = connect_reader(self._files.path)
                return self._connection.execute(statement, values).fetchall()
        except READ_ERRORS as error:
            raise translate(error) from error
