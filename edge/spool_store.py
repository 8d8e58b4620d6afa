"""The spool's statements: what each change writes, always inside one transaction.

Promise: the in-memory `RowIndex` is not touched here. Errors are the spool's own
(edge.spool_errors).
Threads: the spool writer's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from edge.delivery import SpaceUse
from edge.spool_database import SpoolDatabase
from edge.spool_eviction import Candidate
from edge.spool_rows import RowIndex, RowSet, Writer
from edge.spool_schema import ACKED, DEAD, WAITING
from edge.spool_seal import Sealer
from reid.ranges import KeyRanges, RangeSet
from reid.v1.ingest_pb2 import SkippedRange, SkipReason
from reid.v1.sighting_pb2 import KeyRange

# What a row costs beyond its record: its entry in two tables.
ROW_OVERHEAD_BYTES = 96


class NewRow(NamedTuple):
    """A row about to be written.

    Attributes:
        row, camera, tracklet, revision, final: as in the table.
        record: the record in the clear.
        state: waiting, or what a salvaged row was.
    """

    row: int
    camera: int
    tracklet: int
    revision: int
    final: bool
    record: bytes
    state: int = WAITING


# Something small that rides along in a group's transaction.
Change: TypeAlias = "Callable[[SpoolStore], None]"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What stands in the file at open."""

    index: RowIndex
    cameras: dict[str, int]
    spaces: dict[str, tuple[int, tuple[str, ...]]]
    facts: dict[str, str | int]
    counters: dict[str, int]
    waiting_bytes: int


