"""Neighbours and the sparse Jaccard distance against a dense reading of the paper's formulas."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.neighbours import FARTHEST, Clustering, Collapsed, cluster, jaccard_graph, nearest


def drawn(people: int, shots: int, noise: float = 0.35) -> NDArray[np.float32]:
    random = np.random.default_rng(5)
    looks = np.repeat(random.normal(size=(people, 24)), shots, axis=0)
    rows = looks + noise * random.normal(size=looks.shape)
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit


def dense_jaccard(unit: NDArray[np.float32], k1: int, k2: int) -> NDArray[np.float64]:
    """arXiv:1701.08398, equations 3 to 10, one row at a time."""
    rows = unit.astype(np.float64)
    distance = 2 - 2 * rows @ rows.T
    np.fill_diagonal(distance, -1.0)
    order = np.argsort(distance, axis=1, kind="stable")
    total = len(rows)

    def reciprocal(row: int, k: int) -> set[int]:
        return {int(one) for one in order[row, : k + 1] if row in order[one, : k + 1]}

    encoded = np.zeros((total, total))
    for row in range(total):
        members = reciprocal(row, k1)
        for one in reciprocal(row, k1):
            half = reciprocal(one, round(k1 / 2))
            if len(half & reciprocal(row, k1)) > 2 / 3 * len(half):
                members |= half
        chosen = sorted(members)
        weights = np.exp(-np.maximum(2 - 2 * rows[chosen] @ rows[row], 0.0))
        encoded[row, chosen] = weights / weights.sum()
    encoded = np.stack([encoded[order[row, :k2]].mean(axis=0) for row in range(total)])
    smaller = np.minimum(encoded[:, None, :], encoded[None, :, :]).sum(axis=2)
    found: NDArray[np.float64] = 1 - smaller / (2 - smaller)
    return found


def test_the_sparse_jaccard_distance_is_the_papers() -> None:
    unit = drawn(12, 6)

    graph = jaccard_graph(unit, k1=8, k2=3)

    wanted = dense_jaccard(unit, 8, 3)
    np.fill_diagonal(wanted, 0.0)
    near = wanted < FARTHEST - 1e-4
    stored = graph.tocoo()
    found = np.full(wanted.shape, np.inf)
    found[stored.row, stored.col] = stored.data
    np.testing.assert_allclose(found[near], wanted[near], atol=2e-5)
    assert not np.isfinite(found[wanted > FARTHEST + 1e-4]).any()


def test_the_nearest_row_is_always_oneself_also_among_twins() -> None:
    unit = np.repeat(drawn(5, 1), 3, axis=0)

    indices, values = nearest(unit, 3)

    assert (indices[:, 0] == np.arange(15)).all()
    assert (np.diff(values[:, 1:], axis=1) <= 0).all()


def test_people_far_apart_fall_into_clusters_of_their_own() -> None:
    labels = cluster(drawn(20, 8), Clustering(eps=0.5, least=3, k1=8, k2=3))

    of_person = labels.reshape(20, 8)
    assert (of_person == of_person[:, :1]).all()
    assert len(np.unique(labels)) == 20


def test_clusters_that_collapse_are_refused_with_what_was_found() -> None:
    with pytest.raises(Collapsed, match="160 of them fall into 20 clusters, the largest of 8"):
        cluster(drawn(20, 8), Clustering(eps=0.5, least=3, k1=8, k2=3, fewest=21))
