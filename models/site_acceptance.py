"""Does a map help? Asked of sightings that it did not learn from, before it is taken into use.

Promise: two questions, neither of which needs a label. Certain pairs: do shots of one tracklet and
of people seen at once lie farther apart than before? They are of one camera each, and a map can get
better at them while it forgets what differs between cameras; so the second: does a tracklet's
nearest one in another camera, by vectors alone, more often lie within the usual transit time?
Time and looks are independent witnesses. A map that does worse at either is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.neighbours import BLOCK
from models.site_evidence import Evidence
from models.site_projection import means, unit
from models.site_transit import Transit
from reid.site_map import Separation, SiteMap, Spread, helps

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
HELD_SHARE = 0.1
_SLICES = 40  # of the whole time; people of a slice are mostly in that slice alone
LEAST_PAIRS = 50  # of each kind: fewer decide nothing
MOST_PAIRS = 200_000
_USUAL = 0.7  # log ratio: twice as likely as between any two
_MOST_OTHERS = 2000  # tracklets: two million pairs
_NO_TRANSIT = float("nan")


class Refused(Exception):
    """The map does not help, or nothing can tell; vectors stay as they are.

    Attributes:
        verdict: what was measured; None where there were too few certain pairs.
    """

    def __init__(self, text: str, verdict: Verdict | None = None) -> None:
        self.verdict = verdict
        super().__init__(text)


@dataclass(frozen=True)
class Verdict:
    """Figures on what was held back, in the parent space and in the derived one.

    Attributes:
        before, after: separation of certain pairs.
        transit_before, transit_after: share of held-back tracklets whose nearest one in another
            camera lies within the usual transit time; nan where no times were known.
        others_before, others_after: similarities of tracklets of two cameras.
    """

    before: Separation
    after: Separation
    transit_before: float
    transit_after: float
    others_before: Spread
    others_after: Spread

    @property
    def helps(self) -> bool:
        """Better at one of the two, worse at neither."""
        return helps(
            self.before.error,
            self.after.error,
            _known(self.transit_before),
            _known(self.transit_after),
        )


def hold_back(evidence: Evidence, *, seed: int, share: float = HELD_SHARE) -> NDArray[np.bool_]:
    """(t,) mask of the tracklets that are not learned from: whole slices of time.

    Tracklets without a time are drawn one by one.
    """
    random = np.random.default_rng(seed)
    begin = evidence.first
    known = np.isfinite(begin)
    held = random.random(evidence.tracklets) < share
    if known.any():
        ranks = np.argsort(np.argsort(begin[known], kind="stable"), kind="stable")
        slices = ranks * _SLICES // int(known.sum())
        chosen = random.choice(_SLICES, max(round(share * _SLICES), 1), replace=False)
        held[known] = np.isin(slices, chosen)
    return held


def certain_distances(
    vectors: Floats, evidence: Evidence, *, seed: int = 0
) -> tuple[Floats, Floats]:
    """Euclidean distances 0..2 of certain positive and certain negative pairs of shots."""
    rows = _rows_of(evidence)
    positive = [
        np.stack(np.triu_indices(len(own), 1), axis=1) + own[0] for own in rows if len(own) > 1
    ]
    negative = [
        np.stack(np.meshgrid(rows[one], rows[other]), axis=-1).reshape(-1, 2)
        for one, other in evidence.together.tolist()
    ]
    order = np.argsort(evidence.tracklet, kind="stable")
    found = []
    for pairs in (positive, negative):
        all_of = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
        if len(all_of) > MOST_PAIRS:
            some = np.random.default_rng(seed).choice(len(all_of), MOST_PAIRS, replace=False)
            all_of = all_of[some]
        left, right = vectors[order[all_of[:, 0]]], vectors[order[all_of[:, 1]]]
        found.append(np.sqrt(np.maximum(2 - 2 * np.einsum("ij,ij->i", left, right), 0.0)))
    return found[0], found[1]


def separation(positive: Floats, negative: Floats) -> Separation:
    """Means, deviations, overlap of the two Gaussians, and the equal error rate."""
    mean_p, std_p = float(positive.mean()), max(float(positive.std()), 1e-6)
    mean_n, std_n = float(negative.mean()), max(float(negative.std()), 1e-6)
    grid = np.linspace(0.0, 2.0, 2001)
    gauss = [
        np.exp(-(((grid - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
        for mean, std in ((mean_p, std_p), (mean_n, std_n))
    ]
    overlap = float(np.minimum(gauss[0], gauss[1]).sum() * (grid[1] - grid[0]))
    return Separation(
        positive_mean=mean_p,
        positive_std=std_p,
        negative_mean=mean_n,
        negative_std=std_n,
        overlap=min(overlap, 1.0),
        error=equal_error(positive, negative),
    )


def equal_error(positive: Floats, negative: Floats) -> float:
    """Error rate at the threshold where as many positives are beyond it as negatives within."""
    thresholds = np.sort(np.concatenate([positive, negative]))
    beyond = 1 - np.searchsorted(np.sort(positive), thresholds, side="right") / len(positive)
    within = np.searchsorted(np.sort(negative), thresholds, side="right") / len(negative)
    at = int(np.abs(beyond - within).argmin())
    return float((beyond[at] + within[at]) / 2)


def transit_agreement(
    vectors: Floats, evidence: Evidence, held: NDArray[np.bool_], transit: Transit | None
) -> float:
    """Share of held-back tracklets whose nearest one in another camera has a usual delay."""
    asked = np.flatnonzero(held & np.isfinite(evidence.first))
    if transit is None or len(asked) < LEAST_PAIRS:
        return _NO_TRANSIT
    of_tracklet = unit(means(vectors, evidence.tracklet, evidence.tracklets))
    usual = 0
    for start in range(0, len(asked), BLOCK):
        rows = asked[start : start + BLOCK]
        block = of_tracklet[rows] @ of_tracklet.T
        block[evidence.camera[rows][:, None] == evidence.camera[None, :]] = -np.inf
        block[:, ~np.isfinite(evidence.first)] = -np.inf
        best = block.argmax(axis=1)
        for row, other in zip(rows.tolist(), best.tolist(), strict=True):
            one = slice(other, other + 1)
            ratio = transit.of(
                int(evidence.camera[row]),
                float(evidence.first[row]),
                evidence.camera[one],
                evidence.first[one],
            )
            usual += int(ratio[0] > _USUAL)
    return usual / len(asked)


def others(vectors: Floats, evidence: Evidence, *, seed: int = 0) -> Spread:
    """Similarities of tracklets' means across cameras: all pairs, so nearly all of two people."""
    chosen = np.arange(evidence.tracklets)
    if len(chosen) > _MOST_OTHERS:
        chosen = np.random.default_rng(seed).choice(chosen, _MOST_OTHERS, replace=False)
    of_tracklet = unit(means(vectors, evidence.tracklet, evidence.tracklets))[chosen]
    camera = evidence.camera[chosen]
    found = (of_tracklet @ of_tracklet.T)[camera[:, None] != camera[None, :]]
    if not len(found):
        raise Refused(
            "only one camera was held back; nothing tells where thresholds lie: gather sightings "
            "for longer"
        )
    return Spread(mean=float(found.mean()), std=max(float(found.std()), 1e-6))


