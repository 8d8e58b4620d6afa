"""Transformer detectors: a fixed number of queries, no suppression.

D-FINE, DEIM and RT-DETR (Apache): inputs `images` and `orig_target_sizes`, outputs labels, boxes,
scores; boxes come out in the size that was handed in. Their code multiplies by (size, size), so
the order is [width, height]; it is handed the model's own input size here.
RF-DETR: outputs `dets` (cx cy w h, 0..1) and `labels` (logits; the score is their sigmoid).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edge.detect.adapter import Candidates, Layout, corners
from edge.runtime import Array
from reid.card import InputSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
COCO_IDS = 90  # so many classes or more: counted by COCO's ids, where a person is 1


class DFine:
    """Outputs labels (1, q), boxes (1, q, 4) x1 y1 x2 y2, scores (1, q), in any order."""

    family: ClassVar[str] = "dfine"
    output_names: ClassVar[frozenset[str]] = frozenset({"labels", "boxes", "scores"})
    nms_iou: ClassVar[float | None] = None
    decoding: ClassVar[str] = "labels, boxes x1 y1 x2 y2 in pixels, scores; no suppression needed"

    def __init__(self, layout: Layout) -> None:
        self._person = layout.person_class or 0

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(height=height, width=width, colour="rgb", range=1, fit="stretch")

    @staticmethod
    def shapes_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        if len(outputs) != 3:
            return False
        boxes = [output for output in outputs if output.ndim == 3 and output.shape[2] == 4]
        flat = [output for output in outputs if output.ndim == 2]
        integer = [output for output in flat if output.dtype.kind in "iu"]
        return (len(boxes), len(flat), len(integer)) == (1, 2, 1)

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        return True  # no other family has this shape

    @staticmethod
    def classes(outputs: Sequence[Array]) -> int | None:
        return None

    def candidates(self, outputs: Sequence[Array], low: float) -> Candidates:
        boxes = next(output for output in outputs if output.ndim == 3)[0]
        labels = next(o for o in outputs if o.ndim == 2 and o.dtype.kind in "iu")[0]
        scores = next(o for o in outputs if o.ndim == 2 and o.dtype.kind == "f")[0]
        kept = np.flatnonzero((scores >= low) & (labels == self._person))
        return boxes[kept], scores[kept]


class RfDetr:
    """Outputs dets (1, q, 4) cx cy w h in 0..1 and labels (1, q, classes) logits, in any order."""

    family: ClassVar[str] = "rfdetr"
    output_names: ClassVar[frozenset[str]] = frozenset({"dets", "labels"})
    nms_iou: ClassVar[float | None] = None
    decoding: ClassVar[str] = "cx cy w h in 0..1, score = sigmoid(logit); no suppression needed"

    def __init__(self, layout: Layout) -> None:
        self._person = layout.person_class
        self._size = np.array([layout.width, layout.height] * 2, np.float32)

    @staticmethod
    def default_input(height: int, width: int) -> InputSpec:
        return InputSpec(
            height=height,
            width=width,
            colour="rgb",
            range=1,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            fit="stretch",
        )

    @staticmethod
    def shapes_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        if len(outputs) != 2 or any(output.ndim != 3 for output in outputs):
            return False
        boxes, logits = _boxes_and_logits(outputs)
        return boxes.shape[2] == 4 and boxes.shape[:2] == logits.shape[:2]

    @staticmethod
    def values_fit(height: int, width: int, outputs: Sequence[Array]) -> bool:
        boxes, logits = _boxes_and_logits(outputs)
        # shares of the frame, and logits, most of them far below 0
        return bool(boxes.min() >= -0.5 and boxes.max() <= 2.0 and logits.min() < 0.0)

    @staticmethod
    def classes(outputs: Sequence[Array]) -> int | None:
        columns: int = _boxes_and_logits(outputs)[1].shape[2]
        return columns

    def candidates(self, outputs: Sequence[Array], low: float) -> Candidates:
        boxes, logits = (output[0] for output in _boxes_and_logits(outputs))
        person = self._person
        if person is None:
            person = 1 if logits.shape[1] >= COCO_IDS else 0
        scores = 1.0 / (1.0 + np.exp(-np.clip(logits[:, person], -80.0, 80.0)))
        kept = np.flatnonzero(scores >= low)
        return corners(boxes[kept]) * self._size, scores[kept]


def _boxes_and_logits(outputs: Sequence[Array]) -> tuple[Array, Array]:
    """The output of four columns first; where both have four, as they came."""
    first, second = outputs
    return (second, first) if first.shape[2] != 4 == second.shape[2] else (first, second)
