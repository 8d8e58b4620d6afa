"""What a person looks like: build, skin, hair, clothes, what is carried.

Promise: people of one street wear clearly different clothes; colours are BGR, 0..255.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

SKIN: tuple[Colour, ...] = (
    (168, 190, 228), (150, 175, 218), (128, 158, 205), (98, 130, 182), (70, 98, 148), (48, 66, 102)
)  # fmt: skip
HAIR: tuple[Colour, ...] = (
    (26, 26, 30), (34, 42, 58), (40, 62, 92), (70, 110, 150), (110, 160, 195), (140, 142, 145)
)  # fmt: skip
TOPS: tuple[Colour, ...] = (
    (38, 36, 178), (214, 214, 218), (140, 66, 30), (34, 32, 34), (52, 142, 62), (40, 176, 220),
    (150, 60, 130), (120, 116, 112), (184, 150, 90), (52, 98, 160), (88, 110, 62), (60, 50, 96),
    (176, 170, 235), (206, 190, 140), (70, 110, 235), (92, 46, 20),
)  # fmt: skip
BOTTOMS: tuple[Colour, ...] = (
    (112, 70, 44), (38, 36, 36), (110, 148, 172), (96, 94, 92), (62, 46, 34), (150, 122, 96),
    (44, 70, 98), (168, 172, 178), (60, 82, 70), (40, 34, 88),
)  # fmt: skip
SHOES: tuple[Colour, ...] = ((30, 30, 32), (226, 228, 230), (44, 66, 100), (58, 52, 130))


@dataclass(frozen=True, slots=True)
class Looks:
    """One person's appearance.

    Attributes:
        height_m: 1.52..1.93; breadth: 0.9..1.15 of the usual.
        skin, hair, shoes: colours.
        hairdo: short, long, bun, ponytail, bald; headwear: none, cap, beanie, hood.
        top: tshirt, shirt, jacket, coat, dress, vest; top_colour, top_second: its colours.
        pattern: plain, stripes, plaid, block, print, pinstripes, flowers, logo, open: how the two
            colours lie.
        bottom: trousers, jeans, shorts, skirt, leggings; bottom_colour.
        bag: none, backpack, shoulder, hand; bag_colour.
        swing: how far the arms swing.
        stride: length of the stride against the usual one.
        hem_m: height above the ground of the lower edge of shorts, skirt or dress; None: usual.
        trim: plain, side, faded, flowers: what is on trousers, shorts or skirt.
        arms: usual, phone (one before the chest), pockets, folded.
        motif: seed of what is random in patterns.
        third_colour: of a logo or of flowers.
    """

    height_m: float
    breadth: float
    skin: Colour
    hair: Colour
    hairdo: str
    headwear: str
    head_colour: Colour
    top: str
    top_colour: Colour
    top_second: Colour
    pattern: str
    bottom: str
    bottom_colour: Colour
    shoes: Colour
    bag: str
    bag_colour: Colour
    swing: float
    stride: float
    hem_m: float | None = None
    trim: str = "plain"
    arms: str = "usual"
    motif: int = 0
    third_colour: Colour = (128.0, 128.0, 128.0)


def dress_people(rng: np.random.Generator, count: int) -> list[Looks]:
    """Clothe `count` people; no two neighbours of the list share top colour and bottom."""
    tops = _shuffled(rng, TOPS, count)
    bottoms = _shuffled(rng, BOTTOMS, count)
    return [_dress(rng, tops[k], bottoms[k]) for k in range(count)]


def _shuffled(rng: np.random.Generator, palette: tuple[Colour, ...], count: int) -> list[Colour]:
    """The palette in random order, again and again, each colour a little different each time."""
    colours: list[Colour] = []
    while len(colours) < count:
        for index in rng.permutation(len(palette)):
            jitter = rng.normal(0, 6, 3)
            blue, green, red = (
                float(np.clip(part + change, 14, 238))
                for part, change in zip(palette[int(index)], jitter, strict=True)
            )
            colours.append((blue, green, red))
    return colours[:count]


def pick(rng: np.random.Generator, choices: Mapping[str, float]) -> str:
    """One of the choices, by its weight."""
    names = list(choices)
    weights = np.array([choices[name] for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def one(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Colour:
    """One colour, each as likely."""
    return palette[int(rng.integers(len(palette)))]


def _dress(rng: np.random.Generator, top_colour: Colour, bottom_colour: Colour) -> Looks:
    slim = rng.random() < 0.5
    top = pick(rng, {"tshirt": 3, "shirt": 3, "jacket": 3, "coat": 1.5, "dress": 1.2, "vest": 0.8})
    bottom = pick(rng, {"trousers": 4, "jeans": 3, "shorts": 1, "skirt": 1.2, "leggings": 1})
    if top == "coat" and bottom in ("shorts", "skirt"):
        bottom = "trousers"
    if top == "dress":
        bottom = "leggings" if rng.random() < 0.4 else "bare"
    return Looks(
        height_m=float(np.clip(rng.normal(1.68 if slim else 1.77, 0.065), 1.52, 1.93)),
        breadth=float(np.clip(rng.normal(0.95 if slim else 1.03, 0.05), 0.88, 1.18)),
        skin=one(rng, SKIN),
        hair=one(rng, HAIR),
        hairdo=pick(rng, {"short": 4, "long": 3, "bun": 1, "bald": 0.6}),
        headwear=pick(rng, {"none": 7, "cap": 1.2, "beanie": 1, "hood": 0.8}),
        head_colour=one(rng, TOPS),
        top=top,
        top_colour=top_colour,
        top_second=one(rng, TOPS),
        pattern=pick(rng, {"plain": 5, "stripes": 1.4, "plaid": 1.2, "block": 1.2, "print": 1.5}),
        bottom=bottom,
        bottom_colour=bottom_colour,
        shoes=one(rng, SHOES),
        bag=pick(rng, {"none": 4, "backpack": 2, "shoulder": 1.5, "hand": 1.5}),
        bag_colour=one(rng, TOPS),
        swing=float(rng.uniform(0.6, 1.15)),
        stride=float(rng.uniform(0.94, 1.06)),
    )
