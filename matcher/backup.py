"""A copy of the ledger while it is in use, fit to be put in its place.

Promise: the copy is one consistent state (SQLite's online backup), complete before it appears under
its name, and marked, so that the server that opens it leaves a gap in positions and makes the
identities anew. Readers only: the running server is not disturbed.
"""

from __future__ import annotations

import contextlib
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
    part = out.with_name(out.name + ".part")
    part.unlink(missing_ok=True)
    with contextlib.closing(connect(source_path, read_only=True)) as source:
        try:
            with contextlib.closing(sqlite3.connect(part)) as target:
                source.backup(target)
                # A plain file without WAL, so that one file is the whole copy.
                target.execute("PRAGMA journal_mode=DELETE")
                set_meta(target, "backup", "1")
                target.commit()
                rows = target.execute("SELECT count(*) FROM log").fetchone()[0]
        except sqlite3.Error as error:
            part.unlink(missing_ok=True)
            raise unusable(out, error) from error
    part.chmod(0o600)
    part.rename(out)
    return int(rows)
