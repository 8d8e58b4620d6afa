"""What becomes of rows that were sent: acks, dead letters, the matcher's word, Erase.

Promise: each public method is one change; it is in the file before it is in the index, except acks
and dead letters, which the index may know first (a lost one is repeated, harmlessly).
Threads: the spool writer's alone; the shared state is changed under its lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge.delivery import WelcomeOutcome
from edge.spool_ballast import Ballast
from edge.spool_errors import SpoolFull, SpoolNotWritable
from edge.spool_marks import MarkFile
from edge.spool_record import make_record, read_record
from edge.spool_room import Room
from edge.spool_rows import RowSet, Writer
from edge.spool_schema import ACKED, DEAD, WAITING
from edge.spool_seal import Sealer
from edge.spool_state import SpoolState
from edge.spool_store import Change, NewRow, SpoolStore
from reid.clock import Clock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb


class Word:
    """See the module.

    Args:
        state: of the open spool.
        store: open.
        room: deletes.
        sealer: opens rows that are written anew.
        clock: stamps.
        ballast: given back where a full disk refuses a Welcome.
        marks: how far this process's writer came.
    """

    def __init__(
        self,
        *,
        state: SpoolState,
        store: SpoolStore,
        room: Room,
        sealer: Sealer,
        clock: Clock,
        ballast: Ballast,
        marks: MarkFile,
    ) -> None:
        self._state = state
        self._store = store
        self._room = room
        self._sealer = sealer
        self._clock = clock
        self._ballast = ballast
        self._marks = marks

    def acked(self, rows: RowSet) -> Change:
        """The change that writes acks which the index already knows."""
        state = self._state

        def change(store: SpoolStore) -> None:
            size = store.bytes_of(rows)
            store.set_state(rows, ACKED, running_nanos=state.running_nanos())
            with state.lock:
                state.waiting_bytes -= size

        return change

    def buried(self, row: int, reason: str, message: str) -> Change:
        """The change that writes a dead letter which the index already knows."""
        state = self._state

        def change(store: SpoolStore) -> None:
            size = store.bytes_of(RowSet([(row, row)]))
            store.set_state(RowSet([(row, row)]), DEAD, running_nanos=state.running_nanos())
            store.put_dead_letter(row, reason, message, self._clock.unix_nanos())
            with state.lock:
                state.waiting_bytes -= size

        return change

    def welcome(
        self, ledger_id: str, committed: KeyRanges, skipped: KeyRanges, *, complete: bool = True
    ) -> WelcomeOutcome:
        """Take the matcher's word: mark what it has, send again what it has not, tell what is
        gone. Where its lists are not complete, what is not in them proves nothing."""
        state = self._state
        now = self._clock.unix_nanos()
        with state.lock:
            listed = state.index.rows_of(committed)
            newly = RowSet(state.index.waiting().intersection(listed))
            newly.add_all(state.index.dead.intersection(listed))
            again = RowSet(state.index.acked.minus(listed))
            boundary = state.writer.first_row + state.writer.last_seq - 1
            unreadable = KeyRanges()
            if complete:
                unreadable = state.suspect.minus(committed).minus(skipped)
            buried = state.index.keys_of(RowSet(state.index.dead.minus(listed)))
        waiting_now = RowSet(newly.minus(state.index.dead))
        sizes = self._store.bytes_of(again) - self._store.bytes_of(waiting_now)
        try:
            self._write_welcome(ledger_id, newly, again, unreadable, now)
        except (SpoolFull, SpoolNotWritable):
            # Delivery is what frees a full disk: go on by the index alone. What it says after a
            # crash is older, and the next Welcome says it again; nothing is told UNREADABLE yet.
            self._ballast.release()
            unreadable = KeyRanges()
        everything = self._store.skipped()
        with state.lock:
            state.index.ready.remove_all(newly)
            state.index.in_flight.remove_all(newly)
            state.index.superseded.remove_all(newly)
            state.index.dead.remove_all(newly)
            state.index.acked.add_all(newly)
            state.index.acked.remove_all(again)
            state.index.ready.add_all(again)
            state.waiting_bytes += sizes
            state.ledger_id = ledger_id
            state.suspect = state.suspect.minus(committed).minus(skipped).minus(unreadable)
            state.skipped["SKIP_REASON_UNREADABLE"] += len(unreadable)
            state.counts["acked"] += len(newly)
            state.counts["refilled"] += len(again)
            gone = KeyRanges(entry.range for entry in everything)
            known = state.index.keys_of(state.index.held())
            holes = state.index.issued().minus(committed).minus(skipped).minus(gone).minus(known)
            holes = holes.minus(state.suspect)
            if complete:
                state.counts["holes"] = len(holes)
            tell = state.untold.welcomed(everything, committed, skipped)
            told = _told(state.skipped, tell)
        for entry in buried.minus(skipped).messages():
            tell.append(
                pb.SkippedRange(
                    range=entry, reason=pb.SKIP_REASON_DEAD_LETTER, skipped_unix_nanos=now
                )
            )
        return WelcomeOutcome(boundary, tuple(tell), len(again), state.counts["holes"], told)

    def _write_welcome(
        self, ledger_id: str, newly: RowSet, again: RowSet, unreadable: KeyRanges, now: int
    ) -> None:
        state = self._state
        with self._store.transaction():
            self._store.set_state(newly, ACKED, running_nanos=state.running_nanos())
            self._store.set_state(again, WAITING, running_nanos=state.running_nanos())
            self._store.put_skipped(unreadable, pb.SKIP_REASON_UNREADABLE, now)
            self._store.put_fact("ledger_id", ledger_id)
            # A lost table of writers is whole again from here on.
            for writer in state.index.writers:
                if writer is not state.writer and state.suspect.of(writer.writer_id):
                    self._store.put_writer(writer)

    def erase(self, keys: KeyRanges) -> tuple[pb.SkippedRange, ...]:
        """Delete rows for ever; answers for keys that are gone already, too."""
        state = self._state
        now = self._clock.unix_nanos()
        with state.lock:
            rows = RowSet(state.index.rows_of(keys).intersection(state.index.held()))
            ours = KeyRanges()
            for writer in state.index.writers:
                for first, last in keys.of(writer.writer_id):
                    ours.add_range(writer.writer_id, first, min(last, writer.last_seq))
            row_keys = state.index.keys_of(rows)
            # Acked rows do not count as skipped: the ledger had them, and forgot them itself.
            acked = RowSet(rows.intersection(state.index.acked))
        self._room.delete(
            released=acked,
            released_keys=state.index.keys_of(acked),
            skipped=RowSet(rows.minus(acked)),
            skipped_keys=row_keys.minus(state.index.keys_of(acked)),
            reason=pb.SKIP_REASON_ERASED,
        )
        self._store.checkpoint(truncate=True)
        return tuple(
            pb.SkippedRange(range=entry, reason=pb.SKIP_REASON_ERASED, skipped_unix_nanos=now)
            for entry in ours.messages()
        )

    def unreadable(self, rows: RowSet) -> None:
        """Rows whose bytes are damaged go, and are told."""
        state = self._state
        with state.lock:
            rows = RowSet(rows.intersection(state.index.held()))
            released = RowSet(rows.intersection(state.index.acked))
            skipped = RowSet(rows.minus(released))
            released_keys, keys = (
                state.index.keys_of(released),
                state.index.keys_of(skipped),
            )
        self._room.delete(
            released=released,
            released_keys=released_keys,
            skipped=skipped,
            skipped_keys=keys,
            reason=pb.SKIP_REASON_UNREADABLE,
        )

    def rekey(self, row: int) -> None:
        """The ledger holds this key with another content: write the row anew under a new key."""
        state = self._state
        found = self._store.record(row)
        if found is None:
            return
        sealed, stored, camera, tracklet, revision, final = found
        head = read_record(self._sealer.open(stored) if sealed else stored)
        new = NewRow(
            state.writer.first_row + state.writer.last_seq,
            camera,
            tracklet,
            revision,
            bool(final),
            make_record(
                state.writer.writer_id,
                state.writer.last_seq + 1,
                head.payload,
                head.content_hash,
            ),
        )
        with state.lock:
            old_keys = state.index.keys_of(RowSet([(row, row)]))
        with self._store.transaction():
            self._store.append(
                [new],
                running_nanos=state.running_nanos(),
                unix_nanos=self._clock.unix_nanos(),
            )
            self._store.put_writer(
                Writer(
                    state.writer.writer_id,
                    state.writer.first_row,
                    state.writer.last_seq + 1,
                    state.writer.started_running_nanos,
                )
            )
            self._store.delete(RowSet([(row, row)]))
            self._store.put_released(old_keys)
        with state.lock:
            state.writer.last_seq += 1
            state.index.drop(RowSet([(row, row)]))
            state.index.ready.add(new.row)
            state.counts["rekeyed"] += 1
        self._marks.set(state.writer.writer_id, state.writer.last_seq)

    def resend(self, rows: RowSet | None) -> int:
        """Dead letters (None: all) wait for the matcher again; returns how many."""
        state = self._state
        with state.lock:
            rows = RowSet(state.index.dead if rows is None else state.index.dead.intersection(rows))
        with self._store.transaction():
            self._store.set_state(rows, WAITING, running_nanos=state.running_nanos())
        size = self._store.bytes_of(rows)
        with state.lock:
            state.index.dead.remove_all(rows)
            state.index.ready.add_all(rows)
            state.waiting_bytes += size
        return len(rows)


def _told(skipped: Mapping[str, int], owed: Sequence[pb.SkippedRange]) -> dict[str, int]:
    """Of what was dropped, how much the matcher knows about. An Erase is its own wish: left out."""
    told = {}
    for reason in (pb.SKIP_REASON_CAP, pb.SKIP_REASON_UNREADABLE):
        name = pb.SkipReason.Name(reason)
        untold = sum(e.range.last - e.range.first + 1 for e in owed if e.reason == reason)
        told[name.removeprefix("SKIP_REASON_").lower()] = skipped.get(name, 0) - untold
    return told
