"""The golden run of a model: a picture made by a formula, and the values its card promises for it.

Promise: the picture is the same on every machine and in every version (integers only); the values
are few, and a model that computes something else does not give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reid.card import GOLDEN_VALUES, Golden, Kind
from reid.model_errors import CardMismatch


def verify_golden(
    where: Path | str, golden: Golden, got: npt.NDArray[np.float32], tolerance: float | None = None
) -> None:
    """Compare a run on the golden picture with the card.

    Args:
        got: what `golden_values` gives of the run.
        tolerance: another than the card's, for a runtime variant.

    Raises:
        CardMismatch: a value differs by more than the tolerance.
    """
    allowed = golden.tolerance if tolerance is None else tolerance
    expected = np.asarray(golden.values, np.float32)
    cure = "the card is another model's or the runtime computes wrongly: try backend onnxruntime"
    if got.shape != expected.shape:
        raise CardMismatch(
            where, "golden", f"{len(got)} golden values, its card has {len(expected)}", cure
        )
    # pixels are hundreds, scores are shares: beyond 1 the difference is relative
    worst = float(np.max(np.abs(got - expected) / np.maximum(np.abs(expected), 1.0)))
    if not worst <= allowed:  # also true for NaN
        raise CardMismatch(
            where,
            "golden",
            f"golden output is off by {worst:.4g}, its card allows {allowed:.4g}",
            cure,
        )


def golden_values(kind: Kind, outputs: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """What a card keeps of a run on the golden picture.

    Args:
        outputs: embedders: one unit row (d,); detectors: all outputs, any shapes.

    Returns:
        Embedders: the row's first 16 values. Detectors: the outputs are flattened and joined, cut
        into 16 equal parts (the rest goes to the last), and the mean magnitude of each part given:
        every number of the output counts.
    """
    flat = np.concatenate([np.asarray(output, np.float64).ravel() for output in outputs])
    if kind == "embedder" or flat.size < GOLDEN_VALUES:
        return flat[:GOLDEN_VALUES].astype(np.float32)
    starts = np.arange(GOLDEN_VALUES) * (flat.size // GOLDEN_VALUES)
    sizes = np.diff(np.append(starts, flat.size))
    means = np.add.reduceat(np.abs(flat), starts) / sizes
    return means.astype(np.float32)


def golden_image(height: int, width: int, seed: int = 1) -> npt.NDArray[np.uint8]:
    """The picture of formula `blocks-1`: blocks of 8×8 px with noise, the same on every machine.

    value(y, x, c) = (3·hash(y/8, x/8, c, seed) + hash(y, x, c, seed+1)) / 4, both 0..255, where
    hash(a, b, c, s) is the top byte of a 32-bit integer mix; integers only, so no rounding.

    Returns:
        (height, width, 3) uint8, BGR.
    """
    y = np.arange(height, dtype=np.uint32)[:, None, None]
    x = np.arange(width, dtype=np.uint32)[None, :, None]
    c = np.arange(3, dtype=np.uint32)[None, None, :]

    def mixed(a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32], s: int) -> Any:
        h = a * np.uint32(0x9E3779B1) + b * np.uint32(0x85EBCA77) + c * np.uint32(0xC2B2AE3D)
        h = h + np.uint32(s * 0x27D4EB2F % 2**32)
        h = (h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        h = (h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39)
        return h >> np.uint32(24)

    blocks = mixed(y // np.uint32(8), x // np.uint32(8), seed)
    noise = mixed(y, x, seed + 1)
    picture: npt.NDArray[np.uint8] = ((blocks * np.uint32(3) + noise) // np.uint32(4)).astype(
        np.uint8
    )
    return picture
