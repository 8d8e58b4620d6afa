"""Where and when a camera is looked at: masks, zones, and the motion gate.

Promise: detection rests while nothing moves and nobody is followed. The gate may look in vain, but
it does not close on somebody who is followed, nor within motion_hold_s of the last motion. It
starts open. Masked polygons are painted out before detection and do not count as motion.
Fails: never; a frame of another size starts the background anew, open.
Threads: one (the inference thread); one gate for each camera.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from edge.config import GateConfig, Polygon
from edge.types import Detections, Image

PAINT = (114, 114, 114)  # the grey of YOLOX's letterbox: nothing to see
MOTION_ROWS = 180  # motion is looked for in about so many rows
# A pixel moved when it differs by so many grey levels from the background after a 5x5 blur. Over
# sensor noise and H.264's flicker (about 8 after the blur), under clothes against a pavement.
MOTION_LEVELS = 18.0
# An open gate looks so often; a closed one at every frame. What moves for less than this while the
# gate is open may be missed, and then does not prolong motion_hold_s.
LOOK_S = 0.4
BACKGROUND_S = 8.0  # time constant of the background: light drifts slower, a parked van stays in


class Gate:
    """Masks, zones and motion gate of one camera."""

    def __init__(self, *, config: GateConfig) -> None:
        self._config = config
        self._shape: tuple[int, ...] | None = None
        self._background: npt.NDArray[np.float32] | None = None
        self._ignored: npt.NDArray[np.uint8] | None = None  # masks in the small picture
        self._seen_s = 0.0
        self._moved_s = -math.inf

    def masked(self, image: Image) -> Image:
        """The image with masked polygons painted out; the same object where there are none."""
        if not self._config.masks:
            return image
        painted = image.copy()
        height, width = image.shape[:2]
        cv2.fillPoly(painted, _corners(self._config.masks, width, height), PAINT)
        return painted

    def active(self, image: Image, *, now_s: float, tracks_alive: bool) -> bool:
        """Whether to detect in this frame.

        Args:
            image: (h, w, 3) uint8, unmasked.
            now_s: capture time, seconds, not going back.
            tracks_alive: somebody is followed.
        """
        if not self._config.motion:
            return True
        is_open = tracks_alive or now_s - self._moved_s <= self._config.motion_hold_s
        if is_open and 0.0 <= now_s - self._seen_s < LOOK_S and self._shape == image.shape:
            return True
        if self._moves(image, now_s):
            self._moved_s = now_s
        return tracks_alive or now_s - self._moved_s <= self._config.motion_hold_s

    def inside(self, detections: Detections, width: int, height: int) -> Detections:
        """Detections whose feet (middle of the lower edge) are inside a zone.

        Args:
            detections: in pixels.
            width, height: of the frame, pixels.
        Returns:
            the same object where there is no zone; a point on the edge is inside.
        """
        if not self._config.zones or not len(detections):
            return detections
        feet_x = (detections.boxes[:, 0] + detections.boxes[:, 2]) / (2 * width)
        feet_y = detections.boxes[:, 3] / height
        zones = [np.array(zone, np.float32) for zone in self._config.zones]
        keep = np.array(
            [
                any(cv2.pointPolygonTest(zone, (float(x), float(y)), False) >= 0 for zone in zones)
                for x, y in zip(feet_x, feet_y, strict=True)
            ]
        )
        return Detections(detections.boxes[keep], detections.scores[keep])

    def _moves(self, image: Image, now_s: float) -> bool:
        """Whether enough of the picture differs from the background; takes the picture in."""
        step = max(1, image.shape[0] // MOTION_ROWS)
        grey = cv2.cvtColor(np.ascontiguousarray(image[::step, ::step]), cv2.COLOR_BGR2GRAY)
        small = cv2.blur(grey, (5, 5)).astype(np.float32)
        if self._background is None or self._shape != image.shape:
            self._shape, self._background, self._seen_s = image.shape, small, now_s
            self._ignored = np.zeros(small.shape, np.uint8)
            if self._config.masks:
                rows, columns = small.shape
                cv2.fillPoly(self._ignored, _corners(self._config.masks, columns, rows), (1,))
            return True
        changed = np.abs(small - self._background) > MOTION_LEVELS
        assert self._ignored is not None
        moved = int(np.count_nonzero(changed & (self._ignored == 0)))
        share = 1.0 - math.exp(-max(0.0, now_s - self._seen_s) / BACKGROUND_S)
        cv2.accumulateWeighted(small, self._background, share)
        self._seen_s = now_s
        return moved >= max(1.0, self._config.motion_min_area * small.size)


def _corners(polygons: tuple[Polygon, ...], width: int, height: int) -> list[npt.NDArray[np.int32]]:
    """Polygons in 0..1 -> corners in pixels."""
    size = np.array([width, height], np.float64)
    return [np.rint(np.array(polygon) * size).astype(np.int32) for polygon in polygons]
