"""Painted pictures of the street's flat surfaces: ground and house fronts.

Promise: made from a random generator; BGR float32, 0..255, as in full daylight without shadows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge.sources.scene.street import DOOR_HALF_M, DOOR_HEIGHT_M, WALLS, Street

Floats = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

GROUND_PX_M = 64.0  # pixels of a painted surface for a metre
WALL_PX_M = 48.0
WALL_HEIGHT_M = 9.0
FONT = cv2.FONT_HERSHEY_DUPLEX

PLASTER: tuple[Colour, ...] = (
    (170, 196, 208), (150, 176, 192), (196, 204, 206), (140, 160, 190), (178, 186, 178),
    (120, 150, 196), (166, 158, 150),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Surfaces:
    """Pictures and where they lie.

    Attributes:
        ground: (h, w, 3); column 0 is x = -half_length, row 0 is y = -half_width.
        walls: for each wall its picture (h, w, 3); column 0 is the low end of the wall's axis,
            row 0 is WALL_HEIGHT_M above the ground.
    """

    ground: Floats
    walls: dict[str, Floats]


def paint(rng: np.random.Generator, street: Street) -> Surfaces:
    """Paint a street."""
    walls: dict[str, Floats] = {}
    for wall in WALLS:
        half = street.half_length if wall in ("north", "south") else street.half_width
        doors = [door.along for door in street.doors if door.wall == wall]
        if wall in ("north", "west"):
            walls[wall] = _wall(rng, half, doors)
        else:  # seen from the street their axis runs to the left
            mirrored = _wall(rng, half, [-door for door in doors])
            walls[wall] = np.ascontiguousarray(mirrored[:, ::-1])
    return Surfaces(_ground(rng, street), walls)


def cloud_noise(
    rng: np.random.Generator, height: int, width: int, sizes: tuple[float, ...]
) -> Floats:
    """Smooth noise of about unit spread with features of these sizes in pixels."""
    total = np.zeros((height, width), np.float32)
    for size in sizes:
        small = (max(int(height / size), 2), max(int(width / size), 2))
        coarse = rng.normal(0, 1, small).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return total / np.float32(np.sqrt(len(sizes)))


def _ground(rng: np.random.Generator, street: Street) -> Floats:
    scale = GROUND_PX_M
    width, height = int(2 * street.half_length * scale), int(2 * street.half_width * scale)
    tint = rng.normal(0, 5, 3)
    asphalt = np.array([104, 103, 102]) * rng.uniform(0.8, 1.15) + tint * 0.4
    stone = np.array([146, 152, 156]) * rng.uniform(0.85, 1.1) + tint
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = stone
    slab = float(rng.choice([0.4, 0.5, 0.6, 0.9]))
    rows, columns = int(height / scale / slab) + 1, int(width / scale / slab) + 1
    tones = rng.normal(1.0, 0.045, (rows, columns, 1)).astype(np.float32)
    large = cv2.resize(
        tones, (int(columns * slab * scale), int(rows * slab * scale)),
        interpolation=cv2.INTER_NEAREST,
    )  # fmt: skip
    picture *= large[:height, :width, None]
    for k in range(rows):
        at = int(k * slab * scale)
        cv2.line(picture, (0, at), (width, at), _scaled(stone, 0.72), 1, cv2.LINE_AA)
    for k in range(columns):
        at = int(k * slab * scale)
        cv2.line(picture, (at, 0), (at, height), _scaled(stone, 0.74), 1, cv2.LINE_AA)
    low = int((street.half_width - street.road_half) * scale)
    high = int((street.half_width + street.road_half) * scale)
    picture[low:high] = asphalt
    kerb = int(0.14 * scale)
    for at in (low, high - kerb):
        picture[at : at + kerb] = stone * 1.12
    picture[low + kerb : low + 2 * kerb] *= 0.82
    picture[high - 2 * kerb : high - kerb] *= 0.82
    _markings(rng, picture, low, high, scale)
    for _ in range(int(rng.integers(3, 7))):  # lids and stains
        lid = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(picture, lid, int(0.32 * scale), _scaled(asphalt, 0.6), -1, cv2.LINE_AA)
        cv2.circle(picture, lid, int(0.26 * scale), _scaled(asphalt, 0.75), -1, cv2.LINE_AA)
    for _ in range(30):
        x, y = int(rng.integers(90, width - 90)), int(rng.integers(90, height - 90))
        axes = (int(rng.uniform(4, 40)), int(rng.uniform(4, 22)))
        stain = np.zeros((180, 180), np.float32)
        cv2.ellipse(stain, (90, 90), axes, float(rng.uniform(0, 180)), 0.0, 360.0, 0.1, -1)
        picture[y - 90 : y + 90, x - 90 : x + 90] *= (1 - stain)[:, :, None]
    picture *= (1 + 0.05 * cloud_noise(rng, height, width, (160, 60, 14)))[:, :, None]
    picture += rng.normal(0, 7, (height, width, 1)).astype(np.float32)
    return np.clip(picture, 5, 250)


def _markings(rng: np.random.Generator, picture: Floats, low: int, high: int, scale: float) -> None:
    width = picture.shape[1]
    white = (205.0, 208.0, 208.0)
    if rng.random() < 0.7:
        middle = (low + high) // 2
        for at in range(0, width, int(2.4 * scale)):
            cv2.rectangle(picture, (at, middle - 3), (at + int(1.2 * scale), middle + 3), white, -1)
    if rng.random() < 0.75:
        at = int(rng.uniform(0.3, 0.6) * width)
        for k in range(7):
            y1 = low + int((k + 0.3) * (high - low) / 7.2)
            y2 = y1 + int(0.5 * (high - low) / 7.2)
            cv2.rectangle(picture, (at, y1), (at + int(2.6 * scale), y2), white, -1)


def _wall(rng: np.random.Generator, half: float, doors: list[float]) -> Floats:
    """A row of houses, each with ground floor, windows and cornice; open doorways are dark."""
    scale = WALL_PX_M
    width, height = int(2 * half * scale), int(WALL_HEIGHT_M * scale)
    picture = np.zeros((height, width, 3), np.float32)
    at = 0.0
    while at < 2 * half - 0.1:
        long = min(float(rng.uniform(5.0, 8.5)), 2 * half - at)
        if 2 * half - at - long < 2.5:
            long = 2 * half - at
        piece = picture[:, int(at * scale) : int((at + long) * scale)]
        _house(rng, piece, [door + half - at for door in doors])
        at += long
    picture *= (1 + 0.04 * cloud_noise(rng, height, width, (120, 40, 9)))[:, :, None]
    picture += rng.normal(0, 4, (height, width, 1)).astype(np.float32)
    for door in doors:
        left, right = (int((door + half + side * DOOR_HALF_M) * scale) for side in (-1, 1))
        top = int((WALL_HEIGHT_M - DOOR_HEIGHT_M) * scale)
        frame = int(0.12 * scale)
        picture[top - frame :, left - frame : right + frame] = (112, 116, 120)
        inside = np.linspace(16, 34, height - top, dtype=np.float32)[:, None, None]
        picture[top:, left:right] = inside
    return np.clip(picture, 4, 250)


def _house(rng: np.random.Generator, piece: Floats, doors: list[float]) -> None:
    scale = WALL_PX_M
    height, width = piece.shape[:2]
    colour = np.array(PLASTER[int(rng.integers(len(PLASTER)))]) * rng.uniform(0.75, 1.05)
    brick = rng.random() < 0.4
    if brick:
        colour = np.array([88, 104, 150]) * rng.uniform(0.75, 1.15)
    piece[:] = colour
    if brick:
        course = 5
        tones = rng.normal(1, 0.09, (height // course + 1, width // 12 + 1, 1)).astype(np.float32)
        piece *= cv2.resize(tones, (width, height), interpolation=cv2.INTER_NEAREST)[:, :, None]
        piece[::course] *= 1.16
    ground_top = int((WALL_HEIGHT_M - 3.3) * scale)
    base = colour * rng.uniform(0.6, 0.85)
    shop = rng.random() < 0.5
    if shop:
        piece[ground_top:] = base
    piece[height - int(0.5 * scale) :] = base * 0.75
    piece[ground_top - 6 : ground_top + 4] = np.minimum(colour * 1.15, 240)
    count = max(int(width / scale / 2.1), 1)
    for floor in range(2):
        top = int((WALL_HEIGHT_M - 4.2 - 2.75 * floor - 1.55) * scale)
        for k in range(count):
            middle = int((k + 0.5) * width / count)
            _window(rng, piece, middle, top, int(0.52 * scale), int(1.55 * scale))
    for k in range(count):
        middle = int((k + 0.5) * width / count)
        if any(abs(middle / scale - door) < 2.1 for door in doors):
            continue
        if shop:
            sill = height - int(0.6 * scale)
            _window(
                rng, piece, middle, sill - int(2.0 * scale), int(0.85 * scale), int(2.0 * scale)
            )
        else:
            _window(
                rng, piece, middle, height - int(2.5 * scale), int(0.5 * scale), int(1.45 * scale)
            )
    if shop:
        sign = rng.uniform(30, 200, 3)
        top = ground_top + 8
        bottom = top + int(0.5 * scale)
        piece[top:bottom, 8 : width - 8] = sign
        letters = rng.integers(65, 91, int(rng.integers(4, 9)))
        text = "".join(chr(int(letter)) for letter in letters)
        ink = np.zeros((bottom - top, width), np.uint8)  # putText draws on bytes only
        cv2.putText(ink, text, (int(width * 0.2), bottom - top - 6), FONT, 0.7, 255, 2, cv2.LINE_AA)
        share = ink[:, :, None].astype(np.float32) / 255
        piece[top:bottom] += (
            np.float32(235 if sign.mean() < 120 else 30) - piece[top:bottom]
        ) * share


def _window(
    rng: np.random.Generator, piece: Floats, middle: int, top: int, half: int, tall: int
) -> None:
    left, right, bottom = middle - half, middle + half, top + tall
    if left < 4 or right > piece.shape[1] - 4 or top < 4:
        return
    piece[top - 5 : bottom + 7, left - 5 : right + 5] *= 1.14
    glass = np.linspace(rng.uniform(95, 150), rng.uniform(45, 80), tall, dtype=np.float32)
    piece[top:bottom, left:right] = glass[:, None, None] * np.array([1.08, 1.0, 0.92], np.float32)
    if rng.random() < 0.4:  # a curtain
        part = int(rng.uniform(0.2, 0.5) * 2 * half)
        piece[top:bottom, left : left + part] = rng.uniform(130, 190)
    frame = _scaled(np.array([200, 204, 206]), rng.uniform(0.5, 1.1))
    cv2.rectangle(piece, (left, top), (right, bottom), frame, 2)
    cv2.line(piece, (middle, top), (middle, bottom), frame, 2)
    piece[bottom + 2 : bottom + 6, left - 5 : right + 5] *= 0.7


def _scaled(colour: npt.NDArray[np.floating], factor: float) -> Colour:
    blue, green, red = (float(part) * factor for part in colour)
    return blue, green, red
