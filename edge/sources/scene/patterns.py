"""What is woven into clothes or printed on them.

Promise: pure functions of the looks and of places on the body in the rest pose, (n, 3) metres
(x ahead, y left, z up); colours are (n, 3) BGR, 0..255. What is random in a motif comes from
`Looks.motif` alone, so it stays where it is when the person moves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.sources.scene import gait
from edge.sources.scene.wardrobe import Looks

Array = npt.NDArray[np.float64]

WAVES = 6  # of which a motif is the sum
LOGO_HALF_WIDTH = 0.095


def on_top(looks: Looks, places: Array, colours: Array) -> Array:
    """Colours of what covers chest and arms."""
    second = np.array(looks.top_second)
    x, y, z = places.T
    if looks.pattern == "stripes":
        mask = (z / 0.085) % 1.0 < 0.42
    elif looks.pattern == "pinstripes":
        mask = (z / _drawn(looks, 0.028, 0.06)) % 1.0 < _drawn(looks, 0.25, 0.5, 1)
    elif looks.pattern == "plaid":
        cross = ((z / 0.11) % 1.0 < 0.4).astype(float) + ((y / 0.10) % 1.0 < 0.4)
        return np.asarray(colours + (second - colours) * (0.38 * cross)[:, None])
    elif looks.pattern == "block":
        mask = z > gait.WAIST_Z + 0.22
    elif looks.pattern == "print":
        mask = (x > 0.05) & (np.abs(y) < 0.085) & (np.abs(z - 1.24) < 0.075)
    elif looks.pattern == "open":
        mask = (x > 0.03) & (np.abs(y) < _drawn(looks, 0.03, 0.075))
    elif looks.pattern == "flowers":
        return _flowers(looks, places, colours, second)
    elif looks.pattern == "logo":
        return _logo(looks, places, colours, second)
    else:
        return colours
    return np.where(mask[:, None], second, colours)


def on_legs(looks: Looks, places: Array, colours: Array) -> Array:
    """Colours of trousers, shorts or a skirt."""
    if looks.trim == "side":
        mask = np.abs(places[:, 0]) < 0.02
        return np.where(mask[:, None], np.array(looks.third_colour), colours)
    if looks.trim == "faded":
        front = np.clip(places[:, 0] / 0.06, 0, 1) * np.exp(-(((places[:, 2] - 0.68) / 0.16) ** 2))
        return colours + (235 - colours) * (0.45 * front)[:, None]
    if looks.trim == "flowers":
        return _flowers(looks, places, colours, np.array(looks.third_colour))
    return colours


def _drawn(looks: Looks, low: float, high: float, which: int = 0) -> float:
    return float(np.random.default_rng([looks.motif, which]).uniform(low, high))


def _waves(looks: Looks, places: Array, size_m: float, which: int) -> Array:
    """(n,) a smooth random field of unit spread whose spots are about so large."""
    rng = np.random.default_rng([looks.motif, 10 + which])
    ways = rng.normal(0, 1, (WAVES, 3))
    ways *= 2 * np.pi / size_m / np.linalg.norm(ways, axis=1, keepdims=True)
    phases = rng.uniform(0, 2 * np.pi, WAVES)
    return np.asarray(np.sin(places @ ways.T + phases).sum(1) * np.sqrt(2 / WAVES))


def _flowers(looks: Looks, places: Array, colours: Array, second: Array) -> Array:
    size = _drawn(looks, 0.06, 0.2, 2)
    spots = _waves(looks, places, size, 0) > _drawn(looks, 0.0, 0.8, 3)
    more = _waves(looks, places, size, 1) > 0.9
    colours = np.where(spots[:, None], second, colours)
    return np.where(more[:, None], np.array(looks.third_colour), colours)


def _logo(looks: Looks, places: Array, colours: Array, second: Array) -> Array:
    """A motif of two colours before the chest, on some on the back as well."""
    x, y, z = places.T
    wide = _drawn(looks, 0.4, 1.0, 4) * LOGO_HALF_WIDTH
    tall = _drawn(looks, 0.03, 0.13, 5)
    middle = _drawn(looks, 1.18, 1.3, 6)
    side = x > 0.04
    if _drawn(looks, 0, 1, 7) < 0.35:
        side |= x < -0.04
    inside = side & (np.abs(y) < wide) & (np.abs(z - middle) < tall)
    if _drawn(looks, 0, 1, 8) < 0.5:  # round, or a rectangle
        inside &= (y / wide) ** 2 + ((z - middle) / tall) ** 2 < 1
    shape = _waves(looks, places, _drawn(looks, 0.05, 0.14, 9), 2)
    colours = np.where((inside & (shape > -0.5))[:, None], second, colours)
    return np.where((inside & (shape > 0.6))[:, None], np.array(looks.third_colour), colours)
