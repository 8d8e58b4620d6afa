"""A rendered street with walking people in several cameras, and exact ground truth.

Promise: `frame` and `truth` are pure functions of (camera, index): equal parameters give equal
results on every call, in any order. Memory is bounded: the town repeats after walk.PERIOD_S, drawn
figures are kept up to FIGURE_BYTES for each camera.
Failing: a camera that does not exist or a negative index raises SceneError.
Threads: one at a time for each scene; several scenes are independent.

A frame: the camera's empty street; each person's shadow; people far to near, each cut out by the
furniture before it; then light and noise. The truth comes from the same cut-outs.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge.sources.scene.background import Background, draw_background
from edge.sources.scene.cameras import Camera, choose_cameras
from edge.sources.scene.everyday import dress_everyday
from edge.sources.scene.figure import (
    AZIMUTHS,
    ELEVATION_STEP,
    PHASES,
    Figure,
    FigureCache,
    Sprite,
    View,
    level_for,
)
from edge.sources.scene.gait import STRIDE_M
from edge.sources.scene.light import MOODS, Sensor
from edge.sources.scene.params import SceneError, SceneParams
from edge.sources.scene.street import Street, make_street
from edge.sources.scene.surfaces import Surfaces, paint
from edge.sources.scene.truth import TruthBox
from edge.sources.scene.walk import Person, Standing
from edge.sources.scene.wardrobe import dress_people
from edge.types import Image

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.uint8]

FIGURE_BYTES = 128 << 20
FADE_M = 1.3  # behind a doorway it is dark after this many metres
NEAREST_M = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One person in one frame: a cut-out at `left`, `top`, inside of the frame."""

    person: int
    box: tuple[float, float, float, float]
    left: int
    top: int
    colour: Image
    alpha: Mask  # after furniture and doors
    area: float  # of the whole figure, hidden or not, in pixels


class _View:
    """Everything that one camera keeps."""

    def __init__(
        self, camera: Camera, background: Background, sensor: Sensor, sun: Array, contrast: float
    ) -> None:
        self.camera = camera
        self.background = background
        self.sensor = sensor
        self.sun_world = sun
        self.contrast = contrast
        self.figures = FigureCache(FIGURE_BYTES, sensor.tone)
        self.empty = sensor.tone(background.picture)
        right, down, forward = camera.axes
        self.sun_seen = np.array([sun @ right, -(sun @ down), -(sun @ forward)])
        self.last: tuple[int, list[_Layer], list[tuple[Standing, Sprite]]] | None = None


