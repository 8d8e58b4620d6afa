"""What the ledger's tables mean: append, receipts, skipped keys, Welcome, Forget, retention.

Promise: inside one transaction of the owner, a key is stored at most once; its receipt outlives
the row; a forgotten tracklet is never stored again. `flush()` writes what was appended; after a
failed transaction `reload()` forgets what memory believed. No thread, no clock, no lock: all calls
come from the one thread that owns the connection (matcher.ledger), inside a transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from matcher.records import Appended, KnownKeys, Room, Row
from matcher.schema import EntryKind, get_meta
from matcher.writers import FORGOTTEN, KnownWriter, WriterBook
from reid.ranges import KeyRanges, RangeSet

_COLUMNS = 11
_CHUNK = 64  # rows of one INSERT: one call, one release of the interpreter's lock
_INSERT = (
    "INSERT INTO log(kind, site, edge_id, writer, seq, content_hash, tracklet_id, seen_ns, "
    "committed_ns, body) VALUES "
)
_PLACES = "(?,?,?,?,?,?,?,?,?,?)"
_INSERT_CHUNK = _INSERT + ",".join([_PLACES] * _CHUNK)
_INSERT_ONE = _INSERT + _PLACES


class LedgerStore:
    """The ledger's tables behind one connection."""

    def __init__(
        self, connection: sqlite3.Connection, *, forgotten: dict[str, str] | None = None
    ) -> None:
        """
        Args:
            connection: opened by matcher.schema.open_ledger.
            forgotten: tracklet_id -> site of what must never be stored again; shared with the
                owner, who adds to it.
        """
        self._db = connection
        self.forgotten = forgotten if forgotten is not None else {}
        self.ledger_id = get_meta(connection, "ledger_id") or ""
        self._writers = WriterBook(connection)
        self._fresh: dict[tuple[int, int], bytes] = {}
        self._pending: list[object] = []  # parameters of rows not yet inserted, flat
        self._pending_rows = 0
        self._new_receipts: dict[str, RangeSet] = {}

    def reload(self) -> None:
        """Read writers and receipts again; what was appended and not flushed is dropped."""
        self._fresh.clear()
        self._pending.clear()
        self._pending_rows = 0
        self._new_receipts.clear()
        self._writers.reload()

    # --- appending ---------------------------------------------------------------------------

    def append(
        self,
        site: str,
        edge_id: str,
        rows: Sequence[Row],
        *,
        now_ns: int,
        expired_before_ns: int,
        room: Room | None = None,
    ) -> Appended:
        """Take rows of one box; they are in the tables after `flush()`.

        Args:
            rows: checked against the contract.
            now_ns: UTC of the commit.
            expired_before_ns: rows seen earlier are receipted and not stored.
            room: what a box may take; None: as much as it likes.
        """
        result = Appended(crowded=self._writers.crowded(site, edge_id, room))
        if result.crowded:
            return result
        runs: dict[str, list[int]] = {}  # writer_id -> new seqs, as they came
        writer: KnownWriter | None = None
        writer_id = ""
        receipts = RangeSet()
        fresh, forgotten, pending = self._fresh, self.forgotten, self._pending
        acked: dict[str, list[int]] = {}
        for row in rows:
            if row[0] != writer_id or writer is None:
                writer_id = row[0]
                writer = self._writers.get(writer_id)
                if writer is None:
                    result.crowded = self._writers.too_many(site, edge_id, room)
                    if result.crowded:
                        break
                    writer = self._writers.of(site, edge_id, writer_id)
                receipts = writer.receipts
            if writer.edge_id != edge_id or writer.site != site:
                result.foreign.append((writer_id, row[1]))
                continue
            seq = row[1]
            key = (writer.number, seq)
            if key in fresh or seq in receipts:
                known = fresh.get(key) or self._stored_hash(writer.number, seq)
                if known is not None and known != row[2]:
                    result.conflicts.append((writer_id, seq))
                    continue
                result.duplicates += 1
                acked.setdefault(writer_id, []).append(seq)
                continue
            fresh[key] = row[2]
            runs.setdefault(writer_id, []).append(seq)
            acked.setdefault(writer_id, []).append(seq)
            if row[3] in forgotten:
                result.forgotten += 1
                result.erase.add(writer_id, seq)
                continue
            if row[4] < expired_before_ns:
                result.expired += 1
                continue
            result.stored += 1
            self._pending_rows += 1
            pending += (
                EntryKind.SIGHTING.value,
                site,
                edge_id,
                writer.number,
                seq,
                row[2],
                row[3],
                row[4],
                now_ns,
                row[5],
            )
        for run_writer, seqs in runs.items():
            target = self._new_receipts.setdefault(run_writer, RangeSet())
            _add_all(target, seqs)
        for ack_writer, seqs in acked.items():
            ranges = RangeSet()
            _add_all(ranges, seqs)
            for first, last in ranges:
                result.acked.add_range(ack_writer, first, last)
        for message in result.erase.messages():
            of = self._writers[message.writer_id]
            self._writers.skip(of, FORGOTTEN, message.first, message.last)
        return result

    def note(
        self, kind: EntryKind, site: str, edge_id: str, body: dict[str, object], now_ns: int
    ) -> int:
        """Append an entry that is not a sighting; its position."""
        self.flush()
        cursor = self._db.execute(
            _INSERT_ONE,
            (
                kind.value,
                site,
                edge_id,
                None,
                None,
                None,
                None,
                now_ns,
                now_ns,
                json.dumps(body, sort_keys=True).encode(),
            ),
        )
        return int(cursor.lastrowid or 0)

    def flush(self) -> None:
        """Write what was appended: rows in as few statements as possible, then receipts."""
        width = _COLUMNS - 1
        step = _CHUNK * width
        whole = len(self._pending) - len(self._pending) % step
        for start in range(0, whole, step):
            self._db.execute(_INSERT_CHUNK, self._pending[start : start + step])
        rest = (len(self._pending) - whole) // width
        if rest:
            self._db.execute(_INSERT + ",".join([_PLACES] * rest), self._pending[whole:])
        self._pending.clear()
        self._pending_rows = 0
        for writer_id, ranges in self._new_receipts.items():
            writer = self._writers[writer_id]
            for first, last in ranges:
                self._writers.receipt(writer, first, last)
        self._new_receipts.clear()
        self._fresh.clear()

    @property
    def pending_rows(self) -> int:
        """Rows appended and not yet written."""
        return self._pending_rows

    def _stored_hash(self, number: int, seq: int) -> bytes | None:
        row = self._db.execute(
            "SELECT content_hash FROM log WHERE writer = ? AND seq = ?", (number, seq)
        ).fetchone()
        return None if row is None else bytes(row[0])

    # --- what a box asks and tells --------------------------------------------------------------

    def hello(
        self,
        site: str,
        edge_id: str,
        writer_id: str,
        held: KeyRanges,
        issued: KeyRanges,
        *,
        now_ns: int,
        names_all: bool = False,
        room: Room | None = None,
    ) -> KnownKeys:
        """Answer a Hello: what is known of the box's keys; older writers with nothing left end.

        Args:
            names_all: `issued` was not cut: the box has forgotten every writer that is not in it.
            room: what a box may take; None: as much as it likes.
        """
        self.flush()
        named = KeyRanges()
        named.update(issued)
        named.update(held)
        known = KnownKeys(KeyRanges(), KeyRanges(), KeyRanges(), [], {}, [], KeyRanges())
        erased = KeyRanges()
        for name in named.writers():
            writer = self._writers.get(name)
            if writer is None:
                continue
            if (writer.site, writer.edge_id) != (site, edge_id):
                known.foreign.append(name)
                continue
            wanted = named.of(name)
            for first, last in writer.receipts.intersection(wanted):
                known.committed.add_range(name, first, last)
            for first, last in self._writers.skips(writer.number).intersection(wanted):
                known.skipped.add_range(name, first, last)
            for first, last in self._writers.skips(writer.number, _ERASED):
                erased.add_range(name, first, last)
        known.skipped = known.skipped.minus(known.committed)
        open_keys = named.minus(known.committed).minus(known.skipped)
        known.hole = open_keys.minus(held)
        for name in named.writers():
            if name == writer_id or name in known.foreign:
                continue
            left = open_keys.of(name)
            if left:
                known.unfinished[name] = left
            elif self.end_writer(name, now_ns=now_ns):
                known.ended.append(name)
        known.erase = self.forgotten_keys(held.writers(), site, edge_id, held).minus(erased)
        new = self._writers.get(writer_id) is None
        remembered = {writer_id, *named.writers()}
        if names_all and new and self._writers.too_many(site, edge_id, room):
            self._writers.forget_unnamed(site, edge_id, remembered)
        known.crowded = self._writers.crowded(site, edge_id, room)
        if new and not known.crowded:
            known.crowded = self._writers.too_many(site, edge_id, room)
        if not known.crowded:
            self._writers.of(site, edge_id, writer_id)
        if names_all:
            self._writers.forget_unnamed(site, edge_id, remembered)
        known.ranges = self._writers.ranges(site, edge_id)
        return known

    def forgotten_keys(
        self, writers: Iterable[str], site: str, edge_id: str, held: KeyRanges
    ) -> KeyRanges:
        """Keys held by a box whose tracklets were forgotten."""
        keys = KeyRanges()
        for name in writers:
            writer = self._writers.get(name)
            if writer is None or (writer.site, writer.edge_id) != (site, edge_id):
                continue
            gone = RangeSet(
                self._db.execute(
                    "SELECT first, last FROM skipped WHERE writer = ? AND reason = ?",
                    (writer.number, FORGOTTEN),
                )
            )
            for first, last in gone.intersection(held.of(name)):
                keys.add_range(name, first, last)
        return keys

    def end_writer(self, writer_id: str, *, now_ns: int) -> bool:
        """Note that nothing more of a writer will come; False where that was known."""
        writer = self._writers.get(writer_id)
        if writer is None or writer.ended:
            return False
        self._writers.end(writer)
        self.note(
            EntryKind.WRITER_ENDED, writer.site, writer.edge_id, {"writer_id": writer_id}, now_ns
        )
        return True

    def skip(
        self,
        site: str,
        edge_id: str,
        ranges: Iterable[tuple[str, int, int, int]],
        *,
        room: Room | None = None,
    ) -> tuple[list[str], str]:
        """Record keys that will never come; a repeat changes nothing.

        Args:
            ranges: writer_id, first, last, reason.
            room: what a box may take; None: as much as it likes.
        Returns:
            Writers that belong to another box; their ranges were not recorded. And why the rest
            was not, of a box that takes too much room; empty: all was.
        """
        foreign: list[str] = []
        for writer_id, first, last, reason in ranges:
            if last < first or first < 1:
                continue
            writer = self._writers.get(writer_id)
            crowded = self._writers.crowded(site, edge_id, room)
            if writer is None and not crowded:
                crowded = self._writers.too_many(site, edge_id, room)
            if crowded:
                return foreign, crowded
            writer = writer or self._writers.of(site, edge_id, writer_id)
            if (writer.site, writer.edge_id) != (site, edge_id):
                foreign.append(writer_id)
                continue
            self._writers.skip(writer, reason, first, last)
        return foreign, ""

    def forget(
        self, site: str, identity_id: str, tracklet_ids: Sequence[str], *, now_ns: int
    ) -> tuple[int, dict[str, KeyRanges]]:
        """Delete every row of these tracklets and remember never to take one again.

        Returns:
            Rows deleted, and per edge_id the keys that the box must erase.
        """
        self.flush()
        keys: dict[str, KeyRanges] = {}
        names = self._writers.by_number()
        deleted = 0
        for tracklet_id in tracklet_ids:
            self.forgotten[tracklet_id] = site
            rows = self._db.execute(
                "SELECT writer, seq FROM log WHERE tracklet_id = ?", (tracklet_id,)
            ).fetchall()
            for number, seq in rows:
                name, writer = names[number]
                keys.setdefault(writer.edge_id, KeyRanges()).add(name, seq)
            deleted += self._db.execute(
                "DELETE FROM log WHERE tracklet_id = ?", (tracklet_id,)
            ).rowcount
        for ranges in keys.values():
            for message in ranges.messages():
                of = self._writers[message.writer_id]
                self._writers.skip(of, FORGOTTEN, message.first, message.last)
        self.note(
            EntryKind.FORGET,
            site,
            "",
            {"identity_id": identity_id, "tracklet_ids": list(tracklet_ids)},
            now_ns,
        )
        return deleted, keys

    def delete_older(self, site: str, before_ns: int, *, limit: int) -> int:
        """Delete at most `limit` entries of a site seen before an instant; how many went."""
        self.flush()
        return self._db.execute(
            "DELETE FROM log WHERE position IN (SELECT position FROM log WHERE seen_ns < ? "
            "AND site = ? LIMIT ?)",
            (before_ns, site, limit),
        ).rowcount

    def save_edges(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Write what is known of boxes: site, edge_id, state as JSON."""
        self._db.executemany("INSERT OR REPLACE INTO edges VALUES(?, ?, ?)", rows)

    def audit(self, who: str, what: str, detail: dict[str, object], now_ns: int) -> None:
        """Write down what a person did."""
        self._db.execute(
            "INSERT INTO audit(unix_ns, who, what, detail) VALUES(?, ?, ?, ?)",
            (now_ns, who, what, json.dumps(detail, sort_keys=True)),
        )

    def set_retention(self, site: str, ledger_s: float, identity_s: float) -> None:
        """How long things of a site are kept; "" for sites without a setting of their own."""
        self._db.execute(
            "INSERT OR REPLACE INTO retention VALUES(?, ?, ?)", (site, ledger_s, identity_s)
        )

    def last_position(self) -> int:
        """The last position of the log."""
        row = self._db.execute("SELECT max(position) FROM log").fetchone()
        return int(row[0] or 0)

    def sites(self) -> list[str]:
        """Sites with at least one writer."""
        return self._writers.sites()


_ERASED = 3  # reid.v1.SkipReason.SKIP_REASON_ERASED


def _add_all(ranges: RangeSet, seqs: list[int]) -> None:
    """Add numbers run by run: nearly always they are one."""
    start = previous = seqs[0]
    for seq in seqs[1:]:
        if seq != previous + 1:
            ranges.add(start, previous)
            start = seq
        previous = seq
    ranges.add(start, previous)
