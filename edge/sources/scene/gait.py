"""How a body stands and walks: a skeleton's joints as a function of the phase of the step.

Promise: pure functions. Body frame: x ahead, y left, z up, metres, for a body of HEIGHT_M; the
lowest foot stands on z = 0. Joint curves follow the shape of normal gait (Perry & Burnfield,
Gait Analysis, 2010, chapters 3 to 6: hip, knee and ankle over the stride); they are sums of few
smooth terms, not measured data.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

HEIGHT_M = 1.75
STRIDE_M = 1.42  # two steps at a usual pace
PELVIS, CHEST, HEAD, THIGH, SHANK, FOOT, UPPER_ARM, FOREARM = 0, 1, 2, 3, 5, 7, 9, 11
BONES = 13  # a limb bone is its number for the left, that plus one for the right

HIP_Z, KNEE_Z, ANKLE_Z = 0.925, 0.50, 0.085
HIP_Y, SHOULDER_Y = 0.088, 0.188
WAIST_Z, SHOULDER_Z, ELBOW_Z, NECK_Z = 1.03, 1.425, 1.125, 1.475

HANGING = (2.0, 9.0)  # flexion of shoulder and elbow of an arm at rest, degrees

REST = np.array(
    [
        [0.0, 0.0, HIP_Z],
        [0.0, 0.0, WAIST_Z],
        [0.0, 0.0, NECK_Z],
        [0.0, HIP_Y, HIP_Z],
        [0.0, -HIP_Y, HIP_Z],
        [0.0, HIP_Y, KNEE_Z],
        [0.0, -HIP_Y, KNEE_Z],
        [0.0, HIP_Y, ANKLE_Z],
        [0.0, -HIP_Y, ANKLE_Z],
        [0.0, SHOULDER_Y, SHOULDER_Z],
        [0.0, -SHOULDER_Y, SHOULDER_Z],
        [0.0, SHOULDER_Y, ELBOW_Z],
        [0.0, -SHOULDER_Y, ELBOW_Z],
    ]
)


def pose(
    phase: float | None,
    *,
    swing: float = 1.0,
    held: Mapping[int, tuple[float, float]] | None = None,
) -> tuple[Array, Array]:
    """Rotations (BONES, 3, 3) and origins (BONES, 3) of all bones.

    Args:
        phase: 0..1 of the stride, 0 where the left heel strikes; None: standing.
        swing: how far the arms swing, 1 usual.
        held: arms that do not swing, 0 left and 1 right: flexion of shoulder and elbow, degrees.
    """
    rotations = np.tile(np.eye(3), (BONES, 1, 1))
    origins = REST.copy()
    lean = 3.0 if phase is not None else 0.0
    twist = 0.0 if phase is None else 5.0 * float(np.cos(2 * np.pi * phase))
    pelvis = _about_z(-twist)
    chest = _about_z(twist * 0.9) @ _about_y(lean)
    rotations[PELVIS], rotations[CHEST] = pelvis, chest
    rotations[HEAD] = _about_y(lean * 0.3)
    origins[HEAD] = origins[CHEST] + chest @ (REST[HEAD] - REST[CHEST])
    for side in (0, 1):
        share = None if phase is None else (phase + 0.5 * side) % 1.0
        hip, knee, ankle = _leg(share)
        outward = 3.0 if side == 0 else -3.0
        thigh = _about_y(-hip) @ _about_x(outward * 0.4)
        shank = _about_y(-(hip - knee))
        foot = _about_z(outward * 1.6) @ _about_y(-(hip - knee + ankle))
        origins[THIGH + side] = origins[PELVIS] + pelvis @ (REST[THIGH + side] - REST[PELVIS])
        origins[SHANK + side] = origins[THIGH + side] + thigh @ np.array([0, 0, KNEE_Z - HIP_Z])
        origins[FOOT + side] = origins[SHANK + side] + shank @ np.array([0, 0, ANKLE_Z - KNEE_Z])
        rotations[THIGH + side], rotations[SHANK + side] = thigh, shank
        rotations[FOOT + side] = foot
        shoulder, elbow = (held or {}).get(side) or _arm(share, swing)
        upper = _about_x(outward * 2.2) @ _about_y(-shoulder)
        fore = _about_x(outward * 0.6) @ _about_y(-(shoulder + elbow))
        origins[UPPER_ARM + side] = origins[CHEST] + chest @ (REST[UPPER_ARM + side] - REST[CHEST])
        origins[FOREARM + side] = origins[UPPER_ARM + side] + upper @ np.array(
            [0, 0, ELBOW_Z - SHOULDER_Z]
        )
        rotations[UPPER_ARM + side], rotations[FOREARM + side] = upper, fore
    soles = [
        (origins[FOOT + side] + rotations[FOOT + side] @ np.array([x, 0, -ANKLE_Z]))[2]
        for side in (0, 1)
        for x in (-0.06, 0.17)
    ]
    origins[:, 2] -= min(soles)
    return rotations, origins


def _leg(share: float | None) -> tuple[float, float, float]:
    """Hip flexion, knee flexion, ankle dorsiflexion in degrees; share 0 is heel strike."""
    if share is None:
        return 1.0, 3.0, 2.0
    hip = 8.0 + 21.0 * float(np.cos(2 * np.pi * (share + 0.03)))
    knee = 5.0 + _bump(share, 0.14, 0.06, 13.0) + _bump(share, 0.72, 0.105, 56.0)
    ankle = _bump(share, 0.45, 0.10, 9.0) - _bump(share, 0.64, 0.06, 17.0)
    return hip, knee, ankle


def _arm(share: float | None, swing: float) -> tuple[float, float]:
    """Shoulder and elbow flexion in degrees; an arm swings against its own leg."""
    if share is None:
        return HANGING
    forward = -float(np.cos(2 * np.pi * share))
    return -3.0 + 21.0 * swing * forward, 16.0 + 12.0 * swing * (forward + 1) / 2


def _bump(share: float, middle: float, width: float, size: float) -> float:
    away = (share - middle + 0.5) % 1.0 - 0.5
    return size * float(np.exp(-((away / width) ** 2)))


def _about_x(degrees: float) -> Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(degrees: float) -> Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(degrees: float) -> Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
