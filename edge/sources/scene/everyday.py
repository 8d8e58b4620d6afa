"""What people wear on an ordinary day: many in black, white, grey and denim, told apart by details.

Promise: as `wardrobe.dress_people`, but colours are drawn for each person by how common they are,
so that strangers may look alike.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

import numpy as np

from edge.sources.scene.wardrobe import HAIR, SHOES, SKIN, Colour, Looks, one, pick

# how common: hue range in degrees, saturation and value ranges
_KINDS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "black": ((200, 260), (0.0, 0.25), (0.06, 0.2)),
    "white": ((30, 220), (0.0, 0.07), (0.8, 0.93)),
    "grey": ((0, 360), (0.0, 0.12), (0.3, 0.7)),
    "navy": ((205, 240), (0.35, 0.7), (0.18, 0.42)),
    "blue": ((190, 225), (0.3, 0.75), (0.45, 0.85)),
    "denim": ((203, 222), (0.2, 0.5), (0.25, 0.65)),
    "khaki": ((28, 50), (0.18, 0.42), (0.4, 0.75)),
    "brown": ((12, 32), (0.3, 0.6), (0.2, 0.45)),
    "pastel": ((0, 360), (0.1, 0.35), (0.7, 0.92)),
    "bright": ((0, 360), (0.55, 0.9), (0.5, 0.9)),
    "muted": ((0, 360), (0.25, 0.55), (0.3, 0.65)),
}
_TOP = {"black": 22, "white": 22, "grey": 14, "navy": 7, "blue": 8, "pastel": 8, "bright": 10,
        "muted": 7, "khaki": 2}  # fmt: skip
_BOTTOM = {"black": 30, "denim": 26, "grey": 10, "navy": 8, "khaki": 12, "white": 4, "brown": 4,
           "muted": 4, "bright": 2}  # fmt: skip
_BAG = {"black": 40, "grey": 12, "brown": 12, "navy": 8, "bright": 14, "pastel": 7, "white": 7}
_HAIR = (0.42, 0.22, 0.16, 0.08, 0.06, 0.06)


def dress_everyday(rng: np.random.Generator, count: int) -> list[Looks]:
    """Clothe `count` people."""
    return [_dress(rng) for _ in range(count)]


def _colour(rng: np.random.Generator, kinds: Mapping[str, float]) -> Colour:
    ranges = _KINDS[pick(rng, kinds)]
    hue, saturation, value = (float(rng.uniform(*limits)) for limits in ranges)
    red, green, blue = colorsys.hsv_to_rgb(hue / 360, saturation, value)
    return blue * 255, green * 255, red * 255


def _dress(rng: np.random.Generator) -> Looks:
    slim = bool(rng.random() < 0.5)
    warm = bool(rng.random() < 0.55)
    tops = {"tshirt": 6, "shirt": 2, "dress": 1.4 if slim else 0, "vest": 0.8, "jacket": 0.6}
    cold = {"jacket": 4, "shirt": 3, "coat": 2, "tshirt": 1, "dress": 0.5 if slim else 0}
    top = pick(rng, tops if warm else cold)
    bottoms = {"trousers": 3, "jeans": 3, "shorts": 4, "skirt": 2 if slim else 0, "leggings": 0.6}
    covered = {"trousers": 5, "jeans": 5, "skirt": 1 if slim else 0, "leggings": 1.2}
    bottom = pick(rng, bottoms if warm and top != "coat" else covered)
    if top == "dress":
        bottom = "leggings" if rng.random() < 0.3 else "bare"
    patterns = {"plain": 8, "logo": 5, "stripes": 1, "pinstripes": 1.2, "plaid": 1, "block": 1,
                "print": 0.8, "flowers": 1.2}  # fmt: skip
    if top in ("jacket", "coat", "shirt"):
        patterns |= {"open": 5, "logo": 1}
    if top == "dress":
        patterns |= {"flowers": 6, "logo": 0.5}
    hairdos = {"short": 2, "long": 5, "bun": 1.5, "ponytail": 3} if slim else {
        "short": 8, "long": 0.4, "bald": 0.7}  # fmt: skip
    return Looks(
        height_m=float(np.clip(rng.normal(1.66 if slim else 1.76, 0.065), 1.5, 1.95)),
        breadth=float(np.clip(rng.normal(0.92 if slim else 0.99, 0.06), 0.82, 1.18)),
        skin=one(rng, SKIN),
        hair=HAIR[int(rng.choice(len(HAIR), p=_HAIR))],
        hairdo=pick(rng, hairdos),
        headwear=pick(rng, {"none": 12, "cap": 1.4, "beanie": 0.3 if warm else 1, "hood": 0.3}),
        head_colour=_colour(rng, _BAG),
        top=top,
        top_colour=_colour(rng, _TOP),
        top_second=_colour(rng, _TOP),
        pattern=pick(rng, patterns),
        bottom=bottom,
        bottom_colour=_colour(rng, _BOTTOM),
        shoes=one(rng, SHOES) if rng.random() < 0.6 else _colour(rng, _BAG),
        bag=pick(rng, {"none": 5, "backpack": 3, "shoulder": 1.5, "hand": 1.2}),
        bag_colour=_colour(rng, _BAG),
        swing=float(rng.uniform(0.5, 1.15)),
        stride=float(rng.uniform(0.92, 1.08)),
        hem_m=float(rng.uniform(0.48, 0.72)),
        trim=pick(rng, {"plain": 8, "side": 0.8, "faded": 1.5, "flowers": 0.7}),
        arms=pick(rng, {"usual": 7, "phone": 1.5, "pockets": 1, "folded": 0.5}),
        motif=int(rng.integers(2**31)),
        third_colour=_colour(rng, {"bright": 3, "white": 2, "black": 2, "pastel": 1}),
    )
