"""A site's map learned from its stored sightings alone: no picture, no label.

Promise: `fit` uses vectors, cameras, times, tracklets and who was seen together, and nothing else;
the embedder stays as it is. The same evidence, recipe and seed give the same map on one thread.
Too little to learn from, or clusters that collapse, raises NothingToLearn and makes no map.

    standardise each camera ─▶ whiten within tracklets ─▶ pairs that choose each other ─▶ transit
      ┌────────────────────────────────────────────────────────────────────────────────────┘
      └▶ cluster tracklets (Jaccard distance, times, certain negatives) ─▶ whiten within clusters
           ▲                                                                  │
           └──────── the next round clusters in the new space ──── train a projection across cameras

Sources: per-camera statistics as in camera-wise batch norm, Zhuang et al., ECCV 2020,
arXiv:2001.08680; clustering as in models.neighbours; projection as in models.site_projection.
Threads: one, the caller's. Memory: the evidence four times, and 100 MB at 10⁵ tracklets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.neighbours import Clustering, Collapsed, nearest
from models.neighbours import cluster as cluster_rows
from models.site_evidence import Evidence, EvidenceError
from models.site_projection import (
    Projection,
    ProjectionRecipe,
    means,
    train_projection,
    unit,
    whitening,
)
from models.site_transit import Transit, adjustment, learn_transit
from reid.site_map import SiteMap

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
LEAST_TRACKLETS = 200  # fewer people than a batch has would be learned by heart
MOST_NUMBERS = 2048  # of a vector; a map grows with their square, and matchers take 16 MiB
_LEAST_OF_CAMERA = 30  # vectors; a camera with fewer gets the statistics of all
_CANDIDATES = 60  # neighbours among which a tracklet's best of every camera is looked for
_SURE_SHARE = 0.5  # of the pairs that choose each other, the more alike half teaches transit times


class NothingToLearn(EvidenceError):
    """Too few sightings, or of one camera; no clusters of people; or vectors too long for a map."""


@dataclass(frozen=True)
class AdaptRecipe:
    """How a map is fitted; every part can be left out, for the table of what it contributes.

    Attributes:
        camera: what is removed per camera: "none", "mean", or "deviation" (mean and deviation).
        damping: added to a camera's deviations, in units of their mean over all: numbers that
            hardly vary are not blown up.
        whiten: within tracklets before clustering.
        shrinkage: of both whitenings (`models.site_projection.whitening`).
        rounds: of clustering and projection; 0 ends with whitening.
        transit_weight: what a unit of log ratio of transit times adds to a cosine; 0 ignores times.
        clustering: of tracklets; fewer people than a batch has would be learned by heart.
        projection: how it is trained; steps = 0 ends a round with whitening within clusters.
        early_steps: of every round but the last, which only has to cluster better.
    """

    camera: str = "deviation"
    damping: float = 1.0
    whiten: bool = True
    shrinkage: float = 1.0
    rounds: int = 2
    transit_weight: float = 0.05
    clustering: Clustering = field(default_factory=lambda: Clustering(eps=0.45, least=3, fewest=16))
    projection: ProjectionRecipe = field(default_factory=ProjectionRecipe)
    early_steps: int = 300


@dataclass(frozen=True)
class Fitted:
    """A map and how it came about.

    Attributes:
        site_map: ready to apply.
        labels: (t,) cluster of each tracklet in the last round, -1 for none; empty without rounds.
        transit: the site's transit times, where they could be learned.
    """

    site_map: SiteMap
    labels: Ints
    transit: Transit | None


# (what was just done, share done 0..1, labels of tracklets where clusters were just made)
Progress = Callable[[str, float, Ints | None], None]


def fit(
    evidence: Evidence,
    recipe: AdaptRecipe | None = None,
    *,
    seed: int = 1,
    progress: Progress | None = None,
) -> Fitted:
    """Learn the map of a site.

    Raises:
        NothingToLearn: too few tracklets, one camera only, no clusters, or vectors that are too
            long for a map.
    """
    recipe = recipe or AdaptRecipe()
    _enough(evidence)
    say = progress or (lambda what, share, labels: None)
    mean, scale = camera_statistics(evidence, how=recipe.camera, damping=recipe.damping)
    cameras = evidence.camera_of_vector
    standard = ((evidence.vectors - mean[cameras]) / scale[cameras]).astype(np.float32)
    size = standard.shape[1]
    start = np.eye(size, dtype=np.float32)
    if recipe.whiten:
        start = whitening(standard, evidence.tracklet, shrinkage=recipe.shrinkage)
    projection = Projection(start)
    say("statistics", 0.02, None)
    labels: Ints = np.zeros(0, np.int64)
    transit: Transit | None = None
    for number in range(recipe.rounds):
        of_tracklet = tracklet_means(projection(standard), evidence)
        if recipe.transit_weight > 0:
            pairs = mutual_pairs(of_tracklet, evidence)
            transit = learn_transit(
                pairs, evidence.camera, evidence.first, cameras=len(evidence.cameras)
            )
        labels = cluster(of_tracklet, evidence, transit, recipe)
        of_vector = labels[evidence.tracklet]
        base = number / recipe.rounds
        say(f"round {number + 1}: clusters", base + 0.4 / recipe.rounds, labels)
        known = of_vector >= 0
        start = whitening(standard[known], of_vector[known], shrinkage=recipe.shrinkage)
        how = recipe.projection
        if number < recipe.rounds - 1:
            how = replace(how, steps=min(how.steps, recipe.early_steps))
        projection = train_projection(
            standard,
            of_vector,
            cameras,
            start,
            how,
            seed=seed + 1000 * number,
            progress=lambda done, total, base=base, number=number: say(  # type: ignore[misc]
                f"round {number + 1}: projection",
                base + (0.4 + 0.6 * done / total) / recipe.rounds,
                None,
            ),
        )
    return Fitted(finished_map(evidence, mean, scale, projection), labels, transit)


def camera_statistics(evidence: Evidence, *, how: str, damping: float) -> tuple[Floats, Floats]:
    """Mean and scale (c + 1, d) of each camera's vectors; the last row is of all together."""
    vectors, cameras = evidence.vectors, evidence.camera_of_vector
    count, size = len(evidence.cameras), vectors.shape[1]
    mean = np.zeros((count + 1, size), np.float32)
    scale = np.ones((count + 1, size), np.float32)
    if how == "none":
        return mean, scale
    common_scale = vectors.std(axis=0)
    floor = damping * float(common_scale.mean())
    for number in range(count + 1):
        rows = np.flatnonzero(cameras == number)
        if len(rows) < _LEAST_OF_CAMERA:
            rows = np.arange(len(vectors))
        mean[number] = vectors[rows].mean(axis=0)
        if how == "deviation":
            scale[number] = vectors[rows].std(axis=0) + max(floor, 1e-6)
    return mean, scale


