"""Every key is accounted for: random walks of a box and a ledger that go back in time.

Besides the spool's usual life, its database, or the ledger, is put back to an older copy. After
every Welcome the keys that neither side has are exactly those that the spool counts as holes; no
key that the ledger has is told as skipped, and none that the box still holds is told UNREADABLE.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from edge.config import SpoolConfig
from edge.spool import Spool
from edge.spool_record import RecordHead, read_record
from reid.clock import ManualClock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from tests.unit.edge.spool_support import LEDGER, new_sighting

STEPS = 40
OPERATIONS = (
    *["put"] * 4, *["take"] * 3, *["commit"] * 3, *["welcome"] * 4, "restart", "age",
    "copy_database", "copy_database_in_use", "roll_back", "roll_back",
    "back_up_ledger", "restore_ledger",
)  # fmt: skip


class Walk:
    """A spool, a ledger made of two sets of keys, and every key that was ever given."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.box = folder / "box"
        self.copy = folder / "copy.sqlite"
        self.clock = ManualClock()
        self.given = KeyRanges()
        self.committed, self.skipped = KeyRanges(), KeyRanges()
        self.backup = (KeyRanges(), KeyRanges())
        self.number = 0
        self.start()

    def start(self) -> None:
        self.flying: list[RecordHead] = []
        self.spool = Spool(
            config=SpoolConfig(
                ballast_bytes=0, group_s=0.001, max_bytes=1 << 20, acked_keep_s=60.0
            ),
            data_dir=self.box,
            clock=self.clock,
        )
        self.spool.open()

    def stop(self) -> None:
        assert self.spool.stop(20)

    def put(self) -> None:
        writer = self.spool.writer_id
        before = len(self.spool.held().issued.of(writer))
        taken = 0
        for _ in range(self.random.choice([1, 3, 20, 300])):
            self.number += 1
            revision = self.number % 3 + 1
            new = new_sighting(self.number // 3, revision=revision, final=False, size=1400)
            taken += self.spool.put(new, timeout_s=0.2)
        # Where all of the small file is in flight, the rest waits until it is released.
        if not self.spool.flush(0.2):
            for row in range(1, 100_000):
                self.spool.release([row])
            assert self.spool.flush(20)
        self.given.add_range(writer, before + 1, before + taken)

    def take(self) -> None:
        most = self.random.choice([2, 50])
        rows = self.spool.take(after=0, upto=None, max_rows=most, max_bytes=1 << 20)
        self.flying += [read_record(row.record) for row in rows]

    def commit(self) -> None:
        """The ledger commits what is in flight; its ack may be lost."""
        keys = KeyRanges()
        for head in self.flying:
            keys.add(head.writer_id, head.seq)
        self.committed.update(keys)
        if self.random.random() < 0.6:
            self.spool.ack(keys)
        self.flying = []

    def welcome(self) -> None:
        issued = self.spool.held().issued
        unknown = issued.minus(self.committed)
        committed = issued.minus(unknown)
        skipped = unknown.minus(unknown.minus(self.skipped))

        outcome = self.spool.welcome(LEDGER, committed, skipped)

        told = KeyRanges(entry.range for entry in outcome.tell)
        unreadable = KeyRanges(
            e.range for e in outcome.tell if e.reason == pb.SKIP_REASON_UNREADABLE
        )
        held = self.spool.held().held
        nowhere = self.given.minus(self.committed).minus(self.skipped).minus(held).minus(told)
        assert outcome.holes == len(nowhere), nowhere
        assert told.minus(self.committed) == told
        assert unreadable.minus(held) == unreadable
        if self.random.random() < 0.7:  # else the stream ends before the ledger has it
            self.skipped.update(told)

    def restart(self) -> None:
        self.stop()
        self.start()

    def age(self) -> None:
        self.clock.advance(self.random.choice([31, 70]))
        self.spool._writer.call(lambda: self.spool._opened().engine.upkeep())

    def copy_database(self) -> None:
        self.stop()
        shutil.copy(self.box / "spool.sqlite", self.copy)
        self.start()

    def copy_database_in_use(self) -> None:
        store = self.spool._opened().engine._store
        self.spool._writer.call(lambda: store.checkpoint(truncate=True))
        shutil.copy(self.box / "spool.sqlite", self.copy)

    def roll_back(self) -> None:
        if self.copy.exists():
            self.stop()
            shutil.copy(self.copy, self.box / "spool.sqlite")
            self.start()

    def back_up_ledger(self) -> None:
        self.backup = (
            KeyRanges(self.committed.messages()),
            KeyRanges(self.skipped.messages()),
        )

    def restore_ledger(self) -> None:
        self.committed = KeyRanges(self.backup[0].messages())
        self.skipped = KeyRanges(self.backup[1].messages())


@pytest.mark.parametrize("seed", [*range(20), 97, 484, 567, 631, 798])
def test_every_key_is_accounted_for_when_a_spool_or_a_ledger_goes_back_in_time(
    tmp_path: Path, seed: int
) -> None:
    walk = Walk(tmp_path, seed)
    try:
        for _ in range(STEPS):
            getattr(walk, walk.random.choice(OPERATIONS))()
        walk.welcome()
    finally:
        walk.stop()
