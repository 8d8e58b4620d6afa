"""A copy of the ledger while it is in use, fit to be put in its place.

Promise: the copy is one consistent state (SQLite's online backup), complete before it appears under
its name, and marked, so that the server that opens it leaves a gap in positions and makes the
identities anew. Readers only: the running server is not disturbed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from matcher.errors import LedgerUnusable
from matcher.schema import LEDGER_FILE, connect, set_meta, unusable


def backup(data_dir: Path, out: Path) -> int:
    """Copy the ledger of a data folder to a file; how many entries the copy has.

    Raises:
        LedgerUnusable: there is no ledger, or one of the two cannot be used.
    """
    source_path = data_dir / LEDGER_FILE
    if not source_path.exists():
        raise LedgerUnusable(source_path, "does not exist", "give the --data-dir of edge-match")
    if out.exists() and out.samefile(source_path):
        raise LedgerUnusable(out, "is the ledger itself", "give another file for the copy")
    part = out.with_name(out.name + ".part")
    try:
        part.unlink(missing_ok=True)
        # Ours alone from the first byte on, which is long before the last of a large ledger.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        rows = _copy(source_path, part)
        part.rename(out)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise unusable(out, error) from error
        raise LedgerUnusable(
            out, f"cannot be written ({error.strerror})", "check folder and rights"
        ) from error
    return rows


def _copy(source_path: Path, part: Path) -> int:
    with (
        contextlib.closing(connect(source_path, read_only=True)) as source,
        contextlib.closing(sqlite3.connect(part)) as target,
    ):
        source.backup(target)
        # A plain file without WAL, so that one file is the whole copy.
        target.execute("PRAGMA journal_mode=DELETE")
        set_meta(target, "backup", "1")
        target.commit()
        return int(target.execute("SELECT count(*) FROM log").fetchone()[0])
