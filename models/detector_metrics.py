"""How good boxes are: precision, recall and average precision at IoU 0.5, also by height.

Promise: pure functions of arrays. Matching as PASCAL VOC and COCO have it: detections of all
pictures by falling score, each takes the free label it overlaps most, if by 0.5 or more. What
meets only a region to ignore (half of the detection inside it, or IoU 0.5) counts neither way.
AP is the area under the precision made monotone, at 101 recalls (COCO).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.detector_data import Floats, pairwise_iou

Found = tuple[Floats, Floats]  # boxes (n, 4), scores (n,)
Truth = tuple[Floats, Floats]  # people (m, 4), regions to ignore (k, 4)
BANDS = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, np.inf)}
_IOU = 0.5
_PRECISION = 0.9


@dataclass(frozen=True)
class Quality:
    """Figures over a set of pictures.

    Attributes:
        ap50: average precision at IoU 0.5, 0..1; nan without any label.
        recall: largest recall reached at precision 0.9 or more; 0 where it is never reached.
        threshold: the score from which on that is so; nan where never.
        people: labels that count.
    """

    ap50: float
    recall: float
    threshold: float
    people: int


def _match(
    found: Found, people: Floats, ignore: Floats
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For each detection the index of its label or -1, and whether it counts at all."""
    boxes, scores = found
    owner = np.full(len(boxes), -1, np.int64)
    counts = np.ones(len(boxes), bool)
    overlap = pairwise_iou(boxes, people)
    free = np.ones(len(people), bool)
    low = np.maximum(boxes[:, None, :2], ignore[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], ignore[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0, None), axis=2)
    inside = inter / np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-9)[:, None]
    excused = (np.maximum(inside, pairwise_iou(boxes, ignore)) >= _IOU).any(axis=1)
    for i in np.argsort(-scores, kind="stable"):
        candidates = np.where(free, overlap[i], 0.0)
        if len(people) and candidates.max() >= _IOU:
            owner[i] = candidates.argmax()
            free[owner[i]] = False
        else:
            counts[i] = not excused[i]
    return owner, counts


def average_precision(
    found: Sequence[Found],
    truth: Sequence[Truth],
    *,
    heights: tuple[float, float] = (0.0, np.inf),
) -> Quality:
    """Judge detections of several pictures.

    Args:
        found: one a picture, in its pixels.
        truth: one a picture.
        heights: only people whose height lies in [low, high) count; a detection that meets nobody
            counts if its own height does. In pixels of the pictures.
    """
    scores: list[Floats] = []
    hits: list[npt.NDArray[np.bool_]] = []
    people_total = 0
    low, high = heights
    for (boxes, confidence), (people, ignore) in zip(found, truth, strict=True):
        owner, counts = _match((boxes, confidence), people, ignore)
        tall = people[:, 3] - people[:, 1]
        wanted = (tall >= low) & (tall < high)
        own = boxes[:, 3] - boxes[:, 1]
        meets = owner >= 0
        use = counts & np.where(meets, np.append(wanted, False)[owner], (own >= low) & (own < high))
        scores.append(confidence[use])
        hits.append(meets[use])
        people_total += int(wanted.sum())
    if people_total == 0:
        return Quality(float("nan"), float("nan"), float("nan"), 0)
    confidence = np.concatenate(scores)
    order = np.argsort(-confidence, kind="stable")
    hit = np.concatenate(hits)[order]
    recall = np.cumsum(hit) / people_total
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    good = np.flatnonzero(precision >= _PRECISION)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    ap = float(np.append(envelope, 0.0)[at].mean())
    if not len(good):
        return Quality(ap, 0.0, float("nan"), people_total)
    return Quality(ap, float(recall[good[-1]]), float(confidence[order][good[-1]]), people_total)