class SynthScene:
    """The scene that a set of parameters describes.

    >>> scene = SynthScene(SceneParams(people=3, width=320, height=240))
    >>> scene.frame(1, 0).shape
    (240, 320, 3)
    """

    def __init__(self, params: SceneParams) -> None:
        self.params = params
        rng = np.random.default_rng([params.seed, 7])
        self._street: Street = make_street(rng)
        self._surfaces: Surfaces | None = None
        self._surface_seed = int(rng.integers(2**31))
        around = float(rng.uniform(0, 2 * np.pi))
        high = float(rng.uniform(38, 60))
        flat = np.cos(np.radians(high))
        self._sun = np.array(
            [flat * np.cos(around), flat * np.sin(around), np.sin(np.radians(high))]
        )
        self._cameras = choose_cameras(
            rng,
            count=params.cameras,
            half_length=self._street.half_length,
            half_width=self._street.half_width,
            crowns=np.array(
                [one.leaves.mean(axis=0) for one in self._street.props if not one.stands]
            ).reshape(-1, 3),
            view=params.view,
            width=params.width,
            height=params.height,
        )
        dress = dress_everyday if params.clothes == "everyday" else dress_people
        looks = dress(np.random.default_rng([params.seed, 11]), params.people)
        self._figures = [Figure(one, params.seed * 1000 + k) for k, one in enumerate(looks)]
        self._people = [
            Person(np.random.default_rng([params.seed, 13, k]), self._street)
            for k in range(params.people)
        ]
        self._views: dict[int, _View] = {}

    def prepare(self, camera: int) -> None:
        """Draw a camera's empty street now; otherwise the first frame does."""
        self._view(camera, 0)

    def frame(self, camera: int, index: int) -> Image:
        """One picture.

        Args:
            camera: 1..cameras.
            index: 0-based; the scene's time is index / fps seconds.
        Returns:
            (height, width, 3) uint8, BGR; a new array.
        """
        view = self._view(camera, index)
        layers, shadows = self._layers(view, index)
        picture = view.empty.copy()
        for standing, sprite in shadows:
            _draw_shadow(view, picture, standing, sprite)
        for layer in layers:
            height, width = layer.alpha.shape
            spot = picture[layer.top : layer.top + height, layer.left : layer.left + width]
            through = cv2.merge([255 - layer.alpha] * 3)
            cv2.multiply(spot, through, spot, 1 / 255)
            cv2.add(spot, layer.colour, spot)
        return view.sensor.expose(picture, index / self.params.fps, index)

    def truth(self, camera: int, index: int) -> list[TruthBox]:
        """The people whose boxes touch the frame, by number; see TruthBox."""
        view = self._view(camera, index)
        layers, _ = self._layers(view, index)
        seen: dict[int, float] = {}
        before = np.zeros((self.params.height, self.params.width), np.uint8)
        for layer in reversed(layers):
            height, width = layer.alpha.shape
            spot = before[layer.top : layer.top + height, layer.left : layer.left + width]
            shown = cv2.multiply(layer.alpha, 255 - spot, None, 1 / 255)
            seen[layer.person] = min(float(shown.sum()) / 255 / max(layer.area, 1.0), 1.0)
            np.maximum(spot, layer.alpha, out=spot)
        return sorted(
            (TruthBox(one.person, one.box, seen[one.person]) for one in layers),
            key=lambda box: box.person,
        )

    def _view(self, camera: int, index: int) -> _View:
        if not 1 <= camera <= self.params.cameras:
            raise SceneError("camera", camera, f"this scene has cameras 1..{self.params.cameras}")
        if index < 0:
            raise SceneError("index", index, "frames count from 0")
        if camera not in self._views:
            if self._surfaces is None:
                self._surfaces = paint(np.random.default_rng(self._surface_seed), self._street)
            mood = MOODS[self.params.light]
            place = self._cameras[camera - 1]
            self._views[camera] = _View(
                place,
                draw_background(place, self._street, self._surfaces, self._sun, mood.contrast),
                Sensor(
                    np.random.default_rng([self.params.seed, 17, camera]),
                    mood,
                    self.params.width,
                    self.params.height,
                ),
                self._sun,
                mood.contrast,
            )
        return self._views[camera]

    def _layers(
        self, view: _View, index: int
    ) -> tuple[list[_Layer], list[tuple[Standing, Sprite]]]:
        """People far to near, and what their shadows need; the last answer is kept."""
        if view.last is not None and view.last[0] == index:
            return view.last[1], view.last[2]
        found: list[tuple[float, _Layer]] = []
        shadows = []
        for number, person in enumerate(self._people):
            standing = person.at(index / self.params.fps)
            if standing is None:
                continue
            drawn = self._place(view, number, standing)
            if drawn is None:
                continue
            depth, layer, sprite = drawn
            found.append((depth, layer))
            if standing.door is None:
                shadows.append((standing, sprite))
        found.sort(key=lambda pair: -pair[0])
        layers = [layer for _, layer in found]
        view.last = (index, layers, shadows)
        return layers, shadows

    def _place(
        self, view: _View, number: int, standing: Standing
    ) -> tuple[float, _Layer, Sprite] | None:
        """Cut a person out and put it into the frame; None where it is out of view."""
        camera = view.camera
        figure = self._figures[number]
        tall = figure.looks.height_m
        ground = np.array([standing.x, standing.y, 0.0])
        pixels, depths = camera.project(np.array([ground, ground + np.array([0.0, 0.0, tall])]))
        if depths.min() < NEAREST_M:
            return None
        rise = pixels[1] - pixels[0]
        length = float(np.hypot(*rise))
        away = ground - camera.position
        flat = float(np.hypot(away[0], away[1]))
        down = np.degrees(np.arctan2(camera.position[2] - tall * 0.55, max(flat, 0.1)))
        elevation = int(np.clip(round(down / ELEVATION_STEP), 0, 6))
        turn = standing.heading - np.arctan2(away[1], away[0])
        azimuth = round(turn / (2 * np.pi) * AZIMUTHS) % AZIMUTHS
        phase = -1
        if standing.moving:
            stride = STRIDE_M * figure.looks.stride * tall / 1.75
            phase = int(standing.walked / stride * PHASES) % PHASES
        upright = length / np.cos(np.radians(elevation * ELEVATION_STEP))
        wanted = View(phase, azimuth, elevation, level_for(upright))
        sprite = view.figures.get(number, figure, wanted, view.sun_seen)
        # the similarity that takes the cut-out's foot and top to the projected ones
        scale = length / sprite.rise
        cos, sin = -rise[1] / length * scale, rise[0] / length * scale
        shape = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
        shape[:, 2] = pixels[0] - shape[:, :2] @ np.array(sprite.origin)
        outline = sprite.outline @ shape[:, :2].T + shape[:, 2]
        x1, y1 = outline.min(axis=0)
        x2, y2 = outline.max(axis=0) + scale
        left, top = max(int(x1) - 2, 0), max(int(y1) - 2, 0)
        right = min(int(x2) + 3, camera.width)
        bottom = min(int(y2) + 3, camera.height)
        if left >= right or top >= bottom:
            return None
        local = shape.copy()
        local[:, 2] -= [left, top]
        size = (right - left, bottom - top)
        flags = cv2.INTER_LINEAR
        colour = cv2.warpAffine(sprite.colour, local, size, flags=flags)
        alpha = cv2.warpAffine(sprite.alpha, local, size, flags=flags)
        kept = _uncovered(view, standing, left, top, size)
        if kept is not None:
            alpha = cv2.multiply(alpha, kept, None, 1 / 255)
            colour = cv2.multiply(colour, cv2.merge([kept] * 3), None, 1 / 255)
        layer = _Layer(
            number + 1,
            (float(x1), float(y1), float(x2), float(y2)),
            left,
            top,
            np.asarray(colour, np.uint8),
            np.asarray(alpha, np.uint8),
            sprite.area * scale * scale,
        )
        return flat, layer, sprite


