"""What the matcher has yet to hear of keys that will never come.

Promise: a skipped range is told as soon as there is a stream, and again at every Welcome until one
lists it; only then is its writer settled, and may be forgotten. Neighbouring keys of one reason are
one range, so that a cap that evicts for weeks without a matcher costs few.
Threads: every method under the spool's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reid.ranges import KeyRanges
from reid.v1.ingest_pb2 import SkippedRange, SkipReason


class Untold:
    """See the module.

    Attributes:
        unsettled: writers with skipped keys that no Welcome has listed yet.
    """

    def __init__(self) -> None:
        self.unsettled: set[str] = set()
        self._fresh: dict[SkipReason, tuple[KeyRanges, int]] = {}

    def stored(self, entries: Iterable[SkippedRange]) -> None:
        """These stand in the file; whether anybody heard of them the next Welcome says."""
        self.unsettled.update(entry.range.writer_id for entry in entries)

    def add(self, entries: Iterable[SkippedRange]) -> None:
        """These were just skipped and are to be told."""
        for entry in entries:
            self.unsettled.add(entry.range.writer_id)
            keys, _ = self._fresh.get(entry.reason, (KeyRanges(), 0))
            keys.add_range(entry.range.writer_id, entry.range.first, entry.range.last)
            self._fresh[entry.reason] = (keys, entry.skipped_unix_nanos)

    def take(self) -> tuple[SkippedRange, ...]:
        """What was added since the last call, or since Welcome; the time is that of the last."""
        fresh, self._fresh = self._fresh, {}
        return tuple(
            SkippedRange(range=entry, reason=reason, skipped_unix_nanos=unix)
            for reason, (keys, unix) in fresh.items()
            for entry in keys.messages()
        )

    def welcomed(
        self, everything: Sequence[SkippedRange], committed: KeyRanges, skipped: KeyRanges
    ) -> list[SkippedRange]:
        """A Welcome came: what it does not list of everything that the file says.

        Args:
            everything: every skipped range of the file.
            committed, skipped: the lists of Welcome.
        """
        self._fresh.clear()
        tell: list[SkippedRange] = []
        for entry in everything:
            keys = KeyRanges([entry.range]).minus(committed).minus(skipped)
            tell.extend(
                SkippedRange(
                    range=part, reason=entry.reason, skipped_unix_nanos=entry.skipped_unix_nanos
                )
                for part in keys.messages()
            )
        self.unsettled = {entry.range.writer_id for entry in tell}
        return tell
