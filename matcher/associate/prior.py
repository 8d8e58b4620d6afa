"""The first online association: cosine similarity against a stated threshold, with hard rules.

A tracklet joins the identity whose tracklets it resembles most, if the similarity reaches the
threshold of its space. It never joins an identity with a tracklet that is certainly another person:
one seen in the same frames (seen_with), or one that was in the same camera at the same time. Of two
that are there at once, the one that fits better gets the identity, and the other is placed anew
(one-to-one).

The similarity of a tracklet and an identity is the mean of its similarities to all members (average
linkage). The most similar member alone lets chance resemblances chain: on tracklets of 30 people in
six cameras (Market-1501, OSNet x0.25 trained on MSMT17, joined online in random order) it reached
0.76 precision and 0.57 recall of pairs at its 0.80, the mean 0.86 and 0.48; of 100 people 0.38 and
0.60 against 0.68 and 0.46.

Spaces differ in how similar two people look in them; so what counts is how far a pair is beyond
the threshold of its space. That of a derived space is its parent's, translated by the map's card.

Deterministic: ties fall by tracklet id. No thread, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from matcher.associate.model import LiveWindow, Placement, Tracklet
from reid.site_map import MapCard

DISPLACE_MARGIN = 0.02  # better by so much: similarities of one pair differ by that between shots
SAME_CAMERA_SLACK_NS = 200_000_000  # two detections of one handover may overlap by a frame or two


class PriorAssociator:
    """Joins by a threshold that is known beforehand. See the module's text."""

    def __init__(
        self,
        *,
        thresholds: Mapping[str, float],
        default_threshold: float,
        window_ns: int,
        uncertain_ns: int,
    ) -> None:
        """
        Args:
            thresholds: space_id -> cosine similarity.
            default_threshold: for other spaces.
            window_ns: tracklets further apart in time are not joined.
            uncertain_ns: times less certain than this forbid nothing.
        """
        self._thresholds = dict(thresholds)
        self._derived: dict[str, float] = {}
        self._default = default_threshold
        self._window_ns = window_ns
        self._uncertain_ns = uncertain_ns

    def threshold(self, space_id: str) -> float:
        """See Associator."""
        known = self._thresholds.get(space_id)
        return self._derived.get(space_id, self._default) if known is None else known

    def adopt(self, card: MapCard) -> None:
        """See Associator."""
        found = card.threshold(self.threshold(card.parent))
        if found is not None:
            self._derived[card.space_id] = found

    def place(self, tracklet: Tracklet, window: LiveWindow) -> Placement:
        """See Associator."""
        near = {
            other.identity_id
            for other, _ in window.candidates(tracklet, self.threshold)
            if abs(_gap(tracklet, other)) <= self._window_ns
        }
        # The mean reaches the threshold only where some member does, so the near ones are all.
        scored = []
        for identity_id in near:
            members = [
                one
                for one in window.members(identity_id)
                if one.tracklet_id != tracklet.tracklet_id
            ]
            fit = self._fit(tracklet, members)
            if fit.beyond >= 0:
                scored.append((-fit.beyond, identity_id, fit, members))
        for _, identity_id, fit, members in sorted(scored, key=lambda entry: entry[:2]):
            against = [one for one in members if self.certainly_other(tracklet, one)]
            if not against:
                return Placement(identity_id, fit.similarity)
            if self._fits_better(tracklet, members, against):
                support = [one for one in members if one not in against]
                return Placement(
                    identity_id,
                    self._fit(tracklet, support).similarity,
                    0.0,
                    tuple(one.tracklet_id for one in against),
                )
        return Placement()

    def _fits_better(
        self, tracklet: Tracklet, members: list[Tracklet], against: list[Tracklet]
    ) -> bool:
        """Whether the rest of an identity resembles a tracklet more than those it cannot be."""
        support = [one for one in members if one not in against]
        ours = self._fit(tracklet, support).beyond
        return ours >= 0 and all(
            not one.pinned and self._fit(one, support).beyond + DISPLACE_MARGIN < ours
            for one in against
        )

    def _fit(self, tracklet: Tracklet, others: list[Tracklet]) -> _Fit:
        """Mean over others, each pair in the space in which it is farthest beyond its threshold."""
        pairs = []
        for other in others:
            found = [
                (similarity - self.threshold(space), similarity)
                for space in sorted(tracklet.vectors.keys() & other.vectors.keys())
                for similarity in (
                    float(tracklet.vectors[space].centre @ other.vectors[space].centre),
                )
            ]
            if found:
                pairs.append(max(found))
        if not pairs:
            return _Fit(-2.0, -1.0)
        return _Fit(*(sum(values) / len(pairs) for values in zip(*pairs, strict=True)))

    def certainly_other(self, one: Tracklet, two: Tracklet) -> bool:
        """Whether two tracklets are certainly two people."""
        if two.tracklet_id in one.seen_with or one.tracklet_id in two.seen_with:
            return True
        if (one.site, one.edge_id, one.camera) != (two.site, two.edge_id, two.camera):
            return False
        return self._overlap_ns(one, two) > SAME_CAMERA_SLACK_NS

    def _overlap_ns(self, one: Tracklet, two: Tracklet) -> int:
        """Time that two tracklets of one camera share; on its monotonic clock where they can."""
        first, second = one.monotonic, two.monotonic
        if first is not None and second is not None and first[0] == second[0]:
            return min(first[2], second[2]) - max(first[1], second[1])
        if max(one.uncertainty_ns, two.uncertainty_ns) > self._uncertain_ns:
            return 0
        return -_gap(one, two)


class _Fit(NamedTuple):
    """How well a tracklet fits others: means of what is beyond the threshold, and of cosines."""

    beyond: float
    similarity: float


def _gap(one: Tracklet, two: Tracklet) -> int:
    """Time between two tracklets, nanoseconds; negative where they overlap."""
    return max(one.first_ns, two.first_ns) - min(one.last_ns, two.last_ns)
