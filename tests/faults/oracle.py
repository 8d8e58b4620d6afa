"""Compares what the box captured, what was acked, what the ledger holds: the guarantee, key by key.

Its own sources are the boxes' journals (tests.faults.box), the ledger's tables, and the spools'
tables at the end; it trusts neither side's counters, it checks them.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from reid.v1.ingest_pb2 import SkipReason
from reid.v1.sighting_pb2 import Sighting

Key = tuple[str, int]


@dataclass
class Captured:
    """What the journals say.

    Attributes:
        rows: key -> (hash, what) of every row whose transaction returned.
        reused: keys that were given to two contents.
        acked: keys that the matcher acked.
        holes: keys that nobody has, as the last journal's box counted them at its last Welcome.
    """

    rows: dict[Key, tuple[str, str]] = field(default_factory=dict)
    reused: set[Key] = field(default_factory=set)
    acked: set[Key] = field(default_factory=set)
    holes: int = 0

    @classmethod
    def read(cls, journals: list[Path]) -> Captured:
        """Read them; a last line that a kill cut short is left out."""
        captured = cls()
        for path in journals:
            captured.holes = 0
            for line in path.read_text().split("\n")[:-1]:
                parts = line.split(" ")
                if parts[0] == "S":
                    key = (parts[1], int(parts[2]))
                    known = captured.rows.get(key)
                    if known is not None and known[0] != parts[3]:
                        captured.reused.add(key)
                    captured.rows[key] = (parts[3], parts[4])
                elif parts[0] == "A":
                    for seq in range(int(parts[2]), int(parts[3]) + 1):
                        captured.acked.add((parts[1], seq))
                elif parts[0] == "H":
                    captured.holes = int(parts[1])
        return captured


@dataclass
class Ledger:
    """What the ledger's tables say.

    Attributes:
        rows: key -> hash of every sighting in it.
        contents: how often each tracklet/revision stands in it.
        receipts: keys committed at some time.
        skipped: key -> reason.
    """

    rows: dict[Key, str] = field(default_factory=dict)
    contents: Counter[str] = field(default_factory=Counter)
    receipts: set[Key] = field(default_factory=set)
    skipped: dict[Key, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Read a ledger beside its server, or without."""
        ledger = cls()
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            writers = dict(db.execute("SELECT id, writer_id FROM writers"))
            for writer, seq, digest, body in db.execute(
                "SELECT writer, seq, content_hash, body FROM log WHERE kind = 1"
            ):
                sighting = Sighting.FromString(body)
                ledger.rows[writers[writer], seq] = bytes(digest).hex()
                ledger.contents[f"{sighting.tracklet_id}/{sighting.revision}"] += 1
            for writer, first, last in db.execute("SELECT writer, first, last FROM receipts"):
                ledger.receipts.update((writers[writer], seq) for seq in range(first, last + 1))
            for writer, reason, first, last in db.execute(
                "SELECT writer, reason, first, last FROM skipped"
            ):
                for seq in range(first, last + 1):
                    ledger.skipped[writers[writer], seq] = reason
        finally:
            db.close()
        return ledger


