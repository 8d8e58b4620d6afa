"""Look with the network in torch, for curves while training; figures are made with edge.detect."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from models.detector import Detector, boxes_of, cells
from models.detector_data import Floats, Image
from models.detector_teacher import suppress

_MOST = 200  # candidates kept before suppression


@torch.no_grad()
def find_people(
    detector: Detector, image: Image, *, side: int = 416, least: float = 0.02, iou: float = 0.6
) -> tuple[Floats, Floats]:
    """People in a picture (h, w, 3) BGR: boxes (n, 4) in its pixels, scores (n,), falling."""
    scale = side / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    canvas = np.full((side, side, 3), 114, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    device = next(detector.parameters()).device
    batch = torch.from_numpy(canvas).to(device).permute(2, 0, 1)[None].float()
    rows, _ = detector(batch.contiguous(memory_format=torch.channels_last))
    score = rows[0, :, 0].float().sigmoid()
    best, index = score.topk(min(_MOST, len(score)))
    grid = cells(side, side, device)
    boxes = boxes_of(rows[..., 1:], grid)[0, index]
    keep = best >= least
    return suppress((boxes[keep] / scale).cpu().numpy(), best[keep].cpu().numpy(), iou)
