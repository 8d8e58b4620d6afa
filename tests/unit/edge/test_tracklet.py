"""The life of a tracklet: what is told, and when."""

from __future__ import annotations

import numpy as np
import pytest

from edge.track.tracklet import TrackletBook
from edge.types import EarlierBox, Floats, Shot, TrackedBox, Tracklet, TrackStep
from tests.unit.edge.tracks import HEIGHT, WIDTH, captured, person_box, tracked, unit


class Diary:
    """A book fed at 10 frames/s."""

    def __init__(self) -> None:
        self.book = TrackletBook(camera="gate")
        self.index = 0

    def day(
        self,
        boxes: dict[int, Floats],
        *,
        confirmed: tuple[int, ...] = (),
        ended: tuple[int, ...] = (),
        earlier: tuple[EarlierBox, ...] = (),
        shots: tuple[tuple[int, Shot], ...] = (),
    ) -> list[Tracklet]:
        step = TrackStep(
            tuple(tracked(number, box) for number, box in boxes.items()),
            confirmed=confirmed,
            ended=ended,
            earlier=earlier,
        )
        told = self.book.add(
            step,
            shots,
            captured=captured(self.index / 10),
            frame_index=self.index,
            frame_size=(WIDTH, HEIGHT),
        )
        self.index += 1
        return told

    def days(self, count: int, boxes: dict[int, Floats]) -> list[Tracklet]:
        return [tracklet for _ in range(count) for tracklet in self.day(boxes)]


def shot(quality: float, vector: Floats | None = None, at: float = 0.0) -> Shot:
    row = unit([1, 0, 0]) if vector is None else vector
    place = np.array([0.1, 0.1, 0.2, 0.5], np.float32)
    return Shot(captured(at), 0, place, quality, 0.9, {"space": row})


def test_a_tracklet_is_told_when_it_is_confirmed_with_its_first_hits() -> None:
    diary = Diary()
    diary.days(3, {})
    early = tuple(
        EarlierBox(tracked(1, person_box(100.0 + i)), captured(i / 10), i) for i in range(3)
    )

    (told,) = diary.day({1: person_box(103.0)}, confirmed=(1,), earlier=early)

    assert (told.number, told.final, told.camera) == (1, False, "gate")
    assert told.first_seen == captured(0.0)
    assert told.last_seen == captured(0.3)
    assert len(told.path) == 4


def test_an_ended_tracklet_is_told_once_as_final_and_forgotten() -> None:
    diary = Diary()
    diary.day({1: person_box(100.0)}, confirmed=(1,))
    diary.days(20, {})

    (told,) = diary.day({}, ended=(1,))

    assert told.final
    assert told.last_seen == captured(0.0)
    assert diary.days(100, {}) == []
    assert diary.book.living == ()


def test_a_quiet_tracklet_is_told_anew_every_minute() -> None:
    diary = Diary()
    diary.day({1: person_box(100.0)}, confirmed=(1,))

    told = diary.days(1300, {1: person_box(100.0)})

    assert [tracklet.last_seen.seconds for tracklet in told] == pytest.approx([60.0, 120.0])


def test_the_first_shot_a_much_better_one_and_the_last_place_filled_are_told() -> None:
    diary = Diary()
    box = {1: person_box(100.0)}
    diary.day(box, confirmed=(1,))
    told = []
    for quality in (0.30, 0.32, 0.50, 0.33, 0.34, 0.35):
        told.append(diary.day(box, shots=((1, shot(quality)),)))
        told[-1] += diary.days(15, box)

    assert [len(each) for each in told] == [1, 0, 1, 1, 0, 0]


def test_changes_are_told_no_more_often_than_once_a_second() -> None:
    diary = Diary()
    box = {1: person_box(100.0)}
    diary.day(box, confirmed=(1,))

    told = [diary.day(box, shots=((1, shot(0.01 * 1.5**i)),)) for i in range(10)]

    assert sum(map(len, told)) == 1


def test_the_best_four_shots_are_kept_best_first() -> None:
    diary = Diary()
    diary.day({1: person_box(100.0)}, confirmed=(1,))

    for quality in (0.2, 0.6, 0.1, 0.5, 0.3, 0.4):
        diary.day({1: person_box(100.0)}, shots=((1, shot(quality)),))
    (told,) = diary.day({}, ended=(1,))

    assert [s.quality for s in told.shots] == [0.6, 0.5, 0.4, 0.3]
    assert told.embedding_count == 6


