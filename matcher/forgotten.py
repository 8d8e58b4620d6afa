"""forgotten.jsonl: what was forgotten, beside the ledger and not in its backups.

Promise: `remember` returns when the entry is on the disk; it is called before anything is deleted,
so that a ledger restored from an older backup forgets again. A last line cut off by a crash is left
out and replaced. Called from the ledger's writer thread, or before it starts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from matcher.errors import LedgerUnusable, StorageFailed


def remember(path: Path, entry: dict[str, Any]) -> None:
    """Add an entry, durably.

    Raises:
        StorageFailed: it cannot be written; nothing may be deleted then.
    """
    try:
        _append(path, entry)
    except OSError as error:
        raise StorageFailed(
            f"{path}: cannot be written ({error.strerror}); nothing was forgotten; make room or "
            "check its rights, and ask again"
        ) from error


def _append(path: Path, entry: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("ab") as file:
        if not new:
            content = path.read_bytes()
            if content and not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)  # a line cut off by a crash
        file.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        path.chmod(0o600)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: Path) -> list[dict[str, Any]]:
    """All entries: site, identity_id, tracklet_ids.

    Raises:
        LedgerUnusable: a line other than the last cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LedgerUnusable(
            path, f"cannot be read ({error.strerror})", "check its owner and rights"
        ) from error
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            entry = json.loads(line)
            entries.append(
                {
                    "site": str(entry["site"]),
                    "identity_id": str(entry["identity_id"]),
                    "tracklet_ids": [str(one) for one in entry["tracklet_ids"]],
                }
            )
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                continue  # the write was cut off before its fsync: that Forget never answered
            raise LedgerUnusable(
                path, f"line {number} cannot be read", "put a copy of the file in its place"
            ) from error
    return entries
