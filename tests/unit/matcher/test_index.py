"""Exact search: the same answers as comparing everything with everything."""

from __future__ import annotations

import numpy as np

from matcher.index import VectorIndex


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_search_agrees_with_plain_comparison_through_puts_and_removals() -> None:
    random = np.random.default_rng(3)
    index = VectorIndex(16)
    truth: dict[int, np.ndarray] = {}
    for step in range(600):
        owner = int(random.integers(0, 120))
        if random.random() < 0.3 and owner in truth:
            index.remove(owner)
            del truth[owner]
        else:
            truth[owner] = unit(random.normal(size=(int(random.integers(1, 5)), 16)))
            index.put(owner, truth[owner])
        if step % 50 == 0:
            queries = unit(random.normal(size=(2, 16)))
            wanted = {owner: float((queries @ rows.T).max()) for owner, rows in truth.items()}

            owners, similarities = index.search(queries)

            assert set(owners.tolist()) == set(wanted)
            assert np.allclose(similarities, [wanted[int(o)] for o in owners], atol=1e-6)
            assert (np.diff(similarities) <= 0).all()
    assert len(index) == sum(len(rows) for rows in truth.values())


def test_an_empty_index_finds_nothing() -> None:
    owners, similarities = VectorIndex(4).search(np.ones((1, 4), np.float32))

    assert owners.shape == (0,)
    assert similarities.shape == (0,)


def test_only_chosen_owners_above_a_bound_are_found() -> None:
    index = VectorIndex(2)
    for owner, angle in ((1, 0.0), (2, 0.3), (3, 1.5)):
        index.put(owner, np.array([[np.cos(angle), np.sin(angle)]], np.float32))
    query = np.array([[1.0, 0.0]], np.float32)

    assert index.search(query, least=0.5)[0].tolist() == [1, 2]
    assert index.search(query, only=[2, 3])[0].tolist() == [2, 3]
