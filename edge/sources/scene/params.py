"""What a rendered scene is asked to be: `synth://street?cameras=2&people=8&seed=1`.

Promise: equal parameters give equal pictures and equal truth, on every call and in any order.
Raises SceneError, with the key, the value found and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, urlsplit

LIGHTS = ("day", "overcast", "dusk", "night", "grey")
VIEWS = ("wall", "steep", "low")
CLOTHES = ("everyday", "distinct")


class SceneError(ValueError):
    """A scene cannot be made as asked.

    Attributes:
        key: the parameter at fault.
        value: what was given for it.
        allowed: what would do.
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        self.key = key
        self.value = value
        self.allowed = allowed
        super().__init__(f"synth://: {key}={value} cannot be used; {allowed}")


@dataclass(frozen=True, slots=True)
class SceneParams:
    """The parameters of one rendered scene; also the keys of its URL.

    Attributes:
        cameras: how many cameras look at the street, 1..16.
        people: how many people live in it, 0..64; some are indoors at any moment.
        seed: which street, which people, which walks; 0 or more.
        width, height: picture size in pixels, each 64..4096.
        fps: frames per second of scene time, above 0, at most 120.
        frames: a source ends after this many frames; 0: endless.
        camera: which camera a source shows, 1..cameras.
        light: day, overcast, dusk, night (colour), grey (night, infrared).
        view: wall (3 to 6 m high), steep (6 to 8 m, looking down) or low (2 to 3 m).
        clothes: distinct (people differ in colour) or everyday (many in black, white, grey and
            denim, told apart by details).
        pace: 1: live, in real time; 0: every frame as fast as it is read. Unset: 1 where
            endless, 0 where `frames` ends it.
    """

    cameras: int = 2
    people: int = 8
    seed: int = 1
    width: int = 768
    height: int = 576
    fps: float = 15.0
    frames: int = 0
    camera: int = 1
    light: str = "day"
    view: str = "wall"
    clothes: str = "distinct"
    pace: int | None = None

    def __post_init__(self) -> None:
        ranges: tuple[tuple[str, float, float], ...] = (
            ("cameras", 1, 16),
            ("people", 0, 64),
            ("seed", 0, 2**31 - 1),
            ("width", 64, 4096),
            ("height", 64, 4096),
            ("fps", 0.1, 120),
            ("frames", 0, 2**40),
            ("camera", 1, self.cameras),
        )
        for key, low, high in ranges:
            value = getattr(self, key)
            if not low <= value <= high:
                raise SceneError(key, value, f"it lies in {low:g}..{high:g}")
        if self.light not in LIGHTS:
            raise SceneError("light", self.light, f"it is one of {', '.join(LIGHTS)}")
        if self.view not in VIEWS:
            raise SceneError("view", self.view, f"it is one of {', '.join(VIEWS)}")
        if self.clothes not in CLOTHES:
            raise SceneError("clothes", self.clothes, f"it is one of {', '.join(CLOTHES)}")
        if self.pace not in (None, 0, 1):
            raise SceneError("pace", self.pace, "it is 1 (real time) or 0 (every frame)")

    @property
    def live(self) -> bool:
        """Whether a source of this scene runs in real time."""
        return self.frames == 0 if self.pace is None else self.pace == 1

    @staticmethod
    def parse(url: str) -> SceneParams:
        """Read `synth://street?key=value&…`.

        Raises:
            SceneError: another scene than `street`, an unknown or repeated key, a value that
                is no number or out of range.
        """
        parts = urlsplit(url)
        scene = parts.netloc or parts.path
        if parts.scheme != "synth" or scene.strip("/") != "street":
            raise SceneError("scene", scene or url, "the one scene is synth://street")
        keys = {one.name: one for one in fields(SceneParams)}
        given: dict[str, Any] = {}
        for key, text in parse_qsl(parts.query, keep_blank_values=True):
            if key not in keys:
                raise SceneError(key, text, f"known keys are {', '.join(keys)}")
            if key in given:
                raise SceneError(key, text, "it is given twice")
            given[key] = _convert(key, text)
        return SceneParams(**given)


def _convert(key: str, text: str) -> int | float | str:
    kind: Callable[[str], int | float | str] = int
    if key == "fps":
        kind = float
    elif key in ("light", "view", "clothes"):
        kind = str
    try:
        return kind(text)
    except ValueError:
        raise SceneError(key, text, "it is a number") from None
