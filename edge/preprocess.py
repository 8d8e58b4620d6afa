"""A picture into the model's input: one resize into a kept buffer, one pass to planes of floats.

Promise: no allocation per frame; the model's input array is reused, so its content stands until
the next call. value = (pixel / 255 * range - mean) / std by a table of 256 entries per channel,
exact for every pixel value.
Threads: one at a time; every user has a Preprocessor of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge.types import Floats, Image
from reid.card import InputSpec


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame lies in the model's input: x_input = x_frame * scale_x + left.

    Attributes:
        scale_x, scale_y: input pixels per frame pixel.
        left, top: input pixels.
        width, height: of the frame, pixels.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    width: int
    height: int

    def to_frame(self, boxes: Floats) -> Floats:
        """Boxes (n, 4) x1 y1 x2 y2 in input pixels → frame pixels, clipped to the frame."""
        shift = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([1.0 / self.scale_x, 1.0 / self.scale_y] * 2, np.float32)
        limit = np.array([self.width, self.height] * 2, np.float32)
        found: Floats = np.minimum(np.maximum((boxes - shift) * scale, 0.0), limit)
        return found


def place(height: int, width: int, spec: InputSpec) -> tuple[Placement, int, int]:
    """Where a frame of (height, width) lies in the input, and its size there (height, width)."""
    if spec.fit == "stretch":
        placement = Placement(spec.width / width, spec.height / height, 0, 0, width, height)
        return placement, spec.height, spec.width
    scale = min(spec.width / width, spec.height / height)
    new_w = max(1, min(spec.width, round(width * scale)))
    new_h = max(1, min(spec.height, round(height * scale)))
    left = top = 0
    if spec.fit == "letterbox_centre":
        left, top = (spec.width - new_w) // 2, (spec.height - new_h) // 2
    return Placement(new_w / width, new_h / height, left, top, width, height), new_h, new_w


class Planes:
    """(h, w, 3) uint8 BGR pixels → three float planes in the model's order, normalised."""

    def __init__(self, spec: InputSpec) -> None:
        levels = np.arange(256, dtype=np.float64) / 255.0 * spec.range
        self._tables = [
            ((levels - spec.mean[c]) / spec.std[c]).astype(np.float32) for c in range(3)
        ]
        self._plain = all(
            np.array_equal(table, np.arange(256, dtype=np.float32)) for table in self._tables
        )
        self._order = (2, 1, 0) if spec.colour == "rgb" else (0, 1, 2)
        self._bytes = np.empty((3, spec.height, spec.width), np.uint8)
        # cv2.split writes blue first: hand it the planes in the order the model wants them
        self._split = [self._bytes[c] for c in self._order]

    def write(self, pixels: Image, out: Floats) -> None:
        """Fill `out` (3, h, w) float32 from `pixels` (h, w, 3) uint8 BGR."""
        cv2.split(pixels, self._split)
        if self._plain:
            np.copyto(out, self._bytes)
            return
        for c in range(3):
            cv2.LUT(self._bytes[c], self._tables[c], dst=out[c])


class Preprocessor:
    """Frames into one reused input array (1, 3, h, w) float32."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.input: Floats = np.empty((1, 3, spec.height, spec.width), np.float32)
        self._canvas: Image = np.full((spec.height, spec.width, 3), spec.pad, np.uint8)
        self._planes = Planes(spec)
        self._placed: tuple[int, int] | None = None
        self._placement = Placement(1.0, 1.0, 0, 0, spec.width, spec.height)
        self._view = self._canvas

    def __call__(self, image: Image) -> Placement:
        """Fill `input` from an image (h, w, 3) uint8 BGR; returns where the image lies in it."""
        return self.write(image, self.input[0])

    def write(self, image: Image, out: Floats) -> Placement:
        """The same into a plane of a larger batch: `out` (3, h, w) float32."""
        size = (image.shape[0], image.shape[1])
        if size != self._placed:
            self._place(*size)
        height, width = self._view.shape[:2]
        if size == (height, width):
            np.copyto(self._view, image)
        else:
            cv2.resize(image, (width, height), dst=self._view, interpolation=cv2.INTER_LINEAR)
        self._planes.write(self._canvas, out)
        return self._placement

    def _place(self, height: int, width: int) -> None:
        self._placement, new_h, new_w = place(height, width, self.spec)
        self._canvas[:] = self.spec.pad
        top, left = self._placement.top, self._placement.left
        self._view = self._canvas[top : top + new_h, left : left + new_w]
        self._placed = (height, width)
