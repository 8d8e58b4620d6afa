"""Where a threshold may lie: pairs of two cameras only, told apart by person."""

from __future__ import annotations

import numpy as np

from benchmarks.space_similarity import similarities


def test_only_pairs_of_two_cameras_are_compared() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [1, 0]], np.float32)
    people, cameras = np.array([1, 1, 2, 3]), np.array([1, 2, 2, 1])

    one, two = similarities(vectors, people, cameras)

    np.testing.assert_allclose(one, [0.6], atol=1e-6)  # 0 and 1: one person in two cameras
    # 0-2, 1-3 and 2-3 are two people in two cameras; 1-2 and 0-3 share a camera
    np.testing.assert_allclose(sorted(two), [0.0, 0.0, 0.6], atol=1e-6)
