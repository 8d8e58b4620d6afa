"""Non-maximum suppression of one class, greedy by score.

Source: the usual greedy rule (Felzenszwalb et al., TPAMI 2010, section 6.4), IoU above the limit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.types import Floats


def nms(boxes: Floats, scores: Floats, iou: float, limit: int) -> npt.NDArray[np.intp]:
    """Indices of the boxes that stay, strongest first.

    Args:
        boxes: (n, 4) float32, x1 y1 x2 y2.
        scores: (n,) float32.
        iou: a box goes when it overlaps a stronger one that stays by more than this, 0..1.
        limit: at most so many stay; the weakest give way.

    Returns:
        (m,) indices into boxes, m <= min(n, limit).
    """
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = np.ascontiguousarray(boxes[order].T)
    areas = np.maximum(x2 - x1, 0.0) * np.maximum(y2 - y1, 0.0)
    alive = np.ones(len(order), np.bool_)
    kept: list[int] = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == limit:
            break
        rest = slice(i + 1, None)
        width = np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest])
        height = np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest])
        inter = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        # without a division: inter / union > iou
        alive[rest] &= inter <= iou * (areas[i] + areas[rest] - inter)
    return order[np.asarray(kept, np.intp)]
