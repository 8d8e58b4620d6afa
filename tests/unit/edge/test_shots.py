"""Which crops are embedded, and what the budget allows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config import ShotConfig
from edge.shots import (
    Candidate,
    CropBudget,
    FrameEmbeddings,
    ShotSelector,
    occlusion,
    sharpness,
)
from edge.types import Floats, Frame, Image, TrackedBox, TrackStep
from tests.unit.edge.tracks import HEIGHT, WIDTH, captured, frame_at, person_box, tracked

PATCHES = np.random.default_rng(3).integers(0, 255, (HEIGHT // 6, WIDTH // 6, 3), np.uint8)
IMAGE: Image = np.asarray(cv2.resize(PATCHES, (WIDTH, HEIGHT)), np.uint8)


def chosen(
    selector: ShotSelector, boxes: list[Floats], at: float = 0.0, score: float = 0.9
) -> list[Candidate]:
    step = TrackStep(tuple(tracked(n + 1, box, score) for n, box in enumerate(boxes)))
    return selector.choose(frame_at(at, image=IMAGE), step)


def taken_over(selector: ShotSelector, seconds: float, box: Floats) -> list[float]:
    """When somebody who stands there at 10 frames/s is embedded."""
    times = []
    for index in range(round(seconds * 10) + 1):
        found = chosen(selector, [box], index / 10)
        selector.embedded(found, index / 10)
        times += [index / 10] * len(found)
    return times


def test_a_tracklet_is_embedded_once_an_interval_until_it_has_its_good_shots() -> None:
    times = taken_over(ShotSelector(config=ShotConfig()), 20.0, person_box(300.0, height=160.0))

    assert times == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_after_the_good_shots_only_a_clearly_better_crop_is_taken() -> None:
    selector = ShotSelector(config=ShotConfig())
    taken_over(selector, 5.0, person_box(300.0, height=90.0))

    alike = chosen(selector, [person_box(300.0, height=94.0)], 6.0)
    larger = chosen(selector, [person_box(300.0, height=130.0)], 7.0)

    assert alike == []
    assert [candidate.tracklet for candidate in larger] == [1]


@pytest.mark.parametrize(("height", "taken"), [(39.0, 0), (41.0, 1)])
def test_a_crop_below_the_smallest_height_is_refused(height: float, taken: int) -> None:
    found = chosen(ShotSelector(config=ShotConfig()), [person_box(300.0, height=height)])

    assert len(found) == taken


def test_a_person_mostly_hidden_by_somebody_in_front_is_refused() -> None:
    behind, front = person_box(300.0, feet=400.0), person_box(308.0, feet=410.0)

    found = chosen(ShotSelector(config=ShotConfig()), [behind, front])

    assert [candidate.tracklet for candidate in found] == [2]


def test_a_predicted_box_is_never_a_crop() -> None:
    step = TrackStep((TrackedBox(1, person_box(300.0), 0.0, False),))

    found = ShotSelector(config=ShotConfig()).choose(frame_at(0.0, image=IMAGE), step)

    assert found == []


def test_a_damaged_frame_gives_no_crop() -> None:
    frame = Frame("gate", 0, IMAGE, captured(0.0), corrupt=True)

    found = ShotSelector(config=ShotConfig()).choose(
        frame, TrackStep((tracked(1, person_box(300.0)),))
    )

    assert found == []


def test_a_refused_crop_is_offered_again_soon() -> None:
    selector = ShotSelector(config=ShotConfig())
    box = person_box(300.0)

    first = chosen(selector, [box], 0.0)  # the budget refused: embedded() is not told
    again = chosen(selector, [box], 0.2)

    assert len(first) == len(again) == 1


def test_those_with_the_fewest_shots_come_first_and_free_ones_before_all() -> None:
    selector = ShotSelector(config=ShotConfig())
    boxes = [person_box(200.0, height=180.0), person_box(500.0), person_box(800.0)]
    selector.embedded([Candidate(1, boxes[0], 0.5, 0.9)], -2.0)
    step = TrackStep(tuple(tracked(n + 1, box) for n, box in enumerate(boxes)))

    paid = selector.choose(frame_at(0.0, image=IMAGE), step)
    free = selector.choose(
        frame_at(1.0, image=IMAGE), step, embedded=lambda box: bool(box[0] == boxes[2][0])
    )

    assert [candidate.tracklet for candidate in paid][-1] == 1
    assert next(candidate.tracklet for candidate in free) == 3


def test_an_ended_tracklet_is_forgotten() -> None:
    selector = ShotSelector(config=ShotConfig())
    taken_over(selector, 5.0, person_box(300.0))

    selector.choose(frame_at(6.0, image=IMAGE), TrackStep((), ended=(1,)))
    found = chosen(selector, [person_box(300.0)], 7.0)

    assert len(found) == 1


def quality(box: Floats, image: Image = IMAGE, score: float = 0.9) -> float:
    step = TrackStep((tracked(1, box, score),))
    found = ShotSelector(config=ShotConfig()).choose(frame_at(0.0, image=image), step)
    return found[0].quality


def test_quality_prefers_large_sharp_whole_and_certain() -> None:
    plain = quality(person_box(300.0))
    blurred = np.asarray(cv2.GaussianBlur(IMAGE, (0, 0), 6.0), np.uint8)

    assert quality(person_box(300.0, height=60.0)) < plain
    assert quality(person_box(300.0), blurred) < plain
    assert quality(person_box(300.0), score=0.6) < plain
    assert quality(person_box(20.0)) < plain  # cut off by the left border
    assert 0.0 < plain <= 1.0


def test_sharpness_of_nothing_is_zero() -> None:
    assert sharpness(IMAGE, np.array([10, 10, 11, 11], np.float32)) == 0.0
    assert sharpness(np.zeros((50, 50, 3), np.uint8), np.array([0, 0, 40, 40], np.float32)) == 0.0


def test_who_stands_in_front_is_less_occluded_than_who_stands_behind() -> None:
    hidden = occlusion(np.stack([person_box(300.0, 400.0), person_box(308.0, 410.0)]))

    assert hidden[0] > 0.6
    assert hidden[1] < hidden[0]
    assert occlusion(person_box(300.0)[None]) == pytest.approx([0.0])


def test_the_budget_grants_its_rate_and_no_more() -> None:
    budget = CropBudget(per_s=10.0)

    granted = sum(budget.take(5, i / 10) for i in range(101))

    assert granted == 10 + 100  # one second's worth at once, then ten seconds of ten


def test_a_budget_may_be_left_for_others() -> None:
    budget = CropBudget(per_s=10.0)

    tracker = budget.take(10, 0.0, leave=0.5)
    shots = budget.take(10, 0.0)

    assert (tracker, shots) == (5, 5)


@given(
    st.floats(0.1, 100.0),
    st.lists(st.tuples(st.integers(0, 50), st.floats(0.0, 5.0)), max_size=30),
)
def test_the_budget_never_grants_more_than_time_allows(
    per_s: float, asks: list[tuple[int, float]]
) -> None:
    budget, now_s, granted = CropBudget(per_s=per_s), 0.0, 0

    for count, pause_s in asks:
        now_s += pause_s
        given_now = budget.take(count, now_s)
        granted += given_now
        assert 0 <= given_now <= count

    assert granted <= max(1.0, per_s) + per_s * now_s + 1e-6


def test_two_clocks_that_share_a_budget_get_no_time_twice() -> None:
    budget = CropBudget(per_s=10.0)
    budget.take(10, 100.0)

    backwards = budget.take(10, 50.0)
    onwards = budget.take(10, 50.5)

    assert (backwards, onwards) == (0, 5)


def test_an_embedding_is_made_once_for_tracker_and_shots() -> None:
    calls: list[int] = []

    def embed(_image: Image, boxes: Floats) -> Floats:
        calls.append(len(boxes))
        return boxes[:, :2] / np.linalg.norm(boxes[:, :2], axis=1, keepdims=True)

    boxes = np.stack([person_box(100.0), person_box(300.0), person_box(500.0)])
    budget = CropBudget(per_s=100.0)
    embeddings = FrameEmbeddings(image=IMAGE, embed=embed, budget=budget, now_s=0.0)

    first = embeddings.for_tracking(boxes[:2])
    both = embeddings(boxes)

    assert calls == [2, 1]
    np.testing.assert_array_equal(both[:2], first)
    assert embeddings.known(boxes[0])
    assert not embeddings.known(person_box(700.0))


def test_what_the_budget_refuses_comes_back_as_nan() -> None:
    def embed(_image: Image, boxes: Floats) -> Floats:
        return np.ones((len(boxes), 3), np.float32)

    boxes = np.stack([person_box(100.0), person_box(300.0)])
    budget = CropBudget(per_s=1.0)
    embeddings = FrameEmbeddings(image=IMAGE, embed=embed, budget=budget, now_s=0.0)

    some = embeddings(boxes)
    none = FrameEmbeddings(image=IMAGE, embed=embed, budget=budget, now_s=0.0)(boxes)

    assert np.isfinite(some[0]).all()
    assert np.isnan(some[1]).all()
    assert np.isnan(none).all()
    assert len(none) == 2
