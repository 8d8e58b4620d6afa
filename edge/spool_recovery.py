"""Saves what is readable of a damaged, foreign or newer spool, and sets the file aside.

Promise: every row whose bytes still prove themselves (edge.spool_record) is found, whatever became
of the tables around it: the pages of database and WAL are read one by one, without SQLite. What the
small tables still tell (writers, skipped ranges, spaces) is taken where SQLite can read it. The old
file is renamed, never changed; at most two such files are kept.
Fails: never for what is in the file; OSError where the disk does not take the new one.
Threads: the spool writer's alone.

Format read here: https://www.sqlite.org/fileformat2.html, sections 1.3, 1.5, 1.6, 2.1 and 4.
"""

from __future__ import annotations

import contextlib
import mmap
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.spool_errors import READ_ERRORS
from edge.spool_record import RecordHead, read_record
from edge.spool_schema import PAGE_BYTES
from edge.spool_seal import Sealer
from reid.limits import is_writer_id

KEPT_ASIDE = 2
_LEAF_TABLE = 0x0D
_LARGEST_RECORD = 4 << 20
_WAL_MAGIC = (0x377F0682, 0x377F0683)


@dataclass(slots=True)
class Remains:
    """What the small tables of a damaged file still tell.

    Attributes:
        writers: writer_id -> (first row or 0, last seq), from the table, where it was readable.
        facts, counters, spaces, skipped, released: likewise, as rows of those tables.
    """

    writers: dict[str, tuple[int, int]] = field(default_factory=dict)
    facts: list[tuple[str, str | int]] = field(default_factory=list)
    counters: list[tuple[str, int]] = field(default_factory=list)
    spaces: list[tuple[str, str, int]] = field(default_factory=list)
    skipped: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    released: list[tuple[str, int, int]] = field(default_factory=list)


def set_aside(path: Path, stamp: int) -> Path:
    """Rename the database and its WAL; forget older ones beyond KEPT_ASIDE.

    Args:
        path: the database.
        stamp: UTC seconds, for the name.
    Returns:
        The database's new name.
    """
    aside = path.with_name(f"{path.stem}-damaged-{stamp}{path.suffix}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.stem}-damaged-{stamp}-{number}{path.suffix}")
    for ending in ("-wal", ""):
        # The WAL first: a database without it would look whole and old.
        source = path.with_name(path.name + ending)
        with contextlib.suppress(FileNotFoundError):
            source.rename(aside.with_name(aside.name + ending))
    with contextlib.suppress(FileNotFoundError):
        path.with_name(path.name + "-shm").unlink()
    for old in kept_aside(path)[:-KEPT_ASIDE]:
        remove_aside(old)
    return aside


def kept_aside(path: Path) -> list[Path]:
    """Databases set aside, oldest first."""
    found = path.parent.glob(f"{path.stem}-damaged-*{path.suffix}")
    return sorted(found, key=lambda file: (file.stat().st_mtime_ns, file.name))


def remove_aside(aside: Path) -> None:
    """Delete one of them with its WAL."""
    for ending in ("", "-wal", "-shm"):
        aside.with_name(aside.name + ending).unlink(missing_ok=True)


def read_tables(path: Path) -> Remains:
    """Read the small tables as far as SQLite can."""
    remains = Remains()
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error:
        # Not even a database: the pages are all there is.
        return remains
    try:
        for writer_id, first_row, last_seq in _rows(
            db, "SELECT writer_id, first_row, last_seq FROM writer"
        ):
            if (
                isinstance(writer_id, str)
                and is_writer_id(writer_id)
                and isinstance(first_row, int)
                and isinstance(last_seq, int)
                and 0 < first_row < 1 << 62
                and 0 <= last_seq < 1 << 62
            ):
                remains.writers[writer_id] = (first_row, last_seq)
        remains.facts = [
            (str(n), v)
            for n, v in _rows(db, "SELECT name, value FROM fact")
            if isinstance(v, str | int)
        ]
        remains.counters = [
            (str(n), v)
            for n, v in _rows(db, "SELECT name, value FROM counter")
            if isinstance(v, int)
        ]
        remains.spaces = [
            (str(s), str(v), d)
            for s, v, d in _rows(db, "SELECT space_id, variant_id, dimension FROM space")
            if isinstance(d, int)
        ]
        for w, a, b, r, u in _rows(
            db, "SELECT writer_id, first, last, reason, unix_nanos FROM skipped"
        ):
            if (
                is_writer_id(str(w))
                and isinstance(a, int)
                and isinstance(b, int)
                and isinstance(r, int)
                and isinstance(u, int)
            ):
                remains.skipped.append((str(w), a, b, r, u))
        remains.released = [
            (str(w), a, b)
            for w, a, b in _rows(db, "SELECT writer_id, first, last FROM released")
            if isinstance(a, int) and isinstance(b, int) and is_writer_id(str(w))
        ]
    finally:
        db.close()
    return remains


def _rows(db: sqlite3.Connection, statement: str) -> Iterator[tuple[object, ...]]:
    try:
        yield from db.execute(statement)
    except READ_ERRORS:
        # Torn or absent: what came before the damage was yielded, the rest is gone.
        return


