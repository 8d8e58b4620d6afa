"""What the log's entries do to tracklets and identities.

Promise: the state after an entry depends on the entries up to it and on nothing else, so reading
the log again from zero gives the same identities and the same events. All is in memory for the live
window (`live`); the owner makes its changes durable together with the position. Called from the
association thread only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import numpy as np

from matcher.associate.calibrate import Calibration, Running
from matcher.associate.live import Live
from matcher.associate.model import (
    Associator,
    Floats,
    Identity,
    Placement,
    State,
    Tracklet,
    Vectors,
)
from matcher.associate.recent import RecentByBox
from matcher.clocks import ClockEstimate
from matcher.derived import DerivedSpaces, MapInForce, map_in
from matcher.log import Entry
from matcher.schema import EntryKind
from matcher.times import corrected, estimate_for
from reid.codec import decode
from reid.v1.query_pb2 import (
    IDENTITY_EVENT_KIND_EXPIRED,
    IDENTITY_EVENT_KIND_JOINED,
    IDENTITY_EVENT_KIND_SPLIT,
)
from reid.v1.sighting_pb2 import Sighting

MAX_REPLACED = 4  # displaced tracklets placed anew in one go; further ones get their own identity
BOOTS_KEPT = 64  # clocks of one box: sightings of older boots keep the box's own UTC
WRITERS_KEPT = 1024  # ended writers of one box: as many as its spool remembers
EXPIRY_STEP_NS = 10_000_000_000  # how often, by the log's own time, ends of life are looked for


class Engine:
    """Tracklets and identities of the live window. See the module's text.

    Attributes:
        live: tracklets and identities of the live window.
        clocks: (site, edge_id, boot_id) -> estimate.
        ended_writers: (site, edge_id, writer_id) of which nothing more will come.
        calibration: running similarities of certain pairs.
        derived: the sites' maps in force.
    """

    def __init__(
        self,
        *,
        associator: Associator,
        salt: str,
        identity_life_ns: int,
        load_tracklet: Callable[[str], Tracklet | None],
        next_number: int = 1,
    ) -> None:
        """
        Args:
            salt: of this ledger; makes identity ids meaningless outside it.
            identity_life_ns: after its last sighting, where a site has no setting of its own.
            load_tracklet: finds a tracklet that left the live window.
            next_number: first free Tracklet.number.
        """
        self._associator = associator
        self._life_ns = identity_life_ns
        self._load = load_tracklet
        self._next_number = next_number
        self.live = Live(salt=salt)
        self.clocks = RecentByBox[ClockEstimate](kept=BOOTS_KEPT)
        self.calibration = Calibration()
        self.derived = DerivedSpaces()
        self.ended_writers = RecentByBox[bool](kept=WRITERS_KEPT)
        self.retention: dict[str, int] = {}

    def apply(self, entry: Entry) -> None:
        """Do what one entry of the log says."""
        before_ns = self.live.log_time_ns
        self.live.begin(entry.position, entry.committed_ns)
        match entry.kind:
            case EntryKind.SIGHTING:
                self._sighting(entry)
            case EntryKind.WRITER_ENDED:
                self._writer_ended(entry)
            case EntryKind.CLOCK:
                self._clock(entry)
            case EntryKind.MERGE:
                body = json.loads(entry.body)
                self.live.merge(body["identity_id"], body["other_identity_id"], by_person=True)
            case EntryKind.SPLIT:
                body = json.loads(entry.body)
                self.live.split(body["identity_id"], body["tracklet_ids"])
            case EntryKind.FORGET:
                body = json.loads(entry.body)
                self.live.forget(entry.site, body["identity_id"], body["tracklet_ids"])
            case EntryKind.RETENTION:
                self.retention[entry.site] = round(json.loads(entry.body)["identity_s"] * 1e9)
                self.live.changes.retention[entry.site] = self.retention[entry.site]
            case EntryKind.MAP:
                found = map_in(entry.body)
                self.put_map(entry.site, found)
                self.live.compare_anew(entry.site, self.derived)
                self.live.changes.maps[entry.site] = None if found is None else entry.body
            case EntryKind.TICK:
                pass  # only the time of the log moves
        # By round instants of the log's time, so that a restart in between changes nothing.
        if self.live.log_time_ns // EXPIRY_STEP_NS != before_ns // EXPIRY_STEP_NS:
            self._expire()

    def put_map(self, site: str, found: MapInForce | None) -> None:
        """A site's map, at its entry or as it was made durable; before tracklets are restored."""
        self.derived.put(site, found)
        if found is not None:
            self._associator.adopt(found.card)

    def restore(self, tracklets: Iterable[Tracklet], identities: Iterable[Identity]) -> None:
        """Take the live window as it was made durable."""
        self.live.restore((self._compared(one) for one in tracklets), identities)

    def _compared(self, tracklet: Tracklet) -> Tracklet:
        tracklet.vectors = self.derived.compared(tracklet.site, tracklet.place, tracklet.stored)
        return tracklet

    def _sighting(self, entry: Entry) -> None:
        sighting = Sighting.FromString(entry.body)
        tracklet = self._tracklet(sighting)
        tracklet.committed_ns = entry.committed_ns
        tracklet.seen_ns = max(tracklet.seen_ns, entry.seen_ns)
        tracklet.position = entry.position
        news = set(sighting.seen_with) - tracklet.seen_with - {sighting.tracklet_id}
        tracklet.seen_with |= news
        self.live.changes.tracklets[tracklet.tracklet_id] = tracklet
        if sighting.revision <= tracklet.revision:
            self._certain_negatives(tracklet, news)
            return
        tracklet.revision = sighting.revision
        if sighting.final:
            tracklet.state = State.ENDED
        elif (tracklet.site, tracklet.edge_id, tracklet.writer_id) in self.ended_writers:
            tracklet.state = State.INTERRUPTED
        self._set_times(tracklet, sighting, entry)
        self._set_vectors(tracklet, sighting)
        self._certain_negatives(tracklet, news)
        if tracklet.vectors and tracklet.plausible and not tracklet.pinned:
            self._place(tracklet, MAX_REPLACED)
        identity = self.live.identities.get(tracklet.identity_id)
        if identity is not None:
            self.live.touch(identity, tracklet)

    def _tracklet(self, sighting: Sighting) -> Tracklet:
        known = self.live.tracklets.get(sighting.tracklet_id)
        if known is not None:
            return known
        known = self._load(sighting.tracklet_id)
        if known is None:
            known = Tracklet(
                sighting.tracklet_id,
                self._next_number,
                sighting.site,
                sighting.edge_id,
                sighting.camera,
            )
            self._next_number += 1
        elif known.identity_id and known.identity_id not in self.live.identities:
            known.identity_id = ""  # its identity's life is over
            known.stored = {}
        self.live.enter(self._compared(known))
        return known

    def _set_times(self, tracklet: Tracklet, sighting: Sighting, entry: Entry) -> None:
        tracklet.first_seen.CopyFrom(sighting.first_seen)
        tracklet.last_seen.CopyFrom(sighting.last_seen)
        times = []
        for time in (sighting.first_seen, sighting.last_seen):
            estimate = estimate_for(time, self.clocks, entry.site, entry.edge_id)
            times.append(corrected(time, estimate, entry.committed_ns))
        (first, first_doubt, first_good), (last, last_doubt, last_good) = times
        tracklet.first_ns, tracklet.last_ns = first, max(first, last)
        tracklet.uncertainty_ns = max(first_doubt, last_doubt)
        tracklet.plausible = first_good and last_good

    def _set_vectors(self, tracklet: Tracklet, sighting: Sighting) -> None:
        shots: dict[str, list[tuple[np.ndarray, float]]] = {}
        for shot in sighting.shots:
            for embedding in shot.embeddings:
                shots.setdefault(embedding.space_id, []).append((decode(embedding), shot.quality))
        for space_id, found in shots.items():
            tracklet.stored[space_id] = Vectors.of(
                np.stack([vector for vector, _ in found]),
                np.array([quality for _, quality in found], np.float32),
            )
        self._compared(tracklet)
        tracklet.shot_count = len(sighting.shots)
        for entry in sighting.statistics:
            if entry.count >= 2:
                pairs = entry.count * (entry.count - 1) // 2
                self._positives(
                    tracklet,
                    entry.space_id,
                    (pairs, float(entry.similarity_mean), float(entry.similarity_variance)),
                )
        for space_id, vectors in sorted(tracklet.vectors.items()):
            if space_id not in tracklet.stored and len(vectors.shots) >= 2:
                self._positives(tracklet, space_id, _among(vectors.shots))
        if tracklet.identity_id:
            self.live.index(tracklet)

    def _positives(self, tracklet: Tracklet, space_id: str, new: tuple[int, float, float]) -> None:
        """Count the similarities inside a tracklet: of the box in its own spaces, else of shots."""
        old = tracklet.inside.get(space_id)
        self.calibration.positive(
            tracklet.site,
            space_id,
            tracklet.place,
            _running(new),
            None if old is None else _running(old),
        )
        tracklet.inside[space_id] = new

    def _certain_negatives(self, tracklet: Tracklet, news: set[str]) -> None:
        for other_id in sorted(news):
            other = self.live.tracklets.get(other_id)
            if other is None or tracklet.tracklet_id in other.seen_with:
                continue  # unknown, or counted when it told of us
            for space_id in sorted(tracklet.vectors.keys() & other.vectors.keys()):
                similarity = float(
                    tracklet.vectors[space_id].centre @ other.vectors[space_id].centre
                )
                self.calibration.negative(
                    tracklet.site,
                    space_id,
                    tracklet.place,
                    other.place,
                    similarity,
                )

    def _clock(self, entry: Entry) -> None:
        estimate = ClockEstimate.from_dict(json.loads(entry.body))
        name = (entry.site, entry.edge_id, estimate.boot_id)
        self.live.changes.clocks.pop(name, None)  # what is put again is the last
        self.live.changes.clocks[name] = estimate
        for gone in self.clocks.put(name, estimate):
            self.live.changes.clocks[gone] = None

    def _writer_ended(self, entry: Entry) -> None:
        writer_id = str(json.loads(entry.body)["writer_id"])
        name = (entry.site, entry.edge_id, writer_id)
        self.live.changes.ended_writers.pop(name, None)
        self.live.changes.ended_writers[name] = True
        for gone in self.ended_writers.put(name, True):
            self.live.changes.ended_writers[gone] = False
        for tracklet in self.live.tracklets.values():
            if tracklet.state is State.LIVE and tracklet.writer_id == writer_id:
                tracklet.state = State.INTERRUPTED
                self.live.changes.tracklets[tracklet.tracklet_id] = tracklet

    def _place(self, tracklet: Tracklet, replace: int) -> None:
        """Ask the decider, and do what it says."""
        current = self.live.identities.get(tracklet.identity_id)
        if current is not None and self._settled(tracklet, current):
            return
        placement = self._associator.place(tracklet, self.live)
        if current is not None:
            self._move(tracklet, current, placement)
            return
        displaced = []
        for other_id in placement.displaced:
            other = self.live.tracklets[other_id]
            self.live.leave(other)
            displaced.append(other)
        tracklet.similarity = placement.similarity
        tracklet.probability = placement.probability
        if placement.identity_id:
            self.live.join(tracklet, self.live.identities[placement.identity_id])
            self.live.tell(IDENTITY_EVENT_KIND_JOINED, tracklet.identity_id, tracklet)
        else:
            self.live.found(tracklet)
        for other in displaced:
            self._displace(other, tracklet.identity_id, replace)

    def _displace(self, other: Tracklet, from_identity: str, replace: int) -> None:
        """Find a new place for a tracklet that gave way to one that fits better."""
        placement = self._associator.place(other, self.live) if replace > 0 else None
        target = placement.identity_id if placement is not None else ""
        if (
            placement is not None
            and target
            and target != from_identity
            and (not placement.displaced)
        ):
            other.similarity = placement.similarity
            self.live.join(other, self.live.identities[target])
        else:
            other.similarity = 0.0
            self.live.join(other, self.live.new_identity(other, f"displaced/{self.live.position}"))
        self.live.tell(
            IDENTITY_EVENT_KIND_SPLIT, from_identity, other, other_identity=other.identity_id
        )

    def _settled(self, tracklet: Tracklet, current: Identity) -> bool:
        """A tracklet stays where others are with it, unless that is certainly wrong; one that is
        alone may still find the identity it belongs to."""
        if len(current.members) == 1:
            return False
        others = [one for one in self.live.members(current.identity_id) if one is not tracklet]
        wrong = any(
            one.tracklet_id in tracklet.seen_with or tracklet.tracklet_id in one.seen_with
            for one in others
        )
        if not wrong:
            return True
        self.live.leave(tracklet)
        self._tell_left(tracklet, current)
        return False

    def _tell_left(self, tracklet: Tracklet, left: Identity) -> None:
        tracklet.similarity = 0.0
        self.live.join(tracklet, self.live.new_identity(tracklet, f"left/{self.live.position}"))
        self.live.tell(
            IDENTITY_EVENT_KIND_SPLIT,
            left.identity_id,
            tracklet,
            other_identity=tracklet.identity_id,
        )

    def _move(self, tracklet: Tracklet, current: Identity, placement: Placement) -> None:
        """A tracklet that was alone found its identity: fold its own into that."""
        target = placement.identity_id
        alone = self.live.identities.get(tracklet.identity_id)
        if not target or placement.displaced or alone is None or target == alone.identity_id:
            return
        if len(alone.members) != 1 or target == current.identity_id:
            return
        tracklet.similarity = placement.similarity
        tracklet.probability = placement.probability
        self.live.merge(target, alone.identity_id, by_person=False)

    def _expire(self) -> None:
        self.live.expired_ns = self.live.log_time_ns
        for identity in list(self.live.identities.values()):
            life = self._life(identity.site)
            if self.live.log_time_ns - identity.committed_ns <= life:
                continue
            for tracklet in self.live.members(identity.identity_id):
                self.live.drop_tracklet(tracklet)
            self.live.drop_identity(identity, expired=True)
            self.live.tell(
                IDENTITY_EVENT_KIND_EXPIRED, identity.identity_id, None, site=identity.site
            )
        for tracklet in list(self.live.tracklets.values()):
            life = self._life(tracklet.site)
            if not tracklet.identity_id and self.live.log_time_ns - tracklet.committed_ns > life:
                self.live.drop_tracklet(tracklet)

    def _life(self, site: str) -> int:
        return self.retention.get(site, self.retention.get("", self._life_ns))


def _running(inside: tuple[int, float, float]) -> Running:
    pairs, mean, variance = inside
    return Running(pairs, mean, variance * max(pairs - 1, 0))


def _among(shots: Floats) -> tuple[int, float, float]:
    """Count, mean and variance of the similarities of the pairs of (n, d) shots, n >= 2."""
    rows, columns = np.triu_indices(len(shots), 1)
    similarities = (shots @ shots.T)[rows, columns].astype(np.float64)
    variance = float(similarities.var(ddof=1)) if len(similarities) > 1 else 0.0
    return len(similarities), float(similarities.mean()), variance
