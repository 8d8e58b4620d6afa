"""What goes into the ledger and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from reid.ranges import KeyRanges, RangeSet

# writer_id, seq, content_hash, tracklet_id, seen_ns, body: a plain tuple, since thousands a second
# are made.
Row = tuple[str, int, bytes, str, int, bytes]


class Room(NamedTuple):
    """How much of the ledger's memory a box may take.

    Attributes:
        writers: most starts of a box process that are remembered.
        ranges: most ranges of keys, receipted and skipped.
    """

    writers: int
    ranges: int


@dataclass(slots=True)
class Appended:
    """What became of the rows of one batch.

    Attributes:
        acked: keys that are durable, or were before, once the transaction is committed.
        stored, duplicates, expired, forgotten: how many rows each.
        conflicts: keys whose stored content is another one.
        foreign: keys of a writer that belongs to another box.
        erase: keys of forgotten tracklets that the box must delete.
        crowded: why rows of a box that takes too much room were not taken; empty: all were.
    """

    acked: KeyRanges = field(default_factory=KeyRanges)
    stored: int = 0
    duplicates: int = 0
    expired: int = 0
    forgotten: int = 0
    conflicts: list[tuple[str, int]] = field(default_factory=list)
    foreign: list[tuple[str, int]] = field(default_factory=list)
    erase: KeyRanges = field(default_factory=KeyRanges)
    crowded: str = ""


@dataclass(slots=True)
class KnownKeys:
    """What the ledger knows of the keys that a box names.

    Attributes:
        committed: receipted.
        skipped: told as skipped and not receipted.
        erase: forgotten, held by the box and not yet told as erased.
        foreign: writers that belong to another box.
        unfinished: older writers of the box with keys that are still to come.
        ended: older writers of the box that were ended now.
        hole: keys that were issued, are not known here, and are not held by the box.
        crowded: why the box's new writer was not taken; empty: it was.
        ranges: in how many ranges the box's keys lie: what it cost to look.
    """

    committed: KeyRanges
    skipped: KeyRanges
    erase: KeyRanges
    foreign: list[str]
    unfinished: dict[str, RangeSet]
    ended: list[str]
    hole: KeyRanges
    crowded: str = ""
    ranges: int = 0
