"""Overlap of boxes, and the assignment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.track.overlap import assign, covered, iou, widened_iou
from edge.types import Floats

NONE: Floats = np.zeros((0, 4), np.float32)
BOX: Floats = np.array([[0, 0, 10, 20]], np.float32)


def moved(by: float) -> Floats:
    return BOX + np.array([by, 0, by, 0], np.float32)


def test_iou_of_half_shifted_boxes_is_a_third() -> None:
    assert iou(BOX, moved(5))[0, 0] == pytest.approx(1 / 3)
    assert iou(BOX, BOX)[0, 0] == pytest.approx(1.0)
    assert iou(BOX, moved(10))[0, 0] == 0.0


def test_widened_boxes_compare_although_they_do_not_touch() -> None:
    margin = np.array([[5.0, 0.0]])

    near, far = widened_iou(BOX, moved(12), margin), widened_iou(BOX, moved(18), margin)

    assert near[0, 0] > far[0, 0] > 0.0


def test_a_small_box_inside_a_large_one_is_covered_whole_and_covers_little() -> None:
    small = np.array([[2, 2, 4, 4]], np.float32)

    assert covered(small, BOX)[0, 0] == pytest.approx(1.0)
    assert covered(BOX, small)[0, 0] == pytest.approx(4 / 200)


def test_nobody_overlaps_with_nobody() -> None:
    assert iou(NONE, BOX).shape == (0, 1)
    assert iou(BOX, NONE).shape == (1, 0)
    assert covered(NONE, NONE).shape == (0, 0)
    assert assign(np.zeros((0, 3)), 0.5) == []
    assert assign(np.zeros((3, 0)), 0.5) == []


def test_pairs_above_the_limit_stay_apart() -> None:
    assert assign(np.array([[0.9, 0.2], [0.95, 0.9]]), 0.8) == [(0, 1)]


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.floats(0, 1), min_size=16, max_size=16))
def test_the_assignment_is_the_cheapest_one(rows: int, columns: int, values: list[float]) -> None:
    limit = 0.6
    cost = np.array(values[: rows * columns]).reshape(rows, columns)

    pairs = assign(cost, limit)

    # leaving a pair out costs the limit: the total of every possible choice
    def total(chosen: list[tuple[int, int]]) -> float:
        return sum(cost[r, c] for r, c in chosen) + limit * (min(rows, columns) - len(chosen))

    best = min(
        total(list(zip(some_rows, some_columns, strict=True)))
        for count in range(min(rows, columns) + 1)
        for some_rows in itertools.combinations(range(rows), count)
        for some_columns in itertools.permutations(range(columns), count)
    )
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
    assert total(pairs) == pytest.approx(best, abs=1e-6)
