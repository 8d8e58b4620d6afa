"""When a frame was exposed, as well as it can be known; decisions without clock or socket.

Promise: monotonic times of one source strictly grow and never follow a step of UTC; each time says
where it comes from and how far it may be off.

Live, best first:
  SENDER_REPORT  the camera's own clock, by RTCP sender reports (RFC 3550, section 6.4.1), which
                 libav gives as side data `prft`; refused where it differs implausibly from arrival.
  ARRIVAL        arrival minus the frame's delay beyond the smallest delay seen lately. The smallest
                 delay itself (exposure, encoder, network) cannot be seen and is in the uncertainty.
Files: the file's own time, or the one given, plus the frame's offset.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.types import CaptureTime, TimeSource

# A sender report outside these bounds of its packet's arrival is a camera whose clock is not set.
MAX_REPORT_DELAY_NS = 10_000_000_000
MAX_REPORT_AHEAD_NS = 1_000_000_000
# A file's time stamp is that of its last writing; copies and clocks make it worse.
MTIME_UNCERTAINTY_MS = 60_000.0
# What a synchronised camera's clock is good for (NTP on a LAN, with the rounding of its reports).
REPORT_UNCERTAINTY_MS = 20.0
# Encoder and network of common cameras take 50 to 500 ms before the first byte arrives.
ARRIVAL_UNCERTAINTY_MS = 250.0
# The smallest delay is that of the last one to two of these spans, so that drift is followed.
SPAN_NS = 5_000_000_000
# A delay beyond this is a jump of the stream's timestamps, not a delay: learn anew.
MAX_DELAY_NS = 10_000_000_000
# A person gives --start-time in whole seconds.
GIVEN_UNCERTAINTY_MS = 500.0


@dataclass(frozen=True, slots=True)
class Instant:
    """One reading of both clocks, nanoseconds."""

    unix_nanos: int
    monotonic_nanos: int


class LiveTimes:
    """Capture times of one connection to a live source."""

    def __init__(self) -> None:
        self._span_began_ns: int | None = None
        self._smallest_ns: int | None = None  # arrival - pts, in this span
        self._smallest_before_ns: int | None = None  # in the span before
        self._last_ns = 0

    def captured(
        self, *, arrival: Instant, pts_s: float | None, report_unix_nanos: int | None
    ) -> CaptureTime:
        """The capture time of one frame.

        Args:
            arrival: when its packet came.
            pts_s: its timestamp in the stream, seconds from any origin; None: it has none.
            report_unix_nanos: its UTC by the camera's sender reports; None: it has none.
        """
        delay_ns, spread_ns = (0, 0) if pts_s is None else self._delay(arrival, pts_s)
        monotonic_ns = max(arrival.monotonic_nanos - delay_ns, self._last_ns + 1)
        self._last_ns = monotonic_ns
        if report_unix_nanos is not None:
            late_ns = arrival.unix_nanos - report_unix_nanos
            if -MAX_REPORT_AHEAD_NS <= late_ns <= MAX_REPORT_DELAY_NS:
                ahead_ms = max(0, -late_ns) * 1e-6
                return CaptureTime(
                    report_unix_nanos,
                    monotonic_ns,
                    TimeSource.SENDER_REPORT,
                    REPORT_UNCERTAINTY_MS + ahead_ms,
                )
        return CaptureTime(
            arrival.unix_nanos - (arrival.monotonic_nanos - monotonic_ns),
            monotonic_ns,
            TimeSource.ARRIVAL,
            ARRIVAL_UNCERTAINTY_MS + spread_ns * 1e-6,
        )

    def _delay(self, arrival: Instant, pts_s: float) -> tuple[int, int]:
        """How late this frame is beyond the smallest delay, and how much that moved, ns."""
        offset_ns = arrival.monotonic_nanos - round(pts_s * 1e9)
        if self._smallest_ns is None or offset_ns - self._smallest_ns > MAX_DELAY_NS:
            self._span_began_ns = arrival.monotonic_nanos
            self._smallest_ns, self._smallest_before_ns = offset_ns, None
        elif arrival.monotonic_nanos - (self._span_began_ns or 0) > SPAN_NS:
            self._span_began_ns = arrival.monotonic_nanos
            self._smallest_before_ns, self._smallest_ns = self._smallest_ns, offset_ns
        self._smallest_ns = min(self._smallest_ns, offset_ns)
        before_ns = self._smallest_before_ns
        if before_ns is None:
            return offset_ns - self._smallest_ns, 0
        # a span that has just begun knows too little to say that the delay has grown
        return offset_ns - min(self._smallest_ns, before_ns), abs(self._smallest_ns - before_ns)


class FileTimes:
    """Capture times of one file: a start and offsets from it."""

    def __init__(
        self,
        *,
        start_unix_nanos: int,
        start_monotonic_nanos: int,
        source: TimeSource,
        uncertainty_ms: float,
    ) -> None:
        self._start_unix_ns = start_unix_nanos
        self._start_monotonic_ns = start_monotonic_nanos
        self._source = source
        self._uncertainty_ms = uncertainty_ms
        self._last_ns = -1

    def captured(self, offset_s: float) -> CaptureTime:
        """The capture time of the frame `offset_s` seconds after the first."""
        offset_ns = max(round(offset_s * 1e9), self._last_ns + 1)
        self._last_ns = offset_ns
        return CaptureTime(
            self._start_unix_ns + offset_ns,
            self._start_monotonic_ns + offset_ns,
            self._source,
            self._uncertainty_ms,
        )
