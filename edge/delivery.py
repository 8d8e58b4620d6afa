"""What the stages of delivery hand each other: new sightings, rows to send, counters, states.

Promise: plain immutable data and one protocol; `edge.sighting`, `edge.spool` and `edge.uplink`
import this and never each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from reid.ranges import KeyRanges
from reid.v1.ingest_pb2 import RejectReason, SkippedRange


class OutboxUnavailable(Exception):
    """The spool cannot do this at present (its disk, or it has stopped); nothing was changed. The
    uplink ends its stream, backs off and tries again."""


@dataclass(frozen=True, slots=True)
class SpaceUse:
    """A space of embeddings that a sighting carries.

    Attributes:
        space_id: as on the wire.
        dimension: length of its vectors.
        variant_id: the variant that made them.
    """

    space_id: str
    dimension: int
    variant_id: str


@dataclass(frozen=True, slots=True)
class NewSighting:
    """A serialised Sighting on its way into the spool.

    Attributes:
        payload: the Sighting message, serialised once; never parsed or written again on the box.
        camera: the camera's name; eviction weighs cameras against each other.
        tracklet: the tracklet's number in this process; with `revision` it tells what a newer
            sighting supersedes.
        revision: from 1.
        final: no higher revision follows.
        spaces: what Hello must announce for it.
        triggered_monotonic_nanos: this machine's monotonic clock when the frame that caused it was
            captured; 0: unknown. For latency figures only.
    """

    payload: bytes
    camera: str
    tracklet: int
    revision: int
    final: bool
    spaces: tuple[SpaceUse, ...] = ()
    triggered_monotonic_nanos: int = 0


class OutboxRow(NamedTuple):
    """A row that waits for its ack.

    Attributes:
        row: its number in the spool; grows in the order of appending, over all writers.
        record: the SightingRecord as it stands in a Batch, serialised.
    """

    row: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """What Hello tells about the spool.

    Attributes:
        writer_id: this process's writer.
        held: keys of every row, acked or not.
        issued: every key that the spool gave and remembers.
        spaces: space_id -> (dimension, variants) of everything in the spool.
        last_ledger_id: the ledger that acked last; empty at first.
        unsettled: writers of which the ledger has not yet heard everything.
    """

    writer_id: str
    held: KeyRanges
    issued: KeyRanges
    spaces: Mapping[str, tuple[int, tuple[str, ...]]]
    last_ledger_id: str
    unsettled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WelcomeOutcome:
    """What the spool made of a Welcome.

    Attributes:
        boundary: the last row that belongs to the backlog lane; later ones are live.
        tell: skipped ranges that the ledger does not list yet.
        refilled: rows that had been acked and are sent again.
        holes: keys that neither the ledger nor this box has: an alarm.
        told: reason (cap, unreadable) -> keys skipped here that the matcher knows about: all but
            those in `tell`.
    """

    boundary: int
    tell: tuple[SkippedRange, ...]
    refilled: int
    holes: int
    told: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpoolCounters:
    """Exact counts; those marked * are since the spool exists, the others since the process began.

    Attributes:
        committed: rows written.
        acked: rows acked for the first time.
        superseded: rows evicted because a newer revision stood in the spool (also in skipped CAP).
        skipped: * reason -> keys that will never come.
        dead_letters: rows that wait for a person, now.
        lost_before_spool: sightings that could not even be appended.
        refilled: acked rows sent again because the ledger did not list them.
        rekeyed: rows written anew under a new key after a conflict.
        holes: keys missing in the ledger and here, as of the last Welcome.
        recovered: how often a damaged spool was set aside.
        backlog: rows that wait for their ack, now.
        backlog_bytes: their bytes.
        lag_s: age of the oldest of them; 0: none waits.
        bytes: database and WAL on disk.
        degraded: why the spool cannot write at present; empty: it can.
    """

    committed: int = 0
    acked: int = 0
    superseded: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    dead_letters: int = 0
    lost_before_spool: int = 0
    refilled: int = 0
    rekeyed: int = 0
    holes: int = 0
    recovered: int = 0
    backlog: int = 0
    backlog_bytes: int = 0
    lag_s: float = 0.0
    bytes: int = 0
    degraded: str = ""


class Outbox(Protocol):
    """What the uplink needs of the spool. Any method may raise OutboxUnavailable. Every method may
    be called from the uplink's thread; those that write wait for the spool writer's commit unless
    they say otherwise."""

    def held(self) -> Held:
        """What Hello tells."""

    def spaces(self) -> Mapping[str, tuple[int, tuple[str, ...]]]:
        """space_id -> (dimension, variants) of everything in the spool."""

    def welcome(
        self, ledger_id: str, committed: KeyRanges, skipped: KeyRanges, *, complete: bool = True
    ) -> WelcomeOutcome:
        """Take the matcher's word for what it has: mark, refill, resolve. Waits for the commit.

        complete: whether the lists name all that the ledger knows; where they were cut, nothing is
        concluded from a key's absence that could not be taken back."""

    def take(
        self, *, after: int, upto: int | None, max_rows: int, max_bytes: int
    ) -> list[OutboxRow]:
        """The oldest waiting rows in (after, upto] that are not in flight; they are in flight now.

        Unreadable rows are told as such and left out."""

    def waiting(self, *, after: int, upto: int | None) -> int:
        """How many rows in (after, upto] wait and are not in flight."""

    def first_waiting(self) -> int | None:
        """The oldest row that waits, in flight or not."""

    def gone(self, rows: Sequence[int]) -> list[int]:
        """Which of these rows are no longer in flight."""

    def release(self, rows: Sequence[int]) -> None:
        """These rows are no longer in flight (their stream ended); they wait again."""

    def ack(self, keys: KeyRanges) -> list[int]:
        """The ledger has these; returns the rows that were waiting. Does not wait for a commit."""

    def reject(self, writer_id: str, seq: int, reason: RejectReason, message: str) -> int | None:
        """The ledger will never take this row: a dead letter, or re-keyed after KEY_CONFLICT.

        Returns the row, None where there is no such row. Does not wait."""

    def bury(self, row: int, message: str, *, reason: str = "POISON") -> None:
        """A row that cannot be delivered becomes a dead letter. Does not wait."""

    def erase(self, keys: KeyRanges) -> tuple[SkippedRange, ...]:
        """Delete these for ever; returns what to tell. Waits for the commit."""

    def new_skipped(self) -> tuple[SkippedRange, ...]:
        """Ranges skipped since the last call (or since Welcome)."""

    def counters(self) -> SpoolCounters:
        """The counts now."""

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call wake() from the writer's thread after each commit that changed something to send."""