def tracklet_means(vectors: Floats, evidence: Evidence) -> Floats:
    """(t, k) unit mean of each tracklet's unit vectors."""
    return unit(means(vectors, evidence.tracklet, evidence.tracklets))


def mutual_pairs(of_tracklet: Floats, evidence: Evidence, *, keep: float = _SURE_SHARE) -> Ints:
    """(m, 2) tracklets of different cameras that are each other's nearest there; the more alike."""
    total, count = len(of_tracklet), len(evidence.cameras)
    near, _ = nearest(of_tracklet, min(_CANDIDATES, total))
    best = np.full((total, count), -1, np.int64)
    for camera in range(count):
        there = evidence.camera[near] == camera
        there[:, 0] = False
        found = there.any(axis=1)
        best[found, camera] = near[found, there[found].argmax(axis=1)]
    left, where = np.nonzero(best >= 0)
    right = best[left, where]
    mutual = (best[right, evidence.camera[left]] == left) & (left < right)
    mutual &= evidence.camera[left] != evidence.camera[right]
    left, right = left[mutual], right[mutual]
    alike = np.einsum("ij,ij->i", of_tracklet[left], of_tracklet[right])
    order = np.argsort(-alike, kind="stable")[: int(keep * len(alike))]
    return np.stack([left[order], right[order]], axis=1)


def cluster(
    of_tracklet: Floats, evidence: Evidence, transit: Transit | None, recipe: AdaptRecipe
) -> Ints:
    """(t,) pseudo-label of each tracklet, -1 for none.

    Raises:
        NothingToLearn: no clusters, or one holds too much.
    """
    adjust = adjustment(
        transit,
        evidence.camera,
        evidence.first,
        evidence.together,
        weight=recipe.transit_weight,
    )
    try:
        return cluster_rows(of_tracklet, recipe.clustering, adjust=adjust)
    except Collapsed as error:
        raise NothingToLearn(
            f"tracklets of {evidence.site!r}: {error}; gather sightings for longer"
        ) from error


def _enough(evidence: Evidence) -> None:
    seen = len(np.unique(evidence.camera))
    if seen < 2:
        raise NothingToLearn(
            f"{evidence.site!r}: sightings of {seen} camera; what differs between cameras needs two"
        )
    numbers = evidence.vectors.shape[1]
    if numbers > MOST_NUMBERS:
        raise NothingToLearn(
            f"{evidence.site!r}: vectors of {numbers} numbers, a map is for up to {MOST_NUMBERS}; "
            "take an embedder of fewer"
        )
    if evidence.tracklets < LEAST_TRACKLETS:
        raise NothingToLearn(
            f"{evidence.site!r}: {evidence.tracklets} tracklets to learn from (a tenth is held "
            f"back to judge), at least {LEAST_TRACKLETS} are needed; gather sightings for longer"
        )


def finished_map(evidence: Evidence, mean: Floats, scale: Floats, learned: Projection) -> SiteMap:
    """The numbers as the file holds them: what is judged is what will be applied."""

    def half(value: Floats | None) -> Floats | None:
        return None if value is None else value.astype(np.float16).astype(np.float32)

    return SiteMap(
        cameras=evidence.cameras,
        mean=mean,
        scale=scale,
        weight=learned.weight.astype(np.float16).astype(np.float32),
        hidden=half(learned.hidden),
        bias=half(learned.bias),
        out=half(learned.out),
    )
