"""One open spool: how it is opened, appended to and kept up; what it is made of.

Promise: each public method is one change of the spool; it is in the file before it is in the state.
Full: `append` raises `SpoolFull` only after ballast and eviction gave nothing.
Threads: every method on the spool writer's thread; the shared state is changed under its lock.

    state   what is known in memory          edge.spool_state
    room    what is deleted, and why         edge.spool_room
    word    acks and what the matcher says   edge.spool_word
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.config import SpoolConfig
from edge.delivery import NewSighting, SpaceUse
from edge.spool_ballast import Ballast
from edge.spool_errors import SpoolFull, SpoolKeyError
from edge.spool_marks import MarkFile
from edge.spool_record import RecordMaker
from edge.spool_room import Room
from edge.spool_rows import Writer
from edge.spool_seal import Sealer
from edge.spool_state import SpoolState
from edge.spool_store import ROW_OVERHEAD_BYTES, Change, NewRow, SpoolStore
from edge.spool_word import Word
from reid.clock import Clock
from reid.ranges import KeyRanges

# Writers without rows, of which the matcher knows everything, are remembered so long and so many,
# for the alarm about holes.
WRITER_KEPT_S = 30 * 86400.0
WRITERS_KEPT = 1024


class SpoolEngine:
    """See the module.

    Args:
        store: opened here.
        config: caps and times.
        sealer: opens rows.
        clock: UTC for stamps, monotonic for ages.
        ballast: given back on a full disk.
        marks: how far this process's writer came.
        writer_id: this process's writer.

    Attributes:
        state, room, word: the parts.
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
        self.state = SpoolState(clock=clock, writer_id=writer_id)
        self.room = Room(state=self.state, store=store, config=config, clock=clock)
        self.word = Word(
            state=self.state,
            store=store,
            room=self.room,
            sealer=sealer,
            clock=clock,
            ballast=ballast,
            marks=marks,
        )
        # The writer's own:
        self._records = RecordMaker(writer_id)
        self._cameras: dict[str, int] = {}
        self._sealed_with: set[str] = set()  # ids of keys that rows may be sealed with
        self._newest: dict[int, int] = {}  # tracklet -> row of its newest, until it is final

    # -- opening -----------------------------------------------------------------------------------

    def open(self, marks: dict[str, int]) -> None:
        """Read the file; compare with the marks; begin this process's writer.

        Args:
            marks: writer_id -> last seq, from the mark file of the last process.
        """
        state = self.state
        loaded = self._store.open()
        index = loaded.index
        state.opened(int(loaded.facts.get("running_nanos", 0)))
        self._sealed_with = {k for k in str(loaded.facts.get("sealed_with", "")).split(",") if k}
        self._refuse_unknown_keys()
        lost = KeyRanges()
        for writer_id, last_seq in marks.items():
            known = index.writer(writer_id)
            if known is None:
                # Its rows are gone with their table: a place behind all others keeps its keys
                # known.
                known = Writer(writer_id, index.next_row(), last_seq, state.running_nanos())
                index.add_writer(known)
                lost.add_range(writer_id, 1, last_seq)
            elif last_seq > known.last_seq:
                lost.add_range(writer_id, known.last_seq + 1, last_seq)
                known.last_seq = min(last_seq, known.last_seq + index.rows_after(known))
        explained = index.keys_of(index.held())
        explained.update(self._store.released())
        skipped = self._store.skipped()
        state.untold.stored(skipped)
        for entry in skipped:
            explained.add_range(entry.range.writer_id, entry.range.first, entry.range.last)
        issued = index.issued()
        issued.update(lost)
        state.suspect = issued.minus(explained)
        state.writer = Writer(
            state.writer.writer_id,
            index.next_row(),
            0,
            started_running_nanos=state.running_nanos(),
        )
        index.add_writer(state.writer)
        state.index = index
        self._cameras = loaded.cameras
        state.spaces = loaded.spaces
        state.ledger_id = str(loaded.facts.get("ledger_id", ""))
        state.waiting_bytes = loaded.waiting_bytes
        for name, value in loaded.counters.items():
            if name.startswith("skipped."):
                state.skipped[name.removeprefix("skipped.")] = value
        # What the marks alone know stays in them until a Welcome has settled it.
        older = {
            w.writer_id: max(w.last_seq, marks.get(w.writer_id, 0))
            for w in index.writers
            if w is not state.writer
        }
        self._marks.start(older, state.writer.writer_id)
        self._ballast.fill()

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

    # -- appending -------------------------------------------------------------------------------

    def append(self, group: Sequence[NewSighting], changes: Sequence[Change]) -> None:
        """One transaction: the group's rows, and changes that wait for company.

        Raises:
            SpoolFull, SpoolNotWritable, SpoolDamaged: nothing of it is in the file.
        """
        if group:
            self.room.make_room(
                sum(len(new.payload) + 200 + ROW_OVERHEAD_BYTES for new in group) * 5 // 4
            )
        try:
            self._append(group, changes)
        except SpoolFull:
            self._append_on_full_disk(group, changes)

    def _append_on_full_disk(self, group: Sequence[NewSighting], changes: Sequence[Change]) -> None:
        """The disk, not our cap, has no room: make some inside our own files.

        The ballast's room first takes the WAL into the database, so that the WAL can be written
        anew from its start. From then on the database may not grow, until there is room again;
        rows go in pieces that fit into the WAL.
        """
        self._ballast.release()
        self._store.checkpoint(truncate=False)
        self._store.freeze(True)
        self.room.make_room(sum(len(new.payload) + 512 for new in group) * 5 // 4)
        self._append(group, changes)

    def _append(self, group: Sequence[NewSighting], changes: Sequence[Change]) -> None:
        state = self.state
        cameras: dict[str, int] = {}
        spaces: set[SpaceUse] = set()
        first_seq = state.writer.last_seq + 1
        first_row = state.writer.first_row + state.writer.last_seq
        writer_id = state.writer.writer_id
        rows: list[NewRow] = []
        make = self._records.make
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
                        known = state.spaces.get(space.space_id)
                        if known is None or space.variant_id not in known[1]:
                            spaces.add(space)
                    rows.append(
                        NewRow(
                            first_row + offset,
                            camera,
                            new.tracklet,
                            new.revision,
                            new.final,
                            make(first_seq + offset, new.payload),
                        )
                    )
                for space in spaces:
                    self._store.put_space(space)
                if self._sealer.active and self._sealer.current_id.hex() not in self._sealed_with:
                    sealed_with = {*self._sealed_with, self._sealer.current_id.hex()}
                    self._store.put_fact("sealed_with", ",".join(sorted(sealed_with)))
                size, _ = self._store.append(
                    rows,
                    running_nanos=state.running_nanos(),
                    unix_nanos=self._clock.unix_nanos(),
                )
                self._store.put_writer(
                    Writer(
                        writer_id,
                        state.writer.first_row,
                        first_seq + len(rows) - 1,
                        state.writer.started_running_nanos,
                    )
                )
            self._store.put_fact("running_nanos", state.running_nanos())
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
        state = self.state
        self._cameras.update(cameras)
        if self._sealer.active:
            self._sealed_with.add(self._sealer.current_id.hex())
        with state.lock:
            state.writer.last_seq += len(rows)
            state.index.ready.add(rows[0].row, rows[-1].row)
            state.counts["committed"] += len(rows)
            state.waiting_bytes += size
            for space in spaces:
                dimension, variants = state.spaces.get(space.space_id, (space.dimension, ()))
                state.spaces[space.space_id] = (dimension, (*variants, space.variant_id))
            for row, new in zip(rows, group, strict=True):
                state.cache(row.row, row.record, new.triggered_monotonic_nanos)
                older = self._newest.pop(new.tracklet, None)
                if older is not None and (
                    older in state.index.ready or older in state.index.in_flight
                ):
                    state.index.superseded.add(older)
                if not new.final:
                    self._newest[new.tracklet] = row.row
        self._marks.set(state.writer.writer_id, state.writer.last_seq)

    def after_failed_commit(self) -> bool:
        """Open the file anew and see whether the last commit took place after all.

        Returns:
            True: it did; the rows are there and are sent from the file.
        """
        state = self.state
        self._store.close()
        self._store.open()
        found = self._store.last_seq(state.writer.writer_id)
        if found <= state.writer.last_seq:
            return False
        with state.lock:
            first = state.writer.first_row + state.writer.last_seq
            state.counts["committed"] += found - state.writer.last_seq
            state.writer.last_seq = found
            state.index.ready.add(first, state.writer.first_row + found - 1)
        self._marks.set(state.writer.writer_id, found)
        return True

    @property
    def frozen(self) -> bool:
        """Whether a full disk keeps the file from growing."""
        return self._store.frozen

    # -- upkeep ----------------------------------------------------------------------------------

    def upkeep(self) -> None:
        """Delete what is older than its stated age; make the ballast again; forget old writers;
        a step towards a lowered cap."""
        with self._store.transaction():
            self._store.put_fact("running_nanos", self.state.running_nanos())
        self.room.purge_acked()
        self.room.purge_unacked()
        self._forget_writers()
        self.room.fit()
        if self._ballast.fill() and self._store.frozen:
            self._store.freeze(False)

    def _forget_writers(self) -> None:
        """Writers without rows go after their time, or where there are too many; but none of which
        the matcher has not heard everything."""
        state = self.state
        limit = state.running_nanos() - round(WRITER_KEPT_S * 1e9)
        with state.lock:
            held = state.index.keys_of(state.index.held())
            empty = [
                w
                for w in state.index.writers
                if w is not state.writer
                and not held.of(w.writer_id)
                and w.writer_id not in state.untold.unsettled
                and not state.suspect.of(w.writer_id)
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
        with state.lock:
            for writer_id in gone:
                state.index.forget_writer(writer_id)

    def set_config(self, config: SpoolConfig) -> None:
        """New caps and times (a reload). What lies above a lowered cap goes step by step, by
        `room.fit`, at the latest at the next upkeep."""
        self._config = config
        self._store.set_max_bytes(config.max_bytes)
        self.room.set_config(config)

    def close(self) -> None:
        """Give the file back. May come twice."""
        self._marks.close()
        self._store.close()
