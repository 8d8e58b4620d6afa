"""Sightings without a camera: tracklets of random people, as the pipeline would hand them on.

They are made, not seen; delivery cannot tell the difference.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from edge.delivery import NewSighting
from edge.sighting import SightingBuilder
from edge.types import CaptureTime, PathPoint, Shot, TimeSource, Tracklet

SPACE, VARIANT, DIMENSION = "osnet_x0_25/test", "float32", 512


class Walkers:
    """Endless tracklets in several cameras, each with a few revisions.

    Args:
        writer_id: of the spool.
        edge_id, site: who we are.
        cameras: how many.
        seed: of everything.
        shots: crops per sighting.
    """

    def __init__(
        self,
        writer_id: str,
        *,
        edge_id: str = "edge-1",
        site: str = "site-1",
        cameras: int = 4,
        seed: int = 0,
        shots: int = 1,
        boot_id: str = "00000000-0000-4000-8000-000000000001",
    ) -> None:
        self._builder = SightingBuilder(
            site=site,
            edge_id=edge_id,
            writer_id=writer_id,
            boot_id=boot_id,
            encoding="float16",
            variants={SPACE: VARIANT},
        )
        self._random = np.random.default_rng(seed)
        self.active = list(range(cameras))  # cameras that see somebody now
        self._shots = shots
        self._number = 0

    def __iter__(self) -> Iterator[NewSighting]:
        while True:
            self._number += 1
            first = self._now()
            revisions = int(self._random.integers(1, 4))
            camera = f"camera-{self.active[self._number % len(self.active)]}"
            for revision in range(1, revisions + 1):
                yield self._sighting(camera, first, final=revision == revisions)

    def _now(self) -> CaptureTime:
        return CaptureTime(time.time_ns(), time.monotonic_ns(), TimeSource.ARRIVAL, 20.0)

    def _sighting(self, camera: str, first: CaptureTime, *, final: bool) -> NewSighting:
        now = self._now()
        box = np.array([0.1, 0.2, 0.3, 0.9], np.float32)
        shots = []
        for _ in range(self._shots):
            vector = np.abs(self._random.standard_normal(DIMENSION)).astype(np.float32)
            vector /= np.linalg.norm(vector)
            shots.append(Shot(now, 0, box, 0.8, 0.9, {SPACE: vector}))
        tracklet = Tracklet(
            camera=camera,
            number=self._number,
            first_seen=first,
            last_seen=now,
            shots=tuple(shots),
            path=(PathPoint(first, box), PathPoint(now, box)),
            embedding_count=self._shots,
            similarity_mean=0.0,
            similarity_variance=0.0,
            seen_with=(),
            frame_width=1920,
            frame_height=1080,
            final=final,
        )
        return self._builder.build(tracklet, triggered_monotonic_nanos=now.monotonic_nanos)
