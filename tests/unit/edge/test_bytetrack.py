"""Who is whom: births, crossings, occlusions, signs, ends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import TrackConfig
from edge.track.bytetrack import Tracker
from edge.types import Detections, Floats, TrackStep
from tests.unit.edge.tracks import (
    HEIGHT,
    WIDTH,
    captured,
    detections,
    follow,
    person_box,
    unit,
)

FRAME_RATES = [5.0, 10.0, 25.0]
SPEED = 96.0  # pixels/s: 0.8 heights/s


def walker(at: float, *, start: float = 200.0, speed: float = SPEED, feet: float = 400.0) -> Floats:
    return person_box(start + speed * at, feet)


@pytest.mark.parametrize("fps", FRAME_RATES)
def test_a_walker_is_confirmed_after_three_hits_and_the_confirmation_time(fps: float) -> None:
    told = follow(lambda at: [walker(at)], until_s=3.0, fps=fps)

    when = next(at for at, step in told.steps if step.confirmed)
    assert told.numbers() == [1]
    assert max(0.3, 2 / fps) - 1e-6 <= when <= 0.8


def test_hits_before_the_confirmation_are_told_late_with_the_number() -> None:
    told = follow(lambda at: [walker(at)], until_s=1.0)

    step = next(step for _, step in told.steps if step.confirmed)
    first = step.earlier[0]
    assert first.frame_index == 0
    assert first.captured == captured(0.0)
    assert [late.frame_index for late in step.earlier] == list(range(len(step.earlier)))
    assert {late.box.tracklet for late in step.earlier} == {1}


@pytest.mark.parametrize("fps", FRAME_RATES)
def test_a_tracklet_ends_two_seconds_after_its_last_hit(fps: float) -> None:
    told = follow(lambda at: [walker(at)] if at <= 2.0 else [], until_s=6.0, fps=fps)

    assert told.ended_at(1) == pytest.approx(4.0, abs=1e-6)
    assert not told.tracker.alive


def test_a_tracklet_unseen_for_a_little_less_than_its_end_lives_on() -> None:
    told = follow(lambda at: [walker(at)] if not 2.0 < at < 3.9 else [], until_s=6.0)

    assert told.numbers() == [1]
    assert not any(step.ended for _, step in told.steps)


@pytest.mark.parametrize("fps", FRAME_RATES)
def test_two_people_crossing_keep_their_identities(fps: float) -> None:
    def walk(at: float) -> list[Floats]:
        return [walker(at), walker(at, start=776.0, speed=-SPEED, feet=430.0)]

    told = follow(walk, until_s=6.0, fps=fps)

    assert told.numbers() == [1, 2]
    first = told.number_at(2.0, walk(2.0)[0])
    second = told.number_at(2.0, walk(2.0)[1])
    assert told.number_at(5.0, walk(5.0)[0]) == first
    assert told.number_at(5.0, walk(5.0)[1]) == second


def test_two_people_who_hide_each_other_while_crossing_keep_their_identities() -> None:
    def walk(at: float) -> list[Floats]:
        near, far = walker(at, feet=430.0), walker(at, start=776.0, speed=-SPEED)
        return [near] if abs(near[0] - far[0]) < 40.0 else [near, far]

    told = follow(walk, until_s=6.0)

    assert told.numbers() == [1, 2]
    assert told.number_at(5.0, walk(5.0)[0]) == told.number_at(2.0, walk(2.0)[0])
    assert told.number_at(5.0, walk(5.0)[1]) == told.number_at(2.0, walk(2.0)[1])


def test_appearance_tells_apart_two_people_who_turn_back_while_they_hide_each_other() -> None:
    # both walk to the middle, are hidden for half a second, and turn round: boxes alone swap them
    def places(at: float) -> tuple[float, float]:
        gone = SPEED * min(at, 6.0 - at)
        return 200.0 + gone, 776.0 - gone

    def walk(at: float) -> list[Floats]:
        left, right = places(at)
        return [] if 2.75 < at < 3.25 else [person_box(left, 405.0), person_box(right, 400.0)]

    def looks(box: Floats, at: float) -> Floats:
        left, right = places(at)
        middle = float(box[0] + box[2]) / 2
        return unit([1, 0, 0.3]) if abs(middle - left) < abs(middle - right) else unit([0, 1, 0.3])

    told = follow(walk, until_s=5.5, looks=looks)

    assert told.numbers() == [1, 2]
    assert told.number_at(5.0, walk(5.0)[0]) == told.number_at(1.5, walk(1.5)[0])
    assert told.number_at(5.0, walk(5.0)[1]) == told.number_at(1.5, walk(1.5)[1])


def test_somebody_else_who_comes_out_from_behind_the_post_gets_a_number_of_his_own() -> None:
    def walk(at: float) -> list[Floats]:
        return [] if 2.5 < at < 3.5 else [walker(at)]

    def looks(_box: Floats, at: float) -> Floats:
        return unit([1, 0, 0.2]) if at < 3.0 else unit([0, 1, 0.2])

    alone = follow(walk, until_s=5.0)
    seen = follow(walk, until_s=5.0, looks=looks)

    assert alone.numbers() == [1]
    assert seen.numbers() == [1, 2]


def test_a_lost_person_found_by_appearance_is_told_as_relinked_once() -> None:
    def walk(at: float) -> list[Floats]:
        return [] if 2.5 < at < 3.5 else [walker(at)]

    told = follow(walk, until_s=5.0, looks=lambda _box, _at: unit([1, 0, 0]))

    assert told.numbers() == [1]
    assert [step.relinked for _, step in told.steps if step.relinked] == [(1,)]


def test_a_gap_that_closed_is_told_late_as_predicted_boxes() -> None:
    told = follow(lambda at: [] if 2.0 < at < 3.0 else [walker(at)], until_s=4.0)

    step = next(step for at, step in told.steps if at == 3.0)
    assert [late.frame_index for late in step.earlier] == list(range(21, 30))
    assert not any(late.box.detected for late in step.earlier)
    middle = step.earlier[4].box.box
    assert float(middle[0] + middle[2]) / 2 == pytest.approx(200 + SPEED * 2.5, abs=8.0)


@pytest.mark.parametrize("seed", range(8))
def test_a_sign_is_never_tracked_and_lets_the_gate_close(seed: int) -> None:
    random = np.random.default_rng(seed)  # its box strays by 3 % of its height

    def walk(at: float) -> list[Floats]:
        return [person_box(600.0) + random.normal(0, 3.5, 4).astype(np.float32)]

    told = follow(walk, until_s=20.0)

    assert told.numbers() == []
    assert not told.tracker.alive


def test_a_passer_by_does_not_leave_his_number_on_a_sign() -> None:
    # he is not detected while he passes the sign, and then is gone
    def walk(at: float) -> list[Floats]:
        sign = person_box(600.0)
        return [sign, walker(at - 4.0)] if 4.0 <= at < 8.0 else [sign]

    told = follow(walk, until_s=14.0)

    assert told.numbers() == [1]
    assert told.ended_at(1) == pytest.approx(9.9, abs=0.15)


def test_somebody_who_stood_still_is_tracked_once_he_walks() -> None:
    def walk(at: float) -> list[Floats]:
        return [person_box(400.0 + SPEED * max(0.0, at - 5.0))]

    told = follow(walk, until_s=8.0)

    assert told.numbers() == [1]
    assert 5.0 < next(at for at, step in told.steps if step.confirmed) < 6.5


def test_a_walker_who_stops_stays_tracked() -> None:
    told = follow(lambda at: [walker(min(at, 2.0))], until_s=30.0)

    assert told.numbers() == [1]
    assert told.tracker.alive


def test_weak_detections_continue_a_tracklet_and_do_not_start_one() -> None:
    def walk(at: float) -> list[Floats]:
        return [walker(at)]

    weak = follow(walk, until_s=4.0, score=0.4)
    tracker = Tracker(config=TrackConfig(), frame_size=(WIDTH, HEIGHT))
    steps = [
        tracker.update(
            detections(walk(i / 10), 0.9 if i < 10 else 0.4),
            captured=captured(i / 10),
            frame_index=i,
        )
        for i in range(50)
    ]

    assert weak.numbers() == []
    assert steps[-1].boxes[0].tracklet == 1
    assert not any(step.ended for step in steps)


def test_detections_below_the_low_threshold_are_as_if_not_there() -> None:
    told = follow(lambda at: [walker(at), walker(at, start=700.0)], until_s=2.0, score=[0.9, 0.05])

    assert told.numbers() == [1]
    assert all(len(step.boxes) <= 1 for _, step in told.steps)


def test_where_the_budget_refuses_boxes_alone_decide() -> None:
    def walk(at: float) -> list[Floats]:
        return [walker(at), walker(at, start=776.0, speed=-SPEED, feet=430.0)]

    refused = follow(walk, until_s=6.0, looks=lambda _box, _at: np.array([np.nan], np.float32))
    alone = follow(walk, until_s=6.0)

    assert [s.boxes for _, s in refused.steps] != []
    for (_, a), (_, b) in zip(refused.steps, alone.steps, strict=True):
        assert [box.tracklet for box in a.boxes] == [box.tracklet for box in b.boxes]


def test_a_budget_that_refuses_now_and_grants_then_does_no_harm() -> None:
    grants = itertools.cycle([False, True, True, False, False])

    def looks(_box: Floats, _at: float) -> Floats:
        return unit([1, 0, 0]) if next(grants) else np.full(3, np.nan, np.float32)

    def walk(at: float) -> list[Floats]:
        return [walker(at), walker(at, start=776.0, speed=-SPEED, feet=430.0)]

    tracker = Tracker(config=TrackConfig(), frame_size=(WIDTH, HEIGHT))
    confirmed = []
    for index in range(60):

        def appearance(boxes: Floats, at: float = index / 10) -> Floats:
            rows = np.stack([looks(box, at) for box in boxes])
            # where all are refused the length of a row is not known
            return rows if np.isfinite(rows).any() else rows[:, :1]

        step = tracker.update(
            detections(walk(index / 10)),
            captured=captured(index / 10),
            frame_index=index,
            appearance=appearance,
        )
        confirmed += step.confirmed

    assert confirmed == [1, 2]


def test_a_forgotten_appearance_does_not_end_a_tracklet() -> None:
    told = follow(lambda at: [walker(at)], until_s=2.0, looks=lambda _box, _at: unit([1, 0]))

    told.tracker.forget_appearance()
    step = told.tracker.update(
        detections([walker(2.1)]),
        captured=captured(2.1),
        frame_index=21,
        appearance=lambda boxes: np.ones((len(boxes), 5), np.float32) / np.sqrt(np.float32(5)),
    )

    assert [box.tracklet for box in step.boxes] == [1]


def test_appearance_is_not_asked_for_people_who_walk_alone() -> None:
    asked: list[int] = []

    def looks(_box: Floats, _at: float) -> Floats:
        asked.append(1)
        return unit([1, 0])

    told = follow(lambda at: [walker(at), walker(at, feet=680.0)], until_s=6.0, looks=looks)

    assert told.numbers() == [1, 2]
    assert len(asked) <= 2 * 2


def test_relink_off_never_asks_for_appearance() -> None:
    def looks(_box: Floats, _at: float) -> Floats:
        raise AssertionError("asked")

    told = follow(
        lambda at: [] if 2.5 < at < 3.5 else [walker(at)],
        until_s=5.0,
        looks=looks,
        config=TrackConfig(relink=False),
    )

    assert told.numbers() == [1]


def test_a_source_that_stopped_ends_its_tracklets_by_the_clock() -> None:
    told = follow(lambda at: [walker(at)], until_s=2.0)

    early = told.tracker.expire(3.9)
    late = told.tracker.expire(4.0)

    assert early.ended == ()
    assert late.ended == (1,)


def test_finishing_ends_everybody_once() -> None:
    told = follow(lambda at: [walker(at)], until_s=2.0)

    first, second = told.tracker.finish(), told.tracker.finish()

    assert first == TrackStep((), ended=(1,))
    assert second == TrackStep(())


def test_a_long_pause_ends_the_old_tracklet_and_the_newcomer_is_somebody_new() -> None:
    told = follow(lambda at: [walker(at)], until_s=2.0)

    step = told.tracker.update(detections([walker(2.0)]), captured=captured(60.0), frame_index=21)

    assert step.ended == (1,)
    assert step.boxes == ()


def test_trackers_that_share_numbers_never_give_one_twice() -> None:
    numbers = itertools.count(1)
    both = [
        Tracker(config=TrackConfig(), frame_size=(WIDTH, HEIGHT), numbers=numbers) for _ in range(2)
    ]

    confirmed = [
        number
        for i in range(20)
        for tracker in both
        for number in tracker.update(
            detections([walker(i / 10)]), captured=captured(i / 10), frame_index=i
        ).confirmed
    ]

    assert sorted(confirmed) == [1, 2]


def test_boxes_stay_inside_the_frame() -> None:
    told = follow(lambda at: [walker(at, start=WIDTH - 200.0)], until_s=2.5)

    for _, step in told.steps:
        for box in step.boxes:
            assert (box.box >= 0).all()
            assert box.box[2] <= WIDTH


_people = st.lists(
    st.tuples(
        st.floats(30, WIDTH - 30),  # start
        st.floats(-200, 200),  # pixels/s
        st.floats(200, HEIGHT),  # feet
        st.floats(60, 200),  # height
        st.floats(0.1, 1.0),  # score
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(_people, st.integers(0, 2**31), st.sampled_from([2.0, 10.0, 25.0]))
def test_no_two_tracklets_ever_share_a_detection_or_a_number(
    people: list[tuple[float, float, float, float, float]], seed: int, fps: float
) -> None:
    random = np.random.default_rng(seed)
    tracker = Tracker(config=TrackConfig(), frame_size=(WIDTH, HEIGHT))
    ended: set[int] = set()
    for index in range(40):
        at = index / fps
        seen = [p for p in people if random.random() < 0.8]
        boxes = [person_box(x + v * at, feet, height) for x, v, feet, height, _ in seen]
        found = detections(
            [np.clip(b, 0, [WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT]) for b in boxes],
            [p[4] for p in seen],
        )
        looks = random.normal(size=(len(found), 8)).astype(np.float32)
        step = tracker.update(
            found,
            captured=captured(at),
            frame_index=index,
            appearance=lambda b, looks=looks: looks[: len(b)],
        )

        numbers = [box.tracklet for box in step.boxes]
        sources = [_index_of(found, box.detection) for box in step.boxes]
        assert len(set(numbers)) == len(numbers)
        assert len(set(sources)) == len(sources)
        assert not ended & set(numbers)
        assert not ended & {late.box.tracklet for late in step.earlier}
        ended |= set(step.ended)


def _index_of(found: Detections, box: Floats | None) -> int:
    """Which detection a tracked box came from; equal boxes count one by one by identity."""
    assert box is not None
    for index in range(len(found)):
        if np.shares_memory(found.boxes[index], box):
            return index
    raise AssertionError(f"{box} is no detection of this frame")
