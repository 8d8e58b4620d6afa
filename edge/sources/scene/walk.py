"""Where each person is at any time: walks from door to door through the street.

Promise: a pure function of the time; the whole town repeats after PERIOD_S, so memory is bounded
and any frame can be asked for at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge.sources.scene.street import Door, Street

Array = npt.NDArray[np.float64]

PERIOD_S = 1200.0
STEP_M = 0.2  # spacing of the points of a path
SMOOTH_M = 0.7  # how far ahead people round a corner
INDOORS_M = 1.8  # how far behind a door a walk begins and ends
CLEARANCE_M = 0.45  # kept from street furniture


@dataclass(frozen=True, slots=True)
class Standing:
    """One person at one instant.

    Attributes:
        x, y: metres.
        heading: radians, counter-clockwise from +x; where the body faces.
        walked: metres since the walk began: drives the legs.
        moving: False while the person stands.
        door: the door whose opening the person is behind, else None.
        depth: metres behind that door's wall.
    """

    x: float
    y: float
    heading: float
    walked: float
    moving: bool
    door: Door | None
    depth: float


@dataclass(frozen=True, slots=True, eq=False)
class _Walk:
    """One walk: `times` (n,) seconds since its begin; `points` (n, 2); `walked` (n,)."""

    start: float
    times: Array
    points: Array
    walked: Array
    entry: Door
    leave: Door


class Person:
    """The walks of one person through a period."""

    def __init__(self, rng: np.random.Generator, street: Street) -> None:
        self._offset = float(rng.uniform(0, PERIOD_S))
        self._walks: list[_Walk] = []
        speed = float(rng.uniform(1.0, 1.55))
        clock = 0.0
        door = street.doors[int(rng.integers(len(street.doors)))]
        while True:
            others = [one for one in street.doors if one is not door]
            leave = others[int(rng.integers(len(others)))]
            walk = _plan(rng, street, clock, door, leave, speed * float(rng.uniform(0.92, 1.08)))
            clock = walk.start + float(walk.times[-1]) + float(rng.uniform(0.5, 7.0))
            if clock > PERIOD_S:
                break
            self._walks.append(walk)
            door = leave
        self._starts = np.array([walk.start for walk in self._walks])

    def at(self, seconds: float) -> Standing | None:
        """Where the person is, or None while indoors."""
        clock = (seconds + self._offset) % PERIOD_S
        number = int(np.searchsorted(self._starts, clock, side="right")) - 1
        if number < 0:
            return None
        walk = self._walks[number]
        since = clock - walk.start
        if since >= walk.times[-1]:
            return None
        x = float(np.interp(since, walk.times, walk.points[:, 0]))
        y = float(np.interp(since, walk.times, walk.points[:, 1]))
        walked = float(np.interp(since, walk.times, walk.walked))
        ahead_x = float(np.interp(walked + 0.3, walk.walked, walk.points[:, 0]))
        ahead_y = float(np.interp(walked + 0.3, walk.walked, walk.points[:, 1]))
        back_x = float(np.interp(walked - 0.3, walk.walked, walk.points[:, 0]))
        back_y = float(np.interp(walked - 0.3, walk.walked, walk.points[:, 1]))
        heading = float(np.arctan2(ahead_y - back_y, ahead_x - back_x))
        soon = float(np.interp(since + 0.05, walk.times, walk.walked))
        door, depth = None, 0.0
        for one in (walk.entry, walk.leave):
            behind = one.depth_behind(x, y)
            if behind > 0:
                door, depth = one, behind
        return Standing(x, y, heading, walked, soon - walked > 0.01, door, depth)


def _plan(
    rng: np.random.Generator,
    street: Street,
    start: float,
    entry: Door,
    leave: Door,
    speed: float,
) -> _Walk:
    """A smooth way from door to door over 1 to 3 places, round the furniture."""
    corners = [entry.point(-INDOORS_M), entry.point(1.0)]
    for _ in range(int(rng.integers(1, 4))):
        corners.append(
            np.array(
                [
                    rng.uniform(-0.85, 0.85) * street.half_length,
                    rng.uniform(-0.82, 0.82) * street.half_width,
                ]
            )
        )
    corners += [leave.point(1.0), leave.point(-INDOORS_M)]
    way = _resample(np.array(corners))
    for _ in range(4):
        way = _resample(street.keep_clear(_smooth(way), CLEARANCE_M))
    walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])
    times = walked / speed
    if rng.random() < 0.35:
        pause = float(rng.uniform(2.0, 6.0))
        where = int(rng.uniform(0.3, 0.7) * len(way))
        times = np.concatenate([times[: where + 1], times[where:] + pause])
        way = np.concatenate([way[: where + 1], way[where:]])
        walked = np.concatenate([walked[: where + 1], walked[where:]])
    return _Walk(start, times, way, walked, entry, leave)


def _resample(way: Array) -> Array:
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])
    even = np.linspace(0.0, length[-1], max(int(length[-1] / STEP_M), 8))
    return np.stack([np.interp(even, length, way[:, k]) for k in (0, 1)], axis=1)


def _smooth(way: Array) -> Array:
    size = int(6 * SMOOTH_M / STEP_M) | 1
    padded = np.concatenate(
        [2 * way[:1] - way[size:0:-1], way, 2 * way[-1:] - way[-2 : -size - 2 : -1]]
    )
    soft = cv2.GaussianBlur(padded, (1, size), SMOOTH_M / STEP_M)
    lead = len(way[size:0:-1])
    return np.asarray(soft[lead : lead + len(way)], dtype=np.float64)
