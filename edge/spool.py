"""Durable queue of sightings between pipeline and uplink.

Promise: a sighting exists once the transaction that holds it has returned; from then on it is in
this spool until the matcher's ledger has it, it is a dead letter, or a skipped range says why it is
not. Keys are (writer_id, seq): the writer id is new at every open, seq grows in the row's own
transaction.
Full: the bounded queue refuses (counted `lost_before_spool`); the file evicts by the stated order
and tells Skipped (CAP); a full disk costs first the ballast. Damage: what proves itself is saved,
the rest is told UNREADABLE, the file is set aside.
Threads: `put` from any thread; the `Outbox` methods from the uplink's; one writer thread, owned
here, does all writing and is joined by `stop`.

    put ─▶ queue (bounded) ─▶ writer thread ─▶ SQLite ─▶ take ─▶ uplink
                                   ▲  acks, rejects, the matcher's word  │
                                   └─────────────────────────────────────┘
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from edge.config import SpoolConfig
from edge.delivery import Held, NewSighting, OutboxRow, SpoolCounters, WelcomeOutcome
from edge.spool_errors import (
    READ_ERRORS,
    SpoolClosed,
    SpoolDamaged,
    SpoolError,
    SpoolFull,
    SpoolNotWritable,
    SpoolUnusable,
    translate,
)
from edge.spool_files import REQUEST_NAME, FolderLock, SpoolFiles
from edge.spool_record import read_record
from edge.spool_rows import RowSet
from edge.spool_schema import connect_reader
from edge.spool_seal import load_sealer
from reid import limits
from reid.clock import Clock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb

T = TypeVar("T")

# Rows in one transaction: enough to pay for its sync, little enough that a loss of it is small.
GROUP_ROWS = 256
# From so many waiting rows on, a group is not kept waiting for company.
GROUP_FULL_ROWS = 64
_TICK_S = 1.0
_UPKEEP_S = 30.0
_WRITE_RETRY_S = 0.5

log = structlog.get_logger("edge.spool")


@dataclass(slots=True)
class _Task(Generic[T]):
    """A change that is not an append.

    Attributes:
        run: on the writer's thread.
        done: who waits for it.
        light: may ride in the next group's transaction, and wait for it.
    """

    run: Callable[[], T]
    done: Future[T]


class Spool:
    """The durable queue; satisfies `edge.delivery.Outbox`.

    Args:
        config: caps and times.
        data_dir: holds the file, its ballast, its marks.
        clock: stamps and ages.
        on_fault: told when the writer's thread dies of an unforeseen error; the process should end.
    """

    def __init__(
        self,
        *,
        config: SpoolConfig,
        data_dir: Path,
        clock: Clock,
        on_fault: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self._config = config
        self._data_dir = data_dir
        self._clock = clock
        self._on_fault = on_fault
        self.writer_id = uuid.uuid4().hex
        # Guarded by _queue_changed: what waits for the writer.
        self._queue_changed = threading.Condition()
        self._queue: deque[tuple[NewSighting, float]] = deque()
        self._changes: list[Callable[..., None]] = []
        self._tasks: deque[_Task[object]] = deque()
        self._stopping = False
        self._writing = 0  # rows taken from the queue, not yet committed
        # Guarded by _read_lock: the reading connection.
        self._read_lock = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._wakes: list[Callable[[], None]] = []
        self._lost = 0
        self._recovered = 0
        self._degraded = ""
        # Of the uplink's thread:
        self._buried_said_s, self._buried_unsaid = 0.0, 0
        self._to_spool_ms: deque[float] = deque(maxlen=4096)
        self._to_ack_ms: deque[float] = deque(maxlen=4096)
        self._files: SpoolFiles | None = None
        self._folder_lock = FolderLock(data_dir)
        self._thread: threading.Thread | None = None

    # -- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Lock the folder, open or save the file, start the writer.

        Raises:
            SpoolInUse, SpoolKeyError, SpoolUnusable: the caller exits 6.
        """
        sealer = load_sealer(self._config.key_file)
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SpoolUnusable(self._data_dir, error.strerror or str(error)) from error
        self._folder_lock.acquire()
        try:
            self._files = SpoolFiles(
                data_dir=self._data_dir,
                config=self._config,
                sealer=sealer,
                clock=self._clock,
                writer_id=self.writer_id,
            )
            self._recovered += self._files.open()
        except BaseException:
            self._folder_lock.release()
            raise
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Write what is queued, end the writer, close the file. May come twice, from any thread.

        Returns:
            Whether the writer ended in time; rows still queued then are counted as lost.
        """
        with self._queue_changed:
            self._stopping = True
            self._queue_changed.notify_all()
        ended = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
            ended = not self._thread.is_alive()
        if ended:
            self._close_reader()
            self._folder_lock.release()
        return ended

    def alive(self) -> bool:
        """Whether the writer runs."""
        return self._thread is not None and self._thread.is_alive()

    # -- the pipeline's side -----------------------------------------------------------------------

    def put(self, new: NewSighting, timeout_s: float = 0.0) -> bool:
        """Hand over a sighting. Where the queue stays full for timeout_s it is counted as lost.

        Args:
            new: what to write.
            timeout_s: how long to wait for room: 0 for live cameras, which nothing may slow;
                longer for files, which can wait.
        Returns:
            Whether it was taken. It exists only once the writer has committed it.
        """
        if len(new.payload) > limits.MESSAGE_BYTES - 1024:
            # No stream could carry it; limits.SHOTS and the like keep real ones far below.
            self._count_lost(1)
            return False
        deadline = time.monotonic() + timeout_s
        with self._queue_changed:
            while len(self._queue) >= self._config.queue_rows or self._stopping:
                left = deadline - time.monotonic()
                if left <= 0 or self._stopping:
                    self._lost += 1
                    return False
                self._queue_changed.wait(left)
            self._queue.append((new, time.monotonic()))
            self._queue_changed.notify_all()
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything put before is committed; False: not in this time."""
        deadline = time.monotonic() + timeout_s
        with self._queue_changed:
            while self._queue or self._writing:
                left = deadline - time.monotonic()
                if left <= 0 or not self.alive():
                    return False
                self._queue_changed.wait(min(left, 0.5))
        return True

    def counters(self) -> SpoolCounters:
        """Exact counts, from any thread."""
        files = self._opened()
        engine = files.engine
        with engine.lock:
            counts = dict(engine.counts)
            skipped = {
                name.removeprefix("SKIP_REASON_").lower(): value
                for name, value in engine.skipped.items()
                if value
            }
            backlog = len(engine.index.ready) + len(engine.index.in_flight)
            dead = len(engine.index.dead)
            waiting_bytes = engine.waiting_bytes
        return SpoolCounters(
            committed=counts.get("committed", 0),
            acked=counts.get("acked", 0),
            superseded=counts.get("superseded", 0),
            skipped=skipped,
            dead_letters=dead,
            lost_before_spool=self._lost,
            refilled=counts.get("refilled", 0),
            rekeyed=counts.get("rekeyed", 0),
            holes=counts.get("holes", 0),
            recovered=self._recovered,
            backlog=backlog,
            backlog_bytes=waiting_bytes,
            lag_s=self._lag_s(self.first_waiting()),
            bytes=files.disk_bytes(),
            degraded=self._degraded,
        )

    def latencies_ms(self) -> dict[str, list[float]]:
        """The last 4096 latencies: capture_to_spool and capture_to_ack, milliseconds."""
        with self._opened().engine.lock:
            return {
                "capture_to_spool": list(self._to_spool_ms),
                "capture_to_ack": list(self._to_ack_ms),
            }

    def set_config(self, config: SpoolConfig) -> None:
        """Take new caps and times (a reload); what needs a new file waits for the next start."""
        self._config = config
        self._add_change(lambda store: self._opened().engine.set_config(config))

    # -- the uplink's side (edge.delivery.Outbox) ------------------------------------------------

    def held(self) -> Held:
        """What Hello tells."""
        engine = self._opened().engine
        with engine.lock:
            return Held(
                writer_id=self.writer_id,
                held=engine.index.keys_of(engine.index.held()),
                issued=engine.index.issued(),
                spaces=dict(engine.spaces),
                last_ledger_id=engine.ledger_id,
                unsettled=frozenset(engine.untold.unsettled.union(engine.suspect.writers())),
            )

    def spaces(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """space_id -> (dimension, variants) of everything in the spool."""
        engine = self._opened().engine
        with engine.lock:
            return dict(engine.spaces)

    def welcome(
        self, ledger_id: str, committed: KeyRanges, skipped: KeyRanges, *, complete: bool = True
    ) -> WelcomeOutcome:
        """Take the matcher's word; waits for the commit.

        Args:
            complete: whether the lists name all that the ledger knows; where they were cut, no key
                is told UNREADABLE or counted as a hole because it is not in them.
        Raises:
            SpoolError: it could not be written; nothing was taken over.
        """
        outcome = self._call(
            lambda: self._opened().engine.welcome(ledger_id, committed, skipped, complete=complete)
        )
        if not complete:
            log.warning(
                "the matcher's answer has more ranges than fit; keys that nobody has cannot be "
                "counted this time",
                ledger=ledger_id,
            )
        if outcome.holes:
            log.error(
                "keys are missing in the ledger and no longer here",
                keys=outcome.holes,
                ledger=ledger_id,
                hint="the ledger lost more than the acked rows kept here; see docs/reliability.md",
            )
        return outcome

    def take(
        self, *, after: int, upto: int | None, max_rows: int, max_bytes: int
    ) -> list[OutboxRow]:
        """The oldest rows in (after, upto] that wait; they are in flight from now on."""
        engine = self._opened().engine
        picked: list[int] = []
        found: dict[int, bytes] = {}
        with engine.lock:
            for first, last in engine.index.ready.between(after, upto):
                stop = min(last, first + max_rows - len(picked) - 1)
                picked.extend(range(first, stop + 1))
                if len(picked) >= max_rows:
                    break
            if not picked:
                return []
            chosen = RowSet()
            for row in picked:
                chosen.add(row)
                record = engine.uncache(row)
                if record is not None:
                    found[row] = record
            engine.index.ready.remove_all(chosen)
            engine.index.in_flight.add_all(chosen)
        bad = RowSet()
        if len(found) < len(picked):
            missing = [row for row in picked if row not in found]
            try:
                found.update(self._read(missing, bad))
            except SpoolError as error:
                self.release(picked)
                self._report(error)
                return []
        rows: list[OutboxRow] = []
        size = 0
        for row in picked:
            record = found.get(row)
            if record is None:
                continue
            size += len(record) + 8
            if rows and size > max_bytes:
                self.release([r for r in picked if r >= row and r not in bad])
                break
            rows.append(OutboxRow(row, record))
        if bad:
            self._post(lambda: self._opened().engine.unreadable(bad))
        return rows

    def waiting(self, *, after: int, upto: int | None) -> int:
        """How many rows in (after, upto] wait and are not in flight."""
        engine = self._opened().engine
        with engine.lock:
            return engine.index.ready.count(after, upto)

    def first_waiting(self) -> int | None:
        """The oldest row that waits, in flight or not."""
        engine = self._opened().engine
        with engine.lock:
            numbers = [engine.index.ready.first(), engine.index.in_flight.first()]
        return min((n for n in numbers if n is not None), default=None)

    def gone(self, rows: Sequence[int]) -> list[int]:
        """Which of these rows are no longer in flight."""
        engine = self._opened().engine
        with engine.lock:
            return [row for row in rows if row not in engine.index.in_flight]

    def release(self, rows: Sequence[int]) -> None:
        """These rows are no longer in flight; those that were not settled meanwhile wait again."""
        engine = self._opened().engine
        with engine.lock:
            for row in rows:
                if row in engine.index.in_flight:
                    engine.index.in_flight.remove(row)
                    engine.index.ready.add(row)

    def ack(self, keys: KeyRanges) -> list[int]:
        """The ledger has these. Returns the rows that were waiting; does not wait for the
        commit."""
        engine = self._opened().engine
        now = self._clock.monotonic_nanos()
        with engine.lock:
            named = engine.index.rows_of(keys)
            rows = RowSet(named.intersection(engine.index.waiting()))
            rows.add_all(named.intersection(engine.index.dead))
            for state in ("ready", "in_flight", "dead", "superseded"):
                getattr(engine.index, state).remove_all(rows)
            engine.index.acked.add_all(rows)
            engine.counts["acked"] += len(rows)
            numbers = [row for first, last in rows for row in range(first, last + 1)]
            for row in numbers:
                engine.uncache(row)
                triggered = engine.triggered.pop(row, 0)
                if triggered:
                    self._to_ack_ms.append((now - triggered) / 1e6)
        if numbers:
            self._add_change(engine.acked(rows))
        return numbers

    def reject(self, writer_id: str, seq: int, reason: pb.RejectReason, message: str) -> int | None:
        """The ledger will never take this row: a dead letter, or a new key after KEY_CONFLICT."""
        engine = self._opened().engine
        with engine.lock:
            row = engine.index.row(writer_id, seq)
            if row is None or (row not in engine.index.in_flight and row not in engine.index.ready):
                return None
        if reason == pb.REJECT_REASON_KEY_CONFLICT:
            log.error(
                "the ledger holds this key with another content; writing the row under a new key",
                writer_id=writer_id,
                seq=seq,
                hint="two processes may share this data folder's past; see docs/reliability.md",
            )
            with engine.lock:
                # In flight until it is re-keyed, so that nothing sends or evicts it.
                engine.index.ready.remove(row)
                engine.index.in_flight.add(row)
            self._post(lambda: self._rekey(row))
        else:
            name = pb.RejectReason.Name(reason) if reason in pb.RejectReason.values() else "UNKNOWN"
            self._bury(row, name.removeprefix("REJECT_REASON_"), message)
        return row

    def bury(self, row: int, message: str) -> None:
        """A poisonous row becomes a dead letter."""
        self._bury(row, "POISON", message)

    def erase(self, keys: KeyRanges) -> tuple[pb.SkippedRange, ...]:
        """Delete these for ever, also from files set aside; returns what to tell."""
        files = self._opened()

        def run() -> tuple[pb.SkippedRange, ...]:
            told = files.engine.erase(keys)
            files.remove_set_aside()
            return told

        return self._call(run)

    def new_skipped(self) -> tuple[pb.SkippedRange, ...]:
        """Ranges skipped since the last call."""
        engine = self._opened().engine
        with engine.lock:
            return engine.untold.take()

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call wake() from the writer's thread after each commit."""
        self._wakes.append(wake)

    # -- between the threads ---------------------------------------------------------------------

    def _opened(self) -> SpoolFiles:
        if self._files is None:
            raise SpoolClosed("the spool is not open; call open() first")
        return self._files

    def _count_lost(self, rows: int) -> None:
        with self._queue_changed:
            self._lost += rows

    def _add_change(self, change: Callable[..., None]) -> None:
        with self._queue_changed:
            self._changes.append(change)
            self._queue_changed.notify_all()

    def _post(self, run: Callable[[], T]) -> Future[T]:
        task: _Task[T] = _Task(run, Future())
        with self._queue_changed:
            if self._stopping and not self.alive():
                task.done.set_exception(SpoolClosed("the spool has stopped"))
                return task.done
            self._tasks.append(task)  # type: ignore[arg-type]
            self._queue_changed.notify_all()
        return task.done

    def _call(self, run: Callable[[], T], timeout_s: float = 60.0) -> T:
        try:
            return self._post(run).result(timeout_s)
        except TimeoutError as error:
            raise SpoolNotWritable(f"no answer of the spool's writer in {timeout_s:g} s") from error

    def _bury(self, row: int, reason: str, message: str) -> None:
        engine = self._opened().engine
        with engine.lock:
            engine.index.ready.remove(row)
            engine.index.in_flight.remove(row)
            engine.index.superseded.remove(row)
            engine.index.dead.add(row)
            entry = [
                pb.SkippedRange(range=k, reason=pb.SKIP_REASON_DEAD_LETTER)
                for k in engine.index.keys_of(RowSet([(row, row)])).messages()
            ]
            engine.untold.add(entry)
        self._say_buried(reason, message)
        self._add_change(engine.buried(row, reason, message))

    def _say_buried(self, reason: str, message: str) -> None:
        """One line a second at most: a matcher that rejects all would fill the log."""
        self._buried_unsaid += 1
        now = time.monotonic()
        if now - self._buried_said_s >= 1.0:
            log.error(
                "sightings became dead letters; see edge-run --spool-status",
                sightings=self._buried_unsaid,
                last_reason=reason,
                last_message=message,
            )
            self._buried_said_s, self._buried_unsaid = now, 0

    def _rekey(self, row: int) -> None:
        try:
            self._opened().engine.rekey(row)
        except ValueError:
            self._opened().engine.unreadable(RowSet([(row, row)]))

    def _lag_s(self, first: int | None) -> float:
        if first is None:
            return 0.0
        try:
            with self._read_lock:
                found = (
                    self._connection()
                    .execute("SELECT appended_unix_nanos FROM sighting WHERE row = ?", (first,))
                    .fetchone()
                )
        except READ_ERRORS as error:
            self._report(translate(error))
            return 0.0
        except SpoolError as error:
            self._report(error)
            return 0.0
        return max(0.0, (self._clock.unix_nanos() - found[0]) / 1e9) if found else 0.0

    # -- reading ---------------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        """Under _read_lock."""
        if self._reader is None:
            self._reader = connect_reader(self._opened().path)
        return self._reader

    def _close_reader(self) -> None:
        with self._read_lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _read(self, rows: Sequence[int], bad: RowSet) -> dict[int, bytes]:
        """Records of rows from the file, each checked; what fails its check is added to bad."""
        files = self._opened()
        found: dict[int, bytes] = {}
        try:
            with self._read_lock:
                stored = (
                    self._connection()
                    .execute(
                        "SELECT row, sealed, record FROM body WHERE row BETWEEN ? AND ?",
                        (rows[0], rows[-1]),
                    )
                    .fetchall()
                )
        except READ_ERRORS as error:
            raise translate(error) from error
        wanted = set(rows)
        for row, sealed, record in stored:
            if row not in wanted:
                continue
            try:
                if not isinstance(record, bytes):
                    raise ValueError("not a record")
                clear = files.sealer.open(record) if sealed else record
                head = read_record(clear)
                with files.engine.lock:
                    if files.engine.index.key(row) != (head.writer_id, head.seq):
                        raise ValueError("another row's record")
            except (ValueError, KeyError) as error:
                log.error("a row is unreadable", row=row, reason=str(error))
                bad.add(row)
                continue
            found[row] = clear
        for row in rows:
            if row not in found:
                bad.add(row)
        return found

    def _report(self, error: SpoolError) -> None:
        """A reader met damage: the writer saves what can be saved."""
        if isinstance(error, SpoolDamaged):
            self._post(self._recover)
        else:
            self._degraded = str(error)

    # -- the writer's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as fault:
            log.error("the spool's writer failed", error=repr(fault))
            if self._on_fault is None:
                raise
            self._on_fault("spool-writer", fault)
        finally:
            with self._queue_changed:
                self._stopping = True
                self._lost += len(self._queue)
                self._queue.clear()
                left = list(self._tasks)
                self._tasks.clear()
                self._queue_changed.notify_all()
            for task in left:
                task.done.set_exception(SpoolClosed("the spool has stopped"))
            if self._files is not None:
                self._close_reader()
                self._files.close()

    def _loop(self) -> None:
        upkept_nanos = 0
        held_back: list[NewSighting] = []
        while True:
            group, changes, tasks, stopping = self._next(held_back)
            wrote = bool(group or changes or tasks)
            held_back = self._write(group, changes, last=stopping)
            for task in tasks:
                self._perform(task)
            with self._queue_changed:
                self._writing = len(held_back)
                self._queue_changed.notify_all()
                done = stopping and not (self._queue or self._changes or self._tasks or held_back)
            if wrote:
                for wake in self._wakes:
                    wake()
            now = self._clock.monotonic_nanos()
            # A disk that was full is looked at more often: until it has room, rows give way early.
            every_s = _TICK_S if self._opened().engine.frozen else _UPKEEP_S
            if now - upkept_nanos >= every_s * 1e9:
                upkept_nanos = now
                self._upkeep()
            self._follow_requests()
            if done:
                return

    def _next(
        self, held_back: list[NewSighting]
    ) -> tuple[list[NewSighting], list[Callable[..., None]], list[_Task[object]], bool]:
        """Wait for something to do: at most group_s after the first row, at once for a full
        group."""
        if held_back:
            # The disk refused them: they keep their place, and the queue behind them fills up.
            with self._queue_changed:
                if not self._stopping and not self._tasks:
                    self._queue_changed.wait(_WRITE_RETRY_S)
                return held_back, self._take_changes(), self._take_tasks(), self._stopping
        with self._queue_changed:
            idle_until = time.monotonic() + _TICK_S
            changed_at = 0.0
            while True:
                now = time.monotonic()
                if self._stopping or self._tasks or len(self._queue) >= GROUP_FULL_ROWS:
                    break
                if self._changes and not changed_at:
                    changed_at = now
                due = idle_until
                if self._queue:
                    due = min(due, self._queue[0][1] + self._config.group_s)
                if changed_at:
                    # A disk that refuses is not asked twenty times a second.
                    wait = _WRITE_RETRY_S if self._degraded else self._config.group_s
                    due = min(due, changed_at + wait)
                if now >= due:
                    break
                self._queue_changed.wait(due - now)
            group = [self._queue.popleft()[0] for _ in range(min(GROUP_ROWS, len(self._queue)))]
            self._writing = len(group)
            self._queue_changed.notify_all()
            return group, self._take_changes(), self._take_tasks(), self._stopping

    def _take_changes(self) -> list[Callable[..., None]]:
        changes, self._changes = self._changes, []
        return changes

    def _take_tasks(self) -> list[_Task[object]]:
        tasks = list(self._tasks)
        self._tasks.clear()
        return tasks

    def _write(
        self, group: list[NewSighting], changes: list[Callable[..., None]], *, last: bool
    ) -> list[NewSighting]:
        """Commit a group; returns what the disk refused and is to be tried again."""
        if not group and not changes:
            return []
        engine = self._opened().engine
        try:
            engine.append(group, changes)
        except SpoolDamaged as error:
            log.error("the spool is damaged", reason=str(error))
            self._recover()
            self._opened().engine.append(group, [])
        except (SpoolFull, SpoolNotWritable) as error:
            if not self._degraded:
                log.error("the spool cannot be written", reason=str(error), rows=len(group))
            self._degraded = str(error)
            with self._queue_changed:
                self._changes[:0] = changes
            committed = False
            with contextlib.suppress(SpoolError):
                committed = engine.after_failed_commit()
            if not committed:
                if last:
                    self._count_lost(len(group))
                    with self._queue_changed:
                        self._changes.clear()
                    return []
                return group
        if self._degraded:
            log.info("the spool can be written again")
            self._degraded = ""
        now = self._clock.monotonic_nanos()
        with engine.lock:
            for new in group:
                if new.triggered_monotonic_nanos:
                    self._to_spool_ms.append((now - new.triggered_monotonic_nanos) / 1e6)
        return []

    def _perform(self, task: _Task[object]) -> None:
        try:
            task.done.set_result(task.run())
        except SpoolDamaged as error:
            self._recover()
            task.done.set_exception(error)
        except (SpoolError, OSError) as error:
            task.done.set_exception(error)
        except BaseException as fault:
            task.done.set_exception(fault)  # who waits must not wait for nothing
            raise

    def _upkeep(self) -> None:
        try:
            self._opened().engine.upkeep()
        except SpoolDamaged:
            self._recover()
        except SpoolError as error:
            # Deleting what is old can wait for the disk; appending says loudly when it cannot.
            log.warning("upkeep of the spool failed", reason=str(error))

    def _recover(self) -> None:
        """Save what can be saved of a file found damaged while running."""
        self._close_reader()
        files = self._opened()
        found = files.recover_running()
        if found:
            self._recovered += 1

    def _follow_requests(self) -> None:
        """`edge-run --spool-status --resend` beside a running box leaves a request in the
        folder."""
        request = self._data_dir / REQUEST_NAME
        if not request.exists():
            return
        with contextlib.suppress(OSError, SpoolError):
            request.unlink()
            again = self._opened().engine.resend(None)
            log.info("dead letters are sent again", rows=again)
