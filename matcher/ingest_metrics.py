"""Counters of the ingest path, for /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from reid.v1 import ingest_pb2


class IngestMetrics:
    """Counters of the ingest path."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sightings = Counter(
            "reid_matcher_sightings",
            "Sightings received, by what became of them",
            ["result"],
            registry=registry,
        )
        self.streams = Gauge("reid_matcher_streams", "Open streams of boxes", registry=registry)
        self.goodbyes = Counter(
            "reid_matcher_goodbyes",
            "Streams ended by us, by reason",
            ["reason"],
            registry=registry,
        )
        self.refused = Counter(
            "reid_matcher_refused_hellos",
            "Hellos refused for good, by status code",
            ["code"],
            registry=registry,
        )
        self.batches = Counter(
            "reid_matcher_batches", "Batches received, by lane", ["lane"], registry=registry
        )
        self.commit_s = Histogram(
            "reid_matcher_commit_seconds",
            "From the arrival of a batch to its commit",
            registry=registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )
        self.unknown = Counter(
            "reid_matcher_unknown_messages",
            "Messages of a newer contract, ignored",
            registry=registry,
        )
        self.stored = self.sightings.labels("stored")
        self.by_lane = {
            ingest_pb2.LANE_UNSPECIFIED: self.batches.labels("backlog"),
            ingest_pb2.LANE_BACKLOG: self.batches.labels("backlog"),
            ingest_pb2.LANE_LIVE: self.batches.labels("live"),
        }