@dataclass
class SpoolState:
    """What a spool's tables say after its box has ended.

    Attributes:
        waiting, acked, dead: keys by state.
        skipped: key -> reason.
        counters: name -> value.
    """

    waiting: set[Key] = field(default_factory=set)
    acked: set[Key] = field(default_factory=set)
    dead: set[Key] = field(default_factory=set)
    skipped: dict[Key, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> SpoolState:
        """Read a spool that no box has open."""
        state = cls()
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            writers = sorted(
                (first_row, writer_id)
                for first_row, writer_id in db.execute("SELECT first_row, writer_id FROM writer")
            )
            sets = (state.waiting, state.acked, state.dead)
            for row, row_state in db.execute("SELECT row, state FROM sighting"):
                first_row, writer_id = max(w for w in writers if w[0] <= row)
                sets[row_state].add((writer_id, row - first_row + 1))
            for writer_id, first, last, reason in db.execute(
                "SELECT writer_id, first, last, reason FROM skipped"
            ):
                for seq in range(first, last + 1):
                    state.skipped[writer_id, seq] = reason
            state.counters = dict(db.execute("SELECT name, value FROM counter"))
        finally:
            db.close()
        return state


@dataclass
class Verdict:
    """What the oracle found.

    Attributes:
        captured: rows whose transaction returned.
        acked: of them, acked.
        missing: of them, told as skipped: reason -> keys.
        lost: keys that are nowhere and of which nobody says why.
        holes: keys that a restored ledger forgot after the box's cap had taken the acked rows: the
            stated limit of a refill, and both ends must have raised the alarm.
        doubled: contents that stand in the ledger more than once.
        problems: everything else that must not be, in words.
    """

    captured: int = 0
    acked: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    holes: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the guarantee held."""
        return not (self.lost or self.doubled or self.problems)


def acked_but_absent(captured: Captured, ledger: Ledger) -> set[Key]:
    """Keys that were acked although the ledger never committed them."""
    return captured.acked - ledger.receipts


def judge(
    captured: Captured,
    ledger: Ledger,
    spools: list[SpoolState],
    *,
    rolled_back: bool = False,
    forgotten: Set[Key] = frozenset(),
    alarmed: bool = False,
) -> Verdict:
    """The verdict at the end, after every box has drained.

    Args:
        rolled_back: a spool was replaced by an older copy, so its own counters are older, too, and
            rows may be unreadable.
        forgotten: keys that a restored ledger no longer had.
        alarmed: the box said that keys are missing.
    """
    verdict = Verdict(captured=len(captured.rows))
    verdict.acked = len(captured.acked & set(captured.rows))
    told: dict[Key, int] = {}
    dead: set[Key] = set()
    for spool in spools:
        told.update(spool.skipped)
        dead |= spool.dead
        if spool.waiting:
            verdict.problems.append(f"{len(spool.waiting)} rows still wait after the drain")
    missing: Counter[str] = Counter()
    lost: list[Key] = []
    for key, (digest, _) in captured.rows.items():
        if key in ledger.rows:
            if ledger.rows[key] != digest and key not in captured.reused:
                verdict.problems.append(f"{key}: the ledger holds another content")
        elif key in dead:
            missing["dead_letter"] += 1
        elif key in told:
            missing[SkipReason.Name(told[key]).removeprefix("SKIP_REASON_").lower()] += 1
            if key not in ledger.skipped:
                verdict.problems.append(f"{key}: skipped here, but the ledger was not told")
        elif key in captured.reused:
            pass  # named below
        elif key in forgotten and key in captured.acked:
            verdict.holes += 1
        else:
            lost.append(key)
    verdict.lost = len(lost)
    if lost:
        verdict.problems.append(f"lost, first of {len(lost)}: {sorted(lost)[:3]}")
    doubled = [what for what, count in ledger.contents.items() if count > 1]
    verdict.doubled = len(doubled)
    if doubled:
        verdict.problems.append(f"twice in the ledger, first of {len(doubled)}: {doubled[:3]}")
    verdict.missing = dict(missing)
    if missing["unreadable"] and not rolled_back:
        # The spool accounts for every key at its start, so rows deleted without a word come out as
        # UNREADABLE: better than silence, and still a fault where no disk was damaged.
        verdict.problems.append(f"{missing['unreadable']} keys unreadable on a sound disk")
    if captured.reused:
        keys = len(captured.reused)
        verdict.problems.append(f"{keys} keys were given to two contents")
    if verdict.holes and not alarmed:
        verdict.problems.append(f"{verdict.holes} keys forgotten by the ledger, without an alarm")
    if captured.holes != verdict.holes:
        verdict.problems.append(
            f"the box counts {captured.holes} keys that nobody has, in truth {verdict.holes}"
        )
    absent = acked_but_absent(captured, ledger) - forgotten
    if absent:
        verdict.problems.append(f"{len(absent)} keys acked, but not in the ledger")
    for spool in spools:
        by_reason = Counter(SkipReason.Name(reason) for reason in spool.skipped.values())
        for name, keys in by_reason.items():
            counted = spool.counters.get(f"skipped.{name}", 0)
            if counted != keys and not rolled_back:
                verdict.problems.append(f"{name}: {keys} keys skipped, but {counted} counted")
    return verdict
