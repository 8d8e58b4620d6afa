"""Running means and deviations."""

from __future__ import annotations

import numpy as np
import pytest

from matcher.associate.calibrate import Calibration, Running


def test_running_agrees_with_numpy_through_merges_and_removals() -> None:
    values = np.random.default_rng(5).normal(0.6, 0.1, 500)
    whole, part = Running(), Running()
    for value in values[:200]:
        whole.add(float(value))
    for value in values[200:]:
        part.add(float(value))

    whole.merge(part)

    assert whole.count == 500
    assert whole.mean == pytest.approx(values.mean())
    assert whole.deviation == pytest.approx(values.std(ddof=1))
    whole.remove(part)
    assert whole.mean == pytest.approx(values[:200].mean())
    assert whole.deviation == pytest.approx(values[:200].std(ddof=1))


def test_a_tracklet_that_grew_counts_once() -> None:
    calibration = Calibration()

    calibration.positive("s", "x", "a", Running(3, 0.8, 0.0), None)
    calibration.positive("s", "x", "a", Running(10, 0.9, 0.0), Running(3, 0.8, 0.0))

    (pair, positive, _), (whole, total, _) = calibration.pairs("s")
    assert (pair[2], positive.count, positive.mean) == ("a", 10, pytest.approx(0.9))
    assert (whole[2], total.count) == ("", 10)


def test_sites_are_kept_apart() -> None:
    calibration = Calibration()
    calibration.negative("one", "x", "b", "a", 0.4)

    assert list(calibration.pairs("two")) == []
    assert next(calibration.pairs("one"))[0] == ("one", "x", "a", "b")
