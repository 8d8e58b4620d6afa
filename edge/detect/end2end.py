"""Detectors that suppress by themselves and give one row per detection: (1, rows, 6).

Two families share the shape: YOLO26 (and YOLOv10) give x1 y1 x2 y2 in input pixels, score, class;
the RT-DETR of the same project gives cx cy w h, score, class (in shares of the input, seen with its
version 8.4). The values of one run tell them apart: centres and sizes are never below 0 and, read
as corners, some rows are inside out; shares are all small, pixels are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edge.detect.adapter import Candidates, Layout, cell_count, corners
from edge.runtime import Array
from edge.types import Floats
from reid.card import InputSpec

MAX_ROWS = 1000
TELLING_ROWS = 20  # fewer different rows say nothing about what the columns mean
SHARE_LIMIT = 2.0  # no box in pixels is that small in every number; shares of the frame all are


class Yolo26:
    """Rows x1 y1 x2 y2 in input pixels, score, class."""

    family: ClassVar[str] = "yolo26"
    output_names: ClassVar[frozenset[str]] = frozenset({"output0"})
    nms_iou: ClassVar[float | None] = None
    decoding: ClassVar[str] = "rows x1 y1 x2 y2 in pixels, score, class; suppressed in the model"

    def __init__(self, layout: Layout) -> None:
        self._person = layout.person_class or 0
        self._size = np.array([layout.width, layout.height] * 2, np.float32)

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(height=height, width=width, colour="rgb", range=1, fit="letterbox_centre")

    @staticmethod
    def shapes_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        shape = outputs[0].shape
        return (
            len(outputs) == 1
            and len(shape) == 3
            and shape[2] == 6
            and shape[1] <= MAX_ROWS
            and shape[1] != cell_count(height, width, (8, 16, 32))
        )

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        boxes = outputs[0][0, :, :4]
        return not _inside_out(boxes) and not 0.0 < boxes.max() <= SHARE_LIMIT

    @staticmethod
    def classes(outputs: Sequence[Array]) -> int | None:
        return None

    def candidates(self, outputs: Sequence[Array], low: float) -> Candidates:
        rows = outputs[0][0]
        rows = rows[(rows[:, 4] >= low) & (rows[:, 5] == self._person)]
        return self._corners(rows[:, :4]), rows[:, 4]

    def _corners(self, values: Floats) -> Floats:
        return values


class YoloRtDetr(Yolo26):
    """Rows cx cy w h (pixels, or shares of the input), score, class."""

    family: ClassVar[str] = "yolo-rtdetr"
    decoding: ClassVar[str] = "rows cx cy w h, score, class; suppressed in the model"

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(height=height, width=width, colour="rgb", range=1, fit="stretch")

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        boxes = outputs[0][0, :, :4]
        told = _inside_out(boxes) or 0.0 < boxes.max() <= SHARE_LIMIT
        return bool(boxes.min() >= 0.0) and (told or len(np.unique(boxes, axis=0)) < TELLING_ROWS)

    def _corners(self, values: Floats) -> Floats:
        found = corners(values)
        return found * self._size if len(values) and values.max() <= SHARE_LIMIT else found


def _inside_out(boxes: Floats) -> bool:
    return bool(((boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])).any())
