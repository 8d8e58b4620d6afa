"""Derived spaces: whose vectors go through a site's map, and whose stay as they are."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from numpy.typing import NDArray

from matcher.associate.model import Vectors
from matcher.derived import DerivedSpaces, MapInForce, entry_body, map_in
from reid.model_errors import ModelUnreadable
from reid.site_map import SiteMap, encode
from tests.unit.reid.test_site_map import SIZE, card, made

CAMERA = "door"


def unit(rows: int, size: int = SIZE, seed: int = 1) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(rows, size))
    found: NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return found.astype(np.float32)


def in_force(site_map: SiteMap | None = None) -> MapInForce:
    site_map = site_map or made()
    return MapInForce(site_map, card(site_map))


def test_vectors_of_the_maps_parent_come_back_in_the_derived_space() -> None:
    spaces, vectors = DerivedSpaces(), unit(3)
    spaces.put("site", in_force())

    space, found = spaces.derive("site", "parent", vectors, [CAMERA, "hall", "unknown"])

    assert space == "parent/site/1"
    np.testing.assert_array_equal(found, made().apply(vectors, [CAMERA, "hall", "unknown"]))


@pytest.mark.parametrize(
    ("site", "space", "size"),
    [
        ("other", "parent", SIZE),  # another site's cameras
        ("site", "newer", SIZE),  # the embedder was replaced
        ("site", "parent", SIZE + 1),  # no vector of that space at all
    ],
)
def test_what_the_map_is_not_for_stays_as_it_is(site: str, space: str, size: int) -> None:
    spaces, vectors = DerivedSpaces(), unit(2, size)
    spaces.put("site", in_force())

    found = spaces.derive(site, space, vectors, [CAMERA, CAMERA])

    assert found[0] == space and found[1] is vectors


def test_a_map_taken_out_of_force_is_applied_no_more_and_twice_is_once() -> None:
    spaces, vectors = DerivedSpaces(), unit(1)
    spaces.put("site", in_force())

    spaces.put("site", None)
    spaces.put("site", None)

    assert spaces.derive("site", "parent", vectors, [CAMERA])[1] is vectors
    assert dict(spaces.maps) == {}


def test_a_tracklet_is_compared_in_the_derived_space_and_beside_it_in_others() -> None:
    spaces, qualities = DerivedSpaces(), np.array([0.9, 0.2], np.float32)
    spaces.put("site", in_force())
    stored = {
        "parent": Vectors.of(unit(2), qualities),
        "newer": Vectors.of(unit(2, seed=2), qualities),
    }

    found = spaces.compared("site", CAMERA, stored)

    mapped = made().apply(stored["parent"].shots, [CAMERA, CAMERA])
    assert set(found) == {"parent/site/1", "newer"}
    assert found["newer"] is stored["newer"]
    np.testing.assert_array_equal(found["parent/site/1"].shots, mapped)
    np.testing.assert_array_equal(
        found["parent/site/1"].centre, Vectors.of(mapped, qualities).centre
    )


def test_an_entry_of_the_log_gives_the_map_back_without_its_folder() -> None:
    site_map = made(hidden=3)
    body = entry_body(1, card(site_map), encode(site_map))

    found = map_in(json.dumps(body).encode())

    assert found is not None and found.card == card(site_map)
    np.testing.assert_array_equal(
        found.site_map.apply(unit(4), [CAMERA] * 4), site_map.apply(unit(4), [CAMERA] * 4)
    )


def test_an_entry_of_number_0_holds_no_map() -> None:
    assert map_in(b'{"number": 0}') is None


def test_an_entry_whose_content_is_torn_is_no_map() -> None:
    site_map = made()
    body = entry_body(1, card(site_map), encode(site_map))
    body["content"] = base64.b64encode(encode(site_map)[:100]).decode()

    with pytest.raises(ModelUnreadable, match="the ledger's entry of parent/site/1"):
        map_in(json.dumps(body).encode())
