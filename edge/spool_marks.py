"""How far each writer came, outside the database: a small file that a damaged database cannot take
with it.

Promise: after a commit the file tells the writer's last seq, so a database that lost its newest
transactions (truncated WAL, rolled-back or replaced file) is noticed and the loss is told exactly.
Not synced per commit: it survives kill -9; after a power cut it may be older than the database,
which is harmless, because only a mark that is ahead means loss.

    record (28 bytes) = writer_id(16) last_seq(8, little-endian) crc32 of those(4, little-endian)

One record per writer, the newest last; a record with a wrong checksum is ignored.
Threads: the spool writer's alone.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

_RECORD = struct.Struct("<16sQ")
_SIZE = _RECORD.size + 4


def _pack(writer_id: str, last_seq: int) -> bytes:
    body = _RECORD.pack(bytes.fromhex(writer_id), last_seq)
    return body + zlib.crc32(body).to_bytes(4, "little")


def read_marks(path: Path) -> dict[str, int]:
    """writer_id -> last seq; unreadable records are left out."""
    try:
        data = path.read_bytes()
    except OSError:
        # Absent at the first start; unreadable tells nothing, and the database still does.
        return {}
    marks: dict[str, int] = {}
    for at in range(0, len(data) - _SIZE + 1, _SIZE):
        body, checksum = data[at : at + _RECORD.size], data[at + _RECORD.size : at + _SIZE]
        if zlib.crc32(body).to_bytes(4, "little") == checksum:
            writer, seq = _RECORD.unpack(body)
            marks[writer.hex()] = seq
    return marks


class MarkFile:
    """Keeps the file.

    Args:
        path: beside the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._offset = 0
        self._older: dict[str, int] = {}
        self._ours = b""

    def start(self, older: Mapping[str, int], writer_id: str) -> None:
        """Write the older writers' marks and a fresh one for this process, synced.

        Raises:
            OSError: the disk does not take it.
        """
        self._older = {writer: seq for writer, seq in older.items() if seq > 0}
        self._ours = _pack(writer_id, 0)
        self._write_anew()

    def _write_anew(self) -> None:
        aside = self._path.with_suffix(".new")
        body = b"".join(_pack(writer, seq) for writer, seq in self._older.items())
        with aside.open("wb") as file:
            file.write(body + self._ours)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)
        self.close()
        self._fd = os.open(self._path, os.O_WRONLY)
        self._offset = len(body)

    def forget(self, writer_ids: Iterable[str]) -> None:
        """Older writers that the spool is about to forget. A failing write is ignored: what stays
        here is explained by the matcher after the next start."""
        for writer_id in writer_ids:
            self._older.pop(writer_id, None)
        with contextlib.suppress(OSError):
            self._write_anew()

    def set(self, writer_id: str, last_seq: int) -> None:
        """This process's writer came so far. A failing write is ignored: the mark is then older."""
        self._ours = _pack(writer_id, last_seq)
        if self._fd >= 0:
            # A full or failing disk shows in the database's own commits.
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, self._ours, self._offset)

    def close(self) -> None:
        """May come twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
