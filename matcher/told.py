"""Whether a box tells every key that it drops: what it counts, beside what it tells.

Promise: on an honest box no alarm, whatever was lost, repeated, committed after all or forgotten
before this stream: only what is dropped and told on one stream is compared. What was dropped before
it and not told is a hole (matcher.admission), which is found key by key at Hello.
Decisions only: no thread, no socket, no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from reid.v1.ingest_pb2 import SKIP_REASON_CAP, SKIP_REASON_UNREADABLE, Heartbeat, SkipReason

COMPARED = (SKIP_REASON_CAP, SKIP_REASON_UNREADABLE)  # an Erase is ours, dead letters are kept


class ToldCheck:
    """One stream of a box.

    A box tells what was due from before its second heartbeat (docs/protocol.md), so the counts of
    that one are the base. What a heartbeat counts as dropped must have been told before the next.
    """

    def __init__(self) -> None:
        self._told: Counter[SkipReason] = Counter()  # since the stream began
        self._base: dict[SkipReason, int] | None = None  # dropped less told
        self._dropped: dict[SkipReason, int] = {}  # as the heartbeat before said
        self._beats = 0

    def told(self, reason: SkipReason, keys: int) -> None:
        """The box told so many keys as skipped."""
        if reason in COMPARED:
            self._told[reason] += keys

    def heartbeat(self, beat: Heartbeat) -> Mapping[str, int]:
        """Take the box's counts; what it dropped and did not tell, by reason."""
        dropped = {
            SKIP_REASON_CAP: beat.skipped_by_cap,
            SKIP_REASON_UNREADABLE: beat.skipped_unreadable,
        }
        self._beats += 1
        untold: dict[str, int] = {}
        if self._base is not None:
            for reason in COMPARED:
                missing = self._dropped[reason] - self._told[reason] - self._base[reason]
                if missing > 0:
                    untold[SkipReason.Name(reason).removeprefix("SKIP_REASON_")] = missing
        elif self._beats == 2:
            self._base = {reason: dropped[reason] - self._told[reason] for reason in COMPARED}
        self._dropped = dropped
        return untold


def untold_text(untold: Mapping[str, int]) -> str:
    """An alarm for people."""
    parts = ", ".join(f"{keys} as {reason}" for reason, keys in untold.items())
    return (
        f"the box dropped sightings ({parts}) and did not tell which; it is out of order: compare "
        "its summary's `skipped` with `told`, and update its software"
    )
