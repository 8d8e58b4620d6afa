"""A box without cameras: the real spool and uplink, fed with made-up sightings.

What `edge-run` does before the spool (video, networks) is left out; everything from the spool's
queue on is the box's own code. Beside it the process keeps a journal for the oracle, written after
each commit and at each ack:

    R writer                                 the process is past its start
    S writer seq hash tracklet/revision      this row's transaction has returned
    K writer seq hash tracklet/revision      the same, of a row that got a new key
    A writer first last                      the matcher acked these
    L refused counted                        rows refused, and lost_before_spool; as they grow
    H count                                  keys that nobody has, as counted at a Welcome
    E offered refused counted                the queue is drained; lost_before_spool to the end

    python -m tests.faults.box --data-dir D --matcher HOST:PORT --journal FILE --control FILE

The control file is a JSON object, read again and again: {"rate": rows per second, "shuffle": share
of batches that are sent twice or late, "cameras": which of them see somebody}. SIGTERM drains the
queue (not the spool) and exits 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edge.config import SpoolConfig, UplinkConfig
from edge.delivery import NewSighting, WelcomeOutcome
from edge.spool import Spool
from edge.spool_engine import SpoolEngine
from edge.spool_errors import SpoolUnusable
from edge.spool_record import read_record
from edge.spool_store import SpoolStore
from edge.spool_word import Word
from edge.spool_writer import SpoolWriter
from edge.uplink import Uplink
from edge.uplink_call import StreamCall
from edge.uplink_messages import BoxIdentity
from reid.clock import SystemClock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from reid.v1.sighting_pb2 import Sighting
from tests.faults.sightings import DIMENSION, SPACE, VARIANT, Walkers

EXIT_SPOOL_UNUSABLE = 6


class Journal:
    """Appends lines; kill -9 loses none that were written."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, lines: list[str]) -> None:
        """All of them in one write."""
        os.write(self._fd, "".join(line + "\n" for line in lines).encode())


def observe(spool: Spool, journal: Journal) -> None:
    """Write down commits and acks as they happen."""
    original_appended = SpoolEngine._appended
    original_after_failed = SpoolEngine.after_failed_commit
    original_rekey = Word.rekey

    def appended(self: SpoolEngine, group: Any, rows: Any, *rest: Any) -> None:
        original_appended(self, group, rows, *rest)
        journal.write(["S " + _committed(row.record) for row in rows])

    def after_failed_commit(self: SpoolEngine) -> bool:
        before = self.state.writer.last_seq
        came_true = original_after_failed(self)
        first = self.state.writer.first_row
        found = [self._store.record(first + at) for at in range(before, self.state.writer.last_seq)]
        journal.write(["S " + _committed(one[1]) for one in found if one is not None])
        return came_true

    def rekey(self: Word, row: int) -> None:
        writer = self._state.writer
        before = writer.last_seq
        original_rekey(self, row)
        if writer.last_seq > before:
            found = self._store.record(writer.first_row + before)
            assert found is not None
            journal.write(["K " + _committed(found[1])])

    SpoolEngine._appended = appended  # type: ignore[method-assign,assignment]
    SpoolEngine.after_failed_commit = after_failed_commit  # type: ignore[method-assign]
    Word.rekey = rekey  # type: ignore[method-assign]
    original_ack = spool.ack

    def ack(keys: KeyRanges) -> list[int]:
        journal.write([f"A {k.writer_id} {k.first} {k.last}" for k in keys.messages()])
        return original_ack(keys)

    spool.ack = ack  # type: ignore[method-assign]
    original_welcome = spool.welcome

    def welcome(*answer: Any, **how: Any) -> WelcomeOutcome:
        outcome = original_welcome(*answer, **how)
        journal.write([f"H {outcome.holes}"])
        return outcome

    spool.welcome = welcome  # type: ignore[method-assign]


def _committed(record: bytes) -> str:
    head = read_record(record)
    sighting = Sighting.FromString(head.payload)
    what = f"{sighting.tracklet_id}/{sighting.revision}"
    return f"{head.writer_id} {head.seq} {head.content_hash.hex()} {what}"


def shuffle_batches(control: Control) -> None:
    """Send some batches twice, some after the one that follows them."""
    original = StreamCall.write
    chance = random.Random(1)
    late: dict[int, bytes] = {}

    async def write(self: StreamCall, message: bytes) -> None:
        held = late.pop(id(self), None)
        if message[:1] == b"\x12" and chance.random() < control.shuffle:
            if chance.random() < 0.5:
                await original(self, message)
            elif held is None:
                late[id(self)] = message

                async def flush() -> None:
                    await asyncio.sleep(0.3)
                    waiting = late.pop(id(self), None)
                    if waiting is not None:
                        try:
                            await original(self, waiting)
                        except asyncio.InvalidStateError:
                            pass  # the stream has ended: its rows are sent again on the next

                self._flusher = asyncio.create_task(flush())  # type: ignore[attr-defined]
                return
        await original(self, message)
        if held is not None:
            await original(self, held)

    StreamCall.write = write  # type: ignore[method-assign]


