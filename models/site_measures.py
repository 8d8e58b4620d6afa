"""What can be measured of a space without a label: certain pairs, and transit times.

Promise: each measure takes vectors of any space and the evidence they are of, so that two spaces
are measured on the very same sightings. Certain pairs: shots of one tracklet are of one person,
people seen at once by one camera are two. Transit: the nearest tracklets in other cameras, by
vectors alone, are oftener people who took as long as people usually take.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.neighbours import BLOCK
from models.site_evidence import Evidence
from models.site_gain import Pairs
from models.site_projection import means, unit
from models.site_transit import Transit
from reid.site_map import Separation, Spread

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_PAIRS = 200_000
NEAREST = 3  # a person passes several cameras; one alone tells half as much
_USUAL = 0.7  # log ratio: twice as likely as between any two
_MOST_OTHERS = 2000  # tracklets: two million pairs


def certain_pairs(evidence: Evidence, *, seed: int = 0) -> tuple[Ints, Ints]:
    """(p, 2) and (m, 2) rows of vectors: certain positive and certain negative pairs of shots."""
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
        found.append(order[all_of])
    return found[0], found[1]


def pair_distances(vectors: Floats, pairs: Ints) -> Floats:
    """(p,) Euclidean distances 0..2 of pairs of rows of unit length."""
    left, right = vectors[pairs[:, 0]], vectors[pairs[:, 1]]
    found: Floats = np.sqrt(np.maximum(2 - 2 * np.einsum("ij,ij->i", left, right), 0.0))
    return found


def certain_distances(
    vectors: Floats, evidence: Evidence, *, seed: int = 0
) -> tuple[Floats, Floats]:
    """Euclidean distances 0..2 of certain positive and certain negative pairs of shots."""
    positive, negative = certain_pairs(evidence, seed=seed)
    return pair_distances(vectors, positive), pair_distances(vectors, negative)


def measured_pairs(vectors: Floats, evidence: Evidence, blocks: Ints) -> Pairs:
    """Certain pairs in one space, with the block of each.

    Args:
        blocks: (t,) of the tracklets; a pair seen at once is of the first one's.
    """
    positive, negative = certain_pairs(evidence)
    return Pairs(
        pair_distances(vectors, positive),
        pair_distances(vectors, negative),
        blocks[evidence.tracklet[positive[:, 0]]],
        blocks[evidence.tracklet[negative[:, 0]]],
    )


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


def usual_times(vectors: Floats, evidence: Evidence, asked: Ints, transit: Transit) -> Doubles:
    """(a,) share of each asked tracklet's three nearest in other cameras that has a usual delay.

    Args:
        vectors: all of the evidence's. asked: (a,) tracklets with a time.
    """
    of_tracklet = unit(means(vectors, evidence.tracklet, evidence.tracklets))
    usual = np.zeros(len(asked))
    for start in range(0, len(asked), BLOCK):
        rows = asked[start : start + BLOCK]
        block = of_tracklet[rows] @ of_tracklet.T
        block[evidence.camera[rows][:, None] == evidence.camera[None, :]] = -np.inf
        block[:, ~np.isfinite(evidence.first)] = -np.inf
        count = min(NEAREST, block.shape[1] - 1)
        best = np.argpartition(-block, count, axis=1)[:, :count]
        for slot, row in enumerate(rows.tolist()):
            near = best[slot][np.isfinite(block[slot, best[slot]])]
            ratio = transit.of(
                int(evidence.camera[row]),
                float(evidence.first[row]),
                evidence.camera[near],
                evidence.first[near],
            )
            usual[start + slot] = np.count_nonzero(ratio > _USUAL) / NEAREST
    return usual


def others(vectors: Floats, evidence: Evidence, *, seed: int = 0) -> Spread | None:
    """Similarities of tracklets' means across cameras: all pairs, so nearly all of two people.

    None where only one camera has tracklets.
    """
    chosen = np.arange(evidence.tracklets)
    if len(chosen) > _MOST_OTHERS:
        chosen = np.random.default_rng(seed).choice(chosen, _MOST_OTHERS, replace=False)
    of_tracklet = unit(means(vectors, evidence.tracklet, evidence.tracklets))[chosen]
    camera = evidence.camera[chosen]
    found = (of_tracklet @ of_tracklet.T)[camera[:, None] != camera[None, :]]
    if not len(found):
        return None
    return Spread(mean=float(found.mean()), std=max(float(found.std()), 1e-6))


def _rows_of(evidence: Evidence) -> list[Ints]:
    """Positions of each tracklet's vectors in the order of tracklets."""
    counts = np.bincount(evidence.tracklet, minlength=evidence.tracklets)
    ends = np.cumsum(counts)
    return [np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]
