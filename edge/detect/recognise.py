"""Which family a detector's outputs belong to, read from names, shapes and one run.

Promise: a family is taken only when nothing else fits; two that fit are refused by name.
The card's `family` and the flag win over everything read here.

    output shapes                      family
    (1, cells, 5+classes)              yolox or yolox-decoded (the values of one run tell)
    (1, 4+classes, cells)              ultralytics
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edge.detect import ultralytics, yolox
from edge.detect.adapter import Adapter, cell_count
from edge.runtime import Array
from reid.model_errors import FamilyAmbiguous, FamilyUnknown

FAMILIES: dict[str, type[Adapter]] = {
    adapter.family: adapter
    for adapter in (yolox.YoloxRaw, yolox.YoloxDecoded, ultralytics.UltralyticsDense)
}


def recognise(
    where: Path | str, height: int, width: int, run: Callable[[], Sequence[Array]]
) -> type[Adapter]:
    """The adapter for a model.

    Args:
        where: the file, for messages.
        height, width: of its input, pixels.
        run: runs it once on a picture and returns its outputs.

    Raises:
        FamilyUnknown: nothing fits.
        FamilyAmbiguous: two fit.
    """
    outputs = run()
    found = [name for name, fits in _TESTS if fits(height, width, outputs)]
    if not found:
        shapes = ", ".join("×".join(str(n) for n in output.shape) for output in outputs)
        raise FamilyUnknown(
            where,
            f"no detector family known here has outputs {shapes} for an input of {width}×{height}",
            "take one of " + ", ".join(FAMILIES) + ", or say it with detect.family",
        )
    if len(found) > 1:
        raise FamilyAmbiguous(where, found, "the shapes and values of one run fit both")
    return FAMILIES[found[0]]


def _is_dense_rows(height: int, width: int, outputs: Sequence[Array]) -> bool:
    return (
        len(outputs) == 1
        and outputs[0].ndim == 3
        and outputs[0].shape[1] == cell_count(height, width, yolox.STRIDES)
        and outputs[0].shape[2] >= 6
    )


def _is_yolox_raw(height: int, width: int, outputs: Sequence[Array]) -> bool:
    # raw sizes are logarithms: some below 1 px; decoded ones are pixels
    return _is_dense_rows(height, width, outputs) and bool(np.min(outputs[0][0, :, 2:4]) < 0.0)


def _is_yolox_decoded(height: int, width: int, outputs: Sequence[Array]) -> bool:
    return _is_dense_rows(height, width, outputs) and not _is_yolox_raw(height, width, outputs)


def _is_ultralytics(height: int, width: int, outputs: Sequence[Array]) -> bool:
    return (
        len(outputs) == 1
        and outputs[0].ndim == 3
        and outputs[0].shape[2] == cell_count(height, width, ultralytics.STRIDES)
        and outputs[0].shape[1] >= 5
    )


_TESTS: list[tuple[str, Callable[[int, int, Sequence[Array]], bool]]] = [
    ("yolox", _is_yolox_raw),
    ("yolox-decoded", _is_yolox_decoded),
    ("ultralytics", _is_ultralytics),
]