def find_records(path: Path, sealer: Sealer) -> Iterator[tuple[int, RecordHead, bytes]]:
    """Every row that proves itself: (row number in that file, its head, its record)."""
    for row, stored in _cells(path):
        record = stored
        try:
            head = read_record(record)
        except ValueError:
            try:
                record = sealer.open(stored)
                head = read_record(record)
            except ValueError:
                continue
        yield row, head, record


def _cells(path: Path) -> Iterator[tuple[int, bytes]]:
    """(rowid, blob) of every leaf cell that looks like a row of table body."""
    with contextlib.ExitStack() as stack:
        data = _map(stack, path)
        wal = _map(stack, path.with_name(path.name + "-wal"))
        pages = _Pages(data, wal)
        for number in range(1, pages.count + 1):
            page = pages.get(number)
            if page is not None:
                yield from _leaf_cells(page, number, pages)


def _map(stack: contextlib.ExitStack, path: Path) -> mmap.mmap | bytes:
    try:
        file = stack.enter_context(path.open("rb"))
        return stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (FileNotFoundError, ValueError):
        # Absent, or empty: an empty file cannot be mapped.
        return b""


class _Pages:
    """Pages by number: the WAL's newest version, else the database's."""

    def __init__(self, data: mmap.mmap | bytes, wal: mmap.mmap | bytes) -> None:
        self._data = data
        self._wal = wal
        self.size = self._page_size()
        self._in_wal = self._frames()
        self.count = max(len(data) // self.size, max(self._in_wal, default=0))

    def _page_size(self) -> int:
        for source, at, form in ((self._data, 16, ">H"), (self._wal, 8, ">I")):
            if len(source) >= at + 4:
                size = int(struct.unpack_from(form, source, at)[0])
                size = 65536 if size == 1 else size
                if 512 <= size <= 65536 and size & (size - 1) == 0:
                    return size
        return PAGE_BYTES

    def _frames(self) -> dict[int, int]:
        if len(self._wal) < 32 or struct.unpack_from(">I", self._wal, 0)[0] not in _WAL_MAGIC:
            return {}
        salt = self._wal[16:24]
        found: dict[int, int] = {}
        at = 32
        # Frames of an earlier round have other salts; checksums are not needed, rows prove
        # themselves.
        while at + 24 + self.size <= len(self._wal) and self._wal[at + 8 : at + 16] == salt:
            number = int(struct.unpack_from(">I", self._wal, at)[0])
            if 0 < number < 1 << 24:
                found[number] = at + 24
            at += 24 + self.size
        return found

    def get(self, number: int) -> bytes | None:
        """A page's bytes; None: beyond the end."""
        at = self._in_wal.get(number)
        if at is not None:
            return bytes(self._wal[at : at + self.size])
        at = (number - 1) * self.size
        if number < 1 or at + self.size > len(self._data):
            return None
        return bytes(self._data[at : at + self.size])


def _sqlite_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at + i + 1
    return (value << 8) | data[at + 8], at + 9


def _leaf_cells(page: bytes, number: int, pages: _Pages) -> Iterator[tuple[int, bytes]]:
    header = 100 if number == 1 else 0
    if page[header] != _LEAF_TABLE:
        return
    count = int.from_bytes(page[header + 3 : header + 5], "big")
    for i in range(min(count, len(page) // 4)):
        pointer = header + 8 + 2 * i
        if pointer + 2 > len(page):
            return
        at = int.from_bytes(page[pointer : pointer + 2], "big")
        try:
            size, at = _sqlite_varint(page, at)
            row, at = _sqlite_varint(page, at)
            if not 0 < size <= _LARGEST_RECORD:
                continue
            payload = _payload(page, at, size, pages)
            blob = _body_blob(payload)
        except (IndexError, ValueError):
            continue  # damaged cell: the next one may be whole
        if blob is not None:
            yield row, blob


def _payload(page: bytes, at: int, size: int, pages: _Pages) -> bytes:
    usable = pages.size
    most = usable - 35
    if size <= most:
        local = size
    else:
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= most else least
    parts = [page[at : at + local]]
    have = len(parts[0])
    following = int.from_bytes(page[at + local : at + local + 4], "big") if local < size else 0
    seen = set()
    while have < size:
        overflow = pages.get(following)
        if overflow is None or following in seen:
            raise ValueError("an overflow chain that breaks off")
        seen.add(following)
        part = overflow[4 : 4 + size - have]
        parts.append(part)
        have += len(part)
        following = int.from_bytes(overflow[:4], "big")
    return b"".join(parts)


def _body_blob(payload: bytes) -> bytes | None:
    """The third column of a row (NULL, small integer, blob); None: another table's row."""
    header_size, at = _sqlite_varint(payload, 0)
    types: list[int] = []
    while at < header_size and len(types) < 4:
        kind, at = _sqlite_varint(payload, at)
        types.append(kind)
    if len(types) != 3 or types[0] != 0 or types[1] not in (1, 8, 9):
        return None
    if types[2] < 12 or types[2] % 2:
        return None
    start = header_size + (1 if types[1] == 1 else 0)
    length = (types[2] - 12) // 2
    blob = payload[start : start + length]
    return blob if len(blob) == length else None
