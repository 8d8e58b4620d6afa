"""What a cheap camera does to a picture: its cast, haze, coarse pixels and compression.

Promise: colours are one camera's own and stay; sharpness and compression vary from picture to
picture. A pure function of the picture, the camera and the random generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Lens:
    """What one camera does to a picture in one light.

    Attributes:
        colours: (3, 3) of BGR, white balance and saturation.
        gamma: above 1 darkens. haze: grey levels added to black, the rest pressed above it.
        coarse: pixels are up to so many times as large; quality: of JPEG, at least.
    """

    colours: NDArray[np.float64]
    gamma: float
    haze: float
    coarse: float
    quality: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Lens:
        """A camera."""
        saturation = rng.uniform(0.5, 1.15)
        grey = np.array([[0.114, 0.587, 0.299]]).repeat(3, 0)
        balance = np.exp(rng.normal(0, 0.06, 3))
        return cls(
            np.diag(balance / balance.mean()) @ (grey + saturation * (np.eye(3) - grey)),
            float(np.exp(rng.normal(-0.1, 0.2))),
            float(rng.uniform(0, 25)),
            float(rng.uniform(1, 1.8)),
            int(rng.integers(40, 90)),
        )

    def take(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """The picture as this camera gives it."""
        cast = np.clip(image.astype(np.float32) @ self.colours.T.astype(np.float32), 0, 255) / 255
        part = np.asarray(self.haze + (255 - self.haze) * cast**self.gamma, np.float32)
        height, width = part.shape[:2]
        factor = rng.uniform(1, self.coarse)
        small = (max(round(width / factor), 8), max(round(height / factor), 16))
        seen = cv2.resize(part, small, interpolation=cv2.INTER_AREA).round().astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(self.quality, 95))]
        encoded = cv2.imencode(".jpg", seen, quality)[1]
        return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
