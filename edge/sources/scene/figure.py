"""Pictures of one person from any side: drawn once, then kept while there is room.

Promise: equal questions give equal pictures. `FigureCache` holds at most `max_bytes` and forgets
the longest unused first. Threads: one at a time.

A body is some ten thousand points with normals (body.py), posed by gait.py, turned to the view,
shaded, and written far to near; a point covers 2 x 2 pixels, so the surface closes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from edge.sources.scene import gait
from edge.sources.scene.body import Patch, Tailor
from edge.sources.scene.wardrobe import Looks
from edge.types import Image

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

LEVELS_PX = (80, 120, 175)  # drawn heights; the largest is shown at up to 1.4 of its own
ENLARGED = 1.25  # a picture is shown at up to this many times its own size
PHASES = 10
AZIMUTHS = 16
ELEVATION_STEP = 12.0  # degrees
POINTS_PER_PIXEL = 1.05
MARGIN = 3
LIMIT_RIGID = -0.02  # normals below it face away
LIMIT_LOOSE = -0.5  # cloth between bones turns by up to a leg's swing
SUN, SKY, BOUNCE = 0.55, 0.62, 0.26  # strengths of the three lights on a body


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A person cut out.

    Attributes:
        colour: (h, w, 3) uint8, BGR, already multiplied by alpha.
        alpha: (h, w) uint8.
        origin: x, y of the point on the ground under the body, in pixels of the cut-out.
        rise: pixels from the origin up to the top of the body's height.
        outline: (n, 2) float32, convex hull of the drawn pixels.
        area: sum of alpha / 255.
    """

    colour: Image
    alpha: npt.NDArray[np.uint8]
    origin: tuple[float, float]
    rise: float
    outline: Floats
    area: float

    @property
    def nbytes(self) -> int:
        return int(self.colour.nbytes + self.alpha.nbytes)


@dataclass(frozen=True, slots=True)
class View:
    """What decides how a person's picture looks.

    Attributes:
        phase: 0..PHASES-1 of the stride; -1: standing.
        azimuth: 0..AZIMUTHS-1; 0: seen from behind, AZIMUTHS/2: from the front.
        elevation: steps of ELEVATION_STEP that the camera looks down.
        level: index into LEVELS_PX.
    """

    phase: int
    azimuth: int
    elevation: int
    level: int


class Figure:
    """One person, ready to be drawn."""

    def __init__(self, looks: Looks, seed: int) -> None:
        self.looks = looks
        self._seed = seed
        self._bodies: list[list[_Packed]] = []
        self._poses: dict[int, tuple[Array, Array]] = {}

    def draw(self, view: View, sun: Array) -> Sprite:
        """Draw the person.

        Args:
            view: from where, in which pose, how large.
            sun: (3,) direction to the sun: right, up, towards the camera; unit length.
        """
        height = LEVELS_PX[view.level]
        scale = height / gait.HEIGHT_M
        if not self._bodies:
            self._bodies = self._make_bodies()
        rotations, origins = self._pose(view.phase)
        turn = _view_matrix(view)
        surface = _posed(self._bodies[view.level], turn @ rotations, origins @ turn.T, scale)
        rise = gait.HEIGHT_M * scale * float(np.cos(np.radians(view.elevation * ELEVATION_STEP)))
        return _splat(surface, sun.astype(np.float32), turn[:, 2].astype(np.float32), rise)

    def _make_bodies(self) -> list[list[_Packed]]:
        """The body for each level: the smaller ones take evenly from the largest."""
        density = POINTS_PER_PIXEL * (LEVELS_PX[-1] / gait.HEIGHT_M) ** 2
        full = _packed(Tailor(self.looks, self._seed, density).build())
        return [
            [block.thinned((level / LEVELS_PX[-1]) ** 2) for block in full] for level in LEVELS_PX
        ]

    def _pose(self, phase: int) -> tuple[Array, Array]:
        if phase not in self._poses:
            self._poses[phase] = gait.pose(
                None if phase < 0 else phase / PHASES,
                swing=self.looks.swing,
                held=_held(self.looks),
            )
        return self._poses[phase]


