"""Kalman filter for the boxes of many people at once, in seconds and in body heights.

Promise: the same path gives the same estimate whatever the frame rate, and the same behaviour at
every size: noise grows with the box height, and process noise is integrated over the real time
step. Each of the four coordinates is filtered alone (their noises are taken as independent), so a
step for n people is a handful of array operations.
Fails: never; n = 0 gives empty arrays. Threads: one owner (the camera's tracker).

State of a box: centre x and top y with a velocity each (white-noise acceleration: Bar-Shalom, Li,
Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, eq. 6.2.2-4), width
and height as random walks, as nothing is gained by extrapolating a growing box through an
occlusion. The top, not the centre, because what hides a person seen from above hides the legs.

Departs from SORT's filter (Bewley et al., arXiv:1602.00763): no per-frame constants, no area and
aspect; from ByteTrack's (Zhang et al., arXiv:2110.06864): noise integrated over dt.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.types import Floats

Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

# Standard deviation of one detected coordinate, in box heights. YOLOX-nano's centres, tops and
# bottoms on people 60..150 px high were off by 0.044..0.051 heights.
MEASUREMENT_STD = 0.05
# Acceleration of a walking person, heights/s^2 * sqrt(s): velocity strays by so many heights/s
# within a second. People walk at about 0.8 heights/s and stop or turn within a second.
ACCELERATION_STD = 0.6
# Velocity of a new box before it has moved, heights/s.
FIRST_VELOCITY_STD = 0.8
# Width and height wander by so many heights within a second (legs opening, walking nearer).
SIZE_STD = 0.15


class BoxFilter:
    """Filtered boxes of n people; rows are added, corrected and dropped.

    Attributes:
        position: (n, 4) centre x, top y, width, height; pixels.
        velocity: (n, 2) of centre x and top y; pixels/s.
    """

    def __init__(self) -> None:
        self.position: Doubles = np.zeros((0, 4))
        self.velocity: Doubles = np.zeros((0, 2))
        # variances: of the position (n, 4); position with velocity and velocity (n, 2)
        self._variance: Doubles = np.zeros((0, 4))
        self._covariance: Doubles = np.zeros((0, 2))
        self._velocity_variance: Doubles = np.zeros((0, 2))

    def __len__(self) -> int:
        return len(self.position)

    @property
    def boxes(self) -> Floats:
        """(n, 4) float32, x1 y1 x2 y2 in pixels."""
        return to_boxes(self.position)

    @property
    def spread(self) -> Doubles:
        """(n, 2) standard deviation of centre x and top y, pixels."""
        return np.sqrt(self._variance[:, :2])

    def add(self, boxes: Floats) -> None:
        """Append rows for boxes (m, 4), standing still with an unknown velocity."""
        new = from_boxes(boxes)
        scale = _scale(new)
        count = len(new)
        self.position = np.concatenate([self.position, new])
        self.velocity = np.concatenate([self.velocity, np.zeros((count, 2))])
        self._variance = np.concatenate(
            [self._variance, np.repeat((MEASUREMENT_STD * scale) ** 2, 4, axis=1)]
        )
        self._covariance = np.concatenate([self._covariance, np.zeros((count, 2))])
        self._velocity_variance = np.concatenate(
            [self._velocity_variance, np.repeat((FIRST_VELOCITY_STD * scale) ** 2, 2, axis=1)]
        )

    def keep(self, rows: Rows | npt.NDArray[np.bool_]) -> None:
        """Keep these rows only, in this order."""
        self.position = self.position[rows]
        self.velocity = self.velocity[rows]
        self._variance = self._variance[rows]
        self._covariance = self._covariance[rows]
        self._velocity_variance = self._velocity_variance[rows]

    def predict(self, dt: float) -> None:
        """Advance all rows by dt seconds (>= 0)."""
        if dt <= 0 or not len(self):
            return
        scale = _scale(self.position)
        noise = (ACCELERATION_STD * scale) ** 2
        self.position[:, :2] += self.velocity * dt
        self._variance[:, :2] += (
            2 * dt * self._covariance + dt * dt * self._velocity_variance + noise * dt**3 / 3
        )
        self._covariance += dt * self._velocity_variance + noise * dt**2 / 2
        self._velocity_variance += noise * dt
        self._variance[:, 2:] += (SIZE_STD * scale) ** 2 * dt

    def correct(self, rows: Rows, boxes: Floats, noise: Doubles | float = 1.0) -> None:
        """Take measurements in.

        Args:
            rows: (m,) which rows, each at most once.
            boxes: (m, 4) x1 y1 x2 y2 in pixels.
            noise: (m,) or one factor on the measurement's standard deviation; > 1 trusts less.
        """
        if not len(rows):
            return
        measured = from_boxes(boxes)
        std = MEASUREMENT_STD * _scale(self.position[rows])
        std = std * np.reshape(np.asarray(noise, np.float64), (-1, 1))
        variance, covariance = self._variance[rows], self._covariance[rows]
        innovation = measured - self.position[rows]
        total = variance + std**2
        gain = variance / total
        velocity_gain = covariance / total[:, :2]
        self.position[rows] += gain * innovation
        self.velocity[rows] += velocity_gain * innovation[:, :2]
        self._velocity_variance[rows] -= velocity_gain * covariance
        self._covariance[rows] = (1 - gain[:, :2]) * covariance
        self._variance[rows] = (1 - gain) * variance


def from_boxes(boxes: Floats) -> Doubles:
    """(n, 4) x1 y1 x2 y2 -> (n, 4) centre x, top y, width, height."""
    wide = np.asarray(boxes, np.float64).reshape(-1, 4)
    size = np.maximum(wide[:, 2:] - wide[:, :2], 1.0)
    return np.concatenate([wide[:, :1] + size[:, :1] / 2, wide[:, 1:2], size], axis=1)


def to_boxes(position: Doubles) -> Floats:
    """(n, 4) centre x, top y, width, height -> (n, 4) float32 x1 y1 x2 y2."""
    half = position[:, 2:3] / 2
    left, right = position[:, :1] - half, position[:, :1] + half
    top = position[:, 1:2]
    return np.concatenate([left, top, right, top + position[:, 3:4]], axis=1).astype(np.float32)


def _scale(position: Doubles) -> Doubles:
    """(n, 1) what noise is proportional to: the box height, pixels."""
    return np.maximum(position[:, 3:4], 4.0)
