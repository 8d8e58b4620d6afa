"""What the server knows of each boot's clock: offset and drift, learned from heartbeats.

Promise: a boot's monotonic time becomes server's UTC with a stated uncertainty, for as long as the
boot lasts and also hours later; a step of the box's UTC changes nothing, since only its monotonic
clock is used. No thread, no clock of its own.

NTP's four timestamps (RFC 5905, section 8), t1 and t4 on the boot's monotonic clock, t2 and t3 in
server's UTC: offset = ((t2 - t1) + (t3 - t4)) / 2, delay = (t4 - t1) - (t3 - t2). The truth lies
within delay / 2. Of each minute the sample with the least delay is kept (the minimum-delay filter
of RFC 5905, section 10); drift is the slope through those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BUCKET_NS = 60_000_000_000  # one kept sample a minute
BUCKETS = 240  # four hours: long enough for drift, short enough to follow temperature
DRIFT_AFTER_NS = 600_000_000_000  # a slope over less than ten minutes is mostly noise
MAX_DRIFT = 500e-6  # crystals are within 100 ppm; beyond 500 ppm the samples are wrong
ONE_WAY_UNCERTAINTY_NS = 1_000_000_000  # only t2 - t1 known: the way there took less, hopefully
NOTE_CHANGE_NS = 1_000_000  # a change below a millisecond is not worth an entry of the log


@dataclass(frozen=True, slots=True)
class ClockEstimate:
    """Server's UTC of a boot's monotonic time.

    Attributes:
        boot_id: the boot.
        reference_ns: a monotonic time of that boot.
        offset_ns: server's UTC minus monotonic time, at reference_ns.
        drift: seconds gained per second (server against box).
        uncertainty_ns: half-width at reference_ns.
    """

    boot_id: str
    reference_ns: int
    offset_ns: int
    drift: float
    uncertainty_ns: int

    def utc(self, monotonic_ns: int) -> int:
        """Server's UTC of a monotonic time of this boot, nanoseconds since 1970."""
        passed = monotonic_ns - self.reference_ns
        return monotonic_ns + self.offset_ns + round(passed * self.drift)

    def as_dict(self) -> dict[str, Any]:
        """For the log."""
        return {
            "boot_id": self.boot_id,
            "reference_ns": self.reference_ns,
            "offset_ns": self.offset_ns,
            "drift": self.drift,
            "uncertainty_ns": self.uncertainty_ns,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ClockEstimate:
        """From the log."""
        return cls(
            str(fields["boot_id"]),
            int(fields["reference_ns"]),
            int(fields["offset_ns"]),
            float(fields["drift"]),
            int(fields["uncertainty_ns"]),
        )


class BootClock:
    """Learns one boot's clock."""

    def __init__(self, boot_id: str) -> None:
        self.boot_id = boot_id
        self._best: dict[int, tuple[int, int, int]] = {}  # bucket -> delay, monotonic, offset
        self._one_way: tuple[int, int] | None = None  # monotonic, least t2 - t1
        self._noted: ClockEstimate | None = None
        self.current: ClockEstimate | None = None  # the belief after the last sample

    def one_way(self, t1: int, t2: int) -> None:
        """A heartbeat came whose answer's fate is not known yet."""
        if self._one_way is None or t2 - t1 < self._one_way[1]:
            self._one_way = (t1, t2 - t1)
            if not self._best:
                self.current = self.estimate()

    def exchange(self, t1: int, t2: int, t3: int, t4: int) -> None:
        """A whole exchange; t1 and t4 monotonic, t2 and t3 UTC, nanoseconds."""
        delay = (t4 - t1) - (t3 - t2)
        if delay < 0 or t4 < t1 or t3 < t2:
            return  # our own UTC stepped in between: the sample says nothing
        offset = ((t2 - t1) + (t3 - t4)) // 2
        bucket = t4 // BUCKET_NS
        kept = self._best.get(bucket)
        if kept is None or delay < kept[0]:
            self._best[bucket] = (delay, (t1 + t4) // 2, offset)
        while len(self._best) > BUCKETS:
            del self._best[min(self._best)]
        self.current = self.estimate()

    def estimate(self) -> ClockEstimate | None:
        """The present belief; None before the first heartbeat."""
        if not self._best:
            if self._one_way is None:
                return None
            return ClockEstimate(
                self.boot_id, self._one_way[0], self._one_way[1], 0.0, ONE_WAY_UNCERTAINTY_NS
            )
        samples = [self._best[bucket] for bucket in sorted(self._best)]
        base = min(samples)
        drift = 0.0
        span = samples[-1][1] - samples[0][1]
        if span >= DRIFT_AFTER_NS:
            # Samples with long delays say little: weight by 1 / (delay + 1 ms).
            x = np.array([(at - base[1]) / 1e9 for _, at, _ in samples])
            y = np.array([(offset - base[2]) / 1e9 for _, _, offset in samples])
            weight = np.array([1.0 / (delay / 1e9 + 1e-3) for delay, _, _ in samples])
            slope = float(np.polyfit(x, y, 1, w=weight)[0])
            drift = slope if abs(slope) <= MAX_DRIFT else 0.0
        return ClockEstimate(self.boot_id, base[1], base[2], drift, base[0] // 2 + 1)

    def worth_noting(self) -> ClockEstimate | None:
        """The estimate, where it says more than the one noted last."""
        new, old = self.current, self._noted
        if new is None:
            return None
        if old is not None:
            at = max(new.reference_ns, old.reference_ns)
            moved = abs(new.utc(at) - old.utc(at))
            better = new.uncertainty_ns * 2 <= old.uncertainty_ns
            if not better and moved < max(NOTE_CHANGE_NS, old.uncertainty_ns // 2):
                return None
        self._noted = new
        return new


class HeartbeatMemory:
    """The last answers of one stream: t2 and t3 by t1, until the box returns t1 and t4."""

    _KEPT = 8

    def __init__(self) -> None:
        self._answers: dict[int, tuple[int, int]] = {}

    def answered(self, t1: int, t2: int, t3: int) -> None:
        """Remember an answer."""
        self._answers[t1] = (t2, t3)
        while len(self._answers) > self._KEPT:
            del self._answers[next(iter(self._answers))]

    def returned(self, t1: int) -> tuple[int, int] | None:
        """t2 and t3 of the answer that the box names; None where it is not ours. Once."""
        return self._answers.pop(t1, None)
