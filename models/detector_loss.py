"""Which cells answer for which person, and what a wrong answer costs.

Promise: pure functions of tensors, batched, without a loop over pictures; finite for pictures
without any person. Assignment by agreement of score and box: Feng et al., TOOD, arXiv:2108.07755,
equations 1 to 3 (alpha 0.5, beta 6, as YOLOv8 has it); boxes by generalised IoU: Rezatofighi et
al., arXiv:1902.09630.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.detector import boxes_of
from models.detector_augment import IGNORE, PERSON

_CELLS_A_PERSON = 10


@dataclass(frozen=True)
class Targets:
    """What each cell should say, (b, n) each unless said.

    Attributes:
        score: 0 for background, else the quality 0..1 the cell can reach.
        counts: 1 where the score counts, 0 in regions to ignore.
        boxes: (b, n, 4), meaningful where score > 0.
    """

    score: Tensor
    counts: Tensor
    boxes: Tensor


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union of boxes (…, 4) against boxes (…, 4), broadcast."""
    # coordinate by coordinate: sliced pairs run several times slower on a CPU
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    wide = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    high = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    inter = wide * high
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter + 1e-7
    return inter / union, union


def iou_and_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes (…, 4) against boxes (…, 4), broadcast."""
    iou, union = _overlap(a, b)
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    hull_wide = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    hull_high = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    hull = hull_wide * hull_high + 1e-7
    return iou, iou - (hull - union) / hull


def _within(grid: Tensor, boxes: Tensor, margin: Tensor | None = None) -> Tensor:
    """(b, k, n): is the centre of cell n in box k, grown to `margin` around its middle?"""
    x1, y1, x2, y2 = boxes[:, :, None].unbind(-1)
    if margin is not None:
        x, y = (x1 + x2) * 0.5, (y1 + y2) * 0.5
        x1, x2 = torch.minimum(x1, x - margin), torch.maximum(x2, x + margin)
        y1, y2 = torch.minimum(y1, y - margin), torch.maximum(y2, y + margin)
    x, y = grid[:, 0], grid[:, 1]
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


@torch.no_grad()
def assign(
    logits: Tensor, predicted: Tensor, boxes: Tensor, kinds: Tensor, grid: Tensor
) -> Targets:
    """Choose for each person the cells that agree best with it.

    Args:
        logits: (b, n) of the score. predicted: (b, n, 4) boxes.
        boxes: (b, k, 4). kinds: (b, k). grid: (n, 3) of `cells`.
    """
    person = kinds == PERSON
    iou, _ = _overlap(predicted[:, None], boxes[:, :, None])  # (b, k, n)
    # a person smaller than a cell may hold no centre: he gets the cells around his middle
    eligible = _within(grid, boxes, margin=grid[:, 2] * 0.75) & person[:, :, None]
    # alpha 0.5 and beta 6, without the costly pow
    agreement = logits.float().sigmoid().sqrt()[:, None] * (iou * iou * iou).square() + 1e-12
    agreement = torch.where(eligible, agreement, 0.0)
    best = agreement.topk(min(_CELLS_A_PERSON, agreement.shape[2]), dim=2)
    chosen = torch.zeros_like(eligible).scatter_(2, best.indices, best.values > 0)
    # a cell answers for one person only: the one it overlaps most
    owner = torch.where(chosen, iou, -1.0).argmax(1)  # (b, n)
    assigned = chosen.any(1)
    mine = torch.zeros_like(chosen).scatter_(1, owner[:, None], assigned[:, None])
    agreement = torch.where(mine, agreement, 0.0)
    reach = torch.where(mine, iou, 0.0).amax(2, keepdim=True)
    score = (agreement / agreement.amax(2, keepdim=True).clamp(min=1e-12) * reach).amax(1)
    ignored = (_within(grid, boxes) & (kinds == IGNORE)[:, :, None]).any(1)
    counts = (~ignored | assigned).float()
    target = boxes.gather(1, owner[..., None].expand(-1, -1, 4))
    return Targets(score, counts, target)


def label_loss(rows: Tensor, boxes: Tensor, kinds: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of score and of boxes against the labels; rows (b, n, 5) of the network."""
    rows = rows.float()
    predicted = boxes_of(rows[..., 1:], grid)
    targets = assign(rows[..., 0], predicted.detach(), boxes, kinds, grid)
    total = targets.score.sum().clamp(min=1.0)
    score = F.binary_cross_entropy_with_logits(rows[..., 0], targets.score, reduction="none")
    _, giou = iou_and_giou(predicted, targets.boxes)
    return (score * targets.counts).sum() / total, ((1.0 - giou) * targets.score).sum() / total


def teacher_loss(rows: Tensor, scores: Tensor, boxes: Tensor, grid: Tensor) -> Tensor:
    """Loss against the teacher's scores (b, n) and boxes (b, n, 4), cell by cell."""
    rows = rows.float()
    total = scores.sum().clamp(min=1.0)
    score = F.binary_cross_entropy_with_logits(rows[..., 0], scores, reduction="none").sum()
    _, giou = iou_and_giou(boxes_of(rows[..., 1:], grid), boxes)
    return (score + 2.0 * ((1.0 - giou) * scores).sum()) / total
