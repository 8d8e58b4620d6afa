"""YOLOX: (1, cells, 5 + classes), objectness times class; raw, or decoded in the model. And YOLOv6.

Source: Ge et al., YOLOX, arXiv:2107.08430; Megvii's export (`tools/export_onnx.py`), where
`--decode_in_inference` makes the second form. Input BGR 0..255, letterbox at the top left.
YOLOv6 (Meituan, `deploy/ONNX/export_onnx.py`) writes the decoded form with an objectness of 1 in
every cell, and takes RGB 0..1 with the letterbox in the centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edge.detect.adapter import Candidates, Layout, cell_count, corners, grid_cells
from edge.runtime import Array
from reid.card import InputSpec

STRIDES = (8, 16, 32)


class YoloxDecoded:
    """Rows are cx cy w h in input pixels, objectness, classes."""

    family: ClassVar[str] = "yolox-decoded"
    output_names: ClassVar[frozenset[str]] = frozenset({"output"})
    nms_iou: ClassVar[float | None] = 0.65
    decoding: ClassVar[str] = "cx cy w h in pixels, score = objectness × class"

    def __init__(self, layout: Layout) -> None:
        self._score = 5 + (layout.person_class or 0)

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(
            height=height, width=width, colour="bgr", range=255, fit="letterbox_top_left"
        )

    @staticmethod
    def shapes_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        cells = cell_count(height, width, STRIDES)
        return len(outputs) == 1 and outputs[0].shape[:2] == (1, cells) and _columns(outputs) >= 6

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        rows = outputs[0][0]
        return _in_pixels(height, width, rows) and not _all_objects(rows)

    @staticmethod
    def classes(outputs: Sequence[Array]) -> int | None:
        return _columns(outputs) - 5

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


class YoloV6(YoloxDecoded):
    """Rows are cx cy w h in input pixels, 1, classes."""

    family: ClassVar[str] = "yolov6"
    output_names: ClassVar[frozenset[str]] = frozenset({"outputs"})
    decoding: ClassVar[str] = "cx cy w h in pixels, a column of ones, score = class"

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(height=height, width=width, colour="rgb", range=1, fit="letterbox_centre")

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        rows = outputs[0][0]
        return _in_pixels(height, width, rows) and _all_objects(rows)


class YoloxRaw(YoloxDecoded):
    """Rows are offsets: xy = (p + cell) · stride, wh = exp(p) · stride."""

    family: ClassVar[str] = "yolox"
    decoding: ClassVar[str] = (
        "raw: xy = (p + cell)·stride, wh = exp(p)·stride, score = objectness × class"
    )

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._cells, self._strides = grid_cells(layout.height, layout.width, STRIDES)

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        rows = outputs[0][0]
        # logarithms of sizes: some below one cell; offsets stay near their cell
        return bool(rows[:, 2:4].min() < 0.0 or rows[:, :2].max() < 0.25 * max(height, width))

    def _centres(self, values: Array, cells: Array) -> Array:
        stride = self._strides[cells, None]
        xy = (values[:, :2] + self._cells[cells]) * stride
        # a person is never larger than a few thousand pixels; the bound keeps exp finite
        wh = np.exp(np.minimum(values[:, 2:], 10.0)) * stride
        return np.concatenate([xy, wh], axis=1)


def _in_pixels(height: int, width: int, rows: Array) -> bool:
    """No size below 0, and centres all over the picture."""
    return bool(rows[:, 2:4].min() >= 0.0 and rows[:, :2].max() > 0.5 * max(height, width))


def _all_objects(rows: Array) -> bool:
    """A sigmoid is hardly ever 1, and never in every cell of noise."""
    return bool((rows[:, 4] == 1.0).all())


def _columns(outputs: Sequence[Array]) -> int:
    return outputs[0].shape[2] if outputs[0].ndim == 3 else 0
