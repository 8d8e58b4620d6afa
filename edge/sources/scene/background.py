"""The empty street as one camera sees it, and what of it stands before people.

Promise: made once per camera, read only afterwards. Rays through a grid twice as fine as the
picture meet the ground, the house fronts, then the street furniture; averaged down.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge.sources.scene.cameras import Camera
from edge.sources.scene.street import Door, Prop, Solid, Street
from edge.sources.scene.surfaces import GROUND_PX_M, WALL_HEIGHT_M, WALL_PX_M, Surfaces
from edge.types import Image

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]

FINER = 2
SHADOW_PX_M = 16.0
SKY_COLOUR = (228.0, 214.0, 202.0)
HAZE_M = 260.0


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """What can hide people behind it.

    Attributes:
        prop: the furniture.
        left, top: where `mask` lies in the picture.
        mask: (h, w) uint8, 255 where the furniture is.
    """

    prop: Prop
    left: int
    top: int
    mask: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """One camera's empty street.

    Attributes:
        picture: (h, w, 3) uint8, BGR, in plain light.
        covers: the furniture in view.
        doors: for each door a mask (h, w) uint8 of its opening, 255 inside.
    """

    picture: Image
    covers: tuple[Cover, ...]
    doors: dict[Door, Mask]


def draw_background(
    camera: Camera, street: Street, surfaces: Surfaces, sun: Array, contrast: float
) -> Background:
    """Draw the empty street.

    Args:
        camera, street, surfaces: from where, what, in which colours.
        sun: (3,) direction to the sun in the world, unit length.
        contrast: 0 (overcast: no cast shadows) .. 1 (hard sun).
    """
    rays = camera.rays(FINER)
    colour, depth = _planes(camera, street, surfaces, _shadows(street, sun, contrast), rays)
    covers = []
    for prop in sorted(street.props, key=lambda one: -_distance(camera, one)):
        cover = _draw_prop(camera, prop, sun, contrast, rays, colour, depth)
        if cover is not None:
            covers.append(cover)
    size = (camera.width, camera.height)
    picture = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
    doors = {}
    for door in street.doors:
        opening = np.zeros((camera.height, camera.width), np.uint8)
        corners, ahead = camera.project(door.corners())
        if (ahead > 0.1).all():
            points = np.round(np.clip(corners, -8000, 8000) * 16).astype(np.int32)
            cv2.fillConvexPoly(opening, points, 255, cv2.LINE_AA, 4)
        doors[door] = opening
    return Background(np.clip(picture, 0, 255).astype(np.uint8), tuple(covers), doors)


def _distance(camera: Camera, prop: Prop) -> float:
    x1, y1, x2, y2 = prop.footprint
    return float(np.hypot((x1 + x2) / 2 - camera.position[0], (y1 + y2) / 2 - camera.position[1]))


def _planes(
    camera: Camera, street: Street, surfaces: Surfaces, shadows: Floats, rays: Floats
) -> tuple[Floats, Floats]:
    """Colours and distances (in lengths of the rays) of ground, fronts and sky."""
    eye = camera.position.astype(np.float32)
    far = np.float32(1e6)
    with np.errstate(divide="ignore"):
        to_ground = np.where(rays[:, :, 2] < -1e-6, -eye[2] / rays[:, :, 2], far)
        limits = (("east", 0, 1.0), ("west", 0, -1.0), ("north", 1, 1.0), ("south", 1, -1.0))
        depth = to_ground.astype(np.float32)
        hit = np.zeros(depth.shape, np.uint8)
        for number, (_, axis, sign) in enumerate(limits, start=1):
            at = sign * (street.half_length if axis == 0 else street.half_width)
            there = np.where(
                rays[:, :, axis] * sign > 1e-6, (at - eye[axis]) / rays[:, :, axis], far
            )
            nearer = there < depth
            depth[nearer] = there[nearer]
            hit[nearer] = number
    place = eye + rays * depth[:, :, None]
    colour = _lookup(
        surfaces.ground,
        (place[:, :, 0] + np.float32(street.half_length)) * np.float32(GROUND_PX_M),
        (place[:, :, 1] + np.float32(street.half_width)) * np.float32(GROUND_PX_M),
    )
    shade = _lookup(
        shadows,
        (place[:, :, 0] + np.float32(street.half_length)) * np.float32(SHADOW_PX_M),
        (place[:, :, 1] + np.float32(street.half_width)) * np.float32(SHADOW_PX_M),
    )
    colour *= shade[:, :, None]
    for number, (wall, axis, sign) in enumerate(limits, start=1):
        there = hit == number
        if not there.any():
            continue
        half = street.half_width if axis == 0 else street.half_length
        u = (place[:, :, 1 - axis] + np.float32(half)) * np.float32(WALL_PX_M)
        v = (np.float32(WALL_HEIGHT_M) - place[:, :, 2]) * np.float32(WALL_PX_M)
        tone = np.float32({("east", 1.0): 0.86, ("west", -1.0): 0.96}.get((wall, sign), 0.92))
        colour[there] = (_lookup(surfaces.walls[wall], u, v) * tone)[there]
        foot = np.clip(place[:, :, 2] / 0.5, 0, 1)
        colour[there] *= (0.75 + 0.25 * foot)[there][:, None]
    sky = (place[:, :, 2] > WALL_HEIGHT_M) | (depth >= far)
    colour[sky] = SKY_COLOUR
    return colour, depth


def _lookup(picture: Floats, u: Floats, v: Floats) -> Floats:
    return np.asarray(
        cv2.remap(
            picture, np.ascontiguousarray(np.clip(u, -4, 1e4)),
            np.ascontiguousarray(np.clip(v, -4, 1e4)), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )  # fmt: skip


def _shadows(street: Street, sun: Array, contrast: float) -> Floats:
    """Light on the ground, 0..1: what the furniture leaves of it."""
    width = int(2 * street.half_length * SHADOW_PX_M)
    height = int(2 * street.half_width * SHADOW_PX_M)
    cast = np.zeros((height, width), np.float32)
    contact = np.zeros((height, width), np.float32)
    origin = np.array([street.half_length, street.half_width])
    slope = sun[:2] / sun[2]
    for prop in street.props:
        for solid in prop.solids:
            corners = solid.vertices[:, :2] - solid.vertices[:, 2:] * slope
            points = ((corners + origin) * SHADOW_PX_M * 16).astype(np.int32)
            cv2.fillConvexPoly(cast, cv2.convexHull(points), 1.0, cv2.LINE_AA, 4)
        for leaf in prop.leaves:
            x, y = (leaf[:2] - leaf[2] * slope + origin) * SHADOW_PX_M
            cv2.circle(cast, (int(x), int(y)), 2, 1.0, -1)
        if not prop.stands:
            continue
        x1, y1, x2, y2 = ((np.array(prop.footprint).reshape(2, 2) + origin) * SHADOW_PX_M).ravel()
        cv2.rectangle(contact, (int(x1), int(y1)), (int(x2), int(y2)), 1.0, -1)
    cast_soft = cv2.GaussianBlur(cast, (0, 0), 1.0)
    contact_soft = cv2.GaussianBlur(contact, (0, 0), 5.0)
    light = (1 - 0.45 * contrast * cast_soft) * (1 - 0.5 * contact_soft)
    return np.asarray(light, dtype=np.float32)


def _draw_prop(
    camera: Camera, prop: Prop, sun: Array, contrast: float, rays: Floats,
    colour: Floats, depth: Floats,
) -> Cover | None:  # fmt: skip
    """Draw one prop into colour and depth; None where it is out of view."""
    mask = np.zeros(depth.shape, np.uint8)
    for solid in prop.solids:
        _draw_solid(camera, solid, sun, contrast, rays, colour, depth, mask)
    if len(prop.leaves):
        _draw_leaves(camera, prop, sun, colour, mask)
    size = (camera.width, camera.height)
    soft = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)
    if not soft.any():
        return None
    left, top, width, height = cv2.boundingRect(soft)
    return Cover(prop, left, top, soft[top : top + height, left : left + width].copy())


def _draw_solid(
    camera: Camera, solid: Solid, sun: Array, contrast: float, rays: Floats,
    colour: Floats, depth: Floats, mask: Mask,
) -> None:  # fmt: skip
    corners, ahead = camera.project(solid.vertices)
    if (ahead < 0.2).any():
        return
    low = np.floor(corners.min(axis=0) * FINER).astype(int)
    high = np.ceil(corners.max(axis=0) * FINER).astype(int) + 1
    x1, y1 = np.maximum(low, 0)
    x2, y2 = min(high[0], depth.shape[1]), min(high[1], depth.shape[0])
    if x1 >= x2 or y1 >= y2:
        return
    part = rays[y1:y2, x1:x2]
    enter = np.full(part.shape[:2], -1e9, np.float32)
    leave = np.full(part.shape[:2], 1e9, np.float32)
    face = np.zeros(part.shape[:2], np.intp)
    normals = solid.normals.astype(np.float32)
    for k in range(len(normals)):
        along = part @ normals[k]
        gap = np.float32(solid.offsets[k] - float(normals[k] @ camera.position))
        at = gap / np.where(np.abs(along) < 1e-7, np.float32(1e-7), along)
        inward = along < 0
        later = inward & (at > enter)
        enter[later] = at[later]
        face[later] = k
        leave = np.where(~inward & (at < leave), at, leave)
    hit = (enter < leave) & (enter > 0) & (enter < depth[y1:y2, x1:x2])
    direct = np.maximum(normals @ sun.astype(np.float32), 0) * (0.25 + 0.35 * contrast)
    light = direct + 0.55 + 0.2 * normals[:, 2]
    tones = np.array(solid.colour, np.float32) * light[:, None]
    if solid.gloss > 0:
        mirrored = np.clip(0.35 + 0.65 * normals[:, 2:3], 0, 1) * np.array(SKY_COLOUR, np.float32)
        tones = tones * (1 - 0.4 * solid.gloss) + mirrored * 0.4 * solid.gloss
    colour[y1:y2, x1:x2][hit] = tones[face][hit]
    depth[y1:y2, x1:x2][hit] = enter[hit]
    mask[y1:y2, x1:x2][hit] = 255


def _draw_leaves(camera: Camera, prop: Prop, sun: Array, colour: Floats, mask: Mask) -> None:
    """Leaves as small discs, far ones first, lighter towards the sun."""
    pixels, ahead = camera.project(prop.leaves)
    middle = prop.leaves.mean(axis=0)
    lit = (prop.leaves - middle) @ sun / 1.5
    base = np.array(prop.leaf_colour)
    flicker = np.random.default_rng(len(prop.leaves)).uniform(0.6, 1.3, len(ahead))
    for k in np.argsort(-ahead):
        if ahead[k] < 0.4:
            continue
        at = (pixels[k] * FINER).astype(int)
        radius = max(int(0.045 * camera.focal * FINER / ahead[k]), 1)
        if not (-50 < at[0] < mask.shape[1] + 50 and -50 < at[1] < mask.shape[0] + 50):
            continue
        blue, green, red = (float(part) for part in base * (0.8 + 0.45 * lit[k]) * flicker[k])
        cv2.circle(colour, (int(at[0]), int(at[1])), radius, (blue, green, red), -1)
        cv2.circle(mask, (int(at[0]), int(at[1])), radius, 255, -1)
