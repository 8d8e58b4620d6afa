"""What the spool knows of its rows without reading the disk.

Promise: row numbers and keys are two names of one thing: a writer's rows are contiguous, so
row = writer.first_row + seq - 1. The sets below are changed only after the transaction that makes
the change true has committed.

    waiting ──take──▶ in flight ──ack──▶ acked ──age──▶ (gone)
       ▲  ▲              │  │                │
       │  └──release─────┘  └─reject─▶ dead  │  a Welcome that does not list it
       └─────────────────────────────────────┘

Threads: every method under the spool's lock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from reid.ranges import KeyRanges, RangeSet


class RowSet(RangeSet):
    """A set of row numbers that can be read from a point on."""

    __slots__ = ()

    def between(self, after: int, upto: int | None) -> Iterator[tuple[int, int]]:
        """The ranges within (after, upto], clipped, in order."""
        at = bisect_left(self._lasts, after + 1)
        while at < len(self._firsts):
            first = max(self._firsts[at], after + 1)
            last = self._lasts[at] if upto is None else min(self._lasts[at], upto)
            if first > last:
                return
            yield first, last
            at += 1

    def count(self, after: int, upto: int | None) -> int:
        """How many are within (after, upto]."""
        return sum(last - first + 1 for first, last in self.between(after, upto))

    def first(self) -> int | None:
        """The smallest."""
        return self._firsts[0] if self._firsts else None

    def add_all(self, ranges: RangeSet) -> None:
        """Add every range of another set."""
        for first, last in ranges:
            self.add(first, last)

    def remove_all(self, ranges: RangeSet) -> None:
        """Remove every range of another set."""
        for first, last in ranges:
            self.remove(first, last)

    def within(self, first: int, last: int) -> RowSet:
        """The part inside first..last."""
        part = RowSet()
        for a, b in self.between(first - 1, last):
            part.add(a, b)
        return part


@dataclass(slots=True)
class Writer:
    """One writer of the spool.

    Attributes:
        writer_id: as on the wire.
        first_row: the row of seq 1.
        last_seq: the last seq given; 0: none yet.
        started_running_nanos: the spool's running time when it began; old writers are forgotten.
    """

    writer_id: str
    first_row: int
    last_seq: int
    started_running_nanos: int = 0


class RowIndex:
    """Writers and the states of their rows."""

    def __init__(self) -> None:
        self.writers: list[Writer] = []  # by first_row
        self._by_id: dict[str, Writer] = {}
        self.ready = RowSet()  # waiting, not in flight
        self.in_flight = RowSet()
        self.acked = RowSet()
        self.dead = RowSet()
        self.superseded = RowSet()  # waiting or in flight, and a newer revision stands here

    def add_writer(self, writer: Writer) -> None:
        """A writer with rows, kept in order of rows."""
        at = bisect_right([w.first_row for w in self.writers], writer.first_row)
        self.writers.insert(at, writer)
        self._by_id[writer.writer_id] = writer

    def forget_writer(self, writer_id: str) -> None:
        """A writer without rows is no longer remembered."""
        writer = self._by_id.pop(writer_id)
        self.writers.remove(writer)

    def writer(self, writer_id: str) -> Writer | None:
        """By id."""
        return self._by_id.get(writer_id)

    def next_row(self) -> int:
        """The first row number that no writer has used."""
        return max((w.first_row + max(w.last_seq, 1) for w in self.writers), default=1)

    def rows_after(self, writer: Writer) -> int:
        """How many row numbers behind a writer's last row belong to nobody."""
        end = writer.first_row + writer.last_seq
        following = (w.first_row for w in self.writers if w.first_row > writer.first_row)
        return max(0, min(following, default=1 << 62) - end)

    def key(self, row: int) -> tuple[str, int]:
        """A row's key. Raises KeyError where no writer has that row."""
        at = bisect_right(self.writers, row, key=lambda w: w.first_row) - 1
        if at >= 0:
            writer = self.writers[at]
            seq = row - writer.first_row + 1
            if seq <= writer.last_seq:
                return writer.writer_id, seq
        raise KeyError(row)

    def row(self, writer_id: str, seq: int) -> int | None:
        """A key's row number; None: not one of ours."""
        writer = self._by_id.get(writer_id)
        if writer is None or not 1 <= seq <= writer.last_seq:
            return None
        return writer.first_row + seq - 1

    def rows_of(self, keys: KeyRanges) -> RowSet:
        """The rows that these keys name; keys that are not ours are left out."""
        rows = RowSet()
        for writer_id in keys.writers():
            writer = self._by_id.get(writer_id)
            if writer is None:
                continue
            for first, last in keys.of(writer_id):
                last = min(last, writer.last_seq)
                if first <= last:
                    rows.add(writer.first_row + first - 1, writer.first_row + last - 1)
        return rows

    def keys_of(self, rows: RangeSet) -> KeyRanges:
        """The keys of rows; each row must have a writer or is left out."""
        keys = KeyRanges()
        for first, last in rows:
            at = max(0, bisect_right(self.writers, first, key=lambda w: w.first_row) - 1)
            for writer in self.writers[at:]:
                if writer.first_row > last:
                    break
                a = max(1, first - writer.first_row + 1)
                b = min(writer.last_seq, last - writer.first_row + 1)
                keys.add_range(writer.writer_id, a, b)
        return keys

    def waiting(self) -> RowSet:
        """Rows without an ack, in flight or not."""
        rows = RowSet(self.ready)
        rows.add_all(self.in_flight)
        return rows

    def held(self) -> RowSet:
        """Rows in any state."""
        rows = self.waiting()
        rows.add_all(self.acked)
        rows.add_all(self.dead)
        return rows

    def issued(self) -> KeyRanges:
        """Every key that a remembered writer gave."""
        keys = KeyRanges()
        for writer in self.writers:
            keys.add_range(writer.writer_id, 1, writer.last_seq)
        return keys

    def drop(self, rows: RangeSet) -> None:
        """These rows are gone."""
        for rows_of_state in (
            self.ready,
            self.in_flight,
            self.acked,
            self.dead,
            self.superseded,
        ):
            rows_of_state.remove_all(rows)
