"""What association thinks in: tracklets with corrected times, identities, and the interface of
whoever decides which belong together.

Times are server's UTC where the boot's clock is known, else the box's own with its uncertainty.
No thread, no clock, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from reid.site_map import MapCard
from reid.v1.query_pb2 import (
    TRACKLET_STATE_ENDED,
    TRACKLET_STATE_INTERRUPTED,
    TRACKLET_STATE_LIVE,
    TrackletState,
    TrackletSummary,
)
from reid.v1.sighting_pb2 import TIME_SOURCE_FILE, TIME_SOURCE_GIVEN, CaptureTime

Floats = npt.NDArray[np.float32]


class State(IntEnum):
    """How a tracklet stands; the numbers are those of reid.v1.TrackletState."""

    LIVE = 1
    ENDED = 2
    INTERRUPTED = 3


_WIRE: Mapping[State, TrackletState] = {
    State.LIVE: TRACKLET_STATE_LIVE,
    State.ENDED: TRACKLET_STATE_ENDED,
    State.INTERRUPTED: TRACKLET_STATE_INTERRUPTED,
}


@dataclass(slots=True)
class Vectors:
    """Embeddings of one tracklet in one space.

    Attributes:
        shots: (n, d) float32, rows of unit length, best first.
        qualities: (n,) float32, 0..1.
        centre: (d,) float32 of unit length: mean of the shots weighted by quality.
    """

    shots: Floats
    qualities: Floats
    centre: Floats

    @classmethod
    def of(cls, shots: Floats, qualities: Floats) -> Vectors:
        """Vectors with their centre."""
        # A crop judged worthless still says something; without a floor one bad shot says nothing.
        weights = np.maximum(qualities, np.float32(0.05))[:, None]
        centre = (shots * weights).sum(axis=0)
        return cls(shots, qualities, centre / max(float(np.linalg.norm(centre)), 1e-12))


@dataclass(slots=True)
class Tracklet:
    """One person in one camera without a break, at its highest revision.

    Attributes:
        number: of the row in identities.db; names it in indexes.
        first_ns, last_ns: corrected UTC.
        uncertainty_ns: of those two.
        plausible: its times can be true; else it is kept and not associated.
        seen_with: tracklets seen in the same frames: other people.
        stored: vectors as the ledger has them, by space_id.
        vectors: the same in the spaces that they are compared in (matcher.derived).
        inside: by space_id, pairs of its own embeddings with mean and variance of similarity.
        pinned: a person decided; nothing is changed without a person.
        committed_ns, seen_ns, position: of the last entry of the log about it.
        shot_count: shots with embeddings, also where the vectors are not loaded.
    """

    tracklet_id: str
    number: int
    site: str
    edge_id: str
    camera: str
    revision: int = 0
    state: State = State.LIVE
    first_seen: CaptureTime = field(default_factory=CaptureTime)
    last_seen: CaptureTime = field(default_factory=CaptureTime)
    first_ns: int = 0
    last_ns: int = 0
    uncertainty_ns: int = 0
    plausible: bool = True
    seen_with: set[str] = field(default_factory=set)
    stored: dict[str, Vectors] = field(default_factory=dict)
    vectors: dict[str, Vectors] = field(default_factory=dict)
    inside: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    identity_id: str = ""
    probability: float = 0.0
    similarity: float = 0.0
    pinned: bool = False
    committed_ns: int = 0
    seen_ns: int = 0
    position: int = 0
    shot_count: int = 0

    @property
    def place(self) -> str:
        """Its box and camera: EDGE/CAMERA."""
        return f"{self.edge_id}/{self.camera}"

    @property
    def writer_id(self) -> str:
        """The writer that named it."""
        return self.tracklet_id.rpartition("/")[0]

    @property
    def monotonic(self) -> tuple[str, int, int] | None:
        """Boot, first and last seen on its clock; None for files, whose frames were not exposed
        when they were read."""
        first, last = self.first_seen, self.last_seen
        if first.source in (TIME_SOURCE_FILE, TIME_SOURCE_GIVEN):
            return None
        if not first.monotonic_nanos or not last.monotonic_nanos or first.boot_id != last.boot_id:
            return None
        return first.boot_id, first.monotonic_nanos, last.monotonic_nanos

    def summary(self) -> TrackletSummary:
        """As the wire shows it."""
        return TrackletSummary(
            tracklet_id=self.tracklet_id,
            site=self.site,
            edge_id=self.edge_id,
            camera=self.camera,
            revision=self.revision,
            state=_WIRE[self.state],
            first_seen=self.first_seen,
            last_seen=self.last_seen,
            identity_id=self.identity_id,
            probability=self.probability,
            shots=self.shot_count,
            first_seen_unix_nanos=self.first_ns,
            last_seen_unix_nanos=self.last_ns,
        )


@dataclass(slots=True)
class Identity:
    """One pseudonymous person.

    Attributes:
        members: its tracklets' ids.
        committed_ns: when the log last told of one of its tracklets: its life is counted from it.
    """

    identity_id: str
    site: str
    members: dict[str, None] = field(default_factory=dict)
    first_ns: int = 0
    last_ns: int = 0
    committed_ns: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a tracklet belongs.

    Attributes:
        identity_id: an existing identity; empty: one of its own.
        similarity: what decided, -1..1; 0 where nothing did.
        probability: 0..1; 0: not known.
        displaced: members of that identity that cannot be the same person and fit it less; they
            are taken out and placed anew.
    """

    identity_id: str = ""
    similarity: float = 0.0
    probability: float = 0.0
    displaced: tuple[str, ...] = ()


class LiveWindow(Protocol):
    """What a decider may look at."""

    def candidates(
        self, tracklet: Tracklet, least: Callable[[str], float]
    ) -> Iterable[tuple[Tracklet, float]]:
        """Placed tracklets of the site whose centre is similar enough in a shared space, most
        similar first; the tracklet itself is not among them. `least`: by space_id."""

    def members(self, identity_id: str) -> list[Tracklet]:
        """Tracklets of an identity."""


class Associator(Protocol):
    """Decides which identity a tracklet belongs to. Same calls, same answers: the log is read again
    from zero after a loss, and must lead to the same identities."""

    def place(self, tracklet: Tracklet, window: LiveWindow) -> Placement:
        """Decide for a tracklet that has vectors and plausible times.

        Called at its first evidence and whenever its evidence changed.
        """

    def threshold(self, space_id: str) -> float:
        """The similarity in force where nothing is calibrated."""

    def adopt(self, card: MapCard) -> None:
        """A derived space came into force: its threshold is its parent's, as the card says."""
