"""The filter works in seconds and in heights of the person."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.track.kalman import BoxFilter, from_boxes, to_boxes
from tests.unit.edge.tracks import person_box

SPEED = 96.0  # pixels/s: 0.8 heights/s


def followed(fps: float, seconds: float, *, scale: float = 1.0) -> BoxFilter:
    """A filter after a walk to the right, watched at fps."""
    boxes = BoxFilter()
    for index in range(round(seconds * fps) + 1):
        x = 200.0 + SPEED * index / fps
        box = (person_box(x) * scale)[None]
        if index == 0:
            boxes.add(box)
            continue
        boxes.predict(1.0 / fps)
        boxes.correct(np.array([0]), box)
    return boxes


@pytest.mark.parametrize("fps", [5.0, 10.0, 25.0])
def test_the_same_path_gives_the_same_estimate_at_every_frame_rate(fps: float) -> None:
    boxes = followed(fps, 3.0)

    boxes.predict(1.0)

    where = 200.0 + SPEED * 4.0
    assert boxes.velocity[0, 0] == pytest.approx(SPEED, rel=0.02)
    assert boxes.position[0, 0] == pytest.approx(where, abs=0.02 * SPEED)


def test_many_small_steps_predict_what_one_large_step_predicts() -> None:
    once, often = followed(10.0, 1.0), followed(10.0, 1.0)

    once.predict(2.0)
    for _ in range(20):
        often.predict(0.1)

    np.testing.assert_allclose(often.position, once.position)
    np.testing.assert_allclose(often.spread, once.spread, rtol=1e-9)


def test_a_walk_twice_as_large_is_estimated_twice_as_large() -> None:
    near, far = followed(10.0, 2.0, scale=2.0), followed(10.0, 2.0)

    near.predict(0.5)
    far.predict(0.5)

    np.testing.assert_allclose(near.position, 2 * far.position, rtol=1e-6)
    np.testing.assert_allclose(near.spread, 2 * far.spread, rtol=1e-6)


def test_uncertainty_grows_while_nothing_is_seen_and_shrinks_when_seen() -> None:
    boxes = followed(10.0, 2.0)
    seen = boxes.spread[0, 0]

    boxes.predict(1.0)
    unseen = boxes.spread[0, 0]
    boxes.correct(np.array([0]), person_box(500.0)[None])

    assert unseen > 3 * seen
    assert boxes.spread[0, 0] < unseen / 3


def test_a_noisy_measurement_moves_the_estimate_less() -> None:
    trusting, doubting = followed(10.0, 2.0), followed(10.0, 2.0)
    before = trusting.position[0, 0]
    aside = person_box(before + 30.0)[None]

    trusting.correct(np.array([0]), aside)
    doubting.correct(np.array([0]), aside, np.array([3.0]))

    assert 0 < doubting.position[0, 0] - before < trusting.position[0, 0] - before


def test_a_filter_of_nobody_gives_empty_arrays() -> None:
    boxes = BoxFilter()

    boxes.predict(0.1)
    boxes.correct(np.zeros(0, np.intp), np.zeros((0, 4), np.float32))

    assert boxes.boxes.shape == (0, 4)
    assert boxes.spread.shape == (0, 2)


@given(
    st.lists(
        st.tuples(st.floats(0, 1000), st.floats(0, 500), st.floats(2, 300), st.floats(2, 300)),
        max_size=5,
    )
)
def test_boxes_survive_the_way_into_the_state_and_back(
    corners: list[tuple[float, float, float, float]],
) -> None:
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in corners], np.float32).reshape(-1, 4)

    np.testing.assert_allclose(to_boxes(from_boxes(boxes)), boxes, atol=1e-3)


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=40))
def test_variances_stay_positive_and_finite(events: list[tuple[float, bool]]) -> None:
    boxes = BoxFilter()
    boxes.add(person_box(300.0)[None])

    for dt, seen in events:
        boxes.predict(dt)
        if seen:
            boxes.correct(np.array([0]), person_box(300.0)[None])

    assert np.isfinite(boxes.spread).all()
    assert (boxes.spread > 0).all()
