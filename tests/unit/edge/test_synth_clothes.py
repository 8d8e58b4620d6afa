"""What the people of the rendered street wear: the same at every call, everyday or distinct."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest

from edge.sources.scene import SceneError, SceneParams, SynthScene, gait, patterns
from edge.sources.scene.everyday import dress_everyday
from edge.sources.scene.figure import Figure, View
from edge.sources.scene.wardrobe import Looks, dress_people

SUN = np.array([0.0, 1.0, 0.0])
FROM_BEFORE = View(phase=-1, azimuth=8, elevation=1, level=1)


def _saturation(looks: Looks) -> float:
    blue, green, red = np.array(looks.top_colour) / 255
    return colorsys.rgb_to_hsv(red, green, blue)[1]


def _drawn(looks: Looks) -> np.ndarray:
    return Figure(looks, 3).draw(FROM_BEFORE, SUN).colour


@pytest.fixture
def plain() -> Looks:
    (one,) = dress_people(np.random.default_rng(5), 1)
    return replace(one, pattern="plain", headwear="none", bag="none", top="tshirt", motif=8)


def test_everyday_tops_are_mostly_black_white_or_grey_and_distinct_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    everyday = [_saturation(one) for one in dress_everyday(rng, 300)]
    distinct = [_saturation(one) for one in dress_people(rng, 300)]

    assert np.median(everyday) < 0.2 < np.median(distinct)


def test_everyday_people_of_one_seed_are_always_the_same() -> None:
    params = SceneParams(people=6, width=256, height=192, clothes="everyday")

    first, again, distinct = (
        SynthScene(one).frame(1, 20)
        for one in (params, params, replace(params, clothes="distinct"))
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, distinct)


def test_clothes_that_do_not_exist_are_refused_with_what_there_is() -> None:
    assert SceneParams.parse("synth://street?clothes=everyday").clothes == "everyday"
    with pytest.raises(SceneError, match=r"clothes=festive .*everyday, distinct"):
        SceneParams.parse("synth://street?clothes=festive")


@pytest.mark.parametrize("pattern", ["pinstripes", "flowers", "logo", "open"])
def test_a_pattern_shows_from_before_and_another_motif_lies_elsewhere(
    plain: Looks, pattern: str
) -> None:
    marked = replace(plain, pattern=pattern, top_colour=(20, 20, 20), top_second=(230, 230, 230))
    dark = replace(marked, pattern="plain")

    assert np.abs(_drawn(marked).astype(int) - _drawn(dark)).max() > 60
    assert not np.array_equal(_drawn(marked), _drawn(replace(marked, motif=9)))


@pytest.mark.parametrize("trim", ["side", "faded", "flowers"])
def test_a_trim_changes_the_legs_and_nothing_above_the_waist(plain: Looks, trim: str) -> None:
    looks = replace(plain, bottom="trousers", trim=trim, third_colour=(10, 240, 10))
    legs = np.array([[0.08, 0.1, 0.68], [0.0, 0.1, 0.6], [0.01, 0.16, 0.4]] * 20)
    legs[:, 2] += np.linspace(-0.3, 0.1, len(legs))
    colours = np.full_like(legs, 90.0)

    assert np.abs(patterns.on_legs(looks, legs, colours) - colours).max() > 20
    assert np.array_equal(patterns.on_top(looks, legs, colours), colours)


def test_an_arm_that_holds_a_telephone_stays_before_the_body_through_the_whole_stride() -> None:
    swinging: list[np.ndarray] = []
    holding: list[np.ndarray] = []
    for phase in np.linspace(0, 1, 9):
        for held, places in ((None, swinging), ({1: (22.0, 105.0)}, holding)):
            rotations, origins = gait.pose(float(phase), held=held)
            right = gait.FOREARM + 1
            hand = origins[right] + rotations[right] @ np.array([0, 0, -0.3])
            places.append(hand - origins[gait.CHEST])

    assert min(place[0] for place in holding) > 0.2
    assert np.ptp([place[0] for place in holding]) < np.ptp([place[0] for place in swinging]) / 2