def judge(
    site_map: SiteMap, evidence: Evidence, held: NDArray[np.bool_], transit: Transit | None
) -> Verdict:
    """The map against vectors as they are.

    Args:
        evidence: all of it; held: (t,) what was not learned from.
    Raises:
        Refused: too few certain pairs among what was held back, or one camera only.
    """
    kept = evidence.part(held)
    cameras = [evidence.cameras[number] for number in evidence.camera_of_vector]
    mapped = site_map.apply(evidence.vectors, cameras)
    of_held = held[evidence.tracklet]
    measured: list[Separation] = []
    for vectors in (evidence.vectors, mapped):
        positive, negative = certain_distances(vectors[of_held], kept)
        if min(len(positive), len(negative)) < LEAST_PAIRS:
            raise Refused(
                f"only {len(positive)} certain positive and {len(negative)} certain negative pairs "
                f"were held back, {LEAST_PAIRS} of each are needed to tell whether a map helps; "
                "gather sightings for longer"
            )
        measured.append(separation(positive, negative))
    return Verdict(
        measured[0],
        measured[1],
        transit_agreement(evidence.vectors, evidence, held, transit),
        transit_agreement(mapped, evidence, held, transit),
        others(evidence.vectors[of_held], kept),
        others(mapped[of_held], kept),
    )


def accept(verdict: Verdict) -> None:
    """Raise Refused where the map does not help."""
    if verdict.helps:
        return
    raise Refused(
        "the map does not help on what was held back: errors on certain pairs "
        f"{100 * verdict.before.error:.1f} % before, {100 * verdict.after.error:.1f} % after; "
        f"nearest across cameras within the usual time {100 * verdict.transit_before:.1f} % "
        f"before, {100 * verdict.transit_after:.1f} % after; vectors stay as they are",
        verdict,
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _rows_of(evidence: Evidence) -> list[Ints]:
    """Positions of each tracklet's vectors in the order of tracklets."""
    counts = np.bincount(evidence.tracklet, minlength=evidence.tracklets)
    ends = np.cumsum(counts)
    return [np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]
