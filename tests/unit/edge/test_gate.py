"""Masks, zones and the motion gate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edge.config import GateConfig
from edge.gate import Gate
from edge.types import Detections, Image
from tests.unit.edge.tracks import detections, person_box

WIDTH, HEIGHT = 640, 360

LEFT_HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))


def _noises() -> list[npt.NDArray[np.int16]]:
    """A still street under sensor noise, four times."""
    random = np.random.default_rng(1)
    still = random.integers(60, 180, (HEIGHT // 8, WIDTH // 8, 1), np.uint8)
    street = np.kron(still, np.ones((8, 8, 3), np.uint8)).astype(np.int16)
    return [street + random.normal(0, 6, street.shape).astype(np.int16) for _ in range(4)]


STREETS = _noises()


def scene(seed: int = 0, *, person_at: float | None = None) -> Image:
    """The street, and perhaps a person."""
    image = np.clip(STREETS[seed % len(STREETS)], 0, 255).astype(np.uint8)
    if person_at is not None:
        x1, y1, x2, y2 = person_box(person_at, feet=200.0, height=60.0).astype(int)
        image[y1:y2, x1:x2] = 20
    return image


def settled(gate: Gate, until_s: float = 10.0) -> None:
    """Show the empty street until the gate has closed."""
    for index in range(round(until_s * 5) + 1):
        gate.active(scene(index), now_s=index / 5, tracks_alive=False)


def test_a_gate_starts_open_and_closes_when_nothing_moves_for_the_hold() -> None:
    gate = Gate(config=GateConfig())

    states = {i / 5: gate.active(scene(i), now_s=i / 5, tracks_alive=False) for i in range(50)}

    assert all(active for at, active in states.items() if at <= 3.0)
    assert not any(active for at, active in states.items() if at > 3.0)


def test_somebody_who_comes_in_opens_the_gate_at_once() -> None:
    gate = Gate(config=GateConfig())
    settled(gate)

    before = gate.active(scene(99), now_s=10.2, tracks_alive=False)
    entering = gate.active(scene(100, person_at=100.0), now_s=10.4, tracks_alive=False)

    assert not before
    assert entering


def test_the_gate_stays_open_while_somebody_is_followed_who_stands_still() -> None:
    gate = Gate(config=GateConfig())
    settled(gate)

    alive = [
        gate.active(scene(i, person_at=100.0), now_s=10.0 + i / 5, tracks_alive=True)
        for i in range(300)
    ]
    gone = gate.active(scene(1, person_at=100.0), now_s=70.2, tracks_alive=False)

    assert all(alive)
    assert not gone


def test_motion_under_a_mask_does_not_open_the_gate() -> None:
    gate = Gate(config=GateConfig(masks=(LEFT_HALF,)))
    settled(gate)

    masked = gate.active(scene(1, person_at=100.0), now_s=10.2, tracks_alive=False)
    free = gate.active(scene(1, person_at=450.0), now_s=10.4, tracks_alive=False)

    assert not masked
    assert free


def test_a_larger_motion_area_ignores_a_person() -> None:
    gate = Gate(config=GateConfig(motion_min_area=0.2))
    settled(gate)

    assert not gate.active(scene(1, person_at=100.0), now_s=10.2, tracks_alive=False)


def test_motion_off_is_always_active() -> None:
    gate = Gate(config=GateConfig(motion=False))

    assert all(gate.active(scene(i), now_s=float(i), tracks_alive=False) for i in range(20))


def test_a_frame_of_another_size_starts_open() -> None:
    gate = Gate(config=GateConfig())
    settled(gate)

    small = np.ascontiguousarray(scene(1)[::2, ::2])

    assert gate.active(small, now_s=10.2, tracks_alive=False)


def test_masks_are_painted_on_a_copy() -> None:
    gate = Gate(config=GateConfig(masks=(LEFT_HALF,)))
    image = scene()
    before = image.copy()

    painted = gate.masked(image)

    assert (painted[:, : WIDTH // 2 - 1] == 114).all()
    np.testing.assert_array_equal(painted[:, WIDTH // 2 + 2 :], before[:, WIDTH // 2 + 2 :])
    np.testing.assert_array_equal(image, before)


def test_without_masks_the_image_itself_goes_on() -> None:
    image = scene()

    assert Gate(config=GateConfig()).masked(image) is image


def test_zones_keep_people_whose_feet_are_inside() -> None:
    gate = Gate(config=GateConfig(zones=(LEFT_HALF,)))
    inside, outside = person_box(0.45 * WIDTH, 200.0), person_box(0.55 * WIDTH, 200.0)

    kept = gate.inside(detections([inside, outside], [0.9, 0.8]), WIDTH, HEIGHT)

    np.testing.assert_array_equal(kept.boxes, inside[None])
    assert kept.scores == pytest.approx([0.9])


def test_a_body_that_reaches_into_a_zone_with_feet_outside_is_left_out() -> None:
    upper = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5))
    gate = Gate(config=GateConfig(zones=(upper,)))

    assert len(gate.inside(detections([person_box(300.0, feet=200.0)]), WIDTH, HEIGHT)) == 0


def test_without_zones_everybody_stays_and_nobody_is_fine() -> None:
    everybody = detections([person_box(300.0, 200.0)])

    assert Gate(config=GateConfig()).inside(everybody, WIDTH, HEIGHT) is everybody
    zoned = Gate(config=GateConfig(zones=(LEFT_HALF,)))
    assert len(zoned.inside(Detections.none(), WIDTH, HEIGHT)) == 0
