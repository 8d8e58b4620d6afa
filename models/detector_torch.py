"""Look with the network in torch, for curves while training; figures are made with edge.detect."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from models.detector import Detector, boxes_of, cells
from models.detector_data import Floats, Image
from models.detector_teacher import suppress

_MOST = 200  # candidates kept before suppression


def letterboxed(image: Image, side: int) -> tuple[Tensor, float]:
    """A picture (h, w, 3) BGR as a batch (1, 3, side, side) of float32, and its scale."""
    scale = side / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    canvas = np.full((side, side, 3), 114, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    batch = torch.from_numpy(canvas).permute(2, 0, 1)[None].float()
    return batch.contiguous(memory_format=torch.channels_last), scale


def decode_people(
    rows: Tensor, grid: Tensor, scale: float, *, least: float, iou: float
) -> tuple[Floats, Floats]:
    """People from the network's rows (1, n, 5): boxes (n, 4) in the picture's pixels, scores."""
    score = rows[0, :, 0].float().sigmoid()
    best, index = score.topk(min(_MOST, len(score)))
    boxes = boxes_of(rows[:, index, 1:], grid[index])[0]
    keep = best >= least
    return suppress((boxes[keep] / scale).cpu().numpy(), best[keep].cpu().numpy(), iou)


@torch.no_grad()
def find_people(
    detector: Detector, image: Image, *, side: int = 416, least: float = 0.02, iou: float = 0.6
) -> tuple[Floats, Floats]:
    """People in a picture (h, w, 3) BGR: boxes (n, 4) in its pixels, scores (n,), falling."""
    device = next(detector.parameters()).device
    batch, scale = letterboxed(image, side)
    rows, _ = detector(batch.to(device))
    return decode_people(rows, cells(side, side, device), scale, least=least, iou=iou)
