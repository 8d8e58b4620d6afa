"""Who this box is: the edge id that stands in the data folder from the first start on.

Promise: once written, the id does not change unless told so with --new-edge-id; a half-written file
is impossible (written aside, synced, renamed).
Fails: `EdgeIdMismatch` (the caller exits 2), `IdentityUnreadable` (the caller exits 6).
Threads: called once, at start.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from reid.limits import STRING_BYTES

FILE_NAME = "edge-id"


class IdentityError(Exception):
    """Base of everything that can be wrong with the box's id."""


class EdgeIdMismatch(IdentityError):
    """Another id than the data folder's was asked for.

    Attributes:
        path: the file with the id.
        kept: the id in it.
        wanted: the id asked for.
    """

    def __init__(self, path: Path, kept: str, wanted: str) -> None:
        super().__init__(
            f"{path}: this data folder belongs to edge {kept!r}, not {wanted!r}; "
            f"drop --edge-id, take another --data-dir, or rename the box with --new-edge-id"
        )
        self.path = path
        self.kept = kept
        self.wanted = wanted


class InvalidEdgeId(IdentityError):
    """An id that the wire does not allow.

    Attributes:
        edge_id: what was given.
    """

    def __init__(self, edge_id: str) -> None:
        super().__init__(
            f"edge id {edge_id!r}: 1 to {STRING_BYTES} bytes without spaces or control characters "
            f"are allowed; give another with --edge-id"
        )
        self.edge_id = edge_id


class IdentityUnreadable(IdentityError):
    """The data folder or its id cannot be read or written.

    Attributes:
        path: what failed.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; make the data folder readable and writable for us")
        self.path = path


def make_data_dir(data_dir: Path) -> None:
    """Create the data folder if it is absent, for us alone: embeddings are personal data.

    Raises:
        IdentityUnreadable: it cannot be created.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise IdentityUnreadable(data_dir, _reason(error)) from error


def load_edge_id(data_dir: Path, wanted: str | None, *, new_edge_id: bool = False) -> str:
    """The box's id: from the data folder, or at first start the wanted one or the host's name.

    Args:
        data_dir: created if absent, readable by us alone.
        wanted: what flags or configuration ask for; None: whatever stands there.
        new_edge_id: replace the id in the folder (by `wanted`, or else the host's name).
    Raises:
        EdgeIdMismatch: the folder has another id and `new_edge_id` was not given.
        InvalidEdgeId: the wire does not allow it.
        IdentityUnreadable: the folder cannot be read or written.
    """
    path = data_dir / FILE_NAME
    make_data_dir(data_dir)
    try:
        kept = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        kept = ""
    except (OSError, UnicodeDecodeError) as error:
        raise IdentityUnreadable(path, _reason(error)) from error
    if kept and not new_edge_id:
        if wanted is not None and wanted != kept:
            raise EdgeIdMismatch(path, kept, wanted)
        return kept
    chosen = wanted or socket.gethostname()
    if not re.fullmatch(r"[^\s\x00-\x1f\x7f]+", chosen) or len(chosen.encode()) > STRING_BYTES:
        raise InvalidEdgeId(chosen)
    if chosen != kept:
        try:
            _write(path, chosen)
        except OSError as error:
            raise IdentityUnreadable(path, _reason(error)) from error
    return chosen


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "not UTF-8 text"


def _write(path: Path, edge_id: str) -> None:
    aside = path.with_suffix(".new")
    with aside.open("w", encoding="utf-8") as file:
        file.write(edge_id + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
