"""Are packed pictures of the rendered street what they promise: repeatable, with true labels?"""

from __future__ import annotations

import numpy as np
import pytest

from edge.sources.scene import LIGHTS
from models.detector_data import Picture, read_coco
from models.detector_rendered import main, render, scene_of


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    path = tmp_path_factory.mktemp("rendered") / "street.tar"
    main(path, first_seed=1000, scenes=1, frames=2)
    return read_coco(path)


def test_a_seed_always_gives_the_same_picture_and_labels(pictures: list[Picture]) -> None:
    again = next(render(1000, 1))

    assert again.encoded == pictures[0].encoded
    np.testing.assert_allclose(again.boxes, pictures[0].boxes, atol=0.01)
    assert pictures[1].encoded != pictures[0].encoded


def test_labels_lie_inside_the_picture_on_somebody(pictures: list[Picture]) -> None:
    assert sum(len(picture.boxes) for picture in pictures) > 0
    for picture in pictures:
        assert picture.decode().shape == (picture.height, picture.width, 3)
        rows = np.concatenate([picture.boxes, picture.ignore])
        assert (rows[:, :2] >= 0).all()
        assert (rows[:, 2] <= picture.width).all()
        assert (rows[:, 3] <= picture.height).all()
        assert (rows[:, 2:] > rows[:, :2]).all()


def test_lights_take_turns_and_judging_seeds_are_no_training_seeds() -> None:
    lights = [scene_of(seed).light for seed in range(1000, 1000 + len(LIGHTS))]

    assert sorted(lights) == sorted(LIGHTS)
    assert scene_of(0).seed < 100 <= scene_of(1000).seed
