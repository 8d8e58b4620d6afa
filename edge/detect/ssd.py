"""Open Model Zoo's person detectors: SSD rows of 7, or boxes of 5 with labels.

Source: open_model_zoo, person-detection-0200..0203, 0301..0303, person-detection-retail-0013.
Input BGR 0..255, stretched; suppressed in the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edge.detect.adapter import Candidates, Layout
from edge.detect.end2end import SHARE_LIMIT
from edge.runtime import Array
from reid.card import InputSpec

LAST_USUAL_LABEL = 1  # these models have one class; newer ones call it 0, older ones 1


class OmzSsd:
    """Output (1, 1, rows, 7): image, label, score, x1 y1 x2 y2 in 0..1; image < 0 ends the list."""

    family: ClassVar[str] = "omz-ssd"
    output_names: ClassVar[frozenset[str]] = frozenset({"detection_out"})
    nms_iou: ClassVar[float | None] = None
    decoding: ClassVar[str] = "rows image, label, score, x1 y1 x2 y2 in 0..1"

    def __init__(self, layout: Layout) -> None:
        self._person = layout.person_class
        self._size = np.array([layout.width, layout.height] * 2, np.float32)

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(height=height, width=width, colour="bgr", range=255, fit="stretch")

    @staticmethod
    def shapes_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        shape = outputs[0].shape
        return len(outputs) == 1 and shape[:2] == (1, 1) and len(shape) == 4 and shape[3] == 7

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        return True  # no other family has this shape

    @staticmethod
    def classes(outputs: Sequence[Array]) -> int | None:
        return None

    def candidates(self, outputs: Sequence[Array], low: float) -> Candidates:
        rows = outputs[0][0, 0]
        ended = np.flatnonzero(rows[:, 0] < 0.0)
        rows = rows[: ended[0]] if len(ended) else rows
        rows = rows[(rows[:, 2] >= low) & is_person(rows[:, 1], self._person)]
        return rows[:, 3:7] * self._size, rows[:, 2]


class OmzBoxes:
    """Outputs boxes (rows, 5): x1 y1 x2 y2 score, and labels (rows,)."""

    family: ClassVar[str] = "omz-boxes"
    output_names: ClassVar[frozenset[str]] = frozenset({"boxes", "labels"})
    nms_iou: ClassVar[float | None] = None
    decoding: ClassVar[str] = "rows x1 y1 x2 y2 (pixels or 0..1), score; labels beside"

    def __init__(self, layout: Layout) -> None:
        self._person = layout.person_class
        self._size = np.array([layout.width, layout.height] * 2, np.float32)

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(height=height, width=width, colour="bgr", range=255, fit="stretch")

    @staticmethod
    def shapes_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        if len(outputs) != 2:
            return False
        boxes = [output for output in outputs if output.ndim == 2 and output.shape[1] == 5]
        labels = [output for output in outputs if output.ndim == 1]
        return len(boxes) == 1 and len(labels) == 1 and len(boxes[0]) == len(labels[0])

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        return True  # no other family has this shape

    @staticmethod
    def classes(outputs: Sequence[Array]) -> int | None:
        return None

    def candidates(self, outputs: Sequence[Array], low: float) -> Candidates:
        rows = next(output for output in outputs if output.ndim == 2)
        labels = next(output for output in outputs if output.ndim == 1)
        rows = rows[(rows[:, 4] >= low) & is_person(labels, self._person)]
        boxes = rows[:, :4]
        if len(boxes) and boxes.max() <= SHARE_LIMIT:
            boxes = boxes * self._size
        return boxes, rows[:, 4]


def is_person(labels: Array, person: int | None) -> Array:
    """(n,) bool: the label is the person's; None: 0 or 1, as these one-class models say."""
    found: Array = labels <= LAST_USUAL_LABEL if person is None else labels == person
    return found
