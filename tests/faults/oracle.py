"""What the oracle knows: the boxes' journals, the ledger's tables, the spools' tables at the end.

It trusts neither side's counters; `tests.faults.judge` compares what is read here, key by key.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reid.v1.sighting_pb2 import Sighting

Key = tuple[str, int]

_ALARM = re.compile(r"\[error\s*\] hole .*?(\d+) sightings were issued .*?first: (\w{8})…/(\d+)\)")


@dataclass(frozen=True)
class Restore:
    """A ledger went back to a backup.

    Attributes:
        forgotten: keys committed between the backup and its return: what it no longer had.
        lengths: journal -> bytes at that moment; what the box wrote later came after it.
        log_bytes: bytes of the world's log at that moment.
    """

    forgotten: frozenset[Key]
    lengths: Mapping[Path, int] = field(default_factory=dict)
    log_bytes: int = 0


@dataclass(frozen=True)
class Process:
    """What one box process says of itself.

    Attributes:
        writer_id: its writer.
        committed: rows of its own that its transactions took, without those that were re-keyed.
        refusals: (refused, counted) as they grew: what its queue refused, and the spool's own
            `lost_before_spool` at that moment.
        ended: (offered, refused, counted) after it had drained its queue; None: it was killed.
    """

    writer_id: str
    committed: int = 0
    refusals: tuple[tuple[int, int], ...] = ()
    ended: tuple[int, int, int] | None = None

    @property
    def lost(self) -> int:
        """Its last count of lost_before_spool."""
        if self.ended is not None:
            return self.ended[2]
        return self.refusals[-1][1] if self.refusals else 0


@dataclass
class Captured:
    """What the journals say.

    Attributes:
        rows: key -> (hash, what) of every row whose transaction returned.
        reused: keys that were given to two contents.
        acked: keys that the matcher acked.
        forgotten: keys that restored ledgers no longer had, and that were not acked again since.
        holes: keys that nobody has, as the last journal's box counted them at its last Welcome.
        processes: one per journal that got past its start.
    """

    rows: dict[Key, tuple[str, str]] = field(default_factory=dict)
    reused: set[Key] = field(default_factory=set)
    acked: set[Key] = field(default_factory=set)
    forgotten: set[Key] = field(default_factory=set)
    holes: int = 0
    processes: list[Process] = field(default_factory=list)

    @classmethod
    def read(cls, journals: Iterable[Path], restores: Sequence[Restore] = ()) -> Captured:
        """Read them, in the order of their starts; a last line that a kill cut short is left out.

        Args:
            restores: ledgers put back to a backup, in their order.
        """
        captured = cls()
        # Which restores a key may be missing for, until it was acked anew.
        missing_for: dict[Key, set[int]] = {}
        for number, restore in enumerate(restores):
            for key in restore.forgotten:
                missing_for.setdefault(key, set()).add(number)
        for path in journals:
            captured._read_one(path, restores, missing_for)
        captured.forgotten = {key for key, numbers in missing_for.items() if numbers}
        return captured

    def _read_one(
        self, path: Path, restores: Sequence[Restore], missing_for: dict[Key, set[int]]
    ) -> None:
        self.holes = 0
        writer_id, committed = "", 0
        refusals: list[tuple[int, int]] = []
        ended: tuple[int, int, int] | None = None
        # Acks count for a restore from the first Welcome after it: those before are of the old one.
        heard_since = [path not in restore.lengths for restore in restores]
        at = 0
        for line in path.read_bytes().split(b"\n")[:-1]:
            parts = line.decode().split(" ")
            match parts[0]:
                case "R":
                    writer_id = parts[1]
                case "S" | "K":
                    key = (parts[1], int(parts[2]))
                    known = self.rows.get(key)
                    if known is not None and known[0] != parts[3]:
                        self.reused.add(key)
                    self.rows[key] = (parts[3], parts[4])
                    committed += parts[0] == "S"
                case "A":
                    anew = {number for number, heard in enumerate(heard_since) if heard}
                    for seq in range(int(parts[2]), int(parts[3]) + 1):
                        key = (parts[1], seq)
                        self.acked.add(key)
                        if key in missing_for:
                            missing_for[key] -= anew
                case "H":
                    self.holes = int(parts[1])
                    for number, restore in enumerate(restores):
                        heard_since[number] |= at >= restore.lengths.get(path, 0)
                case "L":
                    refusals.append((int(parts[1]), int(parts[2])))
                case "E":
                    ended = (int(parts[1]), int(parts[2]), int(parts[3]))
            at += len(line) + 1
        if writer_id:
            self.processes.append(Process(writer_id, committed, tuple(refusals), ended))


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


@dataclass(frozen=True)
class HoleAlarm:
    """A matcher's alarm of keys that are neither with it nor at the box.

    Attributes:
        keys: how many.
        writer: the first eight digits of the first key's writer.
        seq: the first key's number.
        forgotten: keys that restored ledgers no longer had by then.
    """

    keys: int
    writer: str
    seq: int
    forgotten: frozenset[Key] = frozenset()


def hole_alarms(log: Path, restores: Sequence[Restore] = ()) -> list[HoleAlarm]:
    """Every alarm of a hole in a world's log, with what could be missing at that moment."""
    alarms: list[HoleAlarm] = []
    text = log.read_bytes()
    ends = [restore.log_bytes for restore in restores] + [len(text)]
    forgotten: frozenset[Key] = frozenset()
    at = 0
    for number, end in enumerate(ends):
        for keys, writer, seq in _ALARM.findall(text[at:end].decode(errors="replace")):
            alarms.append(HoleAlarm(int(keys), writer, int(seq), forgotten))
        at = end
        if number < len(restores):
            forgotten |= restores[number].forgotten
    return alarms
