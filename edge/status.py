"""What the box counts, and how it tells: summary, metrics, readiness.

Promise: every number is counted once, where it happens, and read from there; summary, metrics and
live table are views of one `Snapshot`. Nothing here blocks or fails a stage.
Threads: the inference thread counts; any thread takes a snapshot.

    stages ──count──▶ BoxStatus ──snapshot──▶ summary_dict / BoxCollector / live table / readyz
"""

from __future__ import annotations

import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Enough for stable 99th percentiles, and bounded.
_LATENCIES_KEPT = 4096
# Rates in the live table are over this much time.
_RATE_WINDOW_S = 5.0
_STATUS_FILE = Path("/proc/self/status")


class Latencies:
    """The last few thousand durations of one step, in milliseconds."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_LATENCIES_KEPT)

    def add(self, milliseconds: float) -> None:
        """Count one; appending to a bounded deque is atomic."""
        self._values.append(milliseconds)

    def replace(self, milliseconds: list[float]) -> None:
        """Take over durations that another part keeps."""
        self._values = deque(milliseconds, maxlen=_LATENCIES_KEPT)

    def percentiles(self) -> dict[str, float] | None:
        """p50, p95 and p99 of what is kept, or None where nothing was counted."""
        values = list(self._values)
        if not values:
            return None
        p50, p95, p99 = np.percentile(values, [50, 95, 99])
        return {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3)}


@dataclass
class CameraCounts:
    """What the inference thread counts of one camera."""

    frames_analysed: int = 0
    frames_gated: int = 0  # looked at by the motion gate only
    detections: int = 0
    tracklets: int = 0  # confirmed
    embeddings: int = 0
    people_now: int = 0
    first_frame_s: float | None = None  # monotonic
    last_frame_s: float | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    def analysed(self, now_s: float, *, detections: int) -> None:
        """Count one analysed frame."""
        self.frames_analysed += 1
        self.detections += detections
        if self.first_frame_s is None:
            self.first_frame_s = now_s
        self.last_frame_s = now_s
        self.recent.append(now_s)

    def rate(self, now_s: float) -> float:
        """Analysed frames per second over the last seconds."""
        recent = [t for t in list(self.recent) if now_s - t <= _RATE_WINDOW_S]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(now_s - recent[0], 1e-6)


@dataclass(frozen=True)
class CameraSnapshot:
    """One camera, now: decoding and analysis together."""

    state: str
    error: str | None
    frames_in: int
    frames_analysed: int
    frames_dropped: int
    corrupt: int
    reconnects: int
    bytes_video_in: int
    last_frame_age_s: float | None
    detections: int
    tracklets: int
    embeddings: int
    people_now: int
    analysed_per_s: float
    seconds: float


@dataclass(frozen=True)
class DeliverySnapshot:
    """Spool and uplink, now."""

    committed: int = 0
    acked: int = 0
    superseded: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)  # of skipped, what the matcher knows about
    lost_before_spool: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    spool_bytes: int = 0
    lag_s: float = 0.0
    connected: bool = False
    address: str = ""
    problem: str | None = None
    refused: bool = False
    wire_out: int = 0
    dead_letters: int = 0


@dataclass(frozen=True)
class Snapshot:
    """Everything that is shown, at one instant."""

    cameras: dict[str, CameraSnapshot]
    delivery: DeliverySnapshot
    latencies: dict[str, dict[str, float] | None]
    models: dict[str, dict[str, str]]
    warnings: tuple[str, ...]
    wall_s: float


class BoxStatus:
    """The counters of the running box, and where the other parts' counters are read from."""

    def __init__(self, cameras: list[str]) -> None:
        self.counts = {name: CameraCounts() for name in cameras}
        self.detect = Latencies()
        self.embed = Latencies()
        self.capture_to_spool = Latencies()
        self.capture_to_ack = Latencies()
        self.models: dict[str, dict[str, str]] = {}
        self.models_taken = 0
        self.models_refused: dict[str, int] = {}
        # Set by the owner before start: how a camera's thread and the delivery stand.
        self.read_camera: Callable[[str], dict[str, Any]] = lambda name: {}
        self.read_delivery: Callable[[], DeliverySnapshot] = DeliverySnapshot
        self._warnings: dict[str, str] = {}
        self._lock = threading.Lock()
        self._started_s = time.monotonic()

    def watch(self, camera: str) -> None:
        """Count one more camera."""
        self.counts = {**self.counts, camera: self.counts.get(camera, CameraCounts())}

    def forget(self, camera: str) -> None:
        """Count this camera no longer."""
        self.counts = {name: counts for name, counts in self.counts.items() if name != camera}

    def warn(self, name: str, text: str | None) -> None:
        """Set what is degraded under a name, or clear it with None."""
        with self._lock:
            if text is None:
                self._warnings.pop(name, None)
            else:
                self._warnings[name] = text

    def snapshot(self) -> Snapshot:
        """Everything, now."""
        now_s = time.monotonic()
        delivery = self.read_delivery()  # first: it brings latencies and warnings up to date
        with self._lock:
            warnings = tuple(self._warnings[name] for name in sorted(self._warnings))
        return Snapshot(
            cameras={name: self._camera(name, one, now_s) for name, one in self.counts.items()},
            delivery=delivery,
            latencies={
                "detect": self.detect.percentiles(),
                "embed": self.embed.percentiles(),
                "capture_to_spool": self.capture_to_spool.percentiles(),
                "capture_to_ack": self.capture_to_ack.percentiles(),
            },
            models=dict(self.models),
            warnings=warnings,
            wall_s=now_s - self._started_s,
        )

    def _camera(self, name: str, counts: CameraCounts, now_s: float) -> CameraSnapshot:
        first_s, last_s = counts.first_frame_s, counts.last_frame_s
        read = self.read_camera(name)
        return CameraSnapshot(
            state=read.get("state", "connecting"),
            error=read.get("error"),
            frames_in=read.get("frames_in", 0),
            frames_analysed=counts.frames_analysed,
            frames_dropped=read.get("frames_dropped", 0),
            corrupt=read.get("corrupt", 0),
            reconnects=read.get("reconnects", 0),
            bytes_video_in=read.get("bytes_video_in", 0),
            last_frame_age_s=read.get("last_frame_age_s"),
            detections=counts.detections,
            tracklets=counts.tracklets,
            embeddings=counts.embeddings,
            people_now=counts.people_now,
            analysed_per_s=counts.rate(now_s),
            seconds=(last_s - first_s) if first_s is not None and last_s is not None else 0.0,
        )


