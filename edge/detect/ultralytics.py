"""YOLOv8, YOLO11 and later without their own suppression: (1, 4 + classes, cells).

Columns are cx cy w h in input pixels, then class scores; no objectness. Input RGB 0..1, letterbox
in the centre. The export leaves class names in the model's metadata. Only the output's layout is
read here; no code of that project is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edge.detect.adapter import Candidates, Layout, cell_count, corners
from edge.runtime import Array
from reid.card import InputSpec

LEVELS = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))  # usual; for small people; for large inputs


class UltralyticsDense:
    """One column per cell."""

    family: ClassVar[str] = "ultralytics"
    output_names: ClassVar[frozenset[str]] = frozenset({"output0"})
    nms_iou: ClassVar[float | None] = 0.6
    decoding: ClassVar[str] = "columns cx cy w h in pixels, then class scores; no objectness"

    def __init__(self, layout: Layout) -> None:
        self._score = 4 + (layout.person_class or 0)

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(height=height, width=width, colour="rgb", range=1, fit="letterbox_centre")

    @staticmethod
    def shapes_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        shape = outputs[0].shape
        cells = [cell_count(height, width, strides) for strides in LEVELS]
        return len(outputs) == 1 and len(shape) == 3 and shape[1] >= 5 and shape[2] in cells

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        return True  # no other family has cells in its last axis

    @staticmethod
    def classes(outputs: Sequence[Array]) -> int | None:
        rows: int = outputs[0].shape[1]
        return rows - 4

    def candidates(self, outputs: Sequence[Array], low: float) -> Candidates:
        columns = outputs[0][0]
        likely = np.flatnonzero(columns[self._score] >= low)
        return corners(columns[:4, likely].T), columns[self._score, likely]
