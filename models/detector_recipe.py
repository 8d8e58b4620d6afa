"""Recipes of the person detector: models/recipes/detector*.toml, read and checked.

Promise: a recipe that is read can be run, as far as it itself goes; RecipeError names the file and
what is wrong. Needs nothing but the standard library.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

_LEAST_RATE = 0.01  # share of the learning rate at the very end


class RecipeError(ValueError):
    """A recipe cannot be run.

    Attributes:
        path: of the recipe.
        problem: what is wrong with it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"recipe {path}: {problem}")
        self.path = path
        self.problem = problem


@dataclass(frozen=True)
class Phase:
    """A part of the run: until which share of it, sample side (pixels), batch, milder samples."""

    until: float
    side: int
    batch: int
    closing: bool


@dataclass(frozen=True)
class Recipe:
    """What a TOML file of models/recipes/detector*.toml says; the file explains each value."""

    kind: str
    name: str
    seed: int
    steps: int
    pictures: tuple[str, ...]
    optional: tuple[str, ...]
    cutouts: str
    held_out: str
    validate_pictures: int
    optimiser: str
    learning_rate: float
    weight_decay: float
    warmup_share: float
    ema_decay: float
    box_weight: float
    teacher_weight: float
    precision: str
    source_weights: dict[str, float]
    phases: tuple[Phase, ...]

    def phase(self, share: float) -> Phase:
        """The phase at this share 0..1 of the run."""
        return next((p for p in self.phases if share < p.until), self.phases[-1])

    def rate(self, share: float) -> float:
        """Learning rate at this share of the run: a short ramp, then half a cosine."""
        if share < self.warmup_share:
            return self.learning_rate * max(share / self.warmup_share, 0.01)
        rest = min(1.0, (share - self.warmup_share) / (1.0 - self.warmup_share))
        cosine = 0.5 * (1.0 + math.cos(math.pi * rest))
        return self.learning_rate * (_LEAST_RATE + (1.0 - _LEAST_RATE) * cosine)


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; RecipeError names what does not fit."""
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(path, str(error)) from error
    expected = {f.name for f in fields(Recipe)}
    if set(found) != expected:
        raise RecipeError(path, f"missing or unknown keys: {sorted(expected ^ set(found))}")
    try:
        phases = tuple(Phase(**p) for p in found.pop("phases"))
    except TypeError as error:
        raise RecipeError(path, f"phases: {error}") from error
    if not phases or phases[-1].until != 1.0 or any(p.side % 32 for p in phases):
        raise RecipeError(path, "phases must end at 1.0 and have sides that are multiples of 32")
    if found["kind"] != "detector":
        raise RecipeError(path, f"its kind is {found['kind']!r}, not 'detector'")
    if found["precision"] not in ("float32", "bfloat16"):
        raise RecipeError(path, f"precision {found['precision']!r} is not float32 or bfloat16")
    if found["optimiser"] not in ("adamw", "muon"):
        raise RecipeError(path, f"optimiser {found['optimiser']!r} is not adamw or muon")
    for name in ("pictures", "optional"):
        found[name] = tuple(found[name])
    return Recipe(**found, phases=phases)