def peak_rss_mb() -> float:
    """Largest resident memory of this program so far, MiB."""
    # getrusage's figure outlives exec: it may be that of whoever started us.
    try:
        for line in _STATUS_FILE.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024.0
    except (OSError, ValueError):
        pass  # not Linux: what the system counts is the best there is
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def cpu_s() -> float:
    """Processor time of this process so far, all threads, seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def byte_figures(snapshot: Snapshot) -> tuple[int, int, float | None]:
    """(bytes of video read, bytes sent to the matcher, video per byte sent or None)."""
    video = sum(camera.bytes_video_in for camera in snapshot.cameras.values())
    wire = snapshot.delivery.wire_out
    return video, wire, (video / wire if wire else None)


def summary_dict(snapshot: Snapshot, exit_reason: str) -> dict[str, Any]:
    """The object of `--summary json`; changes are additive only."""
    video, wire, ratio = byte_figures(snapshot)
    delivery = snapshot.delivery
    return {
        "cameras": {
            name: {
                "frames_in": camera.frames_in,
                "frames_analysed": camera.frames_analysed,
                "frames_dropped": camera.frames_dropped,
                "corrupt": camera.corrupt,
                "reconnects": camera.reconnects,
                "detections": camera.detections,
                "tracklets": camera.tracklets,
                "embeddings": camera.embeddings,
                "seconds": round(camera.seconds, 3),
            }
            for name, camera in snapshot.cameras.items()
        },
        "sightings": {
            "committed": delivery.committed,
            "acked": delivery.acked,
            "superseded": delivery.superseded,
            "skipped": delivery.skipped,
            "told": delivery.told,
            "lost_before_spool": delivery.lost_before_spool,
            "waiting": delivery.waiting,
        },
        "bytes": {
            "video_in": video,
            "wire_out": wire,
            "ratio": round(ratio, 1) if ratio is not None else None,
        },
        "latency_ms": snapshot.latencies,
        "models": snapshot.models,
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "cpu_s": round(cpu_s(), 2),
        "wall_s": round(snapshot.wall_s, 2),
        "degraded": list(snapshot.warnings),
        "exit_reason": exit_reason,
    }


def readiness(snapshot: Snapshot) -> dict[str, Any]:
    """The object of /readyz: ready when cameras give frames and the matcher takes sightings."""
    degraded = list(snapshot.warnings)
    ready = True
    for name, camera in snapshot.cameras.items():
        if camera.state not in ("online", "ended"):
            ready = False
            degraded.append(f"camera {name}: {camera.state}: {camera.error or 'no frame yet'}")
    delivery = snapshot.delivery
    if not delivery.connected:
        ready = False
        degraded.append(f"matcher {delivery.address}: {delivery.problem or 'not connected'}")
    if delivery.lost_before_spool:
        degraded.append(f"{delivery.lost_before_spool} sightings were lost before the spool")
    if delivery.dead_letters:
        degraded.append(f"{delivery.dead_letters} dead letters: edge-run --spool-status")
    return {
        "ready": ready,
        "degraded": degraded,
        "cameras": {
            name: {"state": camera.state, "last_frame_age_s": camera.last_frame_age_s}
            for name, camera in snapshot.cameras.items()
        },
        "matcher": {
            "connected": delivery.connected,
            "address": delivery.address,
            "waiting": delivery.waiting,
            "lag_s": round(delivery.lag_s, 3),
            "skipped": delivery.skipped,
            "told": delivery.told,
        },
    }


_CAMERA_METRICS: tuple[tuple[str, str, str], ...] = (
    ("frames_in", "frames_in", "Frames decoded."),
    ("frames_analysed", "frames_analysed", "Frames analysed."),
    ("frames_dropped", "frames_dropped", "Frames of a live camera replaced by newer ones."),
    ("corrupt_frames", "corrupt", "Damaged frames; tracked, never embedded."),
    ("reconnects", "reconnects", "Times a lost camera came back."),
    ("detections", "detections", "People found in frames."),
    ("tracklets", "tracklets", "Tracklets confirmed."),
    ("embeddings", "embeddings", "Crops embedded."),
    ("video_bytes", "bytes_video_in", "Bytes of compressed video read."),
)


class BoxCollector(Collector):
    """Prometheus metrics, read from one snapshot per scrape."""

    def __init__(self, status: BoxStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        snapshot = self._status.snapshot()
        for name, attribute, text in _CAMERA_METRICS:
            counter = CounterMetricFamily(f"edge_{name}", text, labels=["camera"])
            for camera, values in snapshot.cameras.items():
                counter.add_metric([camera], getattr(values, attribute))
            yield counter
        online = GaugeMetricFamily("edge_camera_online", "1 while frames come.", labels=["camera"])
        rate = GaugeMetricFamily(
            "edge_analysed_fps", "Frames analysed per second.", labels=["camera"]
        )
        age = GaugeMetricFamily(
            "edge_last_frame_age_seconds", "Age of the newest frame.", labels=["camera"]
        )
        for camera, values in snapshot.cameras.items():
            online.add_metric([camera], float(values.state == "online"))
            rate.add_metric([camera], values.analysed_per_s)
            if values.last_frame_age_s is not None:
                age.add_metric([camera], values.last_frame_age_s)
        yield from (online, rate, age)
        delivery = snapshot.delivery
        for name, value, text in (
            ("sightings_committed", delivery.committed, "Sightings durable in the spool."),
            ("sightings_acked", delivery.acked, "Sightings durable in the ledger."),
            ("sightings_superseded", delivery.superseded, "Revisions replaced by newer ones."),
            (
                "sightings_lost_before_spool",
                delivery.lost_before_spool,
                "Sightings that could not even be appended.",
            ),
            ("wire_bytes", delivery.wire_out, "Bytes sent to the matcher."),
        ):
            yield CounterMetricFamily(f"edge_{name}", text, value=value)
        yield CounterMetricFamily(
            "edge_models_taken", "Models taken over while running.", value=self._status.models_taken
        )
        refused = CounterMetricFamily(
            "edge_models_refused", "New models refused, the old one stays.", labels=["reason"]
        )
        for reason, count in self._status.models_refused.items():
            refused.add_metric([reason], count)
        yield refused
        skipped = CounterMetricFamily(
            "edge_sightings_skipped", "Rows dropped from the spool.", labels=["reason"]
        )
        for reason, count in delivery.skipped.items():
            skipped.add_metric([reason], count)
        yield skipped
        told = GaugeMetricFamily(
            "edge_sightings_told",
            "Of the dropped rows, those that the matcher knows about; lasting less is an alarm.",
            labels=["reason"],
        )
        for reason, count in delivery.told.items():
            told.add_metric([reason], count)
        yield told
        gauges: tuple[tuple[str, float, str], ...] = (
            ("backlog_sightings", delivery.waiting, "Sightings waiting for an ack."),
            ("backlog_bytes", delivery.waiting_bytes, "Bytes of the sightings waiting for an ack."),
            ("backlog_lag_seconds", delivery.lag_s, "Age of the oldest waiting sighting."),
            ("spool_bytes", delivery.spool_bytes, "Bytes of the spool, database and WAL."),
            ("dead_letters", delivery.dead_letters, "Sightings waiting for a person."),
            ("matcher_connected", float(delivery.connected), "1 while the stream is open."),
            ("resident_peak_mebibytes", peak_rss_mb(), "Largest resident memory so far."),
        )
        for name, gauge, text in gauges:
            yield GaugeMetricFamily(f"edge_{name}", text, value=gauge)
        latency = GaugeMetricFamily(
            "edge_latency_milliseconds", "Recent latencies.", labels=["step", "percentile"]
        )
        for step, percentiles in snapshot.latencies.items():
            for percentile, milliseconds in (percentiles or {}).items():
                latency.add_metric([step, percentile], milliseconds)
        yield latency


def registry_for(status: BoxStatus) -> CollectorRegistry:
    """A registry that holds this box's metrics and nothing else."""
    registry = CollectorRegistry()
    registry.register(BoxCollector(status))
    return registry
