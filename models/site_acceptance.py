"""Does a map help? Asked of sightings that it did not learn from, before it is taken into use.

Promise: two questions, neither of which needs a label. Certain pairs: do shots of one tracklet and
of people seen at once lie farther apart than before? They are of one camera each, and a map can get
better at them while it forgets what differs between cameras; so the second decides where times are
known: do a tracklet's nearest ones in other cameras, by vectors alone, more often lie within the
usual transit time? Time and looks are independent witnesses.

    against vectors as they are   the deciding measure surely better (95 %, models.site_gain),
                                  certain pairs not surely worse
    against the map in force      the deciding measure not worse, certain pairs not surely worse,
                                  on sightings that neither learned from where there are enough

Else the map is refused, and what is in force stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.site_evidence import Evidence
from models.site_gain import blocks_of, error_gain, share_gain
from models.site_measures import measured_pairs, others, separation, usual_times
from models.site_transit import Transit
from reid.site_map import Gain, Separation, SiteMap, Spread, surely_helps

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
HELD_SHARE = 0.1
_LEAST_HELD = 60  # tracklets of a small site, up to
_MOST_SHARE = 0.3
_SLICES = 40  # of the whole time; people of a slice are mostly in that slice alone
LEAST_PAIRS = 50  # of each kind, and tracklets asked for transit times: fewer decide nothing
_NO_TRANSIT = float("nan")


class Refused(Exception):
    """The map does not help, or nothing can tell; what is in force stays.

    Attributes:
        verdict: what was measured; None where there were too few certain pairs.
    """

    def __init__(self, text: str, verdict: Verdict | None = None) -> None:
        self.verdict = verdict
        super().__init__(text)


@dataclass(frozen=True)
class InForce:
    """The map that a site uses now.

    Attributes:
        fitted_until: last second that it learned from; None where no times were known.
    """

    space_id: str
    site_map: SiteMap
    fitted_until: float | None


@dataclass(frozen=True)
class Against:
    """Figures of the new map beside those of another space, on the same held-back sightings.

    Attributes:
        before, after: separation of certain pairs, in the other space and in the map's.
        transit_before, transit_after: mean share of held-back tracklets' three nearest in other
            cameras that lie within the usual transit time; nan where no times were known.
        pairs: gain in the errors on certain pairs.
        times: gain in the share within the usual time; None where no times were known.
    """

    before: Separation
    after: Separation
    transit_before: float
    transit_after: float
    pairs: Gain
    times: Gain | None

    @property
    def deciding(self) -> Gain:
        """Across cameras where times are known: certain pairs alone pass a map that forgets."""
        return self.pairs if self.times is None else self.times

    @property
    def surely_better(self) -> bool:
        """The deciding measure is better beyond chance, and certain pairs not worse beyond it."""
        return surely_helps(self.pairs, self.times)

    @property
    def worse(self) -> bool:
        """The deciding measure is worse, or certain pairs are beyond chance."""
        return self.deciding.value < 0 or self.pairs.high < 0

    def __str__(self) -> str:
        pairs = (
            f"errors on certain pairs {100 * self.before.error:.1f} % before, "
            f"{100 * self.after.error:.1f} % after"
        )
        if self.times is None:
            sure = f"gain at least {100 * self.pairs.low:.1f} points"
            return f"{pairs} ({sure}); too few times were known"
        return (
            f"{pairs}; nearest across cameras within the usual time "
            f"{100 * self.transit_before:.1f} % before, {100 * self.transit_after:.1f} % after "
            f"(gain at least {100 * self.times.low:.1f} points)"
        )


@dataclass(frozen=True)
class Verdict:
    """Figures on what was held back, in the parent space and in the derived one.

    Attributes:
        plain: against vectors as they are.
        others_before, others_after: similarities of tracklets of two cameras.
        in_force: against the map in force; None where there is none of this space.
        in_force_id: its space_id.
        fair: whether that was asked of sightings which neither map learned from.
    """

    plain: Against
    others_before: Spread
    others_after: Spread
    in_force: Against | None = None
    in_force_id: str = ""
    fair: bool = True

    @property
    def helps(self) -> bool:
        """Surely better than vectors as they are, and not worse than what is in force."""
        return self.plain.surely_better and (self.in_force is None or not self.in_force.worse)


def hold_back(evidence: Evidence, *, seed: int, since: float | None = None) -> Mask:
    """(t,) mask of the tracklets that are not learned from: whole slices of time, a tenth.

    More at a small site, up to 60 tracklets or three tenths. Tracklets without a time are drawn
    one by one.

    Args:
        since: until when the map in force learned; a tenth of what is newer is then held back too.
    """
    random = np.random.default_rng(seed)
    begin = evidence.first
    known = np.isfinite(begin)
    share = min(max(HELD_SHARE, _LEAST_HELD / max(evidence.tracklets, 1)), _MOST_SHARE)
    held = random.random(evidence.tracklets) < share
    border = np.inf if since is None else since
    for group in (known & (begin <= border), known & (begin > border)):
        count = int(group.sum())
        if count:
            ranks = np.argsort(np.argsort(begin[group], kind="stable"), kind="stable")
            slices = ranks * _SLICES // count
            chosen = random.choice(_SLICES, max(round(share * _SLICES), 1), replace=False)
            held[group] = np.isin(slices, chosen)
    return held


def judge(
    site_map: SiteMap,
    evidence: Evidence,
    held: Mask,
    transit: Transit | None,
    *,
    in_force: InForce | None = None,
) -> Verdict:
    """The map against vectors as they are, and against the map in force.

    Args:
        evidence: all of it; held: (t,) what was not learned from.
        in_force: of the same parent space.
    Raises:
        Refused: too few certain pairs among what was held back, or one camera only.
    """
    cameras = [evidence.cameras[number] for number in evidence.camera_of_vector]
    mapped = site_map.apply(evidence.vectors, cameras)
    plain = _against(evidence.vectors, mapped, evidence, held, transit)
    if isinstance(plain, tuple):
        raise Refused(
            f"only {plain[0]} certain positive and {plain[1]} certain negative pairs were held "
            f"back, {LEAST_PAIRS} of each are needed to tell whether a map helps; gather sightings "
            "for longer"
        )
    kept, of_held = evidence.part(held), held[evidence.tracklet]
    spreads = [others(vectors[of_held], kept) for vectors in (evidence.vectors, mapped)]
    if spreads[0] is None or spreads[1] is None:
        raise Refused(
            "only one camera was held back; nothing tells where thresholds lie: gather sightings "
            "for longer"
        )
    if in_force is None:
        return Verdict(plain, spreads[0], spreads[1])
    now = in_force.site_map.apply(evidence.vectors, cameras)
    newer = held & (evidence.first > (in_force.fitted_until or np.inf))
    found = _against(now, mapped, evidence, newer, transit)
    fair = isinstance(found, Against) and (found.times is None) == (plain.times is None)
    if not fair:
        found = _against(now, mapped, evidence, held, transit)
    assert isinstance(found, Against)
    return Verdict(plain, spreads[0], spreads[1], found, in_force.space_id, fair)


def accept(verdict: Verdict) -> None:
    """Raise Refused where the map does not help."""
    plain, in_force = verdict.plain, verdict.in_force
    if not plain.surely_better:
        stays = "vectors stay as they are" if in_force is None else "the map in force stays"
        raise Refused(
            f"the map does not help beyond chance on what was held back: {plain}; {stays}",
            verdict,
        )
    if in_force is not None and in_force.worse:
        of = "newer than what that one learned from" if verdict.fair else "held back"
        raise Refused(
            f"the new map is worse than {verdict.in_force_id}, which stays in force: on sightings "
            f"{of}, with that one before and the new one after: {in_force}",
            verdict,
        )


def _against(
    other: Floats, mapped: Floats, evidence: Evidence, held: Mask, transit: Transit | None
) -> Against | tuple[int, int]:
    """The map's vectors against others of the same evidence; counts of pairs where too few."""
    kept, of_held = evidence.part(held), held[evidence.tracklet]
    blocks = blocks_of(kept.first)
    was, now = (measured_pairs(vectors[of_held], kept, blocks) for vectors in (other, mapped))
    if min(len(was.positive), len(was.negative)) < LEAST_PAIRS:
        return len(was.positive), len(was.negative)
    before, after = (separation(one.positive, one.negative) for one in (was, now))
    pairs = error_gain(was, now, before.error - after.error)
    known = np.isfinite(kept.first)
    asked = np.flatnonzero(held)[known]
    if transit is None or len(asked) < LEAST_PAIRS:
        return Against(before, after, _NO_TRANSIT, _NO_TRANSIT, pairs, None)
    usual = [usual_times(vectors, evidence, asked, transit) for vectors in (other, mapped)]
    times = share_gain(usual[0], usual[1], blocks[known])
    return Against(before, after, float(usual[0].mean()), float(usual[1].mean()), pairs, times)
