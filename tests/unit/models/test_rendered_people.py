"""Are packed people of the rendered street what they promise: repeatable, of known people?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer

from models.data.pack import load_packs
from models.lens import Lens
from models.rendered_people import CAMERAS, LEAST_CROPS, PEOPLE, SIZE, crops, main


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("people") / "rendered.npz"
    main(path, first_seed=5000, scenes=1, frames=8)
    return path


def test_every_person_has_crops_of_several_cameras_and_lights(packed: Path) -> None:
    pack = load_packs([packed])

    assert pack.sources == ("rendered:train",)
    assert pack.images.shape[1:] == (*SIZE, 3)
    people, counts = np.unique(pack.person, return_counts=True)
    assert 1 <= people.min() <= people.max() <= PEOPLE
    assert len(people) > PEOPLE / 3
    assert counts.min() >= LEAST_CROPS
    assert set(pack.camera) <= set(range(1, CAMERAS + 1))
    cameras = [len(set(pack.camera[pack.person == one])) for one in people]
    assert np.mean(cameras) > 1.5
    brightness = [pack.images[pack.person == one].mean((1, 2, 3)) for one in people]
    assert np.median([values.max() / values.min() for values in brightness]) > 1.5


def test_a_seed_always_gives_the_same_crops() -> None:
    first, again = (next(crops(5001)) for _ in range(2))

    np.testing.assert_array_equal(first.image, again.image)
    assert (first.person, first.camera) == (again.person, again.camera)


def test_a_folder_that_is_not_there_is_named_before_anything_is_rendered(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="there is no folder"):
        main(tmp_path / "none" / "rendered.npz")


def test_unknown_clothes_and_views_are_named_before_anything_is_rendered(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="everyday or distinct"):
        main(tmp_path / "rendered.npz", clothes="festive")
    with pytest.raises(typer.BadParameter, match="wall, steep, low"):
        main(tmp_path / "rendered.npz", views="low,under")


def test_one_camera_gives_all_its_pictures_the_same_cast_and_another_camera_another() -> None:
    rng = np.random.default_rng(4)
    one, other = Lens.draw(rng), Lens.draw(rng)
    white = np.full((80, 40, 3), 200, np.uint8)

    def cast(lens: Lens) -> tuple[int, ...]:
        return tuple(lens.take(white, rng).mean((0, 1)).round().astype(int))

    assert np.abs(np.subtract(cast(one), cast(one))).max() <= 1
    assert np.abs(np.subtract(cast(one), cast(other))).max() > 4
