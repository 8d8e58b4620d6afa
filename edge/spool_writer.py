"""The spool's writer thread: a bounded queue in front, one transaction per group behind.

Promise: a row is committed at most `group_s` after it was put, in the order of putting, or stays in
its place until the disk takes it; what else is written (acks, dead letters, the matcher's word)
rides along or has its turn between two groups.
Full: `put` refuses at once, or after its patience, and counts. A disk that refuses is tried again
every half second; meanwhile the queue fills. Damage: the file is saved (edge.spool_files) and the
group written again. A fault of our own ends the thread and is handed to `on_fault`.
Threads: `put`, `flush`, `post`, `call`, `add_change` and `stop` from any thread; the rest is the
writer's own, which is joined by `stop`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from edge.config import SpoolConfig
from edge.delivery import NewSighting
from edge.spool_errors import SpoolClosed, SpoolDamaged, SpoolError, SpoolFull, SpoolNotWritable
from edge.spool_files import REQUEST_NAME, SpoolFiles
from edge.spool_store import Change
from reid import limits
from reid.clock import Clock

T = TypeVar("T")

# Rows in one transaction: enough to pay for its sync, little enough that a loss of it is small.
GROUP_ROWS = 256
# From so many waiting rows on, a group is not kept waiting for company.
GROUP_FULL_ROWS = 64
_TICK_S = 1.0
_UPKEEP_S = 30.0
_WRITE_RETRY_S = 0.5
_TRACKED_LATENCIES = 4096

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


class SpoolWriter:
    """See the module.

    Args:
        config: times and the queue's length.
        data_dir: where a request to resend may lie.
        clock: upkeep and latencies.
        on_fault: told when the thread dies of an unforeseen error; the process should end.

    Attributes:
        lost: rows that could not even be queued or appended.
        recovered: how often a damaged file was set aside.
        degraded: why nothing can be written at present; empty: it can.
        to_spool_ms: the last latencies from capture to commit; guarded by the engine's lock.
        wakes: called after each commit.
    """

    def __init__(
        self,
        *,
        config: SpoolConfig,
        data_dir: Path,
        clock: Clock,
        on_fault: Callable[[str, BaseException], None] | None,
    ) -> None:
        self._config = config
        self._request = data_dir / REQUEST_NAME
        self._clock = clock
        self._on_fault = on_fault
        self.lost = 0
        self.recovered = 0
        self.degraded = ""
        self.to_spool_ms: deque[float] = deque(maxlen=_TRACKED_LATENCIES)
        self.wakes: list[Callable[[], None]] = []
        # Guarded by _queue_changed: what waits for the writer.
        self._queue_changed = threading.Condition()
        self._queue: deque[tuple[NewSighting, float]] = deque()
        self._changes: list[Change] = []
        self._tasks: deque[_Task[object]] = deque()
        self._stopping = False
        self._writing = 0  # rows taken from the queue, not yet committed
        self._thread: threading.Thread | None = None
        self._files: SpoolFiles
        self._close_readers: Callable[[], None]

    # -- from any thread ---------------------------------------------------------------------------

    def start(self, files: SpoolFiles, *, close_readers: Callable[[], None]) -> None:
        """Begin to write.

        Args:
            files: open; closed by this thread at its end.
            close_readers: closes who else has the file open, before it is replaced or closed.
        """
        self._files = files
        self._close_readers = close_readers
        self.post(self._fit)  # the cap may be lower than at the last start
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Write what is queued and end; False: not in this time."""
        with self._queue_changed:
            self._stopping = True
            self._queue_changed.notify_all()
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def set_config(self, config: SpoolConfig) -> None:
        """New caps and times; what lies above a lowered cap goes in steps, between groups."""
        self._config = config
        self.post(lambda: self._files.set_config(config))
        self.post(self._fit)

    def _fit(self) -> None:
        if self._files.engine.room.fit() and not self._stopping:
            self.post(self._fit)

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
            with self._queue_changed:
                self.lost += 1
            log.error(
                "a sighting is larger than any message may be, and is lost: our own fault",
                camera=new.camera,
                bytes=len(new.payload),
                most=limits.MESSAGE_BYTES - 1024,
            )
            return False
        deadline = time.monotonic() + timeout_s
        with self._queue_changed:
            while len(self._queue) >= self._config.queue_rows or self._stopping:
                left = deadline - time.monotonic()
                if left <= 0 or self._stopping:
                    self.lost += 1
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

    def add_change(self, change: Change) -> None:
        """Write this in the next group's transaction; does not wait."""
        with self._queue_changed:
            self._changes.append(change)
            self._queue_changed.notify_all()

    def post(self, run: Callable[[], T]) -> Future[T]:
        """Run this on the writer's thread, between two groups."""
        task: _Task[T] = _Task(run, Future())
        with self._queue_changed:
            if self._stopping and not self.alive():
                task.done.set_exception(SpoolClosed("the spool has stopped"))
                return task.done
            self._tasks.append(task)  # type: ignore[arg-type]
            self._queue_changed.notify_all()
        return task.done

    def call(self, run: Callable[[], T], timeout_s: float = 60.0) -> T:
        """Run this on the writer's thread and wait for it."""
        try:
            return self.post(run).result(timeout_s)
        except TimeoutError as error:
            raise SpoolNotWritable(f"no answer of the spool's writer in {timeout_s:g} s") from error

    # -- the writer's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as fault:
            log.error("the spool's writer failed", error=repr(fault))
            if self._on_fault is None:
                raise
            self._on_fault("spool-writer", fault)
        finally:
            with self._queue_changed:
                self._stopping = True
                self.lost += len(self._queue)
                self._queue.clear()
                left = list(self._tasks)
                self._tasks.clear()
                self._queue_changed.notify_all()
            for task in left:
                task.done.set_exception(SpoolClosed("the spool has stopped"))
            self._close_readers()
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
                for wake in self.wakes:
                    wake()
            now = self._clock.monotonic_nanos()
            # A disk that was full is looked at more often: until it has room, rows give way early.
            every_s = _TICK_S if self._files.engine.frozen else _UPKEEP_S
            if now - upkept_nanos >= every_s * 1e9:
                upkept_nanos = now
                self._upkeep()
            self._follow_requests()
            if done:
                return

    def _next(
        self, held_back: list[NewSighting]
    ) -> tuple[list[NewSighting], list[Change], list[_Task[object]], bool]:
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
                    wait = _WRITE_RETRY_S if self.degraded else self._config.group_s
                    due = min(due, changed_at + wait)
                if now >= due:
                    break
                self._queue_changed.wait(due - now)
            group = [self._queue.popleft()[0] for _ in range(min(GROUP_ROWS, len(self._queue)))]
            self._writing = len(group)
            self._queue_changed.notify_all()
            return group, self._take_changes(), self._take_tasks(), self._stopping

    def _take_changes(self) -> list[Change]:
        changes, self._changes = self._changes, []
        return changes

    def _take_tasks(self) -> list[_Task[object]]:
        tasks = list(self._tasks)
        self._tasks.clear()
        return tasks

    def _write(
        self, group: list[NewSighting], changes: list[Change], *, last: bool
    ) -> list[NewSighting]:
        """Commit a group; returns what the disk refused and is to be tried again."""
        if not group and not changes:
            return []
        engine = self._files.engine
        try:
            engine.append(group, changes)
        except SpoolDamaged as error:
            log.error("the spool is damaged", reason=str(error))
            self.recover()
            self._files.engine.append(group, [])
        except (SpoolFull, SpoolNotWritable) as error:
            if not self.degraded:
                log.error("the spool cannot be written", reason=str(error), rows=len(group))
            self.degraded = str(error)
            with self._queue_changed:
                self._changes[:0] = changes
            committed = False
            with contextlib.suppress(SpoolError):
                committed = engine.after_failed_commit()
            if not committed:
                if last:
                    with self._queue_changed:
                        self.lost += len(group)
                        self._changes.clear()
                    return []
                return group
        if self.degraded:
            log.info("the spool can be written again")
            self.degraded = ""
        now = self._clock.monotonic_nanos()
        with engine.state.lock:
            for new in group:
                if new.triggered_monotonic_nanos:
                    self.to_spool_ms.append((now - new.triggered_monotonic_nanos) / 1e6)
        return []

    def _perform(self, task: _Task[object]) -> None:
        try:
            task.done.set_result(task.run())
        except SpoolDamaged as error:
            self.recover()
            task.done.set_exception(error)
        except (SpoolError, OSError) as error:
            task.done.set_exception(error)
        except Exception as fault:
            task.done.set_exception(fault)  # who waits must not wait for nothing
            raise

    def _upkeep(self) -> None:
        try:
            self._files.engine.upkeep()
        except SpoolDamaged:
            self.recover()
        except SpoolError as error:
            # Deleting what is old can wait for the disk; appending says loudly when it cannot.
            log.warning("upkeep of the spool failed", reason=str(error))

    def recover(self) -> None:
        """Save what can be saved of a file found damaged while running."""
        self._close_readers()
        self.recovered += self._files.recover_running()

    def _follow_requests(self) -> None:
        """`edge-run --spool-status --resend` beside a running box leaves a request in the
        folder."""
        request = self._request
        if not request.exists():
            return
        with contextlib.suppress(OSError, SpoolError):
            request.unlink()
            again = self._files.engine.word.resend(None)
            log.info("dead letters are sent again", rows=again)
