"""Room in the spool: what is deleted for the cap, for the disk and for its age, in which order.

Promise: each deletion is one transaction that says why: released after its ack, or skipped with a
reason that is told. Rows in flight are not evicted.
Threads: the spool writer's alone; the shared state is changed under its lock.
"""

from __future__ import annotations

from edge.config import SpoolConfig
from edge.spool_errors import SpoolError
from edge.spool_eviction import Evicted, plan_eviction
from edge.spool_rows import RowSet
from edge.spool_state import SpoolState
from edge.spool_store import SpoolStore
from reid.clock import Clock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb

_PURGE_ROWS = 512
_FULL_DISK_STEP_BYTES = 128 << 10


class Room:
    """See the module.

    Args:
        state: of the open spool.
        store: open.
        config: caps and ages.
        clock: stamps.
    """

    def __init__(
        self, *, state: SpoolState, store: SpoolStore, config: SpoolConfig, clock: Clock
    ) -> None:
        self._state = state
        self._store = store
        self._config = config
        self._clock = clock

    def set_config(self, config: SpoolConfig) -> None:
        """New caps and ages; the next change follows them."""
        self._config = config

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

    def fit(self) -> bool:
        """One step towards a cap that lies below what is there; whether a further one may help."""
        over = self._store.over_bytes()
        if not over or self._store.frozen:
            return False
        evicted = self._store.free_bytes() < 0 and self.evict(over) > 0
        shrank = self._store.shrink()
        return evicted or shrank

    def _margin(self) -> int:
        # Inner pages and half-full leaves: room that is not the rows' own.
        return min(1 << 20, self._config.max_bytes // 32)

    def evict(self, target_bytes: int) -> int:
        """Delete rows in the stated order; tells Skipped (CAP) for those without an ack.

        Returns:
            How many rows went.
        """
        state = self._state
        # Overwriting deleted rows goes through the WAL: more than it may hold is done in steps.
        step = _FULL_DISK_STEP_BYTES if self._store.frozen else self._store.wal_bytes_allowed // 2
        target = min(target_bytes, step)
        with state.lock:
            acked = RowSet(state.index.acked)
            ready = RowSet(state.index.ready)
            dead = RowSet(state.index.dead)
            superseded = RowSet(state.index.superseded.minus(state.index.in_flight))
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
        with state.lock:
            for candidate, why in plan:
                if candidate.row in state.index.in_flight:
                    continue  # taken by the uplink while we planned
                # Gone from ready, it cannot be taken while it is being deleted.
                state.index.ready.remove(candidate.row)
                (released if why is Evicted.ACKED else skipped).add(candidate.row)
                if why is Evicted.SUPERSEDED:
                    replaced.add(candidate.row)
            released_keys = state.index.keys_of(released)
            skipped_keys = state.index.keys_of(skipped)
        try:
            self.delete(
                released=released,
                released_keys=released_keys,
                skipped=skipped,
                skipped_keys=skipped_keys,
                reason=pb.SKIP_REASON_CAP,
            )
        except SpoolError:
            with state.lock:
                state.index.ready.add_all(skipped.minus(state.index.dead))
            raise
        with state.lock:
            state.counts["superseded"] += len(replaced)
        return len(released) + len(skipped)

    def delete(
        self,
        *,
        released: RowSet,
        released_keys: KeyRanges,
        skipped: RowSet,
        skipped_keys: KeyRanges,
        reason: pb.SkipReason,
    ) -> None:
        """One transaction that deletes rows and says why; then the index follows."""
        state = self._state
        with state.lock:
            waiting = RowSet(skipped.minus(state.index.dead))
        if not released and not skipped:
            return
        waiting_bytes = self._store.bytes_of(waiting)
        with self._store.transaction():
            self._store.delete(released)
            self._store.delete(skipped)
            self._store.put_released(released_keys)
            told = self._store.put_skipped(skipped_keys, reason, self._clock.unix_nanos())
        with state.lock:
            state.waiting_bytes -= waiting_bytes
            if skipped:
                state.skipped[pb.SkipReason.Name(reason)] += len(skipped)
            for first, last in [*released, *skipped]:
                for row in range(first, last + 1):
                    state.uncache(row)
                    state.triggered.pop(row, None)
            state.index.drop(released)
            state.index.drop(skipped)
            # In the same breath as the counts, so that nobody sees one without the other. What the
            # server asked to erase is answered at once, by the caller.
            if reason != pb.SKIP_REASON_ERASED:
                state.untold.add(told)
            else:
                state.untold.stored(told)

    def purge_acked(self) -> None:
        """Acked rows go after their stated time, and leave the WAL."""
        state = self._state
        limit = state.running_nanos() - round(self._config.acked_keep_s * 1e9)
        purged = 0
        while True:
            old = self._store.acked_before(limit, _PURGE_ROWS)
            with state.lock:
                old = RowSet(old.intersection(state.index.acked))
                keys = state.index.keys_of(old)
            if not old:
                break
            self.delete(
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

    def purge_unacked(self) -> None:
        """Rows without an ack go after theirs, where one is set, and are told."""
        state = self._state
        keep_s = self._config.unacked_keep_s
        if keep_s is None:
            return
        limit = state.running_nanos() - round(keep_s * 1e9)
        old = self._store.waiting_before(limit, _PURGE_ROWS)
        with state.lock:
            old = RowSet(old.intersection(state.index.ready))
            state.index.ready.remove_all(old)
            keys = state.index.keys_of(old)
        try:
            self.delete(
                released=RowSet(),
                released_keys=KeyRanges(),
                skipped=old,
                skipped_keys=keys,
                reason=pb.SKIP_REASON_CAP,
            )
        except SpoolError:
            with state.lock:
                state.index.ready.add_all(old)
            raise
