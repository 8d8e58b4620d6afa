"""The live window: which tracklets and identities there are, and every change of who belongs where.

Promise: whatever changes is in `take_changes` and, where people should hear of it, an event with a
position made of the entry's and a count; ids of identities come from the ledger's salt and the
tracklet, so that they are the same in every replay. Decides nothing: the engine and its Associator
do. Called from the association thread only.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from matcher.associate.model import Identity, Tracklet
from matcher.clocks import ClockEstimate
from matcher.derived import DerivedSpaces
from matcher.index import VectorIndex
from reid.v1.query_pb2 import (
    IDENTITY_EVENT_KIND_CREATED,
    IDENTITY_EVENT_KIND_FORGOTTEN,
    IDENTITY_EVENT_KIND_MERGED,
    IDENTITY_EVENT_KIND_SPLIT,
    IdentityEventKind,
    WatchResponse,
)

EVENTS_PER_ENTRY = 1 << 16  # positions of events: position of the entry times this, plus a count


@dataclass(slots=True)
class Changes:
    """What became different since the last call.

    Attributes:
        tracklets, identities: to be written.
        gone_tracklets, gone_identities: to be deleted.
        events: (site, message), in order.
        clocks: (site, edge_id, boot_id) -> estimate; None: no longer kept.
        ended_writers: (site, edge_id, writer_id) -> whether it is kept.
        retention: site -> identity life, nanoseconds.
        maps: site -> body of the entry that took its map into force; None: none any more.
        log_time_ns, expired_ns: as in Live.
    """

    tracklets: dict[str, Tracklet] = field(default_factory=dict)
    identities: dict[str, Identity] = field(default_factory=dict)
    gone_tracklets: set[str] = field(default_factory=set)
    gone_identities: set[str] = field(default_factory=set)
    events: list[tuple[str, WatchResponse]] = field(default_factory=list)
    clocks: dict[tuple[str, str, str], ClockEstimate | None] = field(default_factory=dict)
    ended_writers: dict[tuple[str, str, str], bool] = field(default_factory=dict)
    retention: dict[str, int] = field(default_factory=dict)
    maps: dict[str, bytes | None] = field(default_factory=dict)
    log_time_ns: int = 0
    expired_ns: int = 0


class Live:
    """See the module's text.

    Attributes:
        tracklets, identities: what is live, by id; identities least recent first.
        indexes: (site, space_id) -> centres of placed tracklets, by Tracklet.number.
        changes: what became different since the last `take_changes`.
        position, log_time_ns: of the entry that is applied.
        expired_ns: the log's time when ends of life were last looked for.
    """

    def __init__(self, *, salt: str) -> None:
        self._salt = salt
        self.tracklets: dict[str, Tracklet] = {}
        self.identities: OrderedDict[str, Identity] = OrderedDict()
        self.indexes: dict[tuple[str, str], VectorIndex] = {}
        self.changes = Changes()
        self.position = 0
        self.log_time_ns = 0
        self.expired_ns = 0
        self._by_number: dict[int, Tracklet] = {}
        self._event = 0

    def begin(self, position: int, committed_ns: int) -> None:
        """An entry of the log is about to be applied."""
        self.position = position
        self.log_time_ns = max(self.log_time_ns, committed_ns)
        self._event = 0

    def restore(self, tracklets: Iterable[Tracklet], identities: Iterable[Identity]) -> None:
        """Take the live window as it was made durable."""
        for identity in sorted(identities, key=lambda one: (one.committed_ns, one.identity_id)):
            self.identities[identity.identity_id] = identity
        for tracklet in tracklets:
            self.enter(tracklet)

    def take_changes(self) -> Changes:
        """What changed since the last call."""
        changes, self.changes = self.changes, Changes()
        changes.log_time_ns = self.log_time_ns
        changes.expired_ns = self.expired_ns
        return changes

    def candidates(
        self, tracklet: Tracklet, least: Callable[[str], float]
    ) -> Iterator[tuple[Tracklet, float]]:
        """See LiveWindow."""
        found: dict[int, float] = {}
        for space_id, vectors in sorted(tracklet.vectors.items()):
            index = self.indexes.get((tracklet.site, space_id))
            if index is None:
                continue
            owners, similarities = index.search(vectors.centre[None, :], least=least(space_id))
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
        members = [self.tracklets[one] for one in identity.members if one in self.tracklets]
        # By number, since means depend on the order in the last digit, and joining is not kept.
        return sorted(members, key=lambda one: one.number)

    def enter(self, tracklet: Tracklet) -> None:
        """Take a tracklet into the live window."""
        self.tracklets[tracklet.tracklet_id] = tracklet
        self._by_number[tracklet.number] = tracklet
        if tracklet.identity_id:
            self.index(tracklet)

    def found(self, tracklet: Tracklet) -> None:
        """Give a tracklet an identity of its own, and tell it."""
        identity = self.new_identity(tracklet, "")
        self.join(tracklet, identity)
        self.tell(IDENTITY_EVENT_KIND_CREATED, identity.identity_id, tracklet)

    def new_identity(self, tracklet: Tracklet, reason: str) -> Identity:
        """An identity that a tracklet begins; its id is the same in every replay."""
        text = f"{self._salt}/{tracklet.tracklet_id}/{reason}"
        identity_id = hashlib.sha256(text.encode()).hexdigest()[:32]
        if identity_id in self.identities:  # the same tracklet founded one before
            text = f"{text}/{self.position}/{self._event}"
            identity_id = hashlib.sha256(text.encode()).hexdigest()[:32]
        identity = Identity(identity_id, tracklet.site)
        self.identities[identity_id] = identity
        return identity

    def join(self, tracklet: Tracklet, identity: Identity) -> None:
        """Count a tracklet to an identity."""
        tracklet.identity_id = identity.identity_id
        identity.members[tracklet.tracklet_id] = None
        self.changes.tracklets[tracklet.tracklet_id] = tracklet
        self.touch(identity, tracklet)
        self.index(tracklet)

    def leave(self, tracklet: Tracklet) -> None:
        """Take a tracklet out of its identity; one left empty ends."""
        identity = self.identities.get(tracklet.identity_id)
        tracklet.identity_id = ""
        self.changes.tracklets[tracklet.tracklet_id] = tracklet
        if identity is None:
            return
        identity.members.pop(tracklet.tracklet_id, None)
        if identity.members:
            self._set_span(identity)
        else:
            self.drop_identity(identity)

    def touch(self, identity: Identity, tracklet: Tracklet) -> None:
        """An identity's tracklet was seen."""
        first = min(identity.first_ns or tracklet.first_ns, tracklet.first_ns)
        identity.first_ns, identity.last_ns = first, max(identity.last_ns, tracklet.last_ns)
        identity.committed_ns = max(identity.committed_ns, tracklet.committed_ns)
        self.identities.move_to_end(identity.identity_id)
        self.changes.identities[identity.identity_id] = identity

    def _set_span(self, identity: Identity) -> None:
        members = self.members(identity.identity_id)
        identity.first_ns = min((one.first_ns for one in members), default=identity.first_ns)
        identity.last_ns = max((one.last_ns for one in members), default=identity.last_ns)
        self.changes.identities[identity.identity_id] = identity

    def index(self, tracklet: Tracklet) -> None:
        """Let a tracklet's vectors be found."""
        for space_id, vectors in tracklet.vectors.items():
            name = (tracklet.site, space_id)
            index = self.indexes.get(name)
            if index is None:
                index = self.indexes[name] = VectorIndex(len(vectors.centre))
            if index.dimension == len(vectors.centre):
                index.put(tracklet.number, vectors.centre[None, :])

    def merge(self, stays: str, goes: str, *, by_person: bool) -> None:
        """Fold one identity into another of its site; nothing where either is not live."""
        target, other = self.identities.get(stays), self.identities.get(goes)
        if target is None or other is None or target is other or target.site != other.site:
            return
        for tracklet_id in list(other.members):
            tracklet = self.tracklets[tracklet_id]
            tracklet.pinned = tracklet.pinned or by_person
            self.join(tracklet, target)
        other.members.clear()
        self.drop_identity(other)
        self.tell(IDENTITY_EVENT_KIND_MERGED, stays, None, other_identity=goes)

    def split(self, identity_id: str, tracklet_ids: list[str]) -> None:
        """Take tracklets out of an identity, into one of their own, by a person's word."""
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
                new = self._identity_named(split_identity_id(self._salt, self.position), identity)
            self.leave(tracklet)
            tracklet.pinned = True
            tracklet.similarity = 0.0
            self.join(tracklet, new)
        if new is not None:
            self.tell(IDENTITY_EVENT_KIND_SPLIT, identity_id, None, other_identity=new.identity_id)

    def _identity_named(self, identity_id: str, like: Identity) -> Identity:
        identity = Identity(identity_id, like.site, committed_ns=like.committed_ns)
        self.identities[identity_id] = identity
        return identity

    def forget(self, site: str, identity_id: str, tracklet_ids: list[str]) -> None:
        """Remove an identity and its tracklets, and what was told of them."""
        for tracklet_id in tracklet_ids:
            tracklet = self.tracklets.get(tracklet_id)
            if tracklet is not None:
                self.leave(tracklet)
                self.drop_tracklet(tracklet)
            self.changes.tracklets.pop(tracklet_id, None)
            self.changes.gone_tracklets.add(tracklet_id)
        gone = set(tracklet_ids)
        self.changes.events = [
            event for event in self.changes.events if event[1].tracklet.tracklet_id not in gone
        ]
        identity = self.identities.get(identity_id)
        if identity is not None and not identity.members:
            self.drop_identity(identity)
        self.changes.gone_identities.add(identity_id)
        self.tell(IDENTITY_EVENT_KIND_FORGOTTEN, identity_id, None, site=site)

    def compare_anew(self, site: str, derived: DerivedSpaces) -> None:
        """The site's map changed: let its tracklets be found in the spaces in force now.

        Who belongs where stays; from here on it is decided in those spaces.
        """
        for name in [name for name in self.indexes if name[0] == site]:
            del self.indexes[name]
        for tracklet in sorted(self.tracklets.values(), key=lambda one: one.number):
            if tracklet.site == site:
                tracklet.vectors = derived.compared(site, tracklet.place, tracklet.stored)
                if tracklet.identity_id:
                    self.index(tracklet)

    def drop_tracklet(self, tracklet: Tracklet) -> None:
        """Take it out of the live window; its row stays until retention or Forget."""
        self.tracklets.pop(tracklet.tracklet_id, None)
        self._by_number.pop(tracklet.number, None)
        for space_id in tracklet.vectors:
            index = self.indexes.get((tracklet.site, space_id))
            if index is not None:
                index.remove(tracklet.number)

    def drop_identity(self, identity: Identity, *, expired: bool = False) -> None:
        """Take an identity out of the live window; one that ended by age stays on record."""
        self.identities.pop(identity.identity_id, None)
        if not expired:
            self.changes.identities.pop(identity.identity_id, None)
            self.changes.gone_identities.add(identity.identity_id)

    def tell(
        self,
        kind: IdentityEventKind,
        identity_id: str,
        tracklet: Tracklet | None,
        *,
        other_identity: str = "",
        site: str = "",
    ) -> None:
        """Tell an event."""
        identity = self.identities.get(identity_id)
        message = WatchResponse(
            position=self.position * EVENTS_PER_ENTRY + min(self._event, EVENTS_PER_ENTRY - 1),
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
        self.changes.events.append((site, message))


def split_identity_id(salt: str, position: int) -> str:
    """The id of the identity that a SPLIT entry at this position makes."""
    return hashlib.sha256(f"{salt}/split/{position}".encode()).hexdigest()[:32]