class FigureCache:
    """Keeps drawn pictures by person and view."""

    def __init__(self, max_bytes: int, tone: Callable[[Image], Image]) -> None:
        """Args: tone changes the colours of each new picture."""
        self._max_bytes = max_bytes
        self._tone = tone
        self._bytes = 0
        self._kept: OrderedDict[tuple[int, View], Sprite] = OrderedDict()

    def get(self, number: int, figure: Figure, view: View, sun: Array) -> Sprite:
        """The picture of person `number` from this view, drawn now if it is not kept."""
        key = (number, view)
        sprite = self._kept.get(key)
        if sprite is not None:
            self._kept.move_to_end(key)
            return sprite
        sprite = figure.draw(view, sun)
        sprite = replace(sprite, colour=self._tone(sprite.colour))
        self._kept[key] = sprite
        self._bytes += sprite.nbytes
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._bytes -= old.nbytes
        return sprite


def _held(looks: Looks) -> dict[int, tuple[float, float]]:
    """The arms that do not swing, see gait.pose."""
    held = {
        "phone": {1 - looks.motif % 2: (22.0, 105.0)},
        "pockets": {0: (-12.0, 32.0), 1: (-12.0, 32.0)},
        "folded": {0: (18.0, 88.0), 1: (18.0, 88.0)},
    }.get(looks.arms, {})
    return held | {1: gait.HANGING} if looks.bag == "hand" else held


def level_for(height_px: float) -> int:
    """The smallest level that need not be enlarged too much."""
    for level, drawn in enumerate(LEVELS_PX):
        if height_px <= drawn * ENLARGED:
            return level
    return len(LEVELS_PX) - 1


