"""A public YOLOX network as the teacher: what it would say in every cell of a picture.

Promise: runs the file in ONNX Runtime at any input size that is a multiple of 32 (the file's own
size is rewritten in memory), one thread, so that it can run inside a data loader's worker.
A file that is no raw YOLOX export raises `TeacherError`. One thread at a time.
The teacher's weights are read, never written anywhere.

Source of the network: Ge et al., YOLOX, arXiv:2107.08430 (raw export: xy and wh undecoded).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from models.detector_data import Floats, Image, pairwise_iou

_STRIDES = (8, 16, 32)


class TeacherError(ValueError):
    """The file cannot serve as a teacher.

    Attributes:
        path: the ONNX file.
        problem: what is wrong.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"teacher {path}: {problem}; take a raw YOLOX export such as YOLOX-nano")
        self.path = path
        self.problem = problem


class YoloxTeacher:
    """The teacher at one input size.

    Args:
        path: raw YOLOX export (output (1, n, 5 + classes), class 0 = person).
        side: of the square input, pixels, a multiple of 32.
    """

    def __init__(self, path: Path, side: int) -> None:
        self.side = side
        try:
            model = onnx.load(path)
        except (OSError, ValueError, DecodeError) as error:
            raise TeacherError(path, f"cannot be read: {error}") from error
        shape = model.graph.input[0].type.tensor_type.shape.dim
        if len(shape) != 4:
            raise TeacherError(path, f"its input has {len(shape)} axes, not 4")
        for axis in shape[2:]:
            axis.dim_value = side
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        del model.graph.value_info[:]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        parts = []
        for stride in _STRIDES:
            y, x = np.mgrid[: side // stride, : side // stride]
            xy = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
            parts.append(np.concatenate([xy, np.full_like(xy[:, :1], stride)], 1))
        self._grid = np.concatenate(parts)
        found = self._session.run(None, {self._input: np.zeros((1, 3, side, side), np.float32)})[0]
        if found.ndim != 3 or found.shape[1] != len(self._grid) or found.shape[2] < 6:
            raise TeacherError(
                path, f"its output is {found.shape}, not (1, {len(self._grid)}, >= 6)"
            )

    def __call__(self, image: Image) -> tuple[Floats, Floats]:
        """Every cell's answer for a picture (side, side, 3) BGR uint8.

        Returns:
            scores (n,) in 0..1 and boxes (n, 4), x1 y1 x2 y2 in pixels; finest cells first.
        """
        batch = image.transpose(2, 0, 1)[None].astype(np.float32)
        rows = self._session.run(None, {self._input: batch})[0][0]
        stride = self._grid[:, 2:]
        centre = (self._grid[:, :2] + rows[:, :2]) * stride
        half = np.exp(np.minimum(rows[:, 2:4], 8.0)) * stride * 0.5
        boxes = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
        return (rows[:, 4] * rows[:, 5]).astype(np.float32), boxes

    def find(self, image: Image, least: float = 0.25) -> tuple[Floats, Floats]:
        """People in one picture (h, w, 3) BGR: boxes (n, 4) in its pixels, scores, after NMS."""
        scale = self.side / max(image.shape[:2])
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        canvas = np.full((self.side, self.side, 3), 114, np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        scores, boxes = self(canvas)
        keep = scores >= least
        order = np.argsort(-scores[keep], kind="stable")
        return suppress(boxes[keep][order] / np.float32(scale), scores[keep][order], 0.55)


def suppress(boxes: Floats, scores: Floats, iou: float) -> tuple[Floats, Floats]:
    """Greedy non-maximum suppression of boxes sorted by falling score."""
    overlaps = pairwise_iou(boxes, boxes) > iou
    kept: list[int] = []
    gone = np.zeros(len(boxes), bool)
    for i in range(len(boxes)):
        if not gone[i]:
            kept.append(i)
            gone |= overlaps[i]
    return boxes[kept], scores[kept]
