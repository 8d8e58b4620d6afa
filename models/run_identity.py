"""What a training run is: its recipe and the content of its files, as a checkpoint keeps it.

Promise: two runs whose steps could differ have different identities, so a checkpoint is taken up by
its own run alone and its card names those it was trained on. What is only measured is left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.pack import Pack
from models.recipe import Recipe, RecipeError

MEASURED = ("data.evaluate_query", "data.evaluate_gallery")
SHOWN = 3


def identity(recipe: Recipe, *, packs: Path, folder: Path) -> dict[str, Any]:
    """Keys of the recipe with their values; files stand there as checksums.

    Args:
        packs: folder of the recipe's packs. folder: the run's, from which `init` and `teacher` go.

    Raises:
        RecipeError: a file cannot be read.
    """
    values = _flat(dataclasses.asdict(recipe))
    values["data.packs"] = [_checksum(packs / name) for name in recipe.data.packs]
    for key in ("init", "teacher"):
        values[key] = _checksum(folder / values[key]) if values[key] else ""
    return {key: value for key, value in values.items() if key not in MEASURED}


def differences(saved: object, own: dict[str, Any]) -> str:
    """The keys in which a checkpoint's identity is another one; empty where it is the same."""
    if not isinstance(saved, dict):
        return "does not say of which run it is"
    keys = sorted(key for key in {*saved, *own} if saved.get(key) != own.get(key))
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"is of another run: {', '.join(keys[:SHOWN])}{more} differ" if keys else ""


def people_trained(pack: Pack, rows: NDArray[np.int64]) -> str:
    """A checksum of who the classes are: each person's set and number of images, in order.

    Args:
        rows: (n,) of the images trained on.
    """
    _, first, counts = np.unique(pack.person[rows], return_index=True, return_counts=True)
    sets = [pack.sources[index] for index in pack.source[rows[first]]]
    text = " ".join(f"{name}={count}" for name, count in zip(sets, counts, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(table: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested tables as one, "optimise.learning_rate"; tuples as lists."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{before}{key}.")
        else:
            out[before + key] = _plain(value)
    return out


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _checksum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}); check the path") from error
