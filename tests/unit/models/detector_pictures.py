"""Pictures for the detector's tests: a coloured box on grey is a person."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from models.detector_data import Picture

RED = (40, 40, 220)


def boxed_picture(
    box: tuple[int, int, int, int] = (60, 40, 100, 160),
    *,
    size: tuple[int, int] = (200, 200),
    source: str = "made",
    name: str = "made.webp",
) -> Picture:
    """A grey picture (height, width) with one red box, labelled as a person."""
    image = np.full((*size, 3), 90, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = RED
    encoded = cv2.imencode(".png", image)[1].tobytes()
    return Picture(
        source=source,
        name=name,
        encoded=encoded,
        width=size[1],
        height=size[0],
        boxes=np.array([box], np.float32),
        ignore=np.zeros((0, 4), np.float32),
    )


def red_extent(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(4,) x1 y1 x2 y2 around the red pixels."""
    red = (image[..., 2] > 160) & (image[..., 1] < 90)
    ys, xs = np.nonzero(red)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)


def no_cutouts() -> npt.NDArray[np.uint8]:
    """Nobody to paste."""
    return np.zeros((0, 128, 64, 4), np.uint8)
