"""Light and sensor: how bright and how coloured a frame is, and its noise.

Promise: a pure function of the scene's time and the frame's index.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge.types import Image

NOISE_TILES = 6
NOISE_MARGIN = 64  # a tile is larger than the picture by this much and is shifted at random


@dataclass(frozen=True, slots=True)
class Mood:
    """A kind of light.

    Attributes:
        gain: brightness against a plain day.
        tint: factors of blue, green, red.
        contrast: how hard shadows are, 0..1.
        noise: standard deviation of the sensor noise, grey levels.
        swing: how far clouds move the brightness.
        grey: no colour, as by infrared lamps.
    """

    gain: float
    tint: tuple[float, float, float]
    contrast: float
    noise: float
    swing: float
    grey: bool = False


MOODS = {
    "day": Mood(1.03, (1.0, 1.0, 1.0), 0.85, 2.4, 0.13),
    "overcast": Mood(0.92, (1.05, 1.0, 0.97), 0.15, 2.6, 0.08),
    "dusk": Mood(0.62, (0.92, 0.94, 1.08), 0.30, 4.5, 0.08),
    "night": Mood(0.42, (0.78, 0.92, 1.08), 0.20, 7.0, 0.03),
    "grey": Mood(0.66, (1.0, 1.0, 1.0), 0.20, 5.5, 0.03, grey=True),
}


class Sensor:
    """Turns a clean picture into what a camera delivers. Threads: one at a time."""

    def __init__(self, rng: np.random.Generator, mood: Mood, width: int, height: int) -> None:
        self._mood = mood
        self._phase = float(rng.uniform(0, 2 * np.pi))
        shape = (height + NOISE_MARGIN, width + NOISE_MARGIN, 3)
        self._tiles = []
        for _ in range(NOISE_TILES):
            grain = rng.normal(0, 1, shape).astype(np.float32)
            grain = np.asarray(cv2.GaussianBlur(grain, (3, 3), 0.6), np.float32)
            grain *= mood.noise / max(float(grain.std()), 1e-6)
            self._tiles.append(np.clip(grain + 128, 0, 255).astype(np.uint8))
        self._seed = int(rng.integers(2**31))

    def brightness(self, seconds: float) -> float:
        """Clouds pass: the gain at a time."""
        slow = np.sin(2 * np.pi * seconds / 71.0 + self._phase)
        quick = np.sin(2 * np.pi * seconds / 19.0 + 2.3 * self._phase)
        return float(self._mood.gain * (1 + self._mood.swing * (0.75 * slow + 0.25 * quick)))

    def tone(self, picture: Image) -> Image:
        """Colour of the light, once for what is drawn once: linear, so cut-outs may come too."""
        if self._mood.grey:
            plain = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
            return np.asarray(cv2.cvtColor(plain, cv2.COLOR_GRAY2BGR), np.uint8)
        if self._mood.tint == (1.0, 1.0, 1.0):
            return picture
        tinted = np.clip(picture * np.array(self._mood.tint), 0, 255)
        return np.asarray(tinted, np.uint8)

    def expose(self, picture: Image, seconds: float, index: int) -> Image:
        """Apply brightness and noise; `picture` is changed."""
        draw = np.random.default_rng([self._seed, index])
        tile = self._tiles[int(draw.integers(NOISE_TILES))]
        x, y = (int(part) for part in draw.integers(0, NOISE_MARGIN, 2))
        height, width = picture.shape[:2]
        noise = tile[y : y + height, x : x + width]
        gain = self.brightness(seconds)
        return np.asarray(cv2.addWeighted(picture, gain, noise, 1.0, -128.0, dst=picture), np.uint8)
