"""The surface of a clothed body: points with normals, colours and the bones that carry them.

Promise: a pure function of the looks and the wanted density. Parts are tubes of ellipses in the
rest pose (arms hanging); cloth is the same kind of tube, wider.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from edge.sources.scene import gait, patterns
from edge.sources.scene.wardrobe import Colour, Looks

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Station = tuple[float, float, float, float]  # z, half depth (x), half width (y), x of the middle

AROUND = 40  # columns of a tube's grid


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Points that move together.

    Attributes:
        points: (n, 3) metres in the rest pose; normals: (n, 3); colours: (n, 3) BGR 0..255.
        bones: which bones carry the points; weights: (n, len(bones)), or None for one bone.
    """

    points: Floats
    normals: Floats
    colours: Floats
    bones: tuple[int, ...]
    weights: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """Points of one surface: places and normals (n, 3), tone (n,) and tilt (n, 3) of the cloth."""

    places: Array
    normals: Floats
    tone: Floats
    tilt: Floats


class Tailor:
    """Builds the patches of one person."""

    def __init__(self, looks: Looks, seed: int, points_per_m2: float) -> None:
        self._looks = looks
        self._rng = np.random.default_rng(seed)
        self._density = points_per_m2
        self._patches: list[Patch] = []

    def build(self) -> list[Patch]:
        """All patches, for a body of gait.HEIGHT_M."""
        self._head()
        self._torso()
        for side in (0, 1):
            self._leg(side)
            self._arm(side)
        self._bag()
        return self._patches

    # --- parts ---

    def _head(self) -> None:
        looks = self._looks
        neck = gait.NECK_Z
        self._tube(
            [(neck - 0.03, 0.062, 0.066, 0.0), (neck + 0.09, 0.052, 0.052, 0.012)],
            looks.skin, gait.HEAD, 0.0, shade=0.8,
        )  # fmt: skip
        middle = np.array([0.018, 0.0, neck + 0.157])
        size = np.array([0.098, 0.076, 0.118])
        skin = self._sample(_ellipsoid(middle, size))
        way = (skin.places - middle) / size
        colours = np.tile(np.array(looks.skin, np.float64), (len(way), 1))
        for side in (-1, 1):
            eye = np.linalg.norm((way - [0.88, side * 0.40, 0.10]) * [1, 1, 1.6], axis=1) < 0.15
            brow = np.linalg.norm((way - [0.86, side * 0.42, 0.30]) * [1, 0.7, 2.5], axis=1) < 0.17
            colours[eye] *= 0.35
            colours[brow] = np.array(looks.hair) * 0.8
        mouth = np.linalg.norm((way - [0.88, 0.0, -0.48]) * [1, 0.8, 3.2], axis=1) < 0.2
        colours[mouth] *= [0.62, 0.6, 0.82]
        colours[way[:, 2] < -0.72] *= 0.8
        self._add(skin, colours, (gait.HEAD,))
        nose = _ellipsoid(middle + np.array([0.10, 0, -0.012]), (0.022, 0.014, 0.024))
        self._plain(nose, looks.skin, gait.HEAD, 1.03)
        if looks.hairdo != "bald" and looks.headwear != "hood":
            self._hair(middle)
        self._headwear(middle)

    def _hair(self, middle: Array) -> None:
        looks = self._looks
        size = np.array([0.110, 0.087, 0.126])
        hair = self._sample(_ellipsoid(middle + np.array([-0.008, 0, 0.008]), size))
        way = (hair.places - middle) / size
        line = 0.42 - 1.15 * np.clip(-way[:, 0] + 0.25, 0, 0.9)
        if looks.hairdo == "long":
            line = np.where(way[:, 0] < 0.35, -0.9, line)
        keep = way[:, 2] > line + 0.05 * np.sin(way[:, 1] * 17)
        streak = 1 + 0.16 * np.sin(way[:, 1] * 37 + 3 * way[:, 0])
        self._add(hair, np.array(looks.hair) * streak[:, None], (gait.HEAD,), keep=keep)
        if looks.hairdo == "long":
            low = gait.NECK_Z - 0.10
            self._tube(
                [
                    (low, 0.035, 0.085, -0.085), (low + 0.08, 0.045, 0.098, -0.08),
                    (low + 0.22, 0.06, 0.092, -0.05), (low + 0.28, 0.07, 0.085, -0.04),
                ],
                looks.hair, gait.HEAD, 0.0, folds=0.25,
            )  # fmt: skip
        if looks.hairdo == "ponytail":
            low = gait.NECK_Z - 0.06
            tail: list[Station] = [(low, 0.02, 0.025, -0.12), (low + 0.2, 0.035, 0.035, -0.125)]
            self._tube(tail, looks.hair, gait.HEAD, 0.0, folds=0.25)
        if looks.hairdo == "bun":
            bun = _ellipsoid(middle + np.array([-0.125, 0, 0.06]), (0.05, 0.055, 0.05))
            self._plain(bun, looks.hair, gait.HEAD)

    def _headwear(self, middle: Array) -> None:
        looks = self._looks
        if looks.headwear == "none":
            return
        size = np.array([0.118, 0.094, 0.132])
        cloth = self._sample(_ellipsoid(middle + np.array([-0.006, 0, 0.006]), size))
        way = (cloth.places - middle) / size
        colour = looks.top_colour if looks.headwear == "hood" else looks.head_colour
        if looks.headwear == "hood":
            keep = (way[:, 0] < 0.42) | (way[:, 2] > 0.72)
        else:
            keep = way[:, 2] > (0.18 if looks.headwear == "beanie" else 0.3)
        rib = 1 + (0.1 * np.sin(way[:, 1] * 40) if looks.headwear == "beanie" else 0.0)
        shades = np.array(colour) * (np.ones(len(way)) * rib)[:, None]
        self._add(cloth, shades, (gait.HEAD,), keep=keep)
        if looks.headwear == "cap":
            peak = _ellipsoid(middle + np.array([0.125, 0, 0.046]), (0.075, 0.07, 0.010))
            self._plain(peak, looks.head_colour, gait.HEAD, 0.8)

    def _torso(self) -> None:
        looks = self._looks
        wide = looks.breadth
        ease = {"tshirt": 0.008, "shirt": 0.012, "vest": 0.006, "dress": 0.006}.get(looks.top, 0.03)
        base = gait.WAIST_Z
        chest: list[Station] = [
            (base - 0.03, 0.108, 0.150, 0.0), (base + 0.10, 0.112, 0.150, 0.004),
            (base + 0.22, 0.124, 0.166, 0.006), (base + 0.31, 0.122, 0.176, 0.0),
            (base + 0.365, 0.104, 0.180, -0.004), (base + 0.405, 0.084, 0.160, -0.006),
            (base + 0.440, 0.070, 0.105, -0.002), (base + 0.475, 0.056, 0.060, 0.004),
        ]  # fmt: skip
        self._cloth(_wider(chest, wide, ease), (gait.CHEST,), looks.top_colour, patterned=True)
        covers_hips = looks.top not in ("vest",)
        lower = looks.top_colour if covers_hips else looks.bottom_colour
        hips: list[Station] = [
            (gait.HIP_Z - 0.10, 0.118, 0.158, -0.012), (gait.HIP_Z, 0.122, 0.168, -0.012),
            (gait.HIP_Z + 0.09, 0.112, 0.155, -0.004), (gait.HIP_Z + 0.15, 0.106, 0.150, 0.0),
        ]  # fmt: skip
        loose = (gait.PELVIS, gait.THIGH, gait.THIGH + 1)
        self._cloth(
            _wider(hips[:2] if covers_hips else hips, wide, 0.004), loose, looks.bottom_colour
        )
        if covers_hips:
            hem = gait.HIP_Z + (-0.09 if looks.top in ("jacket", "shirt") else -0.02)
            shirt = [
                (hem, 0.128, 0.172, -0.010), (gait.HIP_Z + 0.06, 0.122, 0.165, -0.008),
                (gait.WAIST_Z + 0.05, 0.113, 0.153, 0.0),
            ]  # fmt: skip
            self._cloth(_wider(shirt, wide, ease + 0.006), loose, lower, patterned=True)
        if looks.top == "coat":
            self._skirt(0.46, 0.050, looks.top_colour, ease)
        elif looks.top == "dress":
            hem = looks.hem_m or 0.52
            self._skirt(hem, 0.060, looks.top_colour, ease, patterned=True)
        elif looks.bottom == "skirt":
            hem = looks.hem_m or 0.55
            self._skirt(hem, 0.045, looks.bottom_colour, 0.01, trimmed=True)

    def _skirt(
        self, hem: float, flare: float, colour: Colour, ease: float,
        patterned: bool = False, trimmed: bool = False,
    ) -> None:  # fmt: skip
        """Cloth below the waist, carried by pelvis and both thighs."""
        wide = self._looks.breadth
        stations: list[Station] = [
            (hem, 0.13 + flare, 0.18 + flare, -0.005),
            ((hem + gait.HIP_Z) / 2, 0.13 + flare / 2, 0.178 + flare / 2, -0.008),
            (gait.HIP_Z, 0.126, 0.172, -0.01), (gait.WAIST_Z + 0.02, 0.112, 0.152, 0.0),
        ]  # fmt: skip
        bones = (gait.PELVIS, gait.THIGH, gait.THIGH + 1)
        self._cloth(
            _wider(stations, wide, ease), bones, colour, patterned=patterned, trimmed=trimmed
        )

    def _leg(self, side: int) -> None:
        looks = self._looks
        sign = 1 if side == 0 else -1
        at = sign * gait.HIP_Y
        wide = 0.5 + looks.breadth / 2
        bare = looks.bottom in ("shorts", "skirt", "bare")
        colour = looks.skin if bare else looks.bottom_colour
        slack = {"trousers": 0.016, "jeans": 0.009}.get(looks.bottom, 0.0)
        thigh: list[Station] = [
            (gait.KNEE_Z - 0.03, 0.054, 0.053, 0.0), (gait.KNEE_Z + 0.03, 0.058, 0.056, 0.003),
            (gait.KNEE_Z + 0.2, 0.076, 0.072, 0.004), (gait.HIP_Z - 0.08, 0.090, 0.082, 0.0),
            (gait.HIP_Z, 0.084, 0.074, -0.006), (gait.HIP_Z + 0.05, 0.060, 0.060, -0.01),
        ]  # fmt: skip
        trimmed = not bare
        self._cloth(_wider(thigh, wide, slack), (gait.THIGH + side,), colour, y=at, trimmed=trimmed)
        if looks.bottom == "shorts":
            short: list[Station] = [
                (looks.hem_m or gait.KNEE_Z + 0.10, 0.090, 0.088, 0.0),
                (gait.HIP_Z, 0.098, 0.088, -0.005),
            ]  # fmt: skip
            bones = (gait.THIGH + side,)
            self._cloth(_wider(short, wide, 0.004), bones, looks.bottom_colour, y=at, trimmed=True)
        hem = 0.055 if looks.bottom in ("trousers", "jeans") else 0.07
        loose = slack * 1.4
        shank: list[Station] = [
            (hem, 0.041 + loose, 0.040 + loose, -0.004),
            (0.16, 0.041 + loose, 0.040 + loose, -0.006),
            (gait.KNEE_Z - 0.13, 0.057 + loose / 2, 0.053 + loose / 2, -0.014),
            (gait.KNEE_Z, 0.055 + slack, 0.054 + slack, 0.0),
            (gait.KNEE_Z + 0.05, 0.050 + slack, 0.050 + slack, 0.004),
        ]  # fmt: skip
        self._cloth(_wider(shank, wide, 0.0), (gait.SHANK + side,), colour, y=at, trimmed=trimmed)
        shoe = _ellipsoid(np.array([0.055, at, 0.042]), (0.142, 0.047, 0.046))
        leather = self._sample(shoe)
        up = leather.places[:, 2]
        up[:] = np.clip(up, 0.002, np.where(leather.places[:, 0] > 0.06, 0.075, 1.0))
        shades = np.array(looks.shoes) * np.where(up[:, None] < 0.022, 0.6, 1.0)
        self._add(leather, shades, (gait.FOOT + side,))
        heel = [(0.03, 0.044, 0.040, -0.02), (0.125, 0.043, 0.042, -0.005)]
        self._cloth(heel, (gait.FOOT + side,), looks.shoes, y=at)

    def _arm(self, side: int) -> None:
        looks = self._looks
        at = (1 if side == 0 else -1) * (gait.SHOULDER_Y * (0.35 + 0.65 * looks.breadth))
        wide = 0.4 + looks.breadth * 0.6
        ease = {"tshirt": 0.010, "shirt": 0.009, "dress": 0.006, "vest": 0.0}.get(looks.top, 0.020)
        sleeve = looks.skin if looks.top == "vest" else looks.top_colour
        upper: list[Station] = [
            (gait.ELBOW_Z - 0.02, 0.040, 0.038, 0.0), (gait.ELBOW_Z + 0.12, 0.047, 0.043, 0.0),
            (gait.SHOULDER_Z - 0.06, 0.055, 0.048, 0.0),
            (gait.SHOULDER_Z - 0.015, 0.048, 0.038, 0.0),
            (gait.SHOULDER_Z + 0.012, 0.012, 0.010, 0.0),
        ]  # fmt: skip
        short = looks.top in ("tshirt", "dress")
        bones = (gait.UPPER_ARM + side,)
        if short:
            self._cloth(_wider(upper, wide, 0.0), bones, looks.skin, y=at)
            cuff = [(gait.ELBOW_Z + 0.07, 0.055, 0.050, 0.0), *upper[2:]]
            self._cloth(_wider(cuff, wide, ease), bones, sleeve, y=at, patterned=True)
        else:
            self._cloth(_wider(upper, wide, ease), bones, sleeve, y=at, patterned=True)
        bare = short or looks.top == "vest"
        fore: list[Station] = [
            (gait.ELBOW_Z - 0.25, 0.026, 0.030, 0.0), (gait.ELBOW_Z - 0.08, 0.041, 0.038, 0.0),
            (gait.ELBOW_Z + 0.03, 0.040, 0.038, 0.0),
        ]  # fmt: skip
        colour = looks.skin if bare else sleeve
        bones = (gait.FOREARM + side,)
        self._cloth(
            _wider(fore, wide, 0.0 if bare else ease * 0.8), bones, colour, y=at, patterned=not bare
        )
        hand = _ellipsoid(np.array([0.006, at, gait.ELBOW_Z - 0.325]), (0.040, 0.022, 0.085))
        self._plain(hand, looks.skin, gait.FOREARM + side)

    def _bag(self) -> None:
        looks = self._looks
        if looks.bag == "backpack":
            pack = _block(np.array([-0.205, 0.0, gait.WAIST_Z + 0.20]), (0.085, 0.145, 0.215))
            self._plain(pack, looks.bag_colour, gait.CHEST, folds=0.12)
            for side in (-1, 1):
                strap = _ellipsoid(
                    np.array([0.03, side * 0.10, gait.SHOULDER_Z - 0.06]), (0.135, 0.026, 0.115)
                )
                self._plain(strap, looks.bag_colour, gait.CHEST, 0.8)
        elif looks.bag == "shoulder":
            bag = _block(np.array([-0.02, 0.255, gait.HIP_Z + 0.03]), (0.150, 0.055, 0.125))
            self._plain(bag, looks.bag_colour, gait.PELVIS, folds=0.12)
        elif looks.bag == "hand":
            bag = _block(np.array([0.01, -0.215, gait.ELBOW_Z - 0.56]), (0.155, 0.05, 0.135))
            self._plain(bag, looks.bag_colour, gait.FOREARM + 1, folds=0.12)

    # --- cloth and sampling ---

    def _tube(
        self, stations: Sequence[Station], colour: Colour, bone: int, y: float,
        *, shade: float = 1.0, folds: float = 0.05,
    ) -> None:  # fmt: skip
        self._plain(_ellipses(stations, y), colour, bone, shade, folds)

    def _plain(
        self, grid: Array, colour: Colour, bone: int, shade: float = 1.0, folds: float = 0.04
    ) -> None:
        points = self._sample(grid)
        tones = np.array(colour) * shade * (1 + folds * points.tone)[:, None]
        self._add(points, tones, (bone,))

    def _cloth(
        self, stations: Sequence[Station], bones: tuple[int, ...], colour: Colour,
        *, y: float = 0.0, patterned: bool = False, trimmed: bool = False,
    ) -> None:  # fmt: skip
        points = self._sample(_ellipses(stations, y))
        places = points.places
        colours = np.tile(np.array(colour, np.float64), (len(places), 1))
        if patterned:
            colours = patterns.on_top(self._looks, places, colours)
        if trimmed:
            colours = patterns.on_legs(self._looks, places, colours)
        normals = points.normals + 0.2 * points.tilt
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        weights = None
        if len(bones) == 3:  # a skirt: pelvis above, thighs below, blended across the middle
            below = np.clip((gait.HIP_Z + 0.02 - places[:, 2]) / 0.3, 0, 1) * 0.85
            left = 1 / (1 + np.exp(-places[:, 1] / 0.05))
            weights = np.stack([1 - below, below * left, below * (1 - left)], axis=1)
        self._add(
            replace(points, normals=normals),
            colours * (1 + 0.06 * points.tone)[:, None],
            bones,
            weights,
        )

    def _sample(self, grid: Array) -> _Points:
        """Evenly spread points on a grid of a surface (rows, columns, 3)."""
        across = np.cross(np.diff(grid, axis=1)[:-1], np.diff(grid, axis=0)[:, :-1])
        area = np.linalg.norm(across, axis=2)
        # neighbours in the list are neighbours on the surface, so strata are compact
        order = np.arange(area.size).reshape(area.shape)
        order[1::2] = order[1::2, ::-1]
        total = np.cumsum(area.ravel()[order.ravel()])
        count = max(int(total[-1] * self._density), 12)
        at = (np.arange(count) + self._rng.random(count)) / count * total[-1]
        cells = order.ravel()[np.minimum(np.searchsorted(total, at), area.size - 1)]
        corners = np.concatenate([grid, _corner_normals(across), self._wrinkles(grid)], axis=2)
        width = grid.shape[1]
        first = cells // area.shape[1] * width + cells % area.shape[1]
        table = corners.reshape(-1, corners.shape[2]).astype(np.float32)
        a, b = self._rng.random((2, count, 1)).astype(np.float32)
        low = table.take(first, axis=0) * (1 - a) + table.take(first + 1, axis=0) * a
        high = table.take(first + width, axis=0) * (1 - a)
        high += table.take(first + width + 1, axis=0) * a
        rows = low * (1 - b) + high * b
        normals = rows[:, 3:6]
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        return _Points(rows[:, :3].astype(np.float64), normals, rows[:, 6], rows[:, 7:10])

    def _wrinkles(self, grid: Array) -> Array:
        """Per corner: a tone of about unit spread, and how the cloth tilts (x, y, z)."""
        rows, columns = grid.shape[:2]
        noise = self._rng.normal(0, 1, (rows, columns, 4)).astype(np.float32)
        noise = np.concatenate([noise] * 3, axis=1)  # the seam closes
        soft = np.asarray(
            cv2.GaussianBlur(noise, (0, 0), 1.6)[:, columns : 2 * columns], np.float32
        )
        fine = noise[:, columns : 2 * columns, :1]
        soft /= max(float(soft.std()), 1e-6)
        return np.concatenate([soft[:, :, :1] * 0.9 + fine * 0.3, soft[:, :, 1:]], axis=2)

    def _add(
        self,
        points: _Points,
        colours: Array,
        bones: tuple[int, ...],
        weights: Array | None = None,
        *,
        keep: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        chosen = slice(None) if keep is None else keep
        self._patches.append(
            Patch(
                points.places[chosen].astype(np.float32),
                points.normals[chosen].astype(np.float32),
                np.clip(colours[chosen], 0, 255).astype(np.float32),
                bones,
                None if weights is None else weights.astype(np.float32),
            )
        )


def _corner_normals(across: Array) -> Array:
    """Normals of cells, blended at the grid's corners, or facets would show; columns close."""
    faces = np.concatenate([across[:, -1:], across], axis=1)
    corners = (faces[:, :-1] + faces[:, 1:]) / 2
    corners = np.concatenate([corners, corners[:, :1]], axis=1)
    corners = np.concatenate([corners[:1], corners, corners[-1:]], axis=0)
    return np.asarray((corners[:-1] + corners[1:]) / 2)


def _wider(stations: Sequence[Station], wide: float, ease: float) -> list[Station]:
    return [(z, x * (0.4 + 0.6 * wide) + ease, y * wide + ease, mid) for z, x, y, mid in stations]


def _ellipses(stations: Sequence[Station], y: float) -> Array:
    """A tube's grid (rows, AROUND + 1, 3) through ellipses given from low to high z."""
    given = np.array(stations)
    rows = max(int((given[-1, 0] - given[0, 0]) / 0.02), 3)
    heights = np.linspace(given[0, 0], given[-1, 0], rows)
    rx, ry, mid = (np.interp(heights, given[:, 0], given[:, k]) for k in (1, 2, 3))
    if rows > 6:  # round the corners between stations
        rx, ry, mid = (
            cv2.GaussianBlur(one.reshape(-1, 1), (1, 5), 1.2).ravel() for one in (rx, ry, mid)
        )
    turn = np.linspace(0, 2 * np.pi, AROUND + 1)
    x = mid[:, None] + rx[:, None] * np.cos(turn)
    across = y + ry[:, None] * np.sin(turn)
    return np.stack([x, across, np.repeat(heights[:, None], AROUND + 1, axis=1)], axis=2)


def _ellipsoid(middle: Array, size: Sequence[float] | Array) -> Array:
    turn = np.linspace(0, 2 * np.pi, AROUND + 1)
    rise = np.linspace(-np.pi / 2, np.pi / 2, 16)[:, None]
    ball = [np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise) + 0 * turn]
    return np.asarray(np.stack(ball, axis=2) * np.array(size) + middle)


def _block(middle: Array, size: tuple[float, float, float]) -> Array:
    """A box with round edges: a superellipsoid."""
    ball = _ellipsoid(np.zeros(3), (1.0, 1.0, 1.0))
    return np.asarray(np.sign(ball) * np.abs(ball) ** 0.45 * np.array(size) + middle)
