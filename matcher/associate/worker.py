"""The association thread: reads the ledger as a log from its stored position, for ever.

Promise: ingest never waits for it; while ingest has work, it works a fifth of its time. A
restart goes on at the stored position; `identities.db` deleted or of another ledger is made again
from zero. An error of ours ends the process (`fault` is set); the entry that it stood at is noted,
and the next start leaves it out and says so, so that one entry never stops ingest for ever.
Full: where identities.db cannot grow it waits and tries again (`waiting` says so); ingest and the
deletions that make room go on.
Threads: its own; `wake`, `wait_for`, `stop` and the attributes may be used from any.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from matcher.associate.engine import Engine
from matcher.associate.identities import IdentityStore, leave_out
from matcher.associate.live import Changes
from matcher.associate.model import Associator, Tracklet
from matcher.derived import MapInForce
from matcher.errors import MatcherError, ServerFault
from matcher.log import LogReader
from matcher.schema import IDENTITIES_FILE

GROUP = 64  # entries of one transaction: some 10 ms in which ingest shares the interpreter
YIELD = 4.0  # rest per work while ingest is busy: both are threads of one interpreter
IDLE_S = 1.0  # how often it looks without being woken, and tries again on a full disk
_NO_ROOM = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})
_log = structlog.get_logger("association")


@dataclass(frozen=True, slots=True)
class Deletion:
    """Asks the thread to delete old tracklets."""

    site: str
    before_ns: int


class AssociationWorker:
    """Owner of the engine and of identities.db.

    Attributes:
        position: of the log, reached and durable.
        fault: what ended the thread; None while it works.
        left_out: positions of entries that failed before and are left out.
        waiting: why nothing can be saved at present; empty: it can.
        maps: the sites' maps in force; replaced, never changed.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        associator: Associator,
        generation: str,
        salt: str,
        identity_life_ns: int,
        busy: Callable[[], bool],
        on_progress: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            busy: whether ingest has work waiting.
            on_progress: called from the thread after each transaction; must be quick.
        """
        self._data_dir = data_dir
        self._associator = associator
        self._generation = generation
        self._salt = salt
        self._life_ns = identity_life_ns
        self._busy = busy
        self._on_progress = on_progress
        self._stop = threading.Event()
        self._changed = threading.Condition()  # guards position, _news, _deletions
        self._news = False
        self._deletions: list[Deletion] = []
        self._checkpoint = False
        self._thread: threading.Thread | None = None
        self.position = 0
        self.fault: ServerFault | None = None
        self.left_out: frozenset[int] = frozenset()
        self.waiting = ""
        self.maps: dict[str, MapInForce] = {}
        self._applying = 0
        self._unsaved: tuple[Changes, int] | None = None  # decided, with the position behind it
        self._cut_again: float | None = None  # when to try to cut the WAL again, monotonic

    def start(self) -> None:
        """Open or make identities.db, so that it can be read from now on; start the thread.

        Raises:
            LedgerUnusable: the file cannot be opened.
        """
        store = IdentityStore(self._data_dir / IDENTITIES_FILE, generation=self._generation)
        self._thread = threading.Thread(target=self._run, args=(store,), name="association")
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """The log has grown."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def delete_older(self, site: str, before_ns: int) -> None:
        """Delete tracklets of a site last seen before an instant, soon."""
        with self._changed:
            self._deletions.append(Deletion(site, before_ns))
            self._changed.notify_all()

    def checkpoint_soon(self) -> None:
        """After a Forget: cut the WAL, so that what was deleted leaves the disk."""
        with self._changed:
            self._checkpoint = True
            self._changed.notify_all()

    def wait_for(self, position: int, timeout_s: float) -> bool:
        """Wait until the log is read up to a position; False where the time was over first."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self.position < position and self.fault is None and not self._stop.is_set():
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            return self.position >= position

    def stop(self) -> None:
        """End the thread; may be called twice."""
        self._stop.set()
        self.wake()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    # --- the thread -------------------------------------------------------------------------------

    def _run(self, store: IdentityStore) -> None:
        try:
            self._work(store)
        except Exception as error:  # noqa: BLE001  # whatever it is, it ends the process
            _log.exception("association failed", position=self._applying)
            if self._applying:
                try:
                    leave_out(self._data_dir / IDENTITIES_FILE, self._applying)
                except (MatcherError, sqlite3.Error) as second:
                    _log.error("the next start will stand at it again", error=second)
            self.fault = ServerFault(f"association failed at position {self._applying}: {error}")
            with self._changed:
                self._changed.notify_all()

    def _work(self, store: IdentityStore) -> None:
        reader = LogReader(data_dir=self._data_dir)
        try:
            engine = self._engine(store)
            while not self._stop.is_set():
                self._delete(store)
                if not self._step(engine, store, reader):
                    with self._changed:
                        if not (self._news or self._deletions or self._checkpoint):
                            self._changed.wait(IDLE_S)
                        self._news = False
        finally:
            reader.close()
            store.close()

    def _engine(self, store: IdentityStore) -> Engine:
        engine = Engine(
            associator=self._associator,
            salt=self._salt,
            identity_life_ns=self._life_ns,
            load_tracklet=store.load_tracklet,
            next_number=store.next_number(),
        )
        engine.retention = store.load_retention()
        engine.live.log_time_ns = store.log_time_ns
        # What was live then is what had not ended when ends of life were last looked for.
        engine.live.expired_ns = store.expired_ns
        since = store.expired_ns - engine.retention.get("", self._life_ns)
        by_site = {site: store.expired_ns - life for site, life in engine.retention.items()}
        identities = store.load_identities(by_site, since)
        for site, found in store.load_maps().items():
            engine.put_map(site, found)
        engine.restore(self._while_wanted(store.load_tracklets(identities, since)), identities)
        for boot, estimate in store.load_clocks():
            engine.clocks.put(boot, estimate)
        for writer in store.load_ended_writers():
            engine.ended_writers.put(writer, True)
        engine.calibration = store.load_calibration()
        self.left_out = store.left_out()
        if self.left_out:
            _log.error(
                "entries that association failed at are left out; please report it",
                positions=sorted(self.left_out),
            )
        with self._changed:
            self.position = store.position
            self.maps = dict(engine.derived.maps)
        return engine

    def _while_wanted(self, tracklets: Iterator[Tracklet]) -> Iterator[Tracklet]:
        """All of them, unless the thread is to end before it has begun."""
        for tracklet in tracklets:
            if self._stop.is_set():
                return
            yield tracklet

    def _step(self, engine: Engine, store: IdentityStore, reader: LogReader) -> bool:
        """Read and apply one group; False where there was nothing."""
        began = time.monotonic()
        if self._unsaved is None:
            self._unsaved = self._decide(engine, reader)
        if self._unsaved is None:
            return False
        changes, position = self._unsaved
        if not self._written(lambda: store.save(changes, engine.calibration, position)):
            return False
        self._unsaved = None
        with self._changed:
            self.position = position
            self.maps = dict(engine.derived.maps)
            self._changed.notify_all()
        if self._on_progress is not None:
            self._on_progress()
        if self._busy():
            self._stop.wait(YIELD * (time.monotonic() - began))
        return True

    def _decide(self, engine: Engine, reader: LogReader) -> tuple[Changes, int] | None:
        """Read and apply a group: what changed, and the position behind it; None: nothing new."""
        entries = reader.read(self.position, limit=GROUP)
        if not entries:
            return None
        for number, entry in enumerate(entries):
            if number and self._stop.is_set():
                entries = entries[:number]  # the rest is read at the next start
                break
            if entry.position in self.left_out:
                continue
            self._applying = entry.position
            engine.apply(entry)
        self._applying = 0
        return engine.live.take_changes(), entries[-1].position

    def _written(self, write: Callable[[], object]) -> bool:
        """Write to identities.db; False, after a pause, where the disk has no room for it."""
        try:
            write()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname not in _NO_ROOM:
                raise
            path = self._data_dir / IDENTITIES_FILE
            if not self.waiting:
                _log.error("association waits for room", path=str(path), error=error)
            self.waiting = f"{path} cannot grow ({error}); association waits: make room"
            self._stop.wait(IDLE_S)
            return False
        if self.waiting:
            _log.info("association goes on")
            self.waiting = ""
        return True

    def _delete(self, store: IdentityStore) -> None:
        with self._changed:
            deletions, self._deletions = self._deletions, []
            checkpoint, self._checkpoint = self._checkpoint, False
        gone: list[int] = []
        for number, one in enumerate(deletions):
            if not self._written(
                lambda one=one: gone.append(store.delete_older(one.site, one.before_ns))  # type: ignore[misc]
            ):
                with self._changed:  # a newer order for a site takes the place of an older one
                    later = {order.site for order in self._deletions}
                    again = [left for left in deletions[number:] if left.site not in later]
                    self._deletions = again + self._deletions
                    self._checkpoint = self._checkpoint or checkpoint
                return
        checkpoint = checkpoint or any(gone)
        if self._cut_again is not None and time.monotonic() >= self._cut_again:
            checkpoint = True
        if checkpoint:
            # A reader of another program may hold the WAL: it is tried again.
            home: list[bool] = []
            self._written(lambda: home.append(store.checkpoint()))
            self._cut_again = None if any(home) else time.monotonic() + IDLE_S
