"""Scores against a slow reference written from the protocol, and re-ranking against the paper's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.data.errors import NoAnswers
from models.ranking import Features, Labels, distances, score, unit
from models.rerank import rerank


def _slow(
    distance: Features, qp: Labels, qc: Labels, gp: Labels, gc: Labels
) -> tuple[float, float, float, float, float]:
    """Market-1501's rules, one query and one gallery image after the other."""
    first, precision, hardest = [], [], []
    for q in range(len(qp)):
        hits, seen, found, total = 0, 0, None, 0.0
        last = 0
        for g in np.argsort(distance[q], kind="stable"):
            if gp[g] == -1 or (gp[g] == qp[q] and gc[g] == qc[q]):
                continue
            seen += 1
            if gp[g] == qp[q]:
                hits += 1
                last = seen
                found = seen if found is None else found
                total += hits / seen
        if found is not None:
            first.append(found)
            precision.append(total / hits)
            hardest.append(hits / last)
    ranks = np.array(first)
    within = [100 * float((ranks <= k).mean()) for k in (1, 5, 10)]
    return (*within, 100 * float(np.mean(precision)), 100 * float(np.mean(hardest)))  # type: ignore[return-value]


def _random_set(
    seed: int, queries: int = 30, gallery: int = 120
) -> tuple[Features, Features, Labels, Labels, Labels, Labels]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(12, 16))
    qp, gp = random.integers(1, 12, queries), random.integers(-1, 12, gallery)
    qc, gc = random.integers(1, 4, queries), random.integers(1, 4, gallery)
    query = (centres[qp] + random.normal(size=(queries, 16))).astype(np.float32)
    people = (centres[gp] + random.normal(size=(gallery, 16))).astype(np.float32)
    return query, people, qp, qc, gp, gc


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_scores_equal_a_slow_count(seed: int, metric: str) -> None:
    query, gallery, qp, qc, gp, gc = _random_set(seed)
    whole = np.concatenate(list(distances(query, gallery, metric)))  # type: ignore[arg-type]

    found = score(iter([whole]), qp, qc, gp, gc)

    wanted = _slow(whole, qp, qc, gp, gc)
    got = (found.rank1, found.rank5, found.rank10, found.map, found.minp)
    assert got == pytest.approx(wanted)
    assert found.queries + found.unanswerable == len(qp)


def test_own_camera_does_not_count() -> None:
    people, cameras = np.array([5]), np.array([1])
    gallery_people, gallery_cameras = np.array([5, 7, 5]), np.array([1, 1, 2])
    distance = np.array([[0.0, 0.1, 0.2]], np.float32)

    found = score(iter([distance]), people, cameras, gallery_people, gallery_cameras)

    assert (found.rank1, found.rank5, found.map) == (0.0, 100.0, 50.0)


def test_junk_is_left_out_and_distractors_stay() -> None:
    people, cameras = np.array([5]), np.array([1])
    gallery_cameras = np.array([3, 3, 2])
    distance = np.array([[0.0, 0.1, 0.2]], np.float32)

    junk = score(iter([distance]), people, cameras, np.array([-1, -1, 5]), gallery_cameras)
    distractors = score(iter([distance]), people, cameras, np.array([0, 0, 5]), gallery_cameras)

    assert junk.rank1 == 100.0
    assert distractors.map == pytest.approx(100 / 3)


def test_queries_without_an_answer_are_counted_apart() -> None:
    distance = np.array([[0.0, 0.1], [0.0, 0.1]], np.float32)

    found = score(
        iter([distance]), np.array([1, 2]), np.array([1, 1]), np.array([1, 3]), np.array([2, 2])
    )

    assert (found.queries, found.unanswerable, found.rank1) == (1, 1, 100.0)
    with pytest.raises(NoAnswers, match=r"no query \(of 1\)"):
        score(
            iter([distance[:1]]), np.array([9]), np.array([1]), np.array([1, 3]), np.array([2, 2])
        )


def test_blocks_give_what_one_matrix_gives() -> None:
    query, gallery, *labels = _random_set(1, queries=600, gallery=50)

    blocks = list(distances(query, gallery, "cosine"))
    one = score(iter([np.concatenate(blocks)]), *labels)

    assert len(blocks) > 1
    assert score(iter(blocks), *labels) == one


def _paper_rerank(features: Features, queries: int, k1: int, k2: int, weight: float) -> Features:
    """The authors' published procedure on dense matrices, loop by loop."""
    n = len(features)
    original = 2 - 2 * features @ features.T
    original = (original / original.max(0)).T
    encoded = np.zeros((n, n))
    order = np.argsort(original, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> NDArray[np.int64]:
        forward = order[i, : k + 1]
        return forward[np.where(order[forward, : k + 1] == i)[0]]

    for i in range(n):
        own = reciprocal(i, k1)
        expanded = own
        for candidate in own:
            other = reciprocal(candidate, round(k1 / 2))
            if len(np.intersect1d(other, own)) > 2 / 3 * len(other):
                expanded = np.append(expanded, other)
        expanded = np.unique(expanded)
        weights = np.exp(-original[i, expanded])
        encoded[i, expanded] = weights / weights.sum()
    if k2 > 1:
        encoded = np.stack([encoded[order[i, :k2]].mean(0) for i in range(n)])
    jaccard = np.zeros((queries, n))
    for i in range(queries):
        smaller = np.minimum(encoded[i], encoded).sum(1)
        jaccard[i] = 1 - smaller / (2 - smaller)
    mixed: Features = (jaccard * (1 - weight) + original[:queries] * weight)[:, queries:]
    return mixed


def test_reranking_equals_the_published_procedure() -> None:
    query, gallery, *_ = _random_set(3, queries=20, gallery=90)
    query, gallery = unit(query), unit(gallery)

    found = np.concatenate(list(rerank(query, gallery, k1=8, k2=3)))

    wanted = _paper_rerank(np.concatenate([query, gallery]), 20, 8, 3, 0.3)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_reranking_helps_where_neighbours_agree() -> None:
    query, gallery, *labels = _random_set(5, queries=40, gallery=300)

    plain = score(distances(query, gallery, "cosine"), *labels)
    better = score(rerank(unit(query), unit(gallery)), *labels)

    assert better.map > plain.map


@pytest.mark.parametrize("gallery", [1, 2, 4])
def test_a_handful_of_images_can_be_reranked(gallery: int) -> None:
    features = unit(np.random.default_rng(0).normal(size=(1 + gallery, 8)).astype(np.float32))

    found = np.concatenate(list(rerank(features[:1], features[1:])))

    assert found.shape == (1, gallery)
    assert np.isfinite(found).all()


def test_images_that_are_all_the_same_can_be_reranked() -> None:
    features = np.ones((6, 4), np.float32) / 2

    found = np.concatenate(list(rerank(features[:2], features[2:])))

    assert np.isfinite(found).all()
