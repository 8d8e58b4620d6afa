"""Training pictures: mosaics, pasted people, bad light, bad codecs.

Promise: sample number i of a seed is always the same picture, whichever process draws it and in
whatever order, so a resumed run goes on where it stopped. All source pictures stand decoded in
memory, each also at 1/2 and 1/4 so that shrinking does not alias. Boxes follow what is done to
the picture: too little left of a person, or too small to see, becomes a region to ignore.
A `Sampler` is read-only after construction; any thread or forked worker may draw.

Sources: mosaics: Bochkovskiy et al., YOLOv4, arXiv:2004.10934; pasting: Ghiasi et al.,
arXiv:2012.07177.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from models.detector_data import Floats, Image, Picture

NOTHING, PERSON, IGNORE = 0, 1, 2  # kinds of a box row
MOST_BOXES = 48  # of one sample, largest first; the sources have at most 32 a picture
_PAD = 114  # grey of the letterbox
_MOST_TURN = 12.0  # degrees: people lean towards the rim of a wide view from above


@dataclass(frozen=True)
class Sample:
    """One picture to train on.

    Attributes:
        image: (s, s, 3) uint8 BGR, as the network gets it.
        clean: the same before light and codec were spoilt: what a teacher looks at.
        boxes: (MOST_BOXES, 4) float32, x1 y1 x2 y2 in pixels.
        kinds: (MOST_BOXES,) int64: NOTHING, PERSON or IGNORE.
    """

    image: Image
    clean: Image
    boxes: Floats
    kinds: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Source:
    levels: tuple[Image, ...]  # full, 1/2, 1/4
    boxes: Floats
    kinds: npt.NDArray[np.int64]


class Sampler:
    """Draws training pictures from pictures and cut-out people.

    Args:
        pictures: what is drawn from, each as often as its weight says.
        cutouts: (n, 128, 64, 4) uint8 BGR and opacity, pasted into half of the samples; n may be 0.
        reference: pixels that the longest side of a picture has at zoom 1, whatever the sample's
            side: a sample smaller than this is a part of the picture, its people of full size.
        seed: of everything drawn.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        cutouts: npt.NDArray[np.uint8],
        *,
        reference: int = 416,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        if not pictures:
            raise ValueError("no pictures to train on")
        bar = tqdm(pictures, "decode", unit=" pictures", disable=not progress, mininterval=5.0)
        self._sources = [_decode(p, reference) for p in bar]
        weights = np.asarray([p.weight for p in pictures], np.float64)
        self._bounds = np.cumsum(weights / weights.sum())
        self._cutouts = cutouts
        self._seed = seed

    def draw(self, number: int, side: int, *, closing: bool = False) -> Sample:
        """Sample `number`: a square of `side` pixels, a multiple of 32.

        `closing`: for the last part of a run, fewer mosaics and milder spoiling.
        """
        rng = np.random.default_rng((self._seed, number))
        canvas = np.full((side, side, 3), _PAD, np.uint8)
        boxes: list[Floats] = []
        kinds: list[npt.NDArray[np.int64]] = []
        for rectangle in _tiles(rng, side, closing):
            found, kind = self._fill(rng, canvas, rectangle, closing)
            boxes.append(found)
            kinds.append(kind)
        all_boxes, all_kinds = np.concatenate(boxes), np.concatenate(kinds)
        if len(self._cutouts) and rng.random() < (0.3 if closing else 0.5):
            all_boxes, all_kinds = self._paste(rng, canvas, all_boxes, all_kinds)
        image = _spoil(rng, canvas, 0.5 if closing else 1.0)
        area = np.prod(all_boxes[:, 2:] - all_boxes[:, :2], axis=1)
        order = np.argsort(np.where(all_kinds == NOTHING, 0.0, -area), kind="stable")[:MOST_BOXES]
        out_boxes = np.zeros((MOST_BOXES, 4), np.float32)
        out_kinds = np.zeros(MOST_BOXES, np.int64)
        out_boxes[: len(order)] = all_boxes[order]
        out_kinds[: len(order)] = all_kinds[order]
        return Sample(image, canvas, out_boxes, out_kinds)

    def _fill(
        self,
        rng: np.random.Generator,
        canvas: Image,
        rectangle: tuple[int, int, int, int],
        closing: bool,
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Put one picture into one tile; its boxes in the canvas."""
        x1, y1, x2, y2 = rectangle
        source = self._sources[int(np.searchsorted(self._bounds, rng.random()))]
        height, width = source.levels[0].shape[:2]
        # zoom 1 covers the tile; below it grey is seen, as in a letterbox
        cover = max((x2 - x1) / width, (y2 - y1) / height)
        low, high = (0.75, 1.5) if closing else (0.6, 2.2)
        scale = cover * np.exp(rng.uniform(np.log(low), np.log(high)))
        aspect = np.exp(rng.uniform(np.log(0.7), np.log(1.6))) ** 0.5
        sx, sy = scale * aspect, scale / aspect
        flip = rng.random() < 0.5
        if (source.kinds == PERSON).any() and rng.random() < 0.7:
            # look where somebody is: his middle somewhere in the tile
            box = source.boxes[rng.choice(np.flatnonzero(source.kinds == PERSON))]
            middle = (box[:2] + box[2:]) / 2
            mx = (width - middle[0] if flip else middle[0]) * sx
            ox = rng.uniform(x1, x2) - mx
            oy = rng.uniform(y1, y2) - middle[1] * sy
            ox = np.clip(ox, *sorted((x1, x2 - width * sx)))
            oy = np.clip(oy, *sorted((y1, y2 - height * sy)))
        else:
            ox = x1 + rng.random() * (x2 - x1 - width * sx)
            oy = y1 + rng.random() * (y2 - y1 - height * sy)
        level = int(np.clip(round(-np.log2(max(sx, sy)) + rng.uniform(-0.5, 0.5)), 0, 2))
        pixels = source.levels[level]
        kx, ky = sx * width / pixels.shape[1], sy * height / pixels.shape[0]
        # warpAffine counts from pixel centres, boxes from corners
        matrix = np.array([[kx, 0, ox - x1 + 0.5 * kx - 0.5], [0, ky, oy - y1 + 0.5 * ky - 0.5]])
        if flip:
            matrix[0] = [-kx, 0, ox - x1 + sx * width - 0.5 * kx - 0.5]
        turn = np.radians(rng.uniform(-_MOST_TURN, _MOST_TURN)) if rng.random() < 0.25 else 0.0
        centre = np.array([x2 - x1, y2 - y1]) / 2
        if turn:
            matrix = _rotation(turn, centre - 0.5) @ np.vstack([matrix, [0, 0, 1]])
        canvas[y1:y2, x1:x2] = cv2.warpAffine(
            pixels,
            matrix,
            (x2 - x1, y2 - y1),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(_PAD, _PAD, _PAD),
        )
        boxes = source.boxes.copy()
        if flip:
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        boxes = (boxes * [sx, sy, sx, sy] + [ox, oy, ox, oy]).astype(np.float32)
        if turn:
            boxes = turned(boxes, turn, centre + np.array([x1, y1]))
        clipped = np.clip(boxes, [x1, y1, x1, y1], [x2, y2, x2, y2]).astype(np.float32)
        return clipped, _judge(source.kinds, boxes, clipped)

    def _paste(
        self, rng: np.random.Generator, canvas: Image, boxes: Floats, kinds: npt.NDArray[np.int64]
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Put one to six people into the canvas, far ones first; whom they hide is ignored."""
        side = canvas.shape[0]
        count = int(rng.integers(1, 7))
        heights = np.sort(np.exp(rng.uniform(np.log(14.0), np.log(0.5 * side), count)))
        for height in heights:
            h = max(8, round(height))
            w = max(4, round(height * 0.42 * rng.uniform(0.75, 1.3)))
            cutout = self._cutouts[rng.integers(len(self._cutouts))]
            layer = cv2.resize(cutout, (w, h), interpolation=cv2.INTER_AREA)
            if rng.random() < 0.5:
                layer = layer[:, ::-1]
            x, y = int(rng.uniform(-w / 2, side - w / 2)), int(rng.uniform(0, side - 0.7 * h))
            whole = np.array([[x, y, x + w, y + h]], np.float32)
            box = np.clip(whole, 0, side)
            x1, y1, x2, y2 = (int(v) for v in box[0])
            part = layer[y1 - y : y2 - y, x1 - x : x2 - x].astype(np.float32)
            opacity = part[..., 3:] / 255.0
            person = part[..., :3] * rng.uniform(0.5, 1.25)
            below = canvas[y1:y2, x1:x2]
            canvas[y1:y2, x1:x2] = np.clip(below + (person - below) * opacity, 0, 255)
            hidden = (_share_inside(boxes, box) > 0.7) & (kinds == PERSON)
            kinds = np.where(hidden, IGNORE, kinds)
            boxes = np.concatenate([boxes, box])
            kinds = np.append(kinds, _judge(np.array([PERSON]), whole, box))
        return boxes, kinds


def _rotation(angle: float, centre: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(2, 3): turn by an angle in radians around a point."""
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, centre - linear @ centre])


def turned(boxes: Floats, angle: float, centre: npt.NDArray[np.float64]) -> Floats:
    """Boxes (n, 4) around people when the picture turns by `angle` radians around `centre`.

    Around the ellipse in each box: a body fills that rather than the box's corners, so that the
    box around turned corners would be too wide.
    """
    matrix = _rotation(angle, centre)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)


def _decode(picture: Picture, reference: int) -> _Source:
    scale = reference / max(picture.width, picture.height)
    image = picture.decode()
    levels: list[Image] = []
    for level in range(3):
        size = (
            max(1, round(picture.width * scale / 2**level)),
            max(1, round(picture.height * scale / 2**level)),
        )
        shrink = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, size, interpolation=shrink), np.uint8)
        levels.append(image)
    kinds = np.array([PERSON] * len(picture.boxes) + [IGNORE] * len(picture.ignore), np.int64)
    boxes = np.concatenate([picture.boxes, picture.ignore]) * np.float32(scale)
    return _Source(tuple(levels), boxes.astype(np.float32), kinds)


def _tiles(rng: np.random.Generator, side: int, closing: bool) -> list[tuple[int, int, int, int]]:
    """One, four or nine rectangles that fill the canvas, seams drawn."""
    kind = rng.random()
    if kind < (0.6 if closing else 0.2):
        seams_x = seams_y = [0, side]
    elif kind < (0.95 if closing else 0.78):
        seams_x, seams_y = ([0, round(side * rng.uniform(0.3, 0.7)), side] for _ in range(2))
    else:
        seams_x, seams_y = (
            [0, round(side * rng.uniform(0.25, 0.4)), round(side * rng.uniform(0.6, 0.75)), side]
            for _ in range(2)
        )
    return [(x1, y1, x2, y2) for y1, y2 in pairwise(seams_y) for x1, x2 in pairwise(seams_x)]


def _spoil(rng: np.random.Generator, clean: Image, strength: float) -> Image:
    """Light, colour, grey, night, blur, low resolution, noise, compression, each now and then."""

    def now(share: float) -> bool:
        return bool(rng.random() < share * strength)

    image: npt.NDArray[Any] = clean
    if now(0.8):  # light: contrast, gain, tint and gamma as one table for each channel
        ramp = np.arange(256, dtype=np.float32) / 255.0
        ramp = np.clip((ramp - 0.45) * rng.uniform(0.6, 1.3) + 0.45, 0.0, 1.0)
        gains = np.exp(rng.uniform(-0.5, 0.4) + rng.uniform(-0.12, 0.12, 3))
        table = np.clip(ramp[:, None] * gains, 0.0, 1.0) ** np.exp(rng.uniform(-0.4, 0.4))
        image = cv2.LUT(image, (table[None] * 255.0).astype(np.uint8))
    grey, dark = now(0.12), now(0.1)
    if grey or now(0.5):
        plain = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        colour = 0.0 if grey else rng.uniform(0.0, 1.6)
        image = cv2.addWeighted(image, colour, plain, 1.0 - colour, 0.0)
    if dark:
        image = cv2.convertScaleAbs(image, alpha=rng.uniform(0.15, 0.5))
    if now(0.3):  # negative amounts sharpen, as cameras do
        soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.6))
        amount = rng.uniform(-0.7, 1.0)
        image = cv2.addWeighted(image, 1.0 - amount, soft, amount, 0.0)
    if now(0.05):
        length = int(rng.integers(3, 10))
        image = cv2.blur(image, (length, 1) if rng.random() < 0.7 else (1, length))
    if now(0.1):
        side = image.shape[0]
        small = round(side * rng.uniform(0.4, 0.8))
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
    if dark or now(0.25):
        deviation = rng.uniform(1.0, 9.0 if dark else 12.0)
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(deviation)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if dark:  # the camera turns its gain up
        image = cv2.convertScaleAbs(image, alpha=rng.uniform(1.0, 2.2))
    if now(0.4):
        quality = int(rng.integers(12, 75))
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(image, np.uint8)


def _share_inside(boxes: Floats, cover: Floats) -> Floats:
    """Share of the area of each of boxes (n, 4) inside cover (1 or n, 4)."""
    low = np.maximum(boxes[:, :2], cover[:, :2])
    high = np.minimum(boxes[:, 2:], cover[:, 2:])
    area = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
    share = np.prod(np.clip(high - low, 0, None), axis=1) / np.maximum(area, 1e-6)
    return np.asarray(share, np.float32)


def _judge(kinds: npt.NDArray[np.int64], whole: Floats, clipped: Floats) -> npt.NDArray[np.int64]:
    """Kinds after clipping: little left or too small is ignored, nothing left is nothing."""
    left = _share_inside(whole, clipped)
    size = clipped[:, 2:] - clipped[:, :2]
    gone = (left < 0.03) | (size.min(axis=1, initial=np.inf) < 1.0)
    poor = (left < 0.3) | (size[:, 1] < 9.0) | (size[:, 0] < 3.0)
    kinds = np.where(poor & (kinds == PERSON), IGNORE, kinds)
    return np.asarray(np.where(gone, NOTHING, kinds), np.int64)
