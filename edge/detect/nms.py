"""Non-maximum suppression of one class, greedy by score (OpenCV's)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge.types import Floats


def nms(boxes: Floats, scores: Floats, iou: float, limit: int) -> npt.NDArray[np.intp]:
    """Indices of the boxes that stay, strongest first.

    Args:
        boxes: (n, 4) float32, x1 y1 x2 y2.
        scores: (n,) float32, above 0.
        iou: a box goes when it overlaps a stronger one that stays by more than this, 0..1.
        limit: at most so many stay; the weakest give way.

    Returns:
        (m,) indices into boxes, m <= min(n, limit).
    """
    if len(scores) == 0:
        return np.empty(0, np.intp)
    corner_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    # lists: the binding converts them faster than it does arrays
    kept = cv2.dnn.NMSBoxes(corner_size.tolist(), scores.tolist(), 0.0, iou)
    return np.asarray(kept, np.intp).ravel()[:limit]
