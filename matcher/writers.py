"""Which writers there are, and what is known of their keys: receipts and skipped ranges.

Promise: memory says what the tables say; a writer belongs to one box for ever. Full: a writer that
its box has forgotten, and of which retention left no sighting, is forgotten; a box that takes more
room than it may is refused more (`crowded`), others are not. No thread, no lock: all calls come
from the one thread that owns the connection, inside a transaction.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass

from matcher.records import Room
from reid.ranges import RangeSet

FORGOTTEN = 100  # a reason of ours in the table skipped: keys whose box must erase them
_LARGEST = (1 << 63) - 1  # that SQLite can compare with
_FORGET_AT_ONCE = 256  # old writers looked at for one Hello: a millisecond or two


@dataclass(slots=True)
class KnownWriter:
    """A writer of a box.

    Attributes:
        number: its id in the tables.
        site, edge_id: the box that it belongs to.
        ended: nothing more of it will come.
        receipts: seqs that were committed.
    """

    number: int
    site: str
    edge_id: str
    ended: bool
    receipts: RangeSet


class WriterBook:
    """The tables writers, receipts and skipped, behind one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._writers: dict[str, KnownWriter] = {}
        # (site, edge_id) -> how many there are, as the tables say
        self._of_box: Counter[tuple[str, str]] = Counter()
        self._ranges: Counter[tuple[str, str]] = Counter()
        self.reload()

    def reload(self) -> None:
        """Read writers and receipts again, as they stand in the tables."""
        self._writers = {
            writer_id: KnownWriter(number, site, edge_id, bool(ended), RangeSet())
            for number, writer_id, site, edge_id, ended in self._db.execute(
                "SELECT id, writer_id, site, edge_id, ended FROM writers"
            )
        }
        by_number = {writer.number: writer for writer in self._writers.values()}
        for number, first, last in self._db.execute("SELECT writer, first, last FROM receipts"):
            if number in by_number:
                by_number[number].receipts.add(first, last)
        self._of_box = Counter((one.site, one.edge_id) for one in self._writers.values())
        self._ranges = Counter()
        for table in ("receipts", "skipped"):
            for number, ranges in self._db.execute(
                f"SELECT writer, count(*) FROM {table} GROUP BY writer"
            ):
                if number in by_number:
                    one = by_number[number]
                    self._ranges[one.site, one.edge_id] += ranges

    def ranges(self, site: str, edge_id: str) -> int:
        """In how many ranges the keys of a box lie."""
        return self._ranges[site, edge_id]

    def crowded(self, site: str, edge_id: str, room: Room | None) -> str:
        """Why a box may be given no more, in words; empty where it may."""
        if room is None:
            return ""
        box = (site, edge_id)
        if self._ranges[box] >= room.ranges:
            return (
                f"the keys of this box lie in {self._ranges[box]} ranges, and limits.ranges is "
                f"{room.ranges}: its spool's cap drops too much between, or somebody misuses its "
                "certificate"
            )
        return ""

    def too_many(self, site: str, edge_id: str, room: Room | None) -> str:
        """Why a box may have no further writer, in words; empty where it may."""
        if room is None or self._of_box[site, edge_id] < room.writers:
            return ""
        return (
            f"this box has {self._of_box[site, edge_id]} writers here (one for each start), and "
            f"limits.writers is {room.writers}: it starts again and again, or somebody misuses its "
            "certificate"
        )

    def get(self, writer_id: str) -> KnownWriter | None:
        """A writer that is known."""
        return self._writers.get(writer_id)

    def __getitem__(self, writer_id: str) -> KnownWriter:
        return self._writers[writer_id]

    def by_number(self) -> dict[int, tuple[str, KnownWriter]]:
        """number -> writer_id and writer."""
        return {writer.number: (name, writer) for name, writer in self._writers.items()}

    def of(self, site: str, edge_id: str, writer_id: str) -> KnownWriter:
        """A writer, made for this box where it is new; the caller looks whose it is."""
        known = self._writers.get(writer_id)
        if known is None:
            cursor = self._db.execute(
                "INSERT INTO writers(writer_id, site, edge_id) VALUES(?, ?, ?)",
                (writer_id, site, edge_id),
            )
            known = KnownWriter(int(cursor.lastrowid or 0), site, edge_id, False, RangeSet())
            self._writers[writer_id] = known
            self._of_box[site, edge_id] += 1
        return known

    def receipt(self, writer: KnownWriter, first: int, last: int) -> None:
        """first..last of a writer were committed."""
        writer.receipts.add(first, last)
        merged_first, merged_last = writer.receipts.range_of(first)
        joined = self._db.execute(
            "DELETE FROM receipts WHERE writer = ? AND first BETWEEN ? AND ?",
            (writer.number, merged_first, merged_last),
        ).rowcount
        self._db.execute(
            "INSERT INTO receipts VALUES(?, ?, ?)", (writer.number, merged_first, merged_last)
        )
        self._ranges[writer.site, writer.edge_id] += 1 - joined

    def skip(self, writer: KnownWriter, reason: int, first: int, last: int) -> None:
        """first..last will never come, for this reason; a repeat changes nothing."""
        at = (writer.number, reason)
        near: list[tuple[int, int]] = []
        # Ranges of one reason are disjoint: the first that ends too early ends the search.
        for old in self._db.execute(
            "SELECT first, last FROM skipped WHERE writer = ? AND reason = ? AND first <= ? "
            "ORDER BY first DESC",
            (*at, min(last + 1, _LARGEST)),
        ):
            if old[1] < first - 1:
                break
            near.append(old)
        if near == [(first, last)]:
            return
        for old_first, old_last in near:
            first, last = min(first, old_first), max(last, old_last)
            self._db.execute(
                "DELETE FROM skipped WHERE writer = ? AND reason = ? AND first = ?",
                (*at, old_first),
            )
        self._db.execute("INSERT INTO skipped VALUES(?, ?, ?, ?)", (*at, first, last))
        self._ranges[writer.site, writer.edge_id] += 1 - len(near)

    def skips(self, number: int, reason: int | None = None) -> RangeSet:
        """What will never come: for this reason, or for any that a box told."""
        if reason is None:
            rows = self._db.execute(
                "SELECT first, last FROM skipped WHERE writer = ? AND reason <> ? ORDER BY first",
                (number, FORGOTTEN),
            )
        else:
            rows = self._db.execute(
                "SELECT first, last FROM skipped WHERE writer = ? AND reason = ?", (number, reason)
            )
        return RangeSet(rows)

    def end(self, writer: KnownWriter) -> None:
        """Nothing more of a writer will come."""
        writer.ended = True
        self._db.execute("UPDATE writers SET ended = 1 WHERE id = ?", (writer.number,))

    def forget_unnamed(self, site: str, edge_id: str, named: set[str]) -> None:
        """Forget writers that their box has forgotten and of which retention left no sighting.

        Every start of a box makes a writer. The box gives no key of these again; and if a spool of
        long ago came back, its sightings would be older than the retention, and not stored.
        """
        unnamed = sorted(
            (writer.number, name)
            for name, writer in self._writers.items()
            if (writer.site, writer.edge_id) == (site, edge_id) and name not in named
        )
        newest = max((writer.number for writer in self._writers.values()), default=0)
        # Oldest first, as retention deletes them: those behind the limit have their turn later.
        for number, name in unnamed[:_FORGET_AT_ONCE]:
            row = self._db.execute("SELECT 1 FROM log WHERE writer = ? LIMIT 1", (number,))
            # SQLite counts on from the highest number: while it stays, none is given twice.
            if row.fetchone() is not None or number == newest:
                continue
            for table in ("receipts", "skipped"):
                gone = self._db.execute(f"DELETE FROM {table} WHERE writer = ?", (number,))
                self._ranges[site, edge_id] -= gone.rowcount
            self._db.execute("DELETE FROM writers WHERE id = ?", (number,))
            del self._writers[name]
            self._of_box[site, edge_id] -= 1

    def sites(self) -> list[str]:
        """Sites with at least one writer."""
        return sorted({writer.site for writer in self._writers.values()})
