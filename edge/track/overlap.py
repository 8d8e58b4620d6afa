"""How much boxes overlap, and who belongs to whom.

Promise: pure functions on arrays; empty input gives empty output of the right shape.
Boxes are x1 y1 x2 y2 in pixels, areas positive.
"""

from __future__ import annotations

import lap
import numpy as np
import numpy.typing as npt

from edge.types import Floats

Doubles = npt.NDArray[np.float64]
Pairs = list[tuple[int, int]]

REFUSED = 1e3  # a cost that no assignment takes


def iou(first: Floats, second: Floats) -> Doubles:
    """Intersection over union of every pair: (n, 4), (m, 4) -> (n, m) in 0..1."""
    return widened_iou(first, second, np.zeros((len(first), 2)))


def widened_iou(first: Floats, second: Floats, margin: Doubles) -> Doubles:
    """IoU after both boxes of a pair grew by the margin of the first.

    Args:
        first: (n, 4).
        second: (m, 4).
        margin: (n, 2) pixels added at the left and right, and at the top and bottom.
    Returns:
        (n, m) in 0..1. Boxes that do not touch still compare by their distance.
    Source: buffered IoU (C-BIoU), Yang et al., arXiv:2211.14317, section 3.2; there the margin
    is a fixed share of the box, here what the motion model is unsure about.
    """
    a = np.asarray(first, np.float64).reshape(-1, 1, 4)
    b = np.asarray(second, np.float64).reshape(1, -1, 4)
    grow = margin.reshape(-1, 1, 2)
    shared = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 2 * grow
    inter = np.clip(shared, 0.0, None).prod(axis=2)
    sides_a, sides_b = a[..., 2:] - a[..., :2] + 2 * grow, b[..., 2:] - b[..., :2] + 2 * grow
    union = sides_a.prod(axis=2) + sides_b.prod(axis=2) - inter
    return np.asarray(inter / np.maximum(union, 1e-9))


def covered(boxes: Floats, others: Floats) -> Doubles:
    """Share of each box's area that each other box covers: (n, 4), (m, 4) -> (n, m) in 0..1."""
    a = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
    b = np.asarray(others, np.float64).reshape(1, -1, 4)
    shared = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = np.clip(shared, 0.0, None).prod(axis=2)
    return np.asarray(inter / np.maximum((a[..., 2:] - a[..., :2]).prod(axis=2), 1e-9))


def assign(cost: Doubles, limit: float) -> Pairs:
    """Pairs (row, column) of least total cost; a pair above the limit stays apart.

    Source: Jonker and Volgenant, Computing 38, 1987 (lapx), padded with the limit.
    """
    if not cost.size:
        return []
    _, columns, _ = lap.lapjv(np.ascontiguousarray(cost), extend_cost=True, cost_limit=limit)
    return [(row, int(column)) for row, column in enumerate(columns) if column >= 0]
