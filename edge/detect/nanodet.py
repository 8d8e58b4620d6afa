"""NanoDet-Plus: (1, cells, classes + 4·8); sigmoid class scores, then distances as distributions.

Source: RangiLyu's NanoDet-Plus (`nanodet_plus_head.py`) and Generalized Focal Loss, Li et al.,
arXiv:2006.04388: a side's distance is the mean of its 8 bins' softmax, times the stride. Cells
start at their top left corner. Input BGR, stretched, its own mean and std.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edge.detect.adapter import Candidates, Layout, cell_count, grid_cells
from edge.runtime import Array
from reid.card import InputSpec

STRIDES = (8, 16, 32, 64)
BINS = 8
_SIDES = 4 * BINS


class NanoDetPlus:
    """One row per cell."""

    family: ClassVar[str] = "nanodet-plus"
    output_names: ClassVar[frozenset[str]] = frozenset({"output"})
    nms_iou: ClassVar[float | None] = 0.6
    decoding: ClassVar[str] = "class scores, then 4 sides as 8-bin distributions in strides"

    def __init__(self, layout: Layout) -> None:
        self._person = layout.person_class or 0
        cells, strides = grid_cells(layout.height, layout.width, STRIDES)
        self._origin = cells * strides[:, None]
        self._strides = strides
        self._bins = np.arange(BINS, dtype=np.float32)

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(
            height=height,
            width=width,
            colour="bgr",
            range=255,
            mean=(103.53, 116.28, 123.675),
            std=(57.375, 57.12, 58.395),
            fit="stretch",
        )

    @staticmethod
    def shapes_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        shape = outputs[0].shape
        return (
            len(outputs) == 1
            and len(shape) == 3
            and shape[1] == cell_count(height, width, STRIDES)
            and shape[2] > _SIDES
        )

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        scores = outputs[0][0, :, :-_SIDES]
        return bool(scores.min() >= 0.0 and scores.max() <= 1.0)

    @staticmethod
    def classes(outputs: Sequence[Array]) -> int | None:
        columns: int = outputs[0].shape[2]
        return columns - _SIDES

    def candidates(self, outputs: Sequence[Array], low: float) -> Candidates:
        rows = outputs[0][0]
        likely = np.flatnonzero(rows[:, self._person] >= low)
        logits = rows[likely, -_SIDES:].reshape(-1, 4, BINS)
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        sides = (weights @ self._bins) / weights.sum(axis=2) * self._strides[likely, None]
        origin = self._origin[likely]
        boxes = np.concatenate([origin - sides[:, :2], origin + sides[:, 2:]], axis=1)
        return boxes, rows[likely, self._person]