class SpoolStore(SpoolDatabase):
    """What is read from one open database, and written to it.

    Args:
        path: the file.
        sealer: seals new rows.
        max_bytes: database and WAL together.
    """

    def __init__(self, path: Path, *, sealer: Sealer, max_bytes: int) -> None:
        super().__init__(path, max_bytes=max_bytes)
        self._sealer = sealer

    def open(self) -> Loaded:
        """Open or make the file and read its index.

        Raises:
            SpoolDamaged, SpoolNotWritable, SpoolFull.
        """
        self.connect()
        with self._translated():
            return self._load()

    # -- reading ---------------------------------------------------------------------------------

    def _load(self) -> Loaded:
        index = RowIndex()
        for writer_id, first_row, last_seq, started in self.db.execute(
            "SELECT writer_id, first_row, last_seq, started_running_nanos FROM writer"
        ):
            index.add_writer(Writer(str(writer_id), int(first_row), int(last_seq), int(started)))
        sets = {WAITING: index.ready, ACKED: index.acked, DEAD: index.dead}
        newest: dict[tuple[str, int], int] = {}
        waiting_bytes = 0
        for row, state, tracklet, size in self.db.execute(
            "SELECT row, state, tracklet, bytes FROM sighting ORDER BY row"
        ):
            sets[state].add(row)
            if state == WAITING:
                waiting_bytes += size
            try:
                writer_id, _ = index.key(row)
            except KeyError:
                continue
            older = newest.get((writer_id, tracklet))
            if older is not None and older in index.ready:
                index.superseded.add(older)
            newest[writer_id, tracklet] = row
        spaces: dict[str, tuple[int, tuple[str, ...]]] = {}
        for space, variant, dimension in self.db.execute(
            "SELECT space_id, variant_id, dimension FROM space ORDER BY space_id, variant_id"
        ):
            known = spaces.get(space, (dimension, ()))[1]
            spaces[space] = (dimension, (*known, variant))
        return Loaded(
            index=index,
            cameras={n: int(i) for i, n in self.db.execute("SELECT number, name FROM camera")},
            spaces=spaces,
            facts=dict(self.db.execute("SELECT name, value FROM fact")),
            counters=dict(self.db.execute("SELECT name, value FROM counter")),
            waiting_bytes=waiting_bytes,
        )

    def last_seq(self, writer_id: str) -> int:
        """How far a writer came in the file; 0: not in it."""
        with self._translated():
            found = self._one("SELECT last_seq FROM writer WHERE writer_id = ?", writer_id)
        return int(found) if found is not None else 0

    def bytes_of(self, rows: RangeSet) -> int:
        """Bytes of these rows."""
        total = 0
        with self._translated():
            for first, last in rows:
                total += int(
                    str(
                        self._one(
                            "SELECT ifnull(sum(bytes), 0) FROM sighting WHERE row BETWEEN ? AND ?",
                            first,
                            last,
                        )
                    )
                )
        return total

    def candidates(self, rows: RowSet, camera: int | None = None) -> Iterator[Candidate]:
        """These rows, oldest first, read in small steps; of one camera, or of all."""
        for first, last in rows:
            at = first
            while at <= last:
                with self._translated():
                    found = self.db.execute(
                        "SELECT row, camera, bytes FROM sighting WHERE row BETWEEN ? AND ?"
                        " ORDER BY row LIMIT 256",
                        (at, last),
                    ).fetchall()
                for row, owner, size in found:
                    if camera is None or owner == camera:
                        yield Candidate(row, owner, size)
                if not found:
                    break
                at = found[-1][0] + 1

    def camera_bytes(self) -> dict[int, int]:
        """Bytes of waiting rows by camera."""
        with self._translated():
            return dict(
                self.db.execute(
                    "SELECT camera, sum(bytes) FROM sighting WHERE state = ? GROUP BY camera",
                    (WAITING,),
                )
            )

    def acked_before(self, running_nanos: int, limit: int) -> RowSet:
        """Acked rows whose ack is older than a running time."""
        return self._rows_before(ACKED, running_nanos, limit)

    def waiting_before(self, running_nanos: int, limit: int) -> RowSet:
        """Waiting rows written before a running time."""
        return self._rows_before(WAITING, running_nanos, limit)

    def _rows_before(self, state: int, running_nanos: int, limit: int) -> RowSet:
        with self._translated():
            found = self.db.execute(
                "SELECT row FROM sighting WHERE state = ? AND stamp_running_nanos <= ? LIMIT ?",
                (state, running_nanos, limit),
            )
            rows = RowSet()
            for (row,) in found:
                rows.add(row)
        return rows

    def record(self, row: int) -> tuple[int, bytes, int, int, int, int] | None:
        """(sealed, stored record, camera, tracklet, revision, final) of a row."""
        with self._translated():
            found = self.db.execute(
                "SELECT sealed, record, camera, tracklet, revision, final FROM body"
                " JOIN sighting USING (row) WHERE row = ?",
                (row,),
            ).fetchone()
        return None if found is None else tuple(found)

    def rows_sealed_with(self, key_ids: Sequence[str]) -> int:
        """How many rows are sealed with one of these keys (hexadecimal ids). Reads every row."""
        marks = ",".join("?" * len(key_ids))
        with self._translated():
            return int(
                self._one(
                    f"SELECT count(*) FROM body WHERE sealed = 1"
                    f" AND lower(hex(substr(record, 1, 8))) IN ({marks})",
                    *key_ids,
                )
            )

    def skipped(self) -> list[SkippedRange]:
        """Every skipped range."""
        with self._translated():
            return [
                SkippedRange(
                    range=KeyRange(writer_id=writer_id, first=first, last=last),
                    reason=reason,
                    skipped_unix_nanos=unix,
                )
                for writer_id, first, last, reason, unix in self.db.execute(
                    "SELECT writer_id, first, last, reason, unix_nanos FROM skipped"
                )
            ]

    def released(self) -> KeyRanges:
        """Keys deleted after their ack."""
        with self._translated():
            keys = KeyRanges()
            for writer_id, first, last in self.db.execute(
                "SELECT writer_id, first, last FROM released"
            ):
                keys.add_range(writer_id, first, last)
        return keys

    # -- writing, inside transaction() -------------------------------------------------------------

    def append(
        self, rows: Sequence[NewRow], *, running_nanos: int, unix_nanos: int
    ) -> tuple[int, list[int]]:
        """Write rows; returns (bytes, bytes by row)."""
        sizes = []
        bodies = []
        sealed = int(self._sealer.active)
        for new in rows:
            stored = self._sealer.seal(new.record)
            sizes.append(len(stored) + ROW_OVERHEAD_BYTES)
            bodies.append((new.row, sealed, stored))
        self.db.executemany(
            "INSERT INTO sighting (row, camera, tracklet, revision, bytes, state,"
            " stamp_running_nanos, appended_unix_nanos, final) VALUES (?,?,?,?,?,?,?,?,?)",
            [
                (
                    new.row,
                    new.camera,
                    new.tracklet,
                    new.revision,
                    size,
                    new.state,
                    running_nanos,
                    unix_nanos,
                    int(new.final),
                )
                for new, size in zip(rows, sizes, strict=True)
            ],
        )
        self.db.executemany("INSERT INTO body (row, sealed, record) VALUES (?,?,?)", bodies)
        return sum(sizes), sizes

    def put_writer(self, writer: Writer) -> None:
        """Write how far a writer came."""
        self.db.execute(
            "INSERT INTO writer (writer_id, first_row, last_seq, started_running_nanos)"
            " VALUES (?,?,?,?) ON CONFLICT (writer_id) DO UPDATE SET last_seq = excluded.last_seq",
            (writer.writer_id, writer.first_row, writer.last_seq, writer.started_running_nanos),
        )

    def forget_writer(self, writer_id: str) -> None:
        """A writer without rows, and what was said about its keys."""
        for table in ("writer", "skipped", "released"):
            self.db.execute(f"DELETE FROM {table} WHERE writer_id = ?", (writer_id,))

    def put_fact(self, name: str, value: str | int) -> None:
        """Write a fact."""
        self.db.execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?,?)", (name, value))

    def put_camera(self, name: str) -> int:
        """A camera's number."""
        self.db.execute("INSERT OR IGNORE INTO camera (name) VALUES (?)", (name,))
        return int(self._one("SELECT number FROM camera WHERE name = ?", name))

    def put_space(self, space: SpaceUse) -> None:
        """A space that rows use."""
        self.db.execute(
            "INSERT OR IGNORE INTO space (space_id, variant_id, dimension) VALUES (?,?,?)",
            (space.space_id, space.variant_id, space.dimension),
        )

    def count(self, name: str, by: int) -> None:
        """Add to a counter that lives as long as the spool."""
        self.db.execute(
            "INSERT INTO counter (name, value) VALUES (?,?)"
            " ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, by),
        )

    def set_state(self, rows: RangeSet, state: int, *, running_nanos: int) -> None:
        """Rows change their state."""
        self.db.executemany(
            "UPDATE sighting SET state = ?, stamp_running_nanos = ?"
            " WHERE row BETWEEN ? AND ? AND state <> ?",
            [(state, running_nanos, first, last, state) for first, last in rows],
        )
        if state != DEAD:
            self.db.executemany("DELETE FROM dead_letter WHERE row BETWEEN ? AND ?", list(rows))

    def put_dead_letter(self, row: int, reason: str, message: str, unix_nanos: int) -> None:
        """Why a row is dead."""
        self.db.execute(
            "INSERT OR REPLACE INTO dead_letter (row, reason, message, unix_nanos)"
            " VALUES (?,?,?,?)",
            (row, reason, message, unix_nanos),
        )

    def delete(self, rows: RangeSet) -> None:
        """Rows go, with all that belongs to them."""
        ranges = list(rows)
        for table in ("sighting", "body", "dead_letter"):
            self.db.executemany(f"DELETE FROM {table} WHERE row BETWEEN ? AND ?", ranges)

    def put_skipped(
        self, keys: KeyRanges, reason: SkipReason, unix_nanos: int
    ) -> list[SkippedRange]:
        """Keys will never come; joined with the neighbouring range of the same reason."""
        told = []
        for entry in keys.messages():
            first, last = self._join("skipped", entry, reason)
            self.db.execute(
                "INSERT OR REPLACE INTO skipped (writer_id, first, last, reason, unix_nanos)"
                " VALUES (?,?,?,?,?)",
                (entry.writer_id, first, last, reason, unix_nanos),
            )
            told.append(SkippedRange(range=entry, reason=reason, skipped_unix_nanos=unix_nanos))
        if keys:
            self.count(f"skipped.{SkipReason.Name(reason)}", len(keys))
        return told

    def put_released(self, keys: KeyRanges) -> None:
        """Keys were deleted after their ack."""
        for entry in keys.messages():
            first, last = self._join("released", entry, None)
            self.db.execute(
                "INSERT OR REPLACE INTO released (writer_id, first, last) VALUES (?,?,?)",
                (entry.writer_id, first, last),
            )

    def _join(self, table: str, entry: KeyRange, reason: int | None) -> tuple[int, int]:
        """Take away neighbours that touch the range; returns the joined range."""
        first, last = entry.first, entry.last
        same = "" if reason is None else f" AND reason = {int(reason)}"
        near: list[tuple[int, int]] = []
        # Ranges of one reason are disjoint: the first that ends too early ends the search.
        for a, b in self.db.execute(
            f"SELECT first, last FROM {table}"
            f" WHERE writer_id = ? AND first <= ?{same} ORDER BY first DESC",
            (entry.writer_id, last + 1),
        ):
            if b < first - 1:
                break
            near.append((a, b))
        for a, b in near:
            self.db.execute(
                f"DELETE FROM {table} WHERE writer_id = ? AND first = ?", (entry.writer_id, a)
            )
            first, last = min(first, a), max(last, b)
        return first, last