def _view_matrix(view: View) -> Array:
    """Body frame → right, up, towards the camera."""
    a = view.azimuth * 2 * np.pi / AZIMUTHS
    e = np.radians(view.elevation * ELEVATION_STEP)
    right = np.array([-np.sin(a), -np.cos(a), 0.0])
    away = np.array([np.cos(a), -np.sin(a), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    return np.stack([right, up * np.cos(e) + away * np.sin(e), up * np.sin(e) - away * np.cos(e)])


@dataclass(frozen=True, slots=True, eq=False)
class _Packed:
    """All points that hang on the same bones: rows of place, normal, colour (n, 9)."""

    rows: Floats
    bones: tuple[int, ...]
    weights: Floats | None

    def thinned(self, share: float) -> _Packed:
        """Every so many-th point: neighbours in the list are neighbours on the surface."""
        kept = np.linspace(0, len(self.rows) - 1, max(int(len(self.rows) * share), 1)).astype(int)
        weights = None if self.weights is None else self.weights[kept]
        return _Packed(self.rows[kept], self.bones, weights)


def _packed(patches: list[Patch]) -> list[_Packed]:
    """One block for each set of bones: few and large steps when drawing."""
    groups: dict[tuple[int, ...], list[Patch]] = {}
    for patch in patches:
        groups.setdefault(patch.bones, []).append(patch)
    packed = []
    for bones, group in groups.items():
        rows = [np.concatenate([one.points, one.normals, one.colours], axis=1) for one in group]
        weights = [one.weights for one in group if one.weights is not None]
        packed.append(
            _Packed(np.concatenate(rows), bones, np.concatenate(weights) if weights else None)
        )
    return packed


def _posed(blocks: list[_Packed], rotations: Array, origins: Array, scale: float) -> Floats:
    """Rows in the view (right, up, near; pixels) of what faces the camera, (n, 9).

    Points that face away are left out before the work.
    """
    shifts = np.stack([origins[b] - rotations[b] @ gait.REST[b] for b in range(gait.BONES)])
    shifts = (shifts * scale).astype(np.float32)
    turns = np.ascontiguousarray(rotations.transpose(0, 2, 1)).astype(np.float32)
    both = np.zeros((gait.BONES, 6, 6), np.float32)
    both[:, :3, :3] = turns * np.float32(scale)
    both[:, 3:, 3:] = turns
    parts = []
    for block in blocks:
        facing = block.rows[:, 3:6] @ turns[block.bones[0], :, 2]
        limit = LIMIT_RIGID if block.weights is None else LIMIT_LOOSE
        kept = np.flatnonzero(facing > limit)
        rows = block.rows.take(kept, axis=0)
        if block.weights is None:
            bone = block.bones[0]
            rows[:, :6] = rows[:, :6] @ both[bone]
            rows[:, :3] += shifts[bone]
        else:
            weights = block.weights.take(kept, axis=0)
            total = np.zeros((len(kept), 6), np.float32)
            for k, bone in enumerate(block.bones):
                moved = rows[:, :6] @ both[bone]
                moved[:, :3] += shifts[bone]
                total += weights[:, k : k + 1] * moved
            rows[:, :6] = total
        parts.append(rows)
    return np.concatenate(parts)


def _shade(normals: Floats, colours: Floats, sun: Floats, up: Floats) -> Floats:
    """Sun, sky from above and light back from the ground."""
    direct = np.maximum(normals @ sun * np.float32(0.85) + np.float32(0.15), 0)
    upward = normals @ up
    even, tilted = np.float32((SKY + BOUNCE) / 2), np.float32((SKY - BOUNCE) / 2)
    light = np.float32(SUN) * direct + even + tilted * upward
    return np.asarray(colours * light[:, None], dtype=np.float32)


def _splat(surface: Floats, sun: Floats, up: Floats, rise: float) -> Sprite:
    """Write the points into a cut-out, the nearest on top, and shade what is seen."""
    points = surface[:, :3]
    low, high = points.min(axis=0), points.max(axis=0)
    left, top = int(np.floor(low[0])) - MARGIN, int(np.ceil(high[1])) + MARGIN
    width = int(np.ceil(high[0])) - left + MARGIN + 1
    height = top - int(np.floor(low[1])) + MARGIN + 1
    # 16-bit depths sort by radix
    steps = (points[:, 2] - low[2]) * np.float32(32000 / max(float(high[2] - low[2]), 1e-3))
    order = np.argsort(steps.astype(np.int16), kind="stable")
    column = (points[:, 0] - np.float32(left - 0.25)).astype(np.int32)
    row = (np.float32(top + 0.25) - points[:, 1]).astype(np.int32)
    rank = np.zeros(height * width, np.float32)
    rank[(row * width + column)[order]] = np.arange(1, len(order) + 1, dtype=np.float32)
    ranks = cv2.dilate(rank.reshape(height, width), np.ones((2, 2), np.uint8))
    shown = ranks.astype(np.int32).ravel()
    drawn = np.flatnonzero(shown)
    seen = order[shown[drawn] - 1]
    flat = np.zeros((height * width, 4), np.float32)  # colour, then nearness
    rows = surface.take(seen, axis=0)
    flat[drawn] = np.concatenate(
        [_shade(rows[:, 3:6], rows[:, 6:9], sun, up), rows[:, 2:3]], axis=1
    )
    mask = (ranks > 0).astype(np.float32)
    near = np.ascontiguousarray(flat.reshape(height, width, 4)[:, :, 3])
    colour = np.ascontiguousarray(flat.reshape(height, width, 4)[:, :, :3])
    # Luft, Colditz, Deussen, SIGGRAPH 2006: darken where something nearer is close by
    reach = 2 * round(max(rise / 24, 2)) + 1
    share = cv2.blur(cv2.blur(mask, (reach, reach)), (reach, reach))
    around = cv2.blur(cv2.blur(near, (reach, reach)), (reach, reach))
    behind = around / np.maximum(share, 1e-3) - near
    dark = np.minimum(np.maximum(behind * np.float32(4.0 / rise), 0), np.float32(0.45))
    colour *= (1 - dark)[:, :, None]
    picture = cv2.convertScaleAbs(cv2.GaussianBlur(colour, (3, 3), 0.55))
    alpha = cv2.convertScaleAbs(cv2.GaussianBlur(mask, (3, 3), 0.55), None, 255)
    return Sprite(
        np.asarray(picture, np.uint8),
        np.asarray(alpha, np.uint8),
        (-left + 0.25, top + 0.25),
        rise,
        _outline(alpha > 110),
        float(alpha.sum()) / 255,
    )


def _outline(inside: npt.NDArray[np.bool_]) -> Floats:
    """The convex hull of a mask, from the ends of its rows."""
    rows = np.flatnonzero(inside.any(axis=1))
    part = inside[rows]
    first = part.argmax(axis=1)
    last = part.shape[1] - 1 - part[:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([first, rows], 1), np.stack([last, rows], 1)])
    return cv2.convexHull(ends.astype(np.int32)).reshape(-1, 2).astype(np.float32)
