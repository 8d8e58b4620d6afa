"""Errors of the spool.

SpoolError
├── SpoolUnusable        cannot be opened and not be repaired: the caller exits 6
│   ├── SpoolInUse       another process has this data folder open
│   └── SpoolKeyError    the key file is unreadable, or lacks a key that rows were sealed with
├── SpoolDamaged         the file is not a sound database (handled inside by recovery)
├── NewerSchema          written by a newer release (handled inside by recovery)
├── SpoolFull            disk or cap leave no room (handled inside: ballast, eviction, count)
├── SpoolNotWritable     read-only disk or an I/O error (handled inside: counted, retried)
└── SpoolClosed          used before open() or after stop()
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge.delivery import OutboxUnavailable


class SpoolError(OutboxUnavailable):
    """Base of everything that goes wrong in the spool."""


class SpoolUnusable(SpoolError):
    """The spool cannot be opened.

    Attributes:
        path: what could not be used.
        reason: why.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class SpoolInUse(SpoolUnusable):
    """Another process has it open."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, "another edge-run uses this data folder; stop it or give another --data-dir"
        )


class SpoolKeyError(SpoolUnusable):
    """The key file does not fit."""


class SpoolDamaged(SpoolError):
    """Not a sound database."""


class NewerSchema(SpoolDamaged):
    """Written by a newer release.

    Attributes:
        found: its schema number.
        known: the newest that we know.
    """

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(f"{path}: schema {found}, but this release knows only up to {known}")
        self.found = found
        self.known = known


class SpoolFull(SpoolError):
    """No room."""


class SpoolNotWritable(SpoolError):
    """Read-only, or the device fails."""


class SpoolClosed(SpoolError):
    """Used before open() or after stop()."""


_FULL = {sqlite3.SQLITE_FULL}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


# What reading a file can raise: SQLite's own, and what Python's binding makes of damaged text and
# numbers, even of a damaged name inside SQLite's own message.
READ_ERRORS = (sqlite3.Error, UnicodeDecodeError, OverflowError)


def translate(error: Exception) -> SpoolError:
    """The spool's own error for one of READ_ERRORS; by result code, never by text."""
    code = getattr(error, "sqlite_errorcode", None)
    text = f"SQLite: {error}"
    if code is None:
        # A text that is no UTF-8, or an integer too large: only damage brings these about.
        return SpoolDamaged(text)
    primary = code & 0xFF
    if primary in _FULL:
        return SpoolFull(text)
    if primary in _DAMAGED:
        return SpoolDamaged(text)
    if primary == sqlite3.SQLITE_ERROR:
        # A missing table or column: the file is not ours, or its schema page is torn.
        return SpoolDamaged(text)
    return SpoolNotWritable(text)
