"""Signs and mannequins."""

from __future__ import annotations

import numpy as np

from edge.track.fixtures import MOST, UNSEEN_S, Fixtures
from tests.unit.edge.tracks import person_box


def test_a_fixture_claims_a_detection_once_a_frame() -> None:
    fixtures = Fixtures()
    fixtures.add(person_box(100.0))
    fixtures.advance(0.1)

    before = fixtures.likeness(person_box(101.0)[None])[0, 0]
    fixtures.claim(0, person_box(101.0))
    after = fixtures.likeness(person_box(101.0)[None])[0, 0]
    fixtures.advance(0.1)

    assert before > 0.9
    assert after == 0.0
    assert fixtures.likeness(person_box(101.0)[None])[0, 0] > 0.9


def test_a_detection_beside_a_fixture_is_not_the_fixture() -> None:
    fixtures = Fixtures()
    fixtures.add(person_box(100.0))
    fixtures.advance(0.1)

    assert fixtures.likeness(person_box(120.0)[None])[0, 0] == 0.0
    assert not fixtures.overlaps(person_box(120.0)[None])[0]


def test_a_fixture_follows_a_slow_drift() -> None:
    fixtures = Fixtures()
    fixtures.add(person_box(100.0))

    for index in range(3000):
        fixtures.advance(0.1)
        fixtures.claim(0, person_box(100.0 + 0.02 * index))

    fixtures.advance(0.1)
    assert fixtures.likeness(person_box(160.0)[None])[0, 0] > 0.0


def test_a_fixture_that_is_gone_is_forgotten_but_a_pause_does_not_count() -> None:
    fixtures = Fixtures()
    fixtures.add(person_box(100.0))

    fixtures.advance(3600.0)  # the motion gate was closed for an hour
    after_pause = len(fixtures)
    for _ in range(round(UNSEEN_S / 0.1) + 1):
        fixtures.advance(0.1)

    assert after_pause == 1
    assert len(fixtures) == 0


def test_of_too_many_fixtures_those_seen_last_are_kept() -> None:
    fixtures = Fixtures()

    for index in range(MOST + 1):
        fixtures.advance(0.01)
        fixtures.add(person_box(10.0 + 50.0 * index))

    fixtures.advance(0.01)
    assert len(fixtures) == MOST
    assert not fixtures.overlaps(person_box(10.0)[None])[0]
    assert fixtures.overlaps(np.stack([person_box(10.0 + 50.0 * MOST)]))[0]
