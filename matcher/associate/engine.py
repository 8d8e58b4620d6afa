"""What the log's entries do to tracklets and identities.

Promise: the state after an entry depends on the entries up to it and on nothing else, so reading
the log again from zero gives the same identities and the same events. All is in memory for the live
window; what changed is handed out by `take_changes` and made durable by the owner together with the
position. Called from the association thread only; the vector indexes may be searched from others.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from matcher.associate.calibrate import Calibration, Running
from matcher.associate.model import Associator, Identity, Placement, State, Tracklet, Vectors
from matcher.clocks import ClockEstimate
from matcher.index import VectorIndex
from matcher.log import Entry
from matcher.schema import EntryKind
from matcher.times import corrected, estimate_for
from reid.codec import decode
from reid.v1.query_pb2 import (
    IDENTITY_EVENT_KIND_CREATED,
    IDENTITY_EVENT_KIND_EXPIRED,
    IDENTITY_EVENT_KIND_FORGOTTEN,
    IDENTITY_EVENT_KIND_JOINED,
    IDENTITY_EVENT_KIND_MERGED,
    IDENTITY_EVENT_KIND_SPLIT,
    IdentityEventKind,
    WatchResponse,
)
from reid.v1.sighting_pb2 import Sighting

EVENTS_PER_ENTRY = 1 << 16  # positions of events: position of the entry times this, plus a count
MAX_REPLACED = 4  # displaced tracklets placed anew in one go; further ones get their own identity
EXPIRY_STEP_NS = 10_000_000_000  # how often, by the log's own time, ends of life are looked for


@dataclass(slots=True)
class Changes:
    """What became different since the last call.

    Attributes:
        tracklets, identities: to be written.
        gone_tracklets, gone_identities: to be deleted.
        events: (site, message), in order.
        clocks: (site, edge_id, estimate).
        ended_writers: writers of which nothing more will come.
        retention: site -> identity life, nanoseconds.
    """

    tracklets: dict[str, Tracklet] = field(default_factory=dict)
    identities: dict[str, Identity] = field(default_factory=dict)
    gone_tracklets: set[str] = field(default_factory=set)
    gone_identities: set[str] = field(default_factory=set)
    events: list[tuple[str, WatchResponse]] = field(default_factory=list)
    clocks: dict[tuple[str, str, str], ClockEstimate] = field(default_factory=dict)
    ended_writers: set[str] = field(default_factory=set)
    retention: dict[str, int] = field(default_factory=dict)
    log_time_ns: int = 0


class Engine:
    """Tracklets and identities of the live window. See the module's text.

    Attributes:
        tracklets, identities: what is live, by id.
        clocks: (site, edge_id, boot_id) -> estimate.
        calibration: running similarities of certain pairs.
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
        self._salt = salt
        self._life_ns = identity_life_ns
        self._load = load_tracklet
        self._next_number = next_number
        self.tracklets: dict[str, Tracklet] = {}
        self.identities: OrderedDict[str, Identity] = OrderedDict()  # least recent first
        self.clocks: dict[tuple[str, str, str], ClockEstimate] = {}
        self.calibration = Calibration()
        self.ended_writers: set[str] = set()
        self.retention: dict[str, int] = {}
        self.log_time_ns = 0
        self._expired_at_ns = 0
        self._by_number: dict[int, Tracklet] = {}
        self.indexes: dict[tuple[str, str], VectorIndex] = {}  # (site, space_id) -> centres
        self._changes = Changes()
        self._position = 0
        self._event = 0

    # --- for the owner ----------------------------------------------------------------------------

    def restore(self, tracklets: Iterable[Tracklet], identities: Iterable[Identity]) -> None:
        """Take the live window as it was made durable."""
        for identity in sorted(identities, key=lambda one: (one.committed_ns, one.identity_id)):
            self.identities[identity.identity_id] = identity
        for tracklet in tracklets:
            self._enter(tracklet)

    def take_changes(self) -> Changes:
        """What changed since the last call."""
        changes, self._changes = self._changes, Changes()
        changes.log_time_ns = self.log_time_ns
        return changes

    def apply(self, entry: Entry) -> None:
        """Do what one entry of the log says."""
        self._position = entry.position
        self._event = 0
        self.log_time_ns = max(self.log_time_ns, entry.committed_ns)
        match entry.kind:
            case EntryKind.SIGHTING:
                self._sighting(entry)
            case EntryKind.WRITER_ENDED:
                self._writer_ended(str(json.loads(entry.body)["writer_id"]))
            case EntryKind.CLOCK:
                estimate = ClockEstimate.from_dict(json.loads(entry.body))
                name = (entry.site, entry.edge_id, estimate.boot_id)
                self.clocks[name] = self._changes.clocks[name] = estimate
            case EntryKind.MERGE:
                body = json.loads(entry.body)
                self._merge(body["identity_id"], body["other_identity_id"], by_person=True)
            case EntryKind.SPLIT:
                body = json.loads(entry.body)
                self._split(body["identity_id"], body["tracklet_ids"])
            case EntryKind.FORGET:
                body = json.loads(entry.body)
                self._forget(entry.site, body["identity_id"], body["tracklet_ids"])
            case EntryKind.RETENTION:
                self.retention[entry.site] = round(json.loads(entry.body)["identity_s"] * 1e9)
                self._changes.retention[entry.site] = self.retention[entry.site]
            case EntryKind.TICK:
                pass  # only the time of the log moves
        self._expire()

    # --- what a decider may look at (LiveWindow) --------------------------------------------------

    def candidates(self, tracklet: Tracklet, least: float) -> Iterator[tuple[Tracklet, float]]:
        """See LiveWindow."""
        found: dict[int, float] = {}
        for space_id, vectors in sorted(tracklet.vectors.items()):
            index = self.indexes.get((tracklet.site, space_id))
            if index is None:
                continue
            owners, similarities = index.search(vectors.centre[None, :], least=least)
            for owner, similarity in zip(owners.tolist(), similarities.tolist(), strict=True):
                found[owner] = max(similarity, found.get(owner, -1.0))
        found.pop(tracklet.number, None)
        for owner, similarity in sorted(found.items(), key=lambda item: (-item[1], item[0])):
            yield self._by_number[owner], similarity

    def members(self, identity_id: str) -> list[Tracklet]:
        """See LiveWindow."""
        identity = self.identities.get(identity_id)
        if identity is None:
            return []
        return [self.tracklets[one] for one in identity.members if one in self.tracklets]

    # --- entries ----------------------------------------------------------------------------------

    def _sighting(self, entry: Entry) -> None:
        sighting = Sighting.FromString(entry.body)
        tracklet = self._tracklet(sighting)
        tracklet.committed_ns = entry.committed_ns
        tracklet.seen_ns = max(tracklet.seen_ns, entry.seen_ns)
        tracklet.position = entry.position
        news = set(sighting.seen_with) - tracklet.seen_with - {sighting.tracklet_id}
        tracklet.seen_with |= news
        self._changes.tracklets[tracklet.tracklet_id] = tracklet
        if sighting.revision <= tracklet.revision:
            self._certain_negatives(tracklet, news)
            return
        tracklet.revision = sighting.revision
        if sighting.final:
            tracklet.state = State.ENDED
        elif tracklet.writer_id in self.ended_writers:
            tracklet.state = State.INTERRUPTED
        self._set_times(tracklet, sighting, entry)
        self._set_vectors(tracklet, sighting)
        self._certain_negatives(tracklet, news)
        if tracklet.vectors and tracklet.plausible and not tracklet.pinned:
            self._place(tracklet, MAX_REPLACED)
        identity = self.identities.get(tracklet.identity_id)
        if identity is not None:
            self._touch(identity, tracklet)

    def _tracklet(self, sighting: Sighting) -> Tracklet:
        known = self.tracklets.get(sighting.tracklet_id)
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
        elif known.identity_id not in self.identities:
            known.identity_id = ""  # its identity's life is over
            known.vectors.clear()
        self._enter(known)
        return known

    def _enter(self, tracklet: Tracklet) -> None:
        self.tracklets[tracklet.tracklet_id] = tracklet
        self._by_number[tracklet.number] = tracklet
        if tracklet.identity_id:
            self._index(tracklet)

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
            tracklet.vectors[space_id] = Vectors.of(
                np.stack([vector for vector, _ in found]),
                np.array([quality for _, quality in found], np.float32),
            )
        tracklet.shot_count = len(sighting.shots)
        for entry in sighting.statistics:
            if entry.count < 2:
                continue
            pairs = entry.count * (entry.count - 1) // 2
            new = (pairs, float(entry.similarity_mean), float(entry.similarity_variance))
            old = tracklet.inside.get(entry.space_id)
            self.calibration.positive(
                tracklet.site,
                entry.space_id,
                f"{tracklet.edge_id}/{tracklet.camera}",
                _running(new),
                None if old is None else _running(old),
            )
            tracklet.inside[entry.space_id] = new
        if tracklet.identity_id:
            self._index(tracklet)

    def _certain_negatives(self, tracklet: Tracklet, news: set[str]) -> None:
        for other_id in sorted(news):
            other = self.tracklets.get(other_id)
            if other is None or tracklet.tracklet_id in other.seen_with:
                continue  # unknown, or counted when it told of us
            for space_id in sorted(tracklet.vectors.keys() & other.vectors.keys()):
                similarity = float(
                    tracklet.vectors[space_id].centre @ other.vectors[space_id].centre
                )
                self.calibration.negative(
                    tracklet.site,
                    space_id,
                    f"{tracklet.edge_id}/{tracklet.camera}",
                    f"{other.edge_id}/{other.camera}",
                    similarity,
                )

    def _writer_ended(self, writer_id: str) -> None:
        self.ended_writers.add(writer_id)
        self._changes.ended_writers.add(writer_id)
        for tracklet in self.tracklets.values():
            if tracklet.state is State.LIVE and tracklet.writer_id == writer_id:
                tracklet.state = State.INTERRUPTED
                self._changes.tracklets[tracklet.tracklet_id] = tracklet

    # --- placing ----------------------------------------------------------------------------------

    def _place(self, tracklet: Tracklet, replace: int) -> None:
        """Ask the decider, and do what it says."""
        current = self.identities.get(tracklet.identity_id)
        if current is not None and self._settled(tracklet, current):
            return
        placement = self._associator.place(tracklet, self)
        if current is not None:
            self._move(tracklet, current, placement)
            return
        displaced = []
        for other_id in placement.displaced:
            other = self.tracklets[other_id]
            self._leave(other)
            displaced.append(other)
        tracklet.similarity = placement.similarity
        tracklet.probability = placement.probability
        if placement.identity_id:
            self._join(tracklet, self.identities[placement.identity_id])
            self._tell(IDENTITY_EVENT_KIND_JOINED, tracklet.identity_id, tracklet)
        else:
            self._found(tracklet)
        for other in displaced:
            self._displace(other, tracklet.identity_id, replace)

    def _displace(self, other: Tracklet, from_identity: str, replace: int) -> None:
        """Find a new place for a tracklet that gave way to one that fits better."""
        placement = self._associator.place(other, self) if replace > 0 else None
        target = placement.identity_id if placement is not None else ""
        if (
            placement is not None
            and target
            and target != from_identity
            and (not placement.displaced)
        ):
            other.similarity = placement.similarity
            self._join(other, self.identities[target])
        else:
            other.similarity = 0.0
            self._join(other, self._new_identity(other, f"displaced/{self._position}"))
        self._tell(
            IDENTITY_EVENT_KIND_SPLIT, from_identity, other, other_identity=other.identity_id
        )

    def _settled(self, tracklet: Tracklet, current: Identity) -> bool:
        """A tracklet stays where others are with it, unless that is certainly wrong; one that is
        alone may still find the identity it belongs to."""
        if len(current.members) == 1:
            return False
        others = [one for one in self.members(current.identity_id) if one is not tracklet]
        wrong = any(
            one.tracklet_id in tracklet.seen_with or tracklet.tracklet_id in one.seen_with
            for one in others
        )
        if not wrong:
            return True
        self._leave(tracklet)
        self._tell_left(tracklet, current)
        return False

    def _tell_left(self, tracklet: Tracklet, left: Identity) -> None:
        tracklet.similarity = 0.0
        self._join(tracklet, self._new_identity(tracklet, f"left/{self._position}"))
        self._tell(
            IDENTITY_EVENT_KIND_SPLIT,
            left.identity_id,
            tracklet,
            other_identity=tracklet.identity_id,
        )

    def _move(self, tracklet: Tracklet, current: Identity, placement: Placement) -> None:
        """A tracklet that was alone found its identity: fold its own into that."""
        target = placement.identity_id
        alone = self.identities.get(tracklet.identity_id)
        if not target or placement.displaced or alone is None or target == alone.identity_id:
            return
        if len(alone.members) != 1 or target == current.identity_id:
            return
        tracklet.similarity = placement.similarity
        tracklet.probability = placement.probability
        self._merge(target, alone.identity_id, by_person=False)

    def _found(self, tracklet: Tracklet) -> None:
        identity = self._new_identity(tracklet, "")
        self._join(tracklet, identity)
        self._tell(IDENTITY_EVENT_KIND_CREATED, identity.identity_id, tracklet)

    def _new_identity(self, tracklet: Tracklet, reason: str) -> Identity:
        text = f"{self._salt}/{tracklet.tracklet_id}/{reason}"
        identity_id = hashlib.sha256(text.encode()).hexdigest()[:32]
        if identity_id in self.identities:  # the same tracklet founded one before
            text = f"{text}/{self._position}/{self._event}"
            identity_id = hashlib.sha256(text.encode()).hexdigest()[:32]
        identity = Identity(identity_id, tracklet.site)
        self.identities[identity_id] = identity
        return identity

    def _join(self, tracklet: Tracklet, identity: Identity) -> None:
        tracklet.identity_id = identity.identity_id
        identity.members[tracklet.tracklet_id] = None
        self._changes.tracklets[tracklet.tracklet_id] = tracklet
        self._touch(identity, tracklet)
        self._index(tracklet)

    def _leave(self, tracklet: Tracklet) -> None:
        identity = self.identities.get(tracklet.identity_id)
        tracklet.identity_id = ""
        self._changes.tracklets[tracklet.tracklet_id] = tracklet
        if identity is None:
            return
        identity.members.pop(tracklet.tracklet_id, None)
        if identity.members:
            self._set_span(identity)
        else:
            self._drop_identity(identity)

    def _touch(self, identity: Identity, tracklet: Tracklet) -> None:
        first = min(identity.first_ns or tracklet.first_ns, tracklet.first_ns)
        identity.first_ns, identity.last_ns = first, max(identity.last_ns, tracklet.last_ns)
        identity.committed_ns = max(identity.committed_ns, tracklet.committed_ns)
        self.identities.move_to_end(identity.identity_id)
        self._changes.identities[identity.identity_id] = identity

    def _set_span(self, identity: Identity) -> None:
        members = self.members(identity.identity_id)
        identity.first_ns = min((one.first_ns for one in members), default=identity.first_ns)
        identity.last_ns = max((one.last_ns for one in members), default=identity.last_ns)
        self._changes.identities[identity.identity_id] = identity

    def _index(self, tracklet: Tracklet) -> None:
        for space_id, vectors in tracklet.vectors.items():
            name = (tracklet.site, space_id)
            index = self.indexes.get(name)
            if index is None:
                index = self.indexes[name] = VectorIndex(len(vectors.centre))
            if index.dimension == len(vectors.centre):
                index.put(tracklet.number, vectors.centre[None, :])

    # --- decisions of a person --------------------------------------------------------------------

    def _merge(self, stays: str, goes: str, *, by_person: bool) -> None:
        target, other = self.identities.get(stays), self.identities.get(goes)
        if target is None or other is None or target is other or target.site != other.site:
            return
        for tracklet_id in list(other.members):
            tracklet = self.tracklets[tracklet_id]
            tracklet.pinned = tracklet.pinned or by_person
            self._join(tracklet, target)
        other.members.clear()
        self._drop_identity(other)
        self._tell(IDENTITY_EVENT_KIND_MERGED, stays, None, other_identity=goes)

    def _split(self, identity_id: str, tracklet_ids: list[str]) -> None:
        identity = self.identities.get(identity_id)
        if identity is None:
            return
        leaving = [one for one in tracklet_ids if one in identity.members]
        if not leaving or len(leaving) == len(identity.members):
            return
        new: Identity | None = None
        for tracklet_id in leaving:
            tracklet = self.tracklets[tracklet_id]
            if new is None:
                new = self._identity_named(split_identity_id(self._salt, self._position), identity)
            self._leave(tracklet)
            tracklet.pinned = True
            tracklet.similarity = 0.0
            self._join(tracklet, new)
        if new is not None:
            self._tell(IDENTITY_EVENT_KIND_SPLIT, identity_id, None, other_identity=new.identity_id)

    def _identity_named(self, identity_id: str, like: Identity) -> Identity:
        identity = Identity(identity_id, like.site, committed_ns=like.committed_ns)
        self.identities[identity_id] = identity
        return identity

    def _forget(self, site: str, identity_id: str, tracklet_ids: list[str]) -> None:
        for tracklet_id in tracklet_ids:
            tracklet = self.tracklets.get(tracklet_id)
            if tracklet is not None:
                self._leave(tracklet)
                self._drop_tracklet(tracklet)
            self._changes.tracklets.pop(tracklet_id, None)
            self._changes.gone_tracklets.add(tracklet_id)
        gone = set(tracklet_ids)
        self._changes.events = [
            event for event in self._changes.events if event[1].tracklet.tracklet_id not in gone
        ]
        identity = self.identities.get(identity_id)
        if identity is not None and not identity.members:
            self._drop_identity(identity)
        self._changes.gone_identities.add(identity_id)
        self._tell(IDENTITY_EVENT_KIND_FORGOTTEN, identity_id, None, site=site)

    # --- ends of life -----------------------------------------------------------------------------

    def _expire(self) -> None:
        if self.log_time_ns - self._expired_at_ns < EXPIRY_STEP_NS:
            return
        self._expired_at_ns = self.log_time_ns
        for identity in list(self.identities.values()):
            life = self._life(identity.site)
            if self.log_time_ns - identity.committed_ns <= life:
                continue
            for tracklet in self.members(identity.identity_id):
                self._drop_tracklet(tracklet)
            self._drop_identity(identity, expired=True)
            self._tell(IDENTITY_EVENT_KIND_EXPIRED, identity.identity_id, None, site=identity.site)
        for tracklet in list(self.tracklets.values()):
            life = self._life(tracklet.site)
            if not tracklet.identity_id and self.log_time_ns - tracklet.committed_ns > life:
                self._drop_tracklet(tracklet)

    def _life(self, site: str) -> int:
        return self.retention.get(site, self.retention.get("", self._life_ns))

    def _drop_tracklet(self, tracklet: Tracklet) -> None:
        """Take it out of the live window; its row stays until retention or Forget."""
        self.tracklets.pop(tracklet.tracklet_id, None)
        self._by_number.pop(tracklet.number, None)
        for space_id in tracklet.vectors:
            index = self.indexes.get((tracklet.site, space_id))
            if index is not None:
                index.remove(tracklet.number)

    def _drop_identity(self, identity: Identity, *, expired: bool = False) -> None:
        self.identities.pop(identity.identity_id, None)
        if not expired:
            self._changes.identities.pop(identity.identity_id, None)
            self._changes.gone_identities.add(identity.identity_id)

    # --- events -----------------------------------------------------------------------------------

    def _tell(
        self,
        kind: IdentityEventKind,
        identity_id: str,
        tracklet: Tracklet | None,
        *,
        other_identity: str = "",
        site: str = "",
    ) -> None:
        identity = self.identities.get(identity_id)
        message = WatchResponse(
            position=self._position * EVENTS_PER_ENTRY + min(self._event, EVENTS_PER_ENTRY - 1),
            kind=kind,
            identity_id=identity_id,
            other_identity_id=other_identity,
            probability=tracklet.probability if tracklet is not None else 0.0,
            similarity=tracklet.similarity if tracklet is not None else 0.0,
            decided_unix_nanos=self.log_time_ns,
        )
        if tracklet is not None:
            message.tracklet.CopyFrom(tracklet.summary())
            site = tracklet.site
        elif identity is not None:
            site = identity.site
        self._event += 1
        self._changes.events.append((site, message))


def split_identity_id(salt: str, position: int) -> str:
    """The id of the identity that a SPLIT entry at this position makes."""
    return hashlib.sha256(f"{salt}/split/{position}".encode()).hexdigest()[:32]


def _running(inside: tuple[int, float, float]) -> Running:
    pairs, mean, variance = inside
    return Running(pairs, mean, variance * max(pairs - 1, 0))
