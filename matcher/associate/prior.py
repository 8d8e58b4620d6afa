"""The first online association: cosine similarity against a stated threshold, with hard rules.

A tracklet joins the identity whose tracklets it resembles most, if the similarity reaches the
threshold of its space. It never joins an identity with a tracklet that is certainly another person:
one seen in the same frames (seen_with), or one that was in the same camera at the same time. Of two
that are there at once, the one that fits better gets the identity, and the other is placed anew
(one-to-one).

The similarity of a tracklet and an identity is that to its most similar member, held down by the
mean over all members, so that a chain of chance resemblances does not grow.

Deterministic: ties fall by tracklet id. No thread, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from matcher.associate.model import LiveWindow, Placement, Tracklet

DISPLACE_MARGIN = 0.02  # better by so much: similarities of one pair differ by that between shots
CHAIN_SLACK = 0.15  # how far the mean over an identity may lie under the threshold
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
        self._default = default_threshold
        self._window_ns = window_ns
        self._uncertain_ns = uncertain_ns

    def threshold(self, space_id: str) -> float:
        """See Associator."""
        return self._thresholds.get(space_id, self._default)

    def place(self, tracklet: Tracklet, window: LiveWindow) -> Placement:
        """See Associator."""
        threshold = min(self.threshold(space) for space in tracklet.vectors)
        best: dict[str, list[float]] = {}
        similar: dict[str, float] = {}
        for other, similarity in window.candidates(tracklet):
            if not other.identity_id or abs(_gap(tracklet, other)) > self._window_ns:
                continue
            best.setdefault(other.identity_id, []).append(similarity)
            similar[other.tracklet_id] = similarity
        order = sorted(best, key=lambda identity: (-max(best[identity]), identity))
        for identity_id in order:
            values = best[identity_id]
            score = max(values)
            if score < threshold:
                break
            if sum(values) / len(values) < threshold - CHAIN_SLACK:
                continue
            members = [
                one
                for one in window.members(identity_id)
                if one.tracklet_id != tracklet.tracklet_id
            ]
            against = [one for one in members if self.certainly_other(tracklet, one)]
            if not against:
                return Placement(identity_id, score)
            rest = [one for one in members if one not in against]
            support = max((similar.get(one.tracklet_id, -1.0) for one in rest), default=-1.0)
            if support >= threshold and all(
                not one.pinned and one.similarity + DISPLACE_MARGIN < support for one in against
            ):
                return Placement(
                    identity_id, support, 0.0, tuple(one.tracklet_id for one in against)
                )
        return Placement()

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


def _gap(one: Tracklet, two: Tracklet) -> int:
    """Time between two tracklets, nanoseconds; negative where they overlap."""
    return max(one.first_ns, two.first_ns) - min(one.last_ns, two.last_ns)
