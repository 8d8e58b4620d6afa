"""The spool's database file: one connection, its transactions, its sizes.

Promise: `transaction()` either commits everything (synced) or leaves the file as it was. The file
and its WAL stay below the cap together. Errors are the spool's own (edge.spool_errors).
Threads: the spool writer's alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.spool_errors import READ_ERRORS, translate
from edge.spool_schema import connect


class SpoolDatabase:
    """One open database.

    Args:
        path: the file.
        max_bytes: database and WAL together.

    Attributes:
        wal_bytes_allowed: how long the WAL may grow.
        frozen: a full disk keeps the file from growing.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self.path = path
        self._wal = path.with_name(path.name + "-wal")
        self._cap(max_bytes)
        self._db: sqlite3.Connection | None = None
        self._page_bytes = 0
        self.frozen = False

    def connect(self) -> None:
        """Open or make the file.

        Raises:
            SpoolDamaged, SpoolNotWritable, SpoolFull.
        """
        self._db = connect(self.path)
        with self._translated():
            self._page_bytes = int(self._one("PRAGMA page_size"))
            self._limit()

    def _cap(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.wal_bytes_allowed = min(8 << 20, max(max_bytes // 4, 256 << 10))

    def set_max_bytes(self, max_bytes: int) -> None:
        """A new cap. A file above it does not shrink by itself: `free_bytes` is below zero until
        rows are deleted, then `shrink` gives their room back."""
        self._cap(max_bytes)
        with self._translated():
            self._limit()

    def _most_pages(self) -> int:
        return max(16, (self._max_bytes - self.wal_bytes_allowed) // self._page_bytes)

    def _limit(self) -> None:
        """How large the file may grow, and how long the WAL."""
        pages = self._most_pages()
        checkpoint = max(8, self.wal_bytes_allowed // 2 // self._page_bytes)
        if self.frozen:
            pages = int(self._one("PRAGMA page_count"))
            checkpoint = 32
        self.db.execute(f"PRAGMA max_page_count = {pages}")
        self.db.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}")

    def freeze(self, frozen: bool) -> None:
        """On a full disk the file must not grow: a WAL that cannot be brought into it, because its
        pages lie beyond the file's end, can neither be emptied nor written on."""
        self.frozen = frozen
        with self._translated():
            self._limit()

    def close(self) -> None:
        """May come twice; checkpoints as far as it can."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @property
    def db(self) -> sqlite3.Connection:
        """The connection; `connect` first."""
        assert self._db is not None, "connect() first"
        return self._db

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except READ_ERRORS as error:
            raise translate(error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside, or nothing.

        Raises:
            SpoolFull, SpoolNotWritable, SpoolDamaged.
        """
        with self._translated():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:  # whatever it is: half a transaction must not stay open
                if self.db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self.db.execute("ROLLBACK")
                raise

    def _one(self, statement: str, *values: object) -> Any:
        found = self.db.execute(statement, values).fetchone()
        return found[0] if found is not None else None

    def disk_bytes(self) -> int:
        """Database and WAL, as they stand on the disk."""
        total = 0
        for path in (self.path, self._wal):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def wal_bytes(self) -> int:
        """The WAL's size on the disk."""
        try:
            return self._wal.stat().st_size
        except FileNotFoundError:
            return 0

    def free_bytes(self) -> int:
        """What still fits: unused pages inside the file, and pages that it may still grow by;
        below zero where the cap was lowered and rows lie above it."""
        with self._translated():
            unused = int(self._one("PRAGMA freelist_count"))
            pages = int(self._one("PRAGMA page_count"))
        most = pages if self.frozen else self._most_pages()
        return (unused + most - pages) * self._page_bytes

    def over_bytes(self) -> int:
        """By how much the file, used or not, lies above its cap; 0: it does not."""
        with self._translated():
            pages = int(self._one("PRAGMA page_count"))
        return max(0, pages - self._most_pages()) * self._page_bytes

    def integrity_problem(self) -> str:
        """What SQLite's quick check finds first; empty: nothing."""
        with self._translated():
            found = str(self._one("PRAGMA quick_check(1)"))
        return "" if found == "ok" else found

    def checkpoint(self, *, truncate: bool) -> None:
        """Bring the WAL into the database; truncate: and give its space back."""
        with self._translated():
            self.db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if truncate else 'PASSIVE'})")

    def shrink(self) -> bool:
        """Give unused pages back to the disk where the file is larger than its cap: as many as one
        WAL may hold. Returns whether it shrank."""
        over = self.over_bytes()
        if not over:
            return False
        pages = max(1, min(over, self.wal_bytes_allowed // 2) // self._page_bytes)
        with self._translated():
            # execute() steps once, and that is one page.
            self.db.executescript(f"PRAGMA incremental_vacuum({pages})")
        self.checkpoint(truncate=True)
        with self._translated():
            self._limit()
        return self.over_bytes() < over

    def sync_folder(self) -> None:
        """Make new names in the folder durable."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