class Control:
    """The control file, read at most every 50 ms."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path = path
        self._read_s = 0.0
        self.rate = rate
        self.shuffle = 0.0
        self.cameras = [0, 1, 2, 3]

    def refresh(self) -> None:
        """Take what stands there now; a half-written file is read again later."""
        now = time.monotonic()
        if now - self._read_s < 0.05:
            return
        self._read_s = now
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return
        self.rate = float(found.get("rate", self.rate))
        self.shuffle = float(found.get("shuffle", 0.0))
        self.cameras = list(found.get("cameras", self.cameras))


def plant(bug: str, data_dir: Path, spool: Spool) -> None:
    """Break the box on purpose, so that the oracle can be tested."""
    if bug == "evict-silently":
        put_skipped = SpoolStore.put_skipped

        def silent(self: SpoolStore, keys: KeyRanges, reason: Any, unix_nanos: int) -> Any:
            if reason == pb.SKIP_REASON_CAP:
                return []
            return put_skipped(self, keys, reason, unix_nanos)

        SpoolStore.put_skipped = silent  # type: ignore[method-assign]
    elif bug == "uncounted":
        count, put = SpoolStore.count, SpoolWriter.put

        def half(self: SpoolStore, name: str, by: int) -> None:
            count(self, name, by // 2)

        def quiet(self: SpoolWriter, new: NewSighting, timeout_s: float = 0.0) -> bool:
            taken = put(self, new, timeout_s)
            self.lost = 0
            return taken

        SpoolStore.count = half  # type: ignore[method-assign]
        SpoolWriter.put = quiet  # type: ignore[method-assign]
    elif bug == "seq-reuse":
        # A writer id that outlives its process, over a spool that starts from nothing.
        spool.writer_id = "5e" * 16
        for file in data_dir.glob("spool.*"):
            if file.name != "spool.lock":
                file.unlink()
    elif bug:
        raise SystemExit(f"unknown bug {bug!r}")


def main() -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--matcher", action="append", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--max-bytes", type=int, default=3 << 20)
    parser.add_argument("--ballast-bytes", type=int, default=1 << 20)
    parser.add_argument("--queue-rows", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--acked-keep-s", type=float, default=86400.0)
    parser.add_argument("--plant", default="")
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    journal = Journal(options.journal)
    control = Control(options.control, options.rate)
    clock = SystemClock()
    spool = Spool(
        config=SpoolConfig(
            max_bytes=options.max_bytes,
            ballast_bytes=options.ballast_bytes,
            acked_keep_s=options.acked_keep_s,
            queue_rows=options.queue_rows,
        ),
        data_dir=options.data_dir,
        clock=clock,
    )
    plant(options.plant, options.data_dir, spool)
    try:
        spool.open()
    except SpoolUnusable as error:
        print(error, file=sys.stderr, flush=True)
        return EXIT_SPOOL_UNUSABLE
    observe(spool, journal)
    shuffle_batches(control)
    uplink = Uplink(
        config=UplinkConfig(
            matchers=tuple(options.matcher),
            heartbeat_s=0.4,
            dead_after_s=2.0,
            connect_timeout_s=3.0,
            ack_timeout_s=4.0,
            retry_min_s=0.1,
            retry_max_s=1.0,
            refused_retry_s=1.0,
        ),
        outbox=spool,
        identity=lambda: BoxIdentity(
            "edge-1", "site-1", "faults/1", {}, {SPACE: (DIMENSION, (VARIANT,))}
        ),
        clock=clock,
    )
    uplink.start()
    journal.write([f"R {spool.writer_id}"])
    people = Walkers(spool.writer_id, seed=options.seed, boot_id=clock.boot_id)
    walkers = iter(people)
    offered = refused = 0
    said_s = 0.0
    due = time.monotonic()
    while not stop.is_set():
        control.refresh()
        people.active = control.cameras
        if control.rate <= 0:
            stop.wait(0.05)
            due = time.monotonic()
            continue
        offered += 1
        if not spool.put(next(walkers)):
            refused += 1
            if time.monotonic() - said_s > 0.2:
                said_s = time.monotonic()
                journal.write([f"L {refused} {spool.counters().lost_before_spool}"])
        due = max(due + 1.0 / control.rate, time.monotonic() - 0.5)
        wait = due - time.monotonic()
        if wait > 0:
            stop.wait(wait)
    uplink.stop()
    if not spool.stop(10):
        return 70
    journal.write([f"E {offered} {refused} {spool.counters().lost_before_spool}"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
