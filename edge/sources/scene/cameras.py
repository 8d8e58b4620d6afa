"""Pinhole cameras on the walls of the street, and how their places are chosen.

Promise: pure geometry. World: metres, z up, the ground is z = 0. Picture: pixels, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

REFERENCE_WIDTH = 768  # the heights below are meant at this picture width
LEAST_HEIGHT_PX = 62.0
MOST_HEIGHT_PX = 245.0
BODY_M = 1.74
CANDIDATES = 300
# height above the ground from .. to in metres; how much of the street they look at
PLACES = {"wall": (3.0, 6.0, 0.7), "steep": (6.0, 8.0, 0.45), "low": (2.0, 3.0, 0.7)}
CROWN_M = 1.6  # lines of sight keep so far from the middle of a tree


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A camera that does not move.

    Attributes:
        position: (3,) in metres.
        axes: (3, 3), rows right, down, forward in world coordinates, of unit length.
        focal: focal length in pixels.
        width, height: of the picture, pixels.
    """

    position: Array
    axes: Array
    focal: float
    width: int
    height: int

    @staticmethod
    def looking_at(position: Array, target: Array, focal: float, width: int, height: int) -> Camera:
        """A camera without roll whose middle pixel shows `target`."""
        forward = target - position
        forward = forward / np.linalg.norm(forward)
        flat = float(np.hypot(forward[0], forward[1]))
        right = np.array([forward[1], -forward[0], 0.0]) / flat
        down = np.array([forward[0] * forward[2], forward[1] * forward[2], -flat * flat]) / flat
        return Camera(position, np.stack([right, down, forward]), focal, width, height)

    def project(self, points: Array) -> tuple[Array, Array]:
        """World points (n, 3) → pixels (n, 2) and depths (n,) in metres along the axis.

        Points behind the camera get a depth <= 0 and pixels without meaning.
        """
        seen = (points - self.position) @ self.axes.T
        depth = seen[:, 2]
        safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
        pixels = seen[:, :2] / safe[:, None] * self.focal
        return pixels + np.array([self.width / 2, self.height / 2]), depth

    def rays(self, factor: int) -> npt.NDArray[np.float32]:
        """Directions (h·factor, w·factor, 3) in the world through a finer grid of pixels."""
        xs = ((np.arange(self.width * factor) + 0.5) / factor - self.width / 2) / self.focal
        ys = ((np.arange(self.height * factor) + 0.5) / factor - self.height / 2) / self.focal
        right, down, forward = self.axes.astype(np.float32)
        x32, y32 = xs.astype(np.float32), ys.astype(np.float32)
        return np.asarray(x32[None, :, None] * right + y32[:, None, None] * down + forward)


def choose_cameras(
    rng: np.random.Generator,
    *,
    count: int,
    half_length: float,
    half_width: float,
    crowns: Array,
    view: str,
    width: int,
    height: int,
) -> list[Camera]:
    """Place `count` cameras on the walls so that people in view are 60 to 250 px high.

    Tries many places; keeps those that see much ground at the wanted sizes, and each further
    camera looks from another side than the ones before. `crowns` (n, 3) are the middles of trees
    that should not stand in the way.
    """
    gx, gy = np.meshgrid(
        np.arange(-half_length + 0.8, half_length - 0.7, 0.7),
        np.arange(-half_width + 0.8, half_width - 0.7, 0.7),
    )
    feet = np.stack([gx.ravel(), gy.ravel(), np.zeros(gx.size)], axis=1)
    found: list[tuple[float, Camera]] = []
    for _ in range(CANDIDATES):
        camera = _candidate(rng, half_length, half_width, view, width, height)
        found.append((_worth(camera, feet, crowns), camera))
    found.sort(key=lambda pair: -pair[0])
    chosen: list[Camera] = []
    while len(chosen) < count:
        best = max(found, key=lambda pair: pair[0] * _novelty(pair[1], chosen))
        chosen.append(best[1])
    return chosen


def _candidate(
    rng: np.random.Generator,
    half_length: float,
    half_width: float,
    view: str,
    width: int,
    height: int,
) -> Camera:
    on_long_side = rng.random() < 0.6
    side = 1.0 if rng.random() < 0.5 else -1.0
    along = float(rng.uniform(-0.92, 0.92))
    if on_long_side:
        place = [along * half_length, side * (half_width - 0.25)]
    else:
        place = [side * (half_length - 0.25), along * half_width]
    lowest, highest, share = PLACES[view]
    up = float(rng.uniform(lowest, highest))
    target = np.array(
        [rng.uniform(-share, share) * half_length, rng.uniform(-share, share) * half_width, 0.6]
    )
    focal = float(rng.uniform(0.75, 1.5)) * width
    return Camera.looking_at(np.array([*place, up]), target, focal, width, height)


def _worth(camera: Camera, feet: Array, crowns: Array) -> float:
    """Ground points seen at a wanted size, less many times those at a wrong size."""
    at_feet, depth = camera.project(feet)
    at_head, _ = camera.project(feet + np.array([0.0, 0.0, BODY_M]))
    tall = np.linalg.norm(at_head - at_feet, axis=1) * REFERENCE_WIDTH / camera.width
    inside = [
        (depth > 0.5)
        & (at[:, 0] > 0)
        & (at[:, 0] < camera.width)
        & (at[:, 1] > 0)
        & (at[:, 1] < camera.height)
        for at in (at_feet, at_head)
    ]
    seen = inside[0] & inside[1]
    cut = inside[0] & ~inside[1]  # feet without a head: the worst way to look
    sight = feet + np.array([0.0, 0.0, BODY_M / 2]) - camera.position
    for crown in crowns:  # its distance from each line of sight
        share = np.clip((crown - camera.position) @ sight.T / (sight**2).sum(axis=1), 0, 1)
        gap = np.linalg.norm(camera.position + share[:, None] * sight - crown, axis=1)
        seen &= gap > CROWN_M
    fits = (tall >= LEAST_HEIGHT_PX) & (tall <= MOST_HEIGHT_PX)
    good = int(np.count_nonzero(seen & fits))
    bad = int(np.count_nonzero(seen & ~fits))
    roomy = int(np.count_nonzero(seen & fits & (tall > 95)))
    return max(good + 1.5 * roomy - 12.0 * bad - 2.0 * int(np.count_nonzero(cut)), 1e-3)


def _novelty(camera: Camera, chosen: list[Camera]) -> float:
    """1 for the first camera; near 0 for one that stands and looks like a chosen one."""
    least = 1.0
    for other in chosen:
        apart = float(np.linalg.norm(camera.position - other.position)) / 12.0
        turned = (1.0 - float(camera.axes[2] @ other.axes[2])) / 2
        least = min(least, min(apart, 1.0) * 0.5 + turned)
    return least
