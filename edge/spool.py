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
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from edge.config import SpoolConfig
from edge.delivery import Held, NewSighting, OutboxRow, SpoolCounters, WelcomeOutcome
from edge.spool_errors import SpoolClosed, SpoolDamaged, SpoolError, SpoolUnusable
from edge.spool_files import FolderLock, SpoolFiles
from edge.spool_reader import RowReader
from edge.spool_rows import RowSet
from edge.spool_seal import load_sealer
from edge.spool_word import Word
from edge.spool_writer import SpoolWriter
from reid.clock import Clock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb

_TRACKED_LATENCIES = 4096

log = structlog.get_logger("edge.spool")


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
        self.writer_id = uuid.uuid4().hex
        self._writer = SpoolWriter(config=config, data_dir=data_dir, clock=clock, on_fault=on_fault)
        self._folder_lock = FolderLock(data_dir)
        self._files: SpoolFiles | None = None
        self._reader: RowReader | None = None
        # Of the uplink's thread:
        self._buried_said_s, self._buried_unsaid = 0.0, 0
        self._to_ack_ms: deque[float] = deque(maxlen=_TRACKED_LATENCIES)

    # -- life ------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Make the data folder and take it for this process until `stop`; may come before `open`.

        Raises:
            SpoolInUse, SpoolUnusable: the caller exits 6.
        """
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SpoolUnusable(self._data_dir, error.strerror or str(error)) from error
        self._folder_lock.acquire()

    def open(self) -> None:
        """Lock the folder, open or save the file, start the writer.

        Raises:
            SpoolInUse, SpoolKeyError, SpoolUnusable: the caller exits 6.
        """
        sealer = load_sealer(self._config.key_file)
        self.lock()
        with contextlib.ExitStack() as undo:
            undo.callback(self._folder_lock.release)
            files = SpoolFiles(
                data_dir=self._data_dir,
                config=self._config,
                sealer=sealer,
                clock=self._clock,
                writer_id=self.writer_id,
            )
            self._writer.recovered += files.open()
            undo.pop_all()
        self._files = files
        self._reader = RowReader(files)
        self._writer.start(files, close_readers=self._reader.close)

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Write what is queued, end the writer, close the file. May come twice, from any thread.

        Returns:
            Whether the writer ended in time; rows still queued then are counted as lost.
        """
        ended = self._writer.stop(timeout_s)
        if ended:
            if self._reader is not None:
                self._reader.close()
            self._folder_lock.release()
        return ended

    def alive(self) -> bool:
        """Whether the writer runs."""
        return self._writer.alive()

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
        return self._writer.put(new, timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything put before is committed; False: not in this time."""
        return self._writer.flush(timeout_s)

    def counters(self) -> SpoolCounters:
        """Exact counts, from any thread."""
        files = self._opened()
        state = files.engine.state
        with state.lock:
            counts = dict(state.counts)
            skipped = {
                name.removeprefix("SKIP_REASON_").lower(): value
                for name, value in state.skipped.items()
                if value
            }
            backlog = len(state.index.ready) + len(state.index.in_flight)
            dead = len(state.index.dead)
            waiting_bytes = state.waiting_bytes
        return SpoolCounters(
            committed=counts.get("committed", 0),
            acked=counts.get("acked", 0),
            superseded=counts.get("superseded", 0),
            skipped=skipped,
            dead_letters=dead,
            lost_before_spool=self._writer.lost,
            refilled=counts.get("refilled", 0),
            rekeyed=counts.get("rekeyed", 0),
            holes=counts.get("holes", 0),
            recovered=self._writer.recovered,
            backlog=backlog,
            backlog_bytes=waiting_bytes,
            lag_s=self._lag_s(self.first_waiting()),
            bytes=files.disk_bytes(),
            degraded=self._writer.degraded,
        )

    def latencies_ms(self) -> dict[str, list[float]]:
        """The last 4096 latencies: capture_to_spool and capture_to_ack, milliseconds."""
        with self._opened().engine.state.lock:
            return {
                "capture_to_spool": list(self._writer.to_spool_ms),
                "capture_to_ack": list(self._to_ack_ms),
            }

    def set_config(self, config: SpoolConfig) -> None:
        """Take new caps and times (a reload); what needs a new file waits for the next start."""
        self._config = config
        self._writer.set_config(config)

    # -- the uplink's side (edge.delivery.Outbox) ------------------------------------------------

    def held(self) -> Held:
        """What Hello tells."""
        state = self._opened().engine.state
        with state.lock:
            return Held(
                writer_id=self.writer_id,
                held=state.index.keys_of(state.index.held()),
                issued=state.index.issued(),
                spaces=dict(state.spaces),
                last_ledger_id=state.ledger_id,
                unsettled=frozenset(state.untold.unsettled.union(state.suspect.writers())),
            )

    def spaces(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """space_id -> (dimension, variants) of everything in the spool."""
        state = self._opened().engine.state
        with state.lock:
            return dict(state.spaces)

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
        outcome = self._writer.call(
            lambda: self._word().welcome(ledger_id, committed, skipped, complete=complete)
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
        state = self._opened().engine.state
        picked: list[int] = []
        chosen = RowSet()
        found: dict[int, bytes] = {}
        with state.lock:
            for first, last in state.index.ready.between(after, upto):
                stop = min(last, first + max_rows - len(picked) - 1)
                picked.extend(range(first, stop + 1))
                chosen.add(first, stop)
                if len(picked) >= max_rows:
                    break
            if not picked:
                return []
            for row in picked:
                record = state.uncache(row)
                if record is not None:
                    found[row] = record
            state.index.ready.remove_all(chosen)
            state.index.in_flight.add_all(chosen)
        bad = RowSet()
        if len(found) < len(picked):
            missing = [row for row in picked if row not in found]
            try:
                found.update(self._opened_reader().read(missing, bad))
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
            self._writer.post(lambda: self._word().unreadable(bad))
        return rows

    def waiting(self, *, after: int, upto: int | None) -> int:
        """How many rows in (after, upto] wait and are not in flight."""
        state = self._opened().engine.state
        with state.lock:
            return state.index.ready.count(after, upto)

    def first_waiting(self) -> int | None:
        """The oldest row that waits, in flight or not."""
        state = self._opened().engine.state
        with state.lock:
            numbers = [state.index.ready.first(), state.index.in_flight.first()]
        return min((n for n in numbers if n is not None), default=None)

    def gone(self, rows: Sequence[int]) -> list[int]:
        """Which of these rows are no longer in flight."""
        state = self._opened().engine.state
        with state.lock:
            return [row for row in rows if row not in state.index.in_flight]

    def release(self, rows: Sequence[int]) -> None:
        """These rows are no longer in flight; those that were not settled meanwhile wait again."""
        state = self._opened().engine.state
        with state.lock:
            for row in rows:
                if row in state.index.in_flight:
                    state.index.in_flight.remove(row)
                    state.index.ready.add(row)

    def ack(self, keys: KeyRanges) -> list[int]:
        """The ledger has these. Returns the rows that were waiting; does not wait for the
        commit."""
        state = self._opened().engine.state
        now = self._clock.monotonic_nanos()
        with state.lock:
            named = state.index.rows_of(keys)
            rows = RowSet(named.intersection(state.index.waiting()))
            rows.add_all(named.intersection(state.index.dead))
            for of_state in ("ready", "in_flight", "dead", "superseded"):
                getattr(state.index, of_state).remove_all(rows)
            state.index.acked.add_all(rows)
            state.counts["acked"] += len(rows)
            numbers = [row for first, last in rows for row in range(first, last + 1)]
            for row in numbers:
                state.uncache(row)
                triggered = state.triggered.pop(row, 0)
                if triggered:
                    self._to_ack_ms.append((now - triggered) / 1e6)
        if numbers:
            self._writer.add_change(self._word().acked(rows))
        return numbers

    def reject(self, writer_id: str, seq: int, reason: pb.RejectReason, message: str) -> int | None:
        """The ledger will never take this row: a dead letter, or a new key after KEY_CONFLICT."""
        state = self._opened().engine.state
        with state.lock:
            row = state.index.row(writer_id, seq)
            if row is None or (row not in state.index.in_flight and row not in state.index.ready):
                return None
        if reason == pb.REJECT_REASON_KEY_CONFLICT:
            log.error(
                "the ledger holds this key with another content; writing the row under a new key",
                writer_id=writer_id,
                seq=seq,
                hint="two processes may share this data folder's past; see docs/reliability.md",
            )
            with state.lock:
                # In flight until it is re-keyed, so that nothing sends or evicts it.
                state.index.ready.remove(row)
                state.index.in_flight.add(row)
            self._writer.post(lambda: self._rekey(row))
        else:
            name = pb.RejectReason.Name(reason) if reason in pb.RejectReason.values() else "UNKNOWN"
            self._bury(row, name.removeprefix("REJECT_REASON_"), message)
        return row

    def bury(self, row: int, message: str, *, reason: str = "POISON") -> None:
        """A row that cannot be delivered becomes a dead letter."""
        self._bury(row, reason, message)

    def erase(self, keys: KeyRanges) -> tuple[pb.SkippedRange, ...]:
        """Delete these for ever, also from files set aside; returns what to tell."""
        files = self._opened()

        def run() -> tuple[pb.SkippedRange, ...]:
            told = files.engine.word.erase(keys)
            files.remove_set_aside()
            return told

        return self._writer.call(run)

    def new_skipped(self) -> tuple[pb.SkippedRange, ...]:
        """Ranges skipped since the last call."""
        state = self._opened().engine.state
        with state.lock:
            return state.untold.take()

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call wake() from the writer's thread after each commit."""
        self._writer.wakes.append(wake)

    # -- between the threads ---------------------------------------------------------------------

    def _opened(self) -> SpoolFiles:
        if self._files is None:
            raise SpoolClosed("the spool is not open; call open() first")
        return self._files

    def _word(self) -> Word:
        return self._opened().engine.word

    def _opened_reader(self) -> RowReader:
        if self._reader is None:
            raise SpoolClosed("the spool is not open; call open() first")
        return self._reader

    def _bury(self, row: int, reason: str, message: str) -> None:
        state = self._opened().engine.state
        with state.lock:
            state.index.ready.remove(row)
            state.index.in_flight.remove(row)
            state.index.superseded.remove(row)
            state.index.dead.add(row)
            entry = [
                pb.SkippedRange(range=k, reason=pb.SKIP_REASON_DEAD_LETTER)
                for k in state.index.keys_of(RowSet([(row, row)])).messages()
            ]
            state.untold.add(entry)
        self._say_buried(reason, message)
        self._writer.add_change(self._word().buried(row, reason, message))

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
            self._word().rekey(row)
        except ValueError:
            self._word().unreadable(RowSet([(row, row)]))

    def _lag_s(self, first: int | None) -> float:
        """Age of the oldest waiting row. What this process wrote is aged by its own running, since
        UTC may have been set only since; what earlier ones wrote by UTC, which counts the time
        that the box was off."""
        if first is None:
            return 0.0
        try:
            stamps = self._opened_reader().stamps(first)
        except SpoolError as error:
            self._report(error)
            return 0.0
        if stamps is None:
            return 0.0
        appended, stamped = stamps
        state = self._opened().engine.state
        ours = first >= state.writer.first_row
        aged = state.running_nanos() - stamped if ours else self._clock.unix_nanos() - appended
        return max(0.0, aged / 1e9)

    def _report(self, error: SpoolError) -> None:
        """A reader met damage: the writer saves what can be saved."""
        if isinstance(error, SpoolDamaged):
            self._writer.post(self._writer.recover)
        else:
            self._writer.degraded = str(error)
