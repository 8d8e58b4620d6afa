"""When something was seen, in server's UTC: by the boot's clock where it is known.

Promise: a live camera's time is corrected by its boot's offset and drift, whether those were
learned before or hours after; a file's time is taken as it is. A time that cannot be true is said
to be implausible, never mended. No clock of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from matcher.clocks import ClockEstimate
from reid.v1.sighting_pb2 import TIME_SOURCE_FILE, TIME_SOURCE_GIVEN, CaptureTime

EARLIEST_NS = 1_577_836_800_000_000_000  # 2020-01-01: before it no box of ours existed
FUTURE_NS = 3_600_000_000_000  # further ahead of the commit than an hour is a wrong clock
_RECORDED = frozenset({TIME_SOURCE_FILE, TIME_SOURCE_GIVEN})
UNKNOWN_NS = 60_000_000_000  # uncertainty where nobody said one


def is_recorded(time: CaptureTime) -> bool:
    """Whether the time is a recording's, which says nothing about when it came to us."""
    return time.source in _RECORDED


def age_from_ns(time: CaptureTime, estimate: ClockEstimate | None, now_ns: int) -> int:
    """From when retention counts a sighting's age: its exposure, where that can be true and is of
    a live camera; else its arrival."""
    if time.source in _RECORDED:
        return now_ns
    monotonic = time.monotonic_nanos if estimate is not None else 0
    if estimate is not None and monotonic > 0:
        seen = estimate.utc(monotonic)
    else:
        seen = time.unix_nanos
    return min(seen, now_ns) if EARLIEST_NS <= seen <= now_ns + FUTURE_NS else now_ns


def corrected(
    time: CaptureTime, estimate: ClockEstimate | None, committed_ns: int
) -> tuple[int, int, bool]:
    """Server's UTC of an exposure.

    Args:
        estimate: the clock of the boot in which it was captured; None where it is not known.
        committed_ns: when the ledger committed it.
    Returns:
        UTC in ns, its uncertainty in ns, and whether it can be true.
    """
    uncertainty = round(time.uncertainty_ms * 1e6) if time.uncertainty_ms > 0 else UNKNOWN_NS
    if is_recorded(time):
        return time.unix_nanos, uncertainty, time.unix_nanos > 0
    if estimate is not None and time.monotonic_nanos > 0:
        utc = estimate.utc(time.monotonic_nanos)
        uncertainty += estimate.uncertainty_ns
    else:
        utc = time.unix_nanos
    plausible = EARLIEST_NS <= utc <= committed_ns + FUTURE_NS
    return utc, uncertainty, plausible


def estimate_for(
    time: CaptureTime, clocks: Mapping[tuple[str, str, str], ClockEstimate], site: str, edge_id: str
) -> ClockEstimate | None:
    """The clock of the boot in which a time was taken."""
    return clocks.get((site, edge_id, time.boot_id))
