"""YOLOX: (1, cells, 5 + classes), objectness times class; raw, or decoded in the model.

Source: Ge et al., YOLOX, arXiv:2107.08430; Megvii's export (`tools/export_onnx.py`), where
`--decode_in_inference` makes the second form. Input BGR 0..255, letterbox at the top left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from edge.detect.adapter import Candidates, Layout, corners, grid_cells
from edge.runtime import Array
from reid.card import InputSpec

STRIDES = (8, 16, 32)


class YoloxDecoded:
    """Rows are cx cy w h in input pixels, objectness, classes."""

    family: ClassVar[str] = "yolox-decoded"
    nms_iou: ClassVar[float | None] = 0.65
    decoding: ClassVar[str] = "cx cy w h in pixels, score = objectness × class"

    def __init__(self, layout: Layout) -> None:
        self._score = 5 + layout.person_class

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(
            height=height, width=width, colour="bgr", range=255, fit="letterbox_top_left"
        )

    def extra_feeds(self) -> Mapping[str, Array]:
        return {}

    def candidates(self, outputs: Sequence[Array], low: float) -> Candidates:
        rows = outputs[0][0]
        # a class is at most 1, so objectness alone already rules most cells out
        likely = np.flatnonzero(rows[:, 4] >= low)
        scores = rows[likely, 4] * rows[likely, self._score]
        strong = scores >= low
        likely = likely[strong]
        return corners(self._centres(rows[likely, :4], likely)), scores[strong]

    def _centres(self, values: Array, cells: Array) -> Array:
        return values


class YoloxRaw(YoloxDecoded):
    """Rows are offsets: xy = (p + cell) · stride, wh = exp(p) · stride."""

    family: ClassVar[str] = "yolox"
    decoding: ClassVar[str] = (
        "raw: xy = (p + cell)·stride, wh = exp(p)·stride, score = objectness × class"
    )

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._cells, self._strides = grid_cells(layout.height, layout.width, STRIDES)

    def _centres(self, values: Array, cells: Array) -> Array:
        stride = self._strides[cells, None]
        xy = (values[:, :2] + self._cells[cells]) * stride
        # a person is never larger than a few thousand pixels; the bound keeps exp finite
        wh = np.exp(np.minimum(values[:, 2:], 10.0)) * stride
        return np.concatenate([xy, wh], axis=1)