def _uncovered(
    view: _View, standing: Standing, left: int, top: int, size: tuple[int, int]
) -> Mask | None:
    """255 where a person's rectangle is free of furniture and walls; None: all of it."""
    kept: Mask | None = None
    width, height = size
    if standing.door is not None:
        opening = view.background.doors[standing.door]
        part = opening[top : top + height, left : left + width].astype(np.float32)
        lit = max(1.0 - max(standing.depth, 0.0) / FADE_M, 0.0)
        kept = (part * lit).astype(np.uint8)
    for cover in view.background.covers:
        if not cover.prop.hides(view.camera.position, standing.x, standing.y):
            continue
        tall, wide = cover.mask.shape
        x1, x2 = max(left, cover.left), min(left + width, cover.left + wide)
        y1, y2 = max(top, cover.top), min(top + height, cover.top + tall)
        if x1 >= x2 or y1 >= y2:
            continue
        if kept is None:
            kept = np.full((height, width), 255, np.uint8)
        spot = kept[y1 - top : y2 - top, x1 - left : x2 - left]
        mask = cover.mask[y1 - cover.top : y2 - cover.top, x1 - cover.left : x2 - cover.left]
        np.minimum(spot, 255 - mask, out=spot)
    return kept


def _draw_shadow(view: _View, picture: Image, standing: Standing, sprite: Sprite) -> None:
    """Lay the cut-out on the ground away from the sun, and darken what it touches."""
    camera = view.camera
    sun = view.sun_world
    foot = np.array([standing.x, standing.y, 0.0])
    fall = np.array([-sun[0], -sun[1], 0.0]) * (0.9 / sun[2])
    aside = np.array([-fall[1], fall[0], 0.0])
    aside *= 0.5 / np.linalg.norm(aside)
    pixels, depths = camera.project(np.array([foot, foot + fall, foot + aside]))
    if depths.min() < NEAREST_M:
        return
    per_metre = sprite.rise / 1.75
    source = np.array(
        [
            sprite.origin,
            [sprite.origin[0], sprite.origin[1] - 0.9 * per_metre],
            [sprite.origin[0] + 0.5 * per_metre, sprite.origin[1]],
        ],
        np.float32,
    )
    corners = pixels.astype(np.float32)
    laid = cv2.getAffineTransform(source, corners)
    outline = sprite.outline @ laid[:, :2].T + laid[:, 2]
    x1, y1 = np.maximum(outline.min(axis=0).astype(int) - 4, 0)
    x2 = min(int(outline[:, 0].max()) + 5, camera.width)
    y2 = min(int(outline[:, 1].max()) + 5, camera.height)
    if x1 >= x2 or y1 >= y2 or (x2 - x1) * (y2 - y1) > camera.width * camera.height // 3:
        return
    laid[:, 2] -= [x1, y1]
    cast = cv2.warpAffine(sprite.alpha, laid, (int(x2 - x1), int(y2 - y1)))
    cast = cv2.blur(cast, (3, 3))
    dark = cv2.convertScaleAbs(cast, None, 0.42 * view.contrast)
    # where the body touches the ground it is dark under any sky
    size = float(np.hypot(*(pixels[2] - pixels[0])))
    spot = np.zeros_like(dark)
    at = (int(pixels[0][0] - x1), int(pixels[0][1] - y1))
    cv2.ellipse(spot, at, (max(int(size * 0.5), 2), max(int(size * 0.2), 1)), 0, 0, 360, 80, -1)
    dark = cv2.max(dark, cv2.blur(spot, (5, 5)))
    kept = _uncovered(view, standing, int(x1), int(y1), (int(x2 - x1), int(y2 - y1)))
    if kept is not None:
        dark = cv2.multiply(dark, kept, None, 1 / 255)
    under = picture[y1:y2, x1:x2]
    cv2.multiply(under, cv2.merge([255 - dark] * 3), under, 1 / 255)
