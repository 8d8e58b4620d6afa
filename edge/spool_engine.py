"""Everything the spool writes: appending, making room, acks, the matcher's word, upkeep.

Promise: each public method is one change of the spool; it is in the file before it is in the index,
except acks and dead letters, which the index may know first (a lost one is repeated, harmlessly).
Full: `append` raises `SpoolFull` only after ballast and eviction gave nothing.
Threads: every method on the spool writer's thread; what is shared (index, cache, counts) is changed
under `lock`, which is held for memory work only.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

from edge.config import SpoolConfig
from edge.delivery import NewSighting, SpaceUse, WelcomeOutcome
from edge.spool_ballast import Ballast
from edge.spool_errors import SpoolError, SpoolFull, SpoolKeyError, SpoolNotWritable
from edge.spool_eviction import Evicted, plan_eviction
from edge.spool_marks import MarkFile
from edge.spool_record import make_record, read_record
from edge.spool_rows import RowIndex, RowSet, Writer
from edge.spool_schema import ACKED, DEAD, WAITING
from edge.spool_seal import Sealer
from edge.spool_store import ROW_OVERHEAD_BYTES, NewRow, SpoolStore
from edge.spool_untold import Untold
from reid.clock import Clock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb

# Live rows are sent from memory; what does not fit here is read back from the file.
CACHE_BYTES = 4 << 20
# Writers without rows, of which the matcher knows everything, are remembered so long and so many,
# for the alarm about holes.
WRITER_KEPT_S = 30 * 86400.0
WRITERS_KEPT = 1024
_PURGE_ROWS = 512
_FULL_DISK_STEP_BYTES = 128 << 10
_TRACKED_LATENCIES = 4096

LightChange = Callable[[SpoolStore], None]


class SpoolEngine:
    """State and changes of one open spool.

    Args:
        store: opened here.
        config: caps and times.
        sealer: opens rows.
        clock: UTC for stamps, monotonic for ages.
        ballast: given back on a full disk.
        marks: how far this process's writer came.
        writer_id: this process's writer.
    """

    def __init__(
        self,
        *,
        store: SpoolStore,
        config: SpoolConfig,
        sealer: Sealer,
        clock: Clock,
        ballast: Ballast,
        marks: MarkFile,
        writer_id: str,
    ) -> None:
        self._store = store
        self._config = config
        self._sealer = sealer
        self._clock = clock
        self._ballast = ballast
        self._marks = marks
        self.writer = Writer(writer_id, 1, 0)
        self.lock = threading.Lock()
        # Guarded by lock:
        self.index = RowIndex()
        self.cache: OrderedDict[int, bytes] = OrderedDict()
        self._cache_bytes = 0
        self.untold = Untold()
        self.counts: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.waiting_bytes = 0
        self.spaces: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.ledger_id = ""
        self.suspect = KeyRanges()
        self.triggered: OrderedDict[int, int] = OrderedDict()
        # The writer's own:
        self._cameras: dict[str, int] = {}
        self._sealed_with: set[str] = set()  # ids of keys that rows may be sealed with
        self._newest: dict[int, int] = {}  # tracklet -> row of its newest, until it is final
        self._running_base = 0
        self._opened_nanos = 0

    # -- opening -----------------------------------------------------------------------------------

    def open(self, marks: dict[str, int]) -> None:
        """Read the file; compare with the marks; begin this process's writer.

        Args:
            marks: writer_id -> last seq, from the mark file of the last process.
        """
        loaded = self._store.open()
        index = loaded.index
        self._running_base = int(loaded.facts.get("running_nanos", 0))
        self._opened_nanos = self._clock.monotonic_nanos()
        self._sealed_with = {k for k in str(loaded.facts.get("sealed_with", "")).split(",") if k}
        self._refuse_unknown_keys()
        lost = KeyRanges()
        for writer_id, last_seq in marks.items():
            known = index.writer(writer_id)
            if known is None:
                # Its rows are gone with their table: a place behind all others keeps its keys
                # known.
                known = Writer(writer_id, index.next_row(), last_seq, self.running_nanos())
                index.add_writer(known)
                lost.add_range(writer_id, 1, last_seq)
            elif last_seq > known.last_seq:
                lost.add_range(writer_id, known.last_seq + 1, last_seq)
                known.last_seq = min(last_seq, known.last_seq + index.rows_after(known))
        explained = index.keys_of(index.held())
        explained.update(self._store.released())
        skipped = self._store.skipped()
        self.untold.stored(skipped)
        for entry in skipped:
            explained.add_range(entry.range.writer_id, entry.range.first, entry.range.last)
        issued = index.issued()
        issued.update(lost)
        self.suspect = issued.minus(explained)
        self.writer = Writer(
            self.writer.writer_id, index.next_row(), 0, started_running_nanos=self.running_nanos()
        )
        index.add_writer(self.writer)
        self.index = index
        self._cameras = loaded.cameras
        self.spaces = loaded.spaces
        self.ledger_id = str(loaded.facts.get("ledger_id", ""))
        self.waiting_bytes = loaded.waiting_bytes
        for name, value in loaded.counters.items():
            if name.startswith("skipped."):
                self.skipped[name.removeprefix("skipped.")] = value
        # What the marks alone know stays in them until a Welcome has settled it.
        older = {
            w.writer_id: max(w.last_seq, marks.get(w.writer_id, 0))
            for w in index.writers
            if w is not self.writer
        }
        self._marks.start(older, self.writer.writer_id)
        self._ballast.fill()
        with contextlib.suppress(SpoolError):
            self._store.shrink()

    def _refuse_unknown_keys(self) -> None:
        """Rows sealed with a key that we lack would look damaged, and be told so: refuse
        instead."""
        known = {key_id.hex() for key_id in self._sealer.key_ids}
        unknown = sorted(self._sealed_with - known)
        rows = self._store.rows_sealed_with(unknown) if unknown else 0
        if rows:
            raise SpoolKeyError(
                self._config.key_file or self._store.path,
                f"{rows} rows are sealed with key {', '.join(unknown)}, which is not at hand; "
                "add the older key as a further line of the key file",
            )

    def running_nanos(self) -> int:
        """How long spools of this folder have been open, all processes together. Ages are measured
        by it, so that no step of UTC can age a row."""
        return self._running_base + self._clock.monotonic_nanos() - self._opened_nanos

    # -- appending -------------------------------------------------------------------------------

    def append(self, group: Sequence[NewSighting], changes: Sequence[LightChange]) -> None:
        """One transaction: the group's rows, and changes that wait for company.

        Raises:
            SpoolFull, SpoolNotWritable, SpoolDamaged: nothing of it is in the file.
        """
        if group:
            self.make_room(
                sum(len(new.payload) + 200 + ROW_OVERHEAD_BYTES for new in group) * 5 // 4
            )
        try:
            self._append(group, changes)
        except SpoolFull:
            self._append_on_full_disk(group, changes)

    def _append_on_full_disk(
        self, group: Sequence[NewSighting], changes: Sequence[LightChange]
    ) -> None:
        """The disk, not our cap, has no room: make some inside our own files.

        The ballast's room first takes the WAL into the database, so that the WAL can be written
        anew from its start. From then on the database may not grow, until there is room again;
        rows go in pieces that fit into the WAL.
        """
        self._ballast.release()
        self._store.checkpoint(truncate=False)
        self._store.freeze(True)
        self.make_room(sum(len(new.payload) + 512 for new in group) * 5 // 4)
        self._append(group, changes)

    def _append(self, group: Sequence[NewSighting], changes: Sequence[LightChange]) -> None:
        cameras: dict[str, int] = {}
        spaces: set[SpaceUse] = set()
        first_seq = self.writer.last_seq + 1
        first_row = self.writer.first_row + self.writer.last_seq
        writer_id = self.writer.writer_id
        rows: list[NewRow] = []
        size = 0
        with self._store.transaction():
            for change in changes:
                change(self._store)
            if group:
                for offset, new in enumerate(group):
                    camera = self._cameras.get(new.camera) or cameras.get(new.camera)
                    if camera is None:
                        camera = cameras[new.camera] = self._store.put_camera(new.camera)
                    for space in new.spaces:
                        known = self.spaces.get(space.space_id)
                        if known is None or space.variant_id not in known[1]:
                            spaces.add(space)
                    rows.append(
                        NewRow(
                            first_row + offset,
                            camera,
                            new.tracklet,
                            new.revision,
                            new.final,
                            make_record(writer_id, first_seq + offset, new.payload),
                        )
                    )
                for space in spaces:
                    self._store.put_space(space)
                if self._sealer.active and self._sealer.current_id.hex() not in self._sealed_with:
                    sealed_with = {*self._sealed_with, self._sealer.current_id.hex()}
                    self._store.put_fact("sealed_with", ",".join(sorted(sealed_with)))
                size, _ = self._store.append(
                    rows,
                    running_nanos=self.running_nanos(),
                    unix_nanos=self._clock.unix_nanos(),
                )
                self._store.put_writer(
                    Writer(
                        writer_id,
                        self.writer.first_row,
                        first_seq + len(rows) - 1,
                        self.writer.started_running_nanos,
                    )
                )
            self._store.put_fact("running_nanos", self.running_nanos())
        if rows:
            self._appended(group, rows, size, cameras, spaces)

    def _appended(
        self,
        group: Sequence[NewSighting],
        rows: Sequence[NewRow],
        size: int,
        cameras: dict[str, int],
        spaces: set[SpaceUse],
    ) -> None:
        self._cameras.update(cameras)
        if self._sealer.active:
            self._sealed_with.add(self._sealer.current_id.hex())
        with self.lock:
            self.writer.last_seq += len(rows)
            self.index.ready.add(rows[0].row, rows[-1].row)
            self.counts["committed"] += len(rows)
            self.waiting_bytes += size
            for space in spaces:
                dimension, variants = self.spaces.get(space.space_id, (space.dimension, ()))
                self.spaces[space.space_id] = (dimension, (*variants, space.variant_id))
            for row, new in zip(rows, group, strict=True):
                self.cache[row.row] = row.record
                self._cache_bytes += len(row.record)
                older = self._newest.pop(new.tracklet, None)
                if older is not None and (
                    older in self.index.ready or older in self.index.in_flight
                ):
                    self.index.superseded.add(older)
                if not new.final:
                    self._newest[new.tracklet] = row.row
                if new.triggered_monotonic_nanos:
                    self.triggered[row.row] = new.triggered_monotonic_nanos
            while self._cache_bytes > CACHE_BYTES:
                _, record = self.cache.popitem(last=False)
                self._cache_bytes -= len(record)
            while len(self.triggered) > _TRACKED_LATENCIES:
                self.triggered.popitem(last=False)
        self._marks.set(self.writer.writer_id, self.writer.last_seq)

    def uncache(self, row: int) -> bytes | None:
        """Take a row's record out of memory, under the lock; None: it must be read."""
        record = self.cache.pop(row, None)
        if record is not None:
            self._cache_bytes -= len(record)
        return record

    def after_failed_commit(self) -> bool:
        """Open the file anew and see whether the last commit took place after all.

        Returns:
            True: it did; the rows are there and are sent from the file.
        """
        self._store.close()
        self._store.open()
        found = self._store.last_seq(self.writer.writer_id)
        if found <= self.writer.last_seq:
            return False
        with self.lock:
            first = self.writer.first_row + self.writer.last_seq
            self.counts["committed"] += found - self.writer.last_seq
            self.writer.last_seq = found
            self.index.ready.add(first, self.writer.first_row + found - 1)
        self._marks.set(self.writer.writer_id, found)
        return True

    # -- making room -----------------------------------------------------------------------------

    def make_room(self, needed_bytes: int) -> None:
        """Evict until so much fits below the cap, or nothing is left to evict."""
        # On a full disk what is given back is gone: the WAL keeps its room and is written anew.
        if not self._store.frozen and self._store.wal_bytes() > self._store.wal_bytes_allowed:
            self._store.checkpoint(truncate=True)
        for _ in range(64):
            free = self._store.free_bytes()
            if free >= needed_bytes + self._margin():
                return
            target = max(needed_bytes + self._margin() - free, self._config.max_bytes // 100)
            if not self.evict(target):
                return

    def _margin(self) -> int:
        # Inner pages and half-full leaves: room that is not the rows' own.
        return min(1 << 20, self._config.max_bytes // 32)

    def evict(self, target_bytes: int) -> int:
        """Delete rows in the stated order; tells Skipped (CAP) for those without an ack.

        Returns:
            How many rows went.
        """
        # Overwriting deleted rows goes through the WAL: more than it may hold is done in steps.
        step = _FULL_DISK_STEP_BYTES if self._store.frozen else self._store.wal_bytes_allowed // 2
        target = min(target_bytes, step)
        with self.lock:
            acked = RowSet(self.index.acked)
            ready = RowSet(self.index.ready)
            dead = RowSet(self.index.dead)
            superseded = RowSet(self.index.superseded.minus(self.index.in_flight))
        cameras = self._store.camera_bytes()
        plan = plan_eviction(
            target,
            acked=self._store.candidates(acked),
            superseded=self._store.candidates(superseded),
            by_camera={c: self._store.candidates(ready, c) for c in cameras},
            camera_bytes=cameras,
            dead=self._store.candidates(dead),
        )
        released, skipped, replaced = RowSet(), RowSet(), RowSet()
        with self.lock:
            for candidate, why in plan:
                if candidate.row in self.index.in_flight:
                    continue  # taken by the uplink while we planned
                # Gone from ready, it cannot be taken while it is being deleted.
                self.index.ready.remove(candidate.row)
                (released if why is Evicted.ACKED else skipped).add(candidate.row)
                if why is Evicted.SUPERSEDED:
                    replaced.add(candidate.row)
            released_keys = self.index.keys_of(released)
            skipped_keys = self.index.keys_of(skipped)
        try:
            self._delete(
                released=released,
                released_keys=released_keys,
                skipped=skipped,
                skipped_keys=skipped_keys,
                reason=pb.SKIP_REASON_CAP,
            )
        except SpoolError:
            with self.lock:
                self.index.ready.add_all(skipped.minus(self.index.dead))
            raise
        with self.lock:
            self.counts["superseded"] += len(replaced)
        return len(released) + len(skipped)

    def _delete(
        self,
        *,
        released: RowSet,
        released_keys: KeyRanges,
        skipped: RowSet,
        skipped_keys: KeyRanges,
        reason: pb.SkipReason,
    ) -> None:
        """One transaction that deletes rows and says why; then the index follows."""
        with self.lock:
            waiting = RowSet(skipped.minus(self.index.dead))
        if not released and not skipped:
            return
        waiting_bytes = self._store.bytes_of(waiting)
        with self._store.transaction():
            self._store.delete(released)
            self._store.delete(skipped)
            self._store.put_released(released_keys)
            told = self._store.put_skipped(skipped_keys, reason, self._clock.unix_nanos())
        with self.lock:
            self.waiting_bytes -= waiting_bytes
            if skipped:
                self.skipped[pb.SkipReason.Name(reason)] += len(skipped)
            for first, last in [*released, *skipped]:
                for row in range(first, last + 1):
                    self.uncache(row)
                    self.triggered.pop(row, None)
            self.index.drop(released)
            self.index.drop(skipped)
            # In the same breath as the counts, so that nobody sees one without the other. What the
            # server asked to erase is answered at once, by the caller.
            if reason != pb.SKIP_REASON_ERASED:
                self.untold.add(told)
            else:
                self.untold.stored(told)

    # -- acks and the matcher's word -------------------------------------------------------------

    def acked(self, rows: RowSet) -> LightChange:
        """The change that writes acks which the index already knows."""

        def change(store: SpoolStore) -> None:
            size = store.bytes_of(rows)
            store.set_state(rows, ACKED, running_nanos=self.running_nanos())
            with self.lock:
                self.waiting_bytes -= size

        return change

    def buried(self, row: int, reason: str, message: str) -> LightChange:
        """The change that writes a dead letter which the index already knows."""

        def change(store: SpoolStore) -> None:
            size = store.bytes_of(RowSet([(row, row)]))
            store.set_state(RowSet([(row, row)]), DEAD, running_nanos=self.running_nanos())
            store.put_dead_letter(row, reason, message, self._clock.unix_nanos())
            with self.lock:
                self.waiting_bytes -= size

        return change

    def welcome(
        self, ledger_id: str, committed: KeyRanges, skipped: KeyRanges, *, complete: bool = True
    ) -> WelcomeOutcome:
        """Take the matcher's word: mark what it has, send again what it has not, tell what is
        gone. Where its lists are not complete, what is not in them proves nothing."""
        now = self._clock.unix_nanos()
        with self.lock:
            listed = self.index.rows_of(committed)
            newly = RowSet(self.index.waiting().intersection(listed))
            newly.add_all(self.index.dead.intersection(listed))
            again = RowSet(self.index.acked.minus(listed))
            boundary = self.writer.first_row + self.writer.last_seq - 1
            unreadable = KeyRanges()
            if complete:
                unreadable = self.suspect.minus(committed).minus(skipped)
            buried = self.index.keys_of(RowSet(self.index.dead.minus(listed)))
        waiting_now = RowSet(newly.minus(self.index.dead))
        sizes = self._store.bytes_of(again) - self._store.bytes_of(waiting_now)
        try:
            self._write_welcome(ledger_id, newly, again, unreadable, now)
        except (SpoolFull, SpoolNotWritable):
            # Delivery is what frees a full disk: go on by the index alone. What it says after a
            # crash is older, and the next Welcome says it again; nothing is told UNREADABLE yet.
            self._ballast.release()
            unreadable = KeyRanges()
        everything = self._store.skipped()
        with self.lock:
            self.index.ready.remove_all(newly)
            self.index.in_flight.remove_all(newly)
            self.index.superseded.remove_all(newly)
            self.index.dead.remove_all(newly)
            self.index.acked.add_all(newly)
            self.index.acked.remove_all(again)
            self.index.ready.add_all(again)
            self.waiting_bytes += sizes
            self.ledger_id = ledger_id
            self.suspect = self.suspect.minus(committed).minus(skipped).minus(unreadable)
            self.skipped["SKIP_REASON_UNREADABLE"] += len(unreadable)
            self.counts["acked"] += len(newly)
            self.counts["refilled"] += len(again)
            gone = KeyRanges(entry.range for entry in everything)
            known = self.index.keys_of(self.index.held())
            holes = self.index.issued().minus(committed).minus(skipped).minus(gone).minus(known)
            holes = holes.minus(self.suspect)
            if complete:
                self.counts["holes"] = len(holes)
            tell = self.untold.welcomed(everything, committed, skipped)
        for entry in buried.minus(skipped).messages():
            tell.append(
                pb.SkippedRange(
                    range=entry, reason=pb.SKIP_REASON_DEAD_LETTER, skipped_unix_nanos=now
                )
            )
        return WelcomeOutcome(boundary, tuple(tell), len(again), self.counts["holes"])

    def _write_welcome(
        self, ledger_id: str, newly: RowSet, again: RowSet, unreadable: KeyRanges, now: int
    ) -> None:
        with self._store.transaction():
            self._store.set_state(newly, ACKED, running_nanos=self.running_nanos())
            self._store.set_state(again, WAITING, running_nanos=self.running_nanos())
            self._store.put_skipped(unreadable, pb.SKIP_REASON_UNREADABLE, now)
            self._store.put_fact("ledger_id", ledger_id)
            # A lost table of writers is whole again from here on.
            for writer in self.index.writers:
                if writer is not self.writer and self.suspect.of(writer.writer_id):
                    self._store.put_writer(writer)

    def erase(self, keys: KeyRanges) -> tuple[pb.SkippedRange, ...]:
        """Delete rows for ever; answers for keys that are gone already, too."""
        now = self._clock.unix_nanos()
        with self.lock:
            rows = RowSet(self.index.rows_of(keys).intersection(self.index.held()))
            ours = KeyRanges()
            for writer in self.index.writers:
                for first, last in keys.of(writer.writer_id):
                    ours.add_range(writer.writer_id, first, min(last, writer.last_seq))
            row_keys = self.index.keys_of(rows)
            # Acked rows do not count as skipped: the ledger had them, and forgot them itself.
            acked = RowSet(rows.intersection(self.index.acked))
        self._delete(
            released=acked,
            released_keys=self.index.keys_of(acked),
            skipped=RowSet(rows.minus(acked)),
            skipped_keys=row_keys.minus(self.index.keys_of(acked)),
            reason=pb.SKIP_REASON_ERASED,
        )
        self._store.checkpoint(truncate=True)
        return tuple(
            pb.SkippedRange(range=entry, reason=pb.SKIP_REASON_ERASED, skipped_unix_nanos=now)
            for entry in ours.messages()
        )

    def unreadable(self, rows: RowSet) -> None:
        """Rows whose bytes are damaged go, and are told."""
        with self.lock:
            rows = RowSet(rows.intersection(self.index.held()))
            released = RowSet(rows.intersection(self.index.acked))
            skipped = RowSet(rows.minus(released))
            released_keys, keys = self.index.keys_of(released), self.index.keys_of(skipped)
        self._delete(
            released=released,
            released_keys=released_keys,
            skipped=skipped,
            skipped_keys=keys,
            reason=pb.SKIP_REASON_UNREADABLE,
        )

    def rekey(self, row: int) -> None:
        """The ledger holds this key with another content: write the row anew under a new key."""
        found = self._store.record(row)
        if found is None:
            return
        sealed, stored, camera, tracklet, revision, final = found
        head = read_record(self._sealer.open(stored) if sealed else stored)
        new = NewRow(
            self.writer.first_row + self.writer.last_seq,
            camera,
            tracklet,
            revision,
            bool(final),
            make_record(
                self.writer.writer_id, self.writer.last_seq + 1, head.payload, head.content_hash
            ),
        )
        with self.lock:
            old_keys = self.index.keys_of(RowSet([(row, row)]))
        with self._store.transaction():
            self._store.append(
                [new], running_nanos=self.running_nanos(), unix_nanos=self._clock.unix_nanos()
            )
            self._store.put_writer(
                Writer(
                    self.writer.writer_id,
                    self.writer.first_row,
                    self.writer.last_seq + 1,
                    self.writer.started_running_nanos,
                )
            )
            self._store.delete(RowSet([(row, row)]))
            self._store.put_released(old_keys)
        with self.lock:
            self.writer.last_seq += 1
            self.index.drop(RowSet([(row, row)]))
            self.index.ready.add(new.row)
            self.counts["rekeyed"] += 1
        self._marks.set(self.writer.writer_id, self.writer.last_seq)

    def resend(self, rows: RowSet | None) -> int:
        """Dead letters (None: all) wait for the matcher again; returns how many."""
        with self.lock:
            rows = RowSet(self.index.dead if rows is None else self.index.dead.intersection(rows))
        with self._store.transaction():
            self._store.set_state(rows, WAITING, running_nanos=self.running_nanos())
        size = self._store.bytes_of(rows)
        with self.lock:
            self.index.dead.remove_all(rows)
            self.index.ready.add_all(rows)
            self.waiting_bytes += size
        return len(rows)

    @property
    def frozen(self) -> bool:
        """Whether a full disk keeps the file from growing."""
        return self._store.frozen

    # -- upkeep ----------------------------------------------------------------------------------

    def upkeep(self) -> None:
        """Delete what is older than its stated age; make the ballast again; forget old writers."""
        with self._store.transaction():
            self._store.put_fact("running_nanos", self.running_nanos())
        self._purge_acked()
        if self._config.unacked_keep_s is not None:
            self._purge_unacked(self._config.unacked_keep_s)
        self._forget_writers()
        if self._ballast.fill() and self._store.frozen:
            self._store.freeze(False)

    def _purge_acked(self) -> None:
        limit = self.running_nanos() - round(self._config.acked_keep_s * 1e9)
        purged = 0
        while True:
            old = self._store.acked_before(limit, _PURGE_ROWS)
            with self.lock:
                old = RowSet(old.intersection(self.index.acked))
                keys = self.index.keys_of(old)
            if not old:
                break
            self._delete(
                released=old,
                released_keys=keys,
                skipped=RowSet(),
                skipped_keys=KeyRanges(),
                reason=pb.SKIP_REASON_CAP,
            )
            purged += len(old)
        if purged:
            # Only a truncated WAL no longer holds what was deleted.
            self._store.checkpoint(truncate=True)

    def _purge_unacked(self, keep_s: float) -> None:
        limit = self.running_nanos() - round(keep_s * 1e9)
        old = self._store.waiting_before(limit, _PURGE_ROWS)
        with self.lock:
            old = RowSet(old.intersection(self.index.ready))
            self.index.ready.remove_all(old)
            keys = self.index.keys_of(old)
        try:
            self._delete(
                released=RowSet(),
                released_keys=KeyRanges(),
                skipped=old,
                skipped_keys=keys,
                reason=pb.SKIP_REASON_CAP,
            )
        except SpoolError:
            with self.lock:
                self.index.ready.add_all(old)
            raise

    def _forget_writers(self) -> None:
        """Writers without rows go after their time, or where there are too many; but none of which
        the matcher has not heard everything."""
        limit = self.running_nanos() - round(WRITER_KEPT_S * 1e9)
        with self.lock:
            held = self.index.keys_of(self.index.held())
            empty = [
                w
                for w in self.index.writers
                if w is not self.writer
                and not held.of(w.writer_id)
                and w.writer_id not in self.untold.unsettled
                and not self.suspect.of(w.writer_id)
            ]
            surplus = len(empty) - WRITERS_KEPT
            gone = [
                w.writer_id
                for i, w in enumerate(empty)
                if i < surplus or w.started_running_nanos < limit or w.last_seq == 0
            ]
        if not gone:
            return
        # First the marks: a mark without its writer would look like a loss at the next start.
        self._marks.forget(gone)
        with self._store.transaction():
            for writer_id in gone:
                self._store.forget_writer(writer_id)
        with self.lock:
            for writer_id in gone:
                self.index.forget_writer(writer_id)

    def set_config(self, config: SpoolConfig) -> None:
        """New caps and times (a reload); the next change follows them."""
        self._config = config

    def close(self) -> None:
        """Give the file back. May come twice."""
        self._marks.close()
        self._store.close()
