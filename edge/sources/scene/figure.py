"""Pictures of one person from any side: drawn once, then kept while there is room.

Promise: equal questions give equal pictures. `FigureCache` holds at most `max_bytes` and forgets
the longest unused first. Threads: one at a time.

A body is some ten thousand points with normals (body.py), posed by gait.py, turned to the view,
shaded, and written far to near; a point covers 2 x 2 pixels, so the surface closes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge.sources.scene import gait
from edge.sources.scene.body import Patch, Tailor
from edge.sources.scene.wardrobe import Looks
from edge.types import Image

Floats = npt.NDArray[np.float32]

LEVELS_PX = (110, 170, 270)  # drawn heights; a picture is shown at up to 1.1 of its own
PHASES = 16
AZIMUTHS = 24
ELEVATION_STEP = 8.0  # degrees
POINTS_PER_PIXEL = 1.5
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
        self._bodies: dict[int, list[Patch]] = {}

    def draw(self, view: View, sun: npt.NDArray[np.float64]) -> Sprite:
        """Draw the person.

        Args:
            view: from where, in which pose, how large.
            sun: (3,) direction to the sun: right, up, towards the camera; unit length.
        """
        height = LEVELS_PX[view.level]
        scale = height / gait.HEIGHT_M
        if view.level not in self._bodies:
            density = POINTS_PER_PIXEL * scale * scale
            self._bodies[view.level] = Tailor(self.looks, self._seed, density).build()
        phase = None if view.phase < 0 else view.phase / PHASES
        still = 1 if self.looks.bag == "hand" else -1
        rotations, origins = gait.pose(phase, swing=self.looks.swing, still_arm=still)
        turn = _view_matrix(view)
        points, normals, colours = _posed(
            self._bodies[view.level], turn @ rotations, origins @ turn.T
        )
        faces = normals[:, 2] > -0.05
        points, normals, colours = points[faces], normals[faces], colours[faces]
        shaded = _shade(normals, colours, sun.astype(np.float32), turn.astype(np.float32))
        rise = gait.HEIGHT_M * scale * float(np.cos(np.radians(view.elevation * ELEVATION_STEP)))
        return _splat(points * scale, shaded, rise)


class FigureCache:
    """Keeps drawn pictures by person and view."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[int, View], Sprite] = OrderedDict()

    def get(
        self, number: int, figure: Figure, view: View, sun: npt.NDArray[np.float64]
    ) -> Sprite:
        """The picture of person `number` from this view, drawn now if it is not kept."""
        key = (number, view)
        sprite = self._kept.get(key)
        if sprite is not None:
            self._kept.move_to_end(key)
            return sprite
        sprite = figure.draw(view, sun)
        self._kept[key] = sprite
        self._bytes += sprite.nbytes
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._bytes -= old.nbytes
        return sprite


def level_for(height_px: float) -> int:
    """The smallest level that need not be enlarged by more than a tenth."""
    for level, drawn in enumerate(LEVELS_PX):
        if height_px <= drawn * 1.1:
            return level
    return len(LEVELS_PX) - 1


def _view_matrix(view: View) -> npt.NDArray[np.float64]:
    """Body frame → right, up, towards the camera."""
    a = view.azimuth * 2 * np.pi / AZIMUTHS
    e = np.radians(view.elevation * ELEVATION_STEP)
    right = np.array([-np.sin(a), -np.cos(a), 0.0])
    away = np.array([np.cos(a), -np.sin(a), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    return np.stack([right, up * np.cos(e) + away * np.sin(e), up * np.sin(e) - away * np.cos(e)])


def _posed(
    patches: list[Patch], rotations: npt.NDArray[np.float64], origins: npt.NDArray[np.float64]
) -> tuple[Floats, Floats, Floats]:
    points, normals = [], []
    turns = np.ascontiguousarray(rotations.transpose(0, 2, 1)).astype(np.float32)
    shifts = np.stack(
        [origins[b] - rotations[b] @ gait.REST[b] for b in range(gait.BONES)]
    ).astype(np.float32)
    for patch in patches:
        first = patch.bones[0]
        if patch.weights is None:
            points.append(patch.points @ turns[first] + shifts[first])
            normals.append(patch.normals @ turns[first])
            continue
        place = np.zeros_like(patch.points)
        facing = np.zeros_like(patch.points)
        for k, bone in enumerate(patch.bones):
            share = patch.weights[:, k : k + 1]
            place += share * (patch.points @ turns[bone] + shifts[bone])
            facing += share * (patch.normals @ turns[bone])
        points.append(place)
        normals.append(facing)
    return (
        np.concatenate(points),
        np.concatenate(normals),
        np.concatenate([patch.colours for patch in patches]),
    )


def _shade(normals: Floats, colours: Floats, sun: Floats, turn: Floats) -> Floats:
    """Sun, sky from above and light back from the ground."""
    direct = np.maximum(normals @ sun * 0.85 + 0.15, 0)
    upward = normals @ turn[:, 2]
    light = SUN * direct + SKY * (0.5 + 0.5 * upward) + BOUNCE * (0.5 - 0.5 * upward)
    return np.asarray(colours * light[:, None], dtype=np.float32)


def _splat(points: Floats, shaded: Floats, rise: float) -> Sprite:
    """Write points (right, up, near; in pixels) into a cut-out, the nearest on top."""
    margin = 3
    left = int(np.floor(points[:, 0].min())) - margin
    top = int(np.ceil(points[:, 1].max())) + margin
    width = int(np.ceil(points[:, 0].max())) - left + margin + 1
    height = top - int(np.floor(points[:, 1].min())) + margin + 1
    order = np.argsort(points[:, 2])
    x = points[order, 0] - np.float32(left - 0.25)
    y = np.float32(top + 0.25) - points[order, 1]
    where = y.astype(np.intp) * width + x.astype(np.intp)
    rank = np.zeros(height * width, np.float32)
    rank[where] = np.arange(1, len(order) + 1, dtype=np.float32)
    ranks = cv2.dilate(rank.reshape(height, width), np.ones((2, 2), np.uint8))
    top_most = ranks.astype(np.intp).ravel()
    drawn = top_most > 0
    colour = np.zeros((height * width, 3), np.float32)
    near = np.zeros(height * width, np.float32)
    at = order[top_most[drawn] - 1]
    colour[drawn] = shaded[at]
    near[drawn] = points[at, 2]
    colour = colour.reshape(height, width, 3)
    near = near.reshape(height, width)
    mask = drawn.reshape(height, width).astype(np.float32)
    # Luft, Colditz, Deussen, SIGGRAPH 2006: darken where something nearer is close by
    reach = max(rise / 28, 1.5)
    share = cv2.GaussianBlur(mask, (0, 0), reach)
    behind = cv2.GaussianBlur(near * mask, (0, 0), reach) / np.maximum(share, 1e-3) - near
    dark = np.clip(behind * (4.0 / rise), 0, 0.45)
    colour *= (1 - dark)[:, :, None]
    colour = cv2.GaussianBlur(colour * mask[:, :, None], (3, 3), 0.55)
    alpha = np.clip(cv2.GaussianBlur(mask, (3, 3), 0.55) * 255, 0, 255).astype(np.uint8)
    hull = cv2.convexHull(cv2.findNonZero((alpha > 110).astype(np.uint8)))
    outline = hull.reshape(-1, 2).astype(np.float32)
    picture = np.clip(colour, 0, 255).astype(np.uint8)
    return Sprite(
        picture, alpha, (-left + 0.25, top + 0.25), rise, outline, float(alpha.sum()) / 255
    )
