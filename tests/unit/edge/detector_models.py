"""A tiny model of each family of detectors; in the picture of each stand the same two people."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.config import DetectConfig
from edge.detect import Detector, open_detector
from edge.detect.nanodet import STRIDES as NANODET_STRIDES
from tests.unit.edge.tiny_models import ONE_THREAD, constant_detector, yolox_rows

# Two people in a picture of 64×64: x1 y1 x2 y2 score. And one of another class, to be left out.
PEOPLE = np.array([[8, 10, 24, 50, 0.9], [36, 8, 50, 44, 0.7]], np.float32)


CENTRES = np.array([[16, 30, 16, 40, 0.9], [43, 26, 14, 36, 0.7]], np.float32)


def opened(path: Path, **detect: object) -> Detector:
    return open_detector(path, ONE_THREAD, DetectConfig.model_validate(detect))


def yolox(path: Path) -> Path:
    return constant_detector(path, {"output": yolox_rows(CENTRES, raw=True)})


def yolox_decoded(path: Path) -> Path:
    return constant_detector(path, {"output": yolox_rows(CENTRES, raw=False)})


def yolov6(path: Path, *, name: str = "outputs") -> Path:
    rows = yolox_rows(CENTRES, raw=False)
    rows[..., 4] = 1.0  # it has no objectness and writes ones; the score is the class's
    return constant_detector(path, {name: rows})


def ultralytics(path: Path) -> Path:
    columns = np.zeros((1, 6, 84), np.float32)
    columns[0, 2:4] = 8.0
    columns[0, :5, 3] = CENTRES[0]
    columns[0, :5, 80] = CENTRES[1]
    columns[0, :4, 9], columns[0, 5, 9] = (30, 30, 10, 10), 0.95  # another class
    return constant_detector(path, {"output0": columns})


def _rows_of_six(boxes: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(3)
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, :, :2] = rng.uniform(20, 40, (300, 2))
    rows[0, :, 2:4] = rng.uniform(50, 60, (300, 2))
    rows[0, :, 4] = 0.01
    rows[0, :2, :5] = boxes
    rows[0, 2] = (5, 5, 60, 60, 0.95, 17)
    return rows


def yolo26(path: Path) -> Path:
    return constant_detector(path, {"output0": _rows_of_six(PEOPLE)})


def yolo_rtdetr(path: Path) -> Path:
    rows = _rows_of_six(CENTRES)
    rows[0, 3:, 2:4] = 4.0  # small boxes: read as corners they are inside out
    return constant_detector(path, {"output0": rows})


def yolo_rtdetr_in_shares(path: Path) -> Path:
    rows = _rows_of_six(CENTRES)
    rows[0, 3:, 2:4] = 4.0
    rows[0, :, :4] /= 64.0
    return constant_detector(path, {"output0": rows})


def nanodet(path: Path) -> Path:
    cells = [
        (column * stride, row * stride, stride)
        for stride in NANODET_STRIDES
        for row in range(64 // stride)
        for column in range(64 // stride)
    ]
    rows = np.zeros((1, len(cells), 2 + 32), np.float32)
    rows[0, :, :2] = 0.01
    for x1, y1, x2, y2, score in PEOPLE:
        index = cells.index((16, 32, 16)) if score > 0.8 else cells.index((40, 24, 8))
        x, y, stride = cells[index]
        rows[0, index, 0] = score
        for side, pixels in enumerate((x - x1, y - y1, x2 - x, y2 - y)):
            bins = np.full(8, -50.0, np.float32)  # all weight on the two bins around the distance
            low = int(pixels // stride)
            share = pixels / stride - low
            bins[low] = np.log(max(1.0 - share, 1e-9))
            if share > 0:
                bins[low + 1] = np.log(share)
            rows[0, index, 2 + side * 8 : 10 + side * 8] = bins
    return constant_detector(path, {"output": rows}, input_name="data")


def dfine(path: Path) -> Path:
    boxes = np.zeros((1, 5, 4), np.float32)
    boxes[0, :2] = PEOPLE[:, :4] / 64.0
    boxes[0, 2] = (0.1, 0.1, 0.9, 0.9)
    labels = np.array([[0, 0, 7, 0, 0]], np.int64)
    scores = np.array([[0.9, 0.7, 0.95, 0.01, 0.0]], np.float32)
    return constant_detector(
        path, {"labels": labels, "boxes": boxes, "scores": scores}, sizes_input=True
    )


def rfdetr(
    path: Path, *, logits_first: bool = False, names: tuple[str, str] = ("dets", "labels")
) -> Path:
    dets = np.full((1, 6, 4), 0.5, np.float32)
    dets[0, :2] = CENTRES[:, :4] / 64.0
    logits = np.full((1, 6, 91), -9.0, np.float32)
    logits[0, 0, 1] = np.log(0.9 / 0.1)
    logits[0, 1, 1] = np.log(0.7 / 0.3)
    logits[0, 2, 3] = 4.0
    outputs = dict(zip(names, (dets, logits), strict=True))
    order = reversed(outputs) if logits_first else outputs
    return constant_detector(path, {name: outputs[name] for name in order}, input_name="input")


def rfdetr_logits_first(path: Path) -> Path:
    return rfdetr(path, logits_first=True)


def omz_ssd(path: Path) -> Path:
    rows = np.zeros((1, 1, 200, 7), np.float32)
    rows[0, 0, 0] = (0, 1, 0.9, *(PEOPLE[0, :4] / 64))
    rows[0, 0, 1] = (0, 1, 0.7, *(PEOPLE[1, :4] / 64))
    rows[0, 0, 2, 0] = -1  # end of the list
    rows[0, 0, 3] = (0, 1, 0.99, 0.1, 0.1, 0.9, 0.9)  # left over from an earlier picture
    return constant_detector(path, {"detection_out": rows}, input_name="data")


def omz_boxes(path: Path) -> Path:
    boxes = np.zeros((100, 5), np.float32)
    boxes[:2] = PEOPLE
    return constant_detector(
        path, {"boxes": boxes, "labels": np.zeros(100, np.int64)}, input_name="image"
    )
