"""Do samples repeat, and do their boxes stay on their people?"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from models.detector_augment import IGNORE, MOST_BOXES, PERSON, Sampler, turned
from models.detector_data import Picture
from tests.unit.models.detector_pictures import RED, boxed_picture, no_cutouts, red_extent


def red_cutouts() -> np.ndarray:
    cutout = np.zeros((1, 128, 64, 4), np.uint8)
    cutout[..., :3] = (40, 40, 220)
    cutout[..., 3] = 255
    return cutout


def empty_picture() -> Picture:
    """A grey picture with nobody in it."""
    encoded = cv2.imencode(".png", np.full((200, 200, 3), 90, np.uint8))[1].tobytes()
    none = np.zeros((0, 4), np.float32)
    return Picture("made", "empty", encoded, 200, 200, none, none)


def round_picture() -> Picture:
    """A grey picture with a red ellipse, labelled as a person."""
    picture = boxed_picture()
    image = np.full((200, 200, 3), 90, np.uint8)
    x1, y1, x2, y2 = (int(v) for v in picture.boxes[0])
    centre, axes = ((x1 + x2) // 2, (y1 + y2) // 2), ((x2 - x1) // 2, (y2 - y1) // 2)
    cv2.ellipse(image, centre, axes, 0, 0, 360, RED, -1)
    return replace(picture, encoded=cv2.imencode(".png", image)[1].tobytes())


def test_a_samples_number_alone_decides_what_it_is() -> None:
    pictures = [boxed_picture(), boxed_picture((20, 20, 60, 150))]
    forward, other = (Sampler(pictures, red_cutouts(), seed=5) for _ in range(2))

    first = [forward.draw(n, 96) for n in range(4)]
    again = [other.draw(n, 96) for n in reversed(range(4))][::-1]

    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_another_seed_gives_other_samples() -> None:
    a = Sampler([boxed_picture()], no_cutouts(), seed=1).draw(0, 96)
    b = Sampler([boxed_picture()], no_cutouts(), seed=2).draw(0, 96)

    assert not np.array_equal(a.image, b.image)


def test_boxes_stay_on_their_people_through_cuts_scales_mirrors_and_turns() -> None:
    sampler = Sampler([round_picture()], no_cutouts(), seed=3)

    checked = 0
    for number in range(80):
        sample = sampler.draw(number, 160, closing=True)
        people = sample.boxes[sample.kinds == PERSON]
        if (sample.kinds > 0).sum() == 1 and len(people) == 1:
            np.testing.assert_allclose(people[0], red_extent(sample.clean), atol=2.5)
            checked += 1

    assert checked > 20


def test_a_turned_box_is_the_one_around_the_turned_ellipse() -> None:
    upright = np.array([[40, 20, 60, 80]], np.float32)  # half axes 10 and 30 around (50, 50)

    lying = turned(upright, np.pi / 2, np.array([50.0, 50.0]))
    leaning = turned(upright, np.radians(30.0), np.array([50.0, 50.0]))

    np.testing.assert_allclose(lying, [[20, 40, 80, 60]], atol=1e-4)
    half = np.sqrt([10**2 * 0.75 + 30**2 * 0.25, 10**2 * 0.25 + 30**2 * 0.75])
    np.testing.assert_allclose(leaning[0, 2:] - 50, half, atol=1e-4)


def test_pasted_people_are_labelled_where_they_stand() -> None:
    sampler = Sampler([empty_picture()], red_cutouts(), seed=4)

    checked = 0
    for number in range(80):
        sample = sampler.draw(number, 160)
        rows = sample.boxes[sample.kinds > 0]
        if len(rows) == 1:
            x1, y1, x2, y2 = rows[0].astype(int)
            inside = sample.clean[y1:y2, x1:x2].astype(int)
            assert np.median(inside[..., 2] - inside[..., 1]) > 50  # red, darker or lighter
            checked += 1

    assert checked > 2


def test_too_little_left_of_a_person_is_a_region_to_ignore() -> None:
    tiny = boxed_picture((100, 100, 103, 108))

    sample = Sampler([tiny], no_cutouts(), seed=1).draw(0, 64)

    assert PERSON not in sample.kinds[sample.boxes[:, 3] - sample.boxes[:, 1] < 9]
    assert set(sample.kinds.tolist()) <= {0, PERSON, IGNORE}


def test_rows_are_of_fixed_number_with_people_first() -> None:
    sample = Sampler([boxed_picture()], red_cutouts(), seed=1).draw(7, 128)

    used = int((sample.kinds > 0).sum())
    assert sample.boxes.shape == (MOST_BOXES, 4)
    assert (sample.kinds[:used] > 0).all()
    assert sample.boxes.min() >= 0
    assert sample.boxes.max() <= 128


def test_training_without_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        Sampler([], no_cutouts())