def test_a_long_path_is_thinned_evenly_and_keeps_first_and_last() -> None:
    diary = Diary()
    diary.day({1: person_box(100.0)}, confirmed=(1,))
    diary.days(5000, {1: person_box(100.0)})

    (told,) = diary.day({}, ended=(1,))

    times = np.array([point.captured.seconds for point in told.path])
    assert len(times) == 32
    assert times[0] == 0.0
    assert times[-1] == pytest.approx(500.0)
    assert np.diff(times).max() < 3 * np.diff(times).min()


def test_a_short_path_is_kept_whole() -> None:
    diary = Diary()
    diary.day({1: person_box(100.0)}, confirmed=(1,))
    diary.days(9, {1: person_box(100.0)})

    (told,) = diary.day({}, ended=(1,))

    assert [p.captured.seconds for p in told.path] == pytest.approx([i / 10 for i in range(10)])


def test_people_seen_in_one_frame_know_of_each_other() -> None:
    diary = Diary()
    diary.day({1: person_box(100.0)}, confirmed=(1,))
    diary.day({1: person_box(100.0), 2: person_box(500.0)}, confirmed=(2,))
    diary.day({2: person_box(500.0), 3: person_box(800.0)}, confirmed=(3,))

    told = diary.day({}, ended=(1, 2, 3))

    assert [tracklet.seen_with for tracklet in told] == [(2,), (1, 3), (2,)]


def test_two_boxes_that_may_be_one_person_twice_do_not_count_as_two_people() -> None:
    diary = Diary()
    diary.day({1: person_box(100.0), 2: person_box(110.0)}, confirmed=(1, 2))

    told = diary.day({}, ended=(1, 2))

    assert [tracklet.seen_with for tracklet in told] == [(), ()]


def test_who_was_there_before_the_confirmation_is_found_in_hindsight() -> None:
    diary = Diary()
    diary.day({1: person_box(100.0)}, confirmed=(1,))
    diary.day({}, ended=())
    early = (EarlierBox(tracked(2, person_box(500.0)), captured(0.0), 0),)

    diary.day({2: person_box(510.0)}, confirmed=(2,), earlier=early)
    told = diary.day({}, ended=(1, 2))

    assert [tracklet.seen_with for tracklet in told] == [(2,), (1,)]


def test_an_interpolated_box_is_no_sight_of_anybody() -> None:
    diary = Diary()
    diary.day({1: person_box(100.0)}, confirmed=(1,))
    diary.day({2: person_box(500.0)}, confirmed=(2,))
    guess = (EarlierBox(TrackedBox(1, person_box(101.0), 0.0, False), captured(0.1), 1),)

    diary.day({1: person_box(102.0)}, earlier=guess)
    told = diary.day({}, ended=(1, 2))

    assert [tracklet.seen_with for tracklet in told] == [(), ()]
    assert len(told[0].path) == 2


def test_likeness_inside_a_tracklet_is_the_mean_and_variance_of_all_pairs() -> None:
    rows = [unit(v) for v in ([1, 0, 0.2], [1, 0.3, 0], [0.8, 0.1, 0.5])]
    pairs = [float(rows[i] @ rows[j]) for i in range(3) for j in range(i)]
    diary = Diary()
    diary.day({1: person_box(100.0)}, confirmed=(1,))

    for row in rows:
        diary.day({1: person_box(100.0)}, shots=((1, shot(0.5, row)),))
    (told,) = diary.day({}, ended=(1,))

    assert told.embedding_count == 3
    assert told.similarity_mean == pytest.approx(np.mean(pairs), abs=1e-6)
    assert told.similarity_variance == pytest.approx(np.var(pairs), abs=1e-6)


def test_one_embedding_has_no_likeness_yet() -> None:
    diary = Diary()
    diary.day({1: person_box(100.0)}, confirmed=(1,), shots=((1, shot(0.5)),))

    (told,) = diary.day({}, ended=(1,))

    assert (told.embedding_count, told.similarity_mean, told.similarity_variance) == (1, 0.0, 0.0)


def test_boxes_of_the_path_are_shares_of_the_frame() -> None:
    diary = Diary()

    (told,) = diary.day({1: np.array([0, 0, WIDTH, HEIGHT / 2], np.float32)}, confirmed=(1,))

    np.testing.assert_allclose(told.path[0].box_normalised, [0, 0, 1, 0.5])
