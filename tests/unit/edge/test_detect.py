"""Does each family of detectors give back the people that its output holds?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.types import Detections
from tests.unit.edge.detector_models import (
    CENTRES,
    PEOPLE,
    dfine,
    nanodet,
    omz_boxes,
    omz_ssd,
    opened,
    rfdetr,
    rfdetr_logits_first,
    ultralytics,
    yolo26,
    yolo_rtdetr,
    yolo_rtdetr_in_shares,
    yolov6,
    yolox,
    yolox_decoded,
)
from tests.unit.edge.tiny_models import constant_detector


def looked(path: Path, **detect: object) -> Detections:
    return opened(path, **detect).detect(np.zeros((64, 64, 3), np.uint8))


FAMILIES: Sequence[tuple[str, Callable[[Path], Path]]] = [
    ("yolox", yolox),
    ("yolox-decoded", yolox_decoded),
    ("yolov6", yolov6),
    ("ultralytics", ultralytics),
    ("yolo26", yolo26),
    ("yolo-rtdetr", yolo_rtdetr),
    ("yolo-rtdetr", yolo_rtdetr_in_shares),
    ("nanodet-plus", nanodet),
    ("dfine", dfine),
    ("rfdetr", rfdetr),
    ("rfdetr", rfdetr_logits_first),
    ("omz-ssd", omz_ssd),
    ("omz-boxes", omz_boxes),
]


@pytest.mark.parametrize(("family", "make"), FAMILIES)
def test_a_family_is_recognised_and_gives_back_the_people(
    family: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path / "model.onnx")

    detector = opened(path)
    found = detector.detect(np.zeros((64, 64, 3), np.uint8))

    assert (detector.family, detector.family_from) == (family, "recognised")
    np.testing.assert_allclose(found.scores, PEOPLE[:, 4], atol=1e-3)
    np.testing.assert_allclose(found.boxes, PEOPLE[:, :4], atol=0.05)


@pytest.mark.parametrize(("family", "make"), FAMILIES)
def test_boxes_are_in_pixels_of_a_wide_frame(
    family: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    detector = opened(make(tmp_path / "model.onnx"))

    found = detector.detect(np.zeros((128, 256, 3), np.uint8))

    if detector.input.fit == "stretch":
        expected = PEOPLE[:, :4] * [4, 2, 4, 2]
    else:  # scaled by 4, the lower half (or the strips above and below) is padding
        top = 64 if detector.input.fit == "letterbox_centre" else 0
        expected = np.clip(PEOPLE[:, :4] * 4 - [0, top, 0, top], 0, [256, 128, 256, 128])
    np.testing.assert_allclose(found.boxes, expected, atol=0.2)


def test_nothing_above_the_confidence_gives_no_detections(tmp_path: Path) -> None:
    path = yolox(tmp_path / "model.onnx")

    found = looked(path, low_confidence=0.95)

    assert (len(found), found.boxes.shape) == (0, (0, 4))


def test_overlapping_boxes_are_suppressed_to_the_strongest(tmp_path: Path) -> None:
    rows = np.zeros((1, 6, 84), np.float32)
    for column, shift, score in ((3, 0.0, 0.8), (4, 0.5, 0.9), (5, 1.0, 0.6)):
        rows[0, :5, column] = (20 + shift, 30, 16, 40, score)
    path = constant_detector(tmp_path / "model.onnx", {"output0": rows})

    found = looked(path)

    np.testing.assert_allclose(found.scores, [0.9])


def test_a_box_that_lies_in_the_padding_only_is_no_detection(tmp_path: Path) -> None:
    rows = np.zeros((1, 6, 84), np.float32)
    rows[0, :5, 3] = (30, 60, 8, 6, 0.9)
    path = constant_detector(tmp_path / "model.onnx", {"output0": rows})

    found = opened(path).detect(np.zeros((16, 64, 3), np.uint8))

    assert len(found) == 0


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8, 16, 32, 64)])
def test_an_ultralytics_model_with_a_level_more_is_read(
    strides: tuple[int, ...], tmp_path: Path
) -> None:
    cells = sum((64 // stride) ** 2 for stride in strides)
    columns = np.zeros((1, 5, cells), np.float32)
    columns[0, :, :2] = CENTRES.T
    path = constant_detector(tmp_path / "model.onnx", {"output0": columns})

    np.testing.assert_allclose(looked(path).boxes, PEOPLE[:, :4], atol=0.05)


def test_class_names_in_the_model_say_which_class_is_people(tmp_path: Path) -> None:
    columns = np.zeros((1, 7, 84), np.float32)
    columns[0, :4, 3], columns[0, 6, 3] = CENTRES[0, :4], 0.9
    columns[0, :5, 50] = (20, 20, 9, 9, 0.99)
    path = constant_detector(
        tmp_path / "model.onnx",
        {"output0": columns},
        metadata={"names": "{0: 'car', 1: 'dog', 2: 'person'}"},
    )

    found = looked(path)

    np.testing.assert_allclose(found.boxes, PEOPLE[:1, :4], atol=0.05)
