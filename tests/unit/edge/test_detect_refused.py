"""Which files, cards and values are refused for a detector, and is it said why?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.config import DetectConfig
from edge.detect import open_detector
from reid.card import ModelFile
from reid.model_errors import (
    CardMismatch,
    ModelMisbehaved,
    ModelNotFound,
    ModelUnreadable,
    WrongKind,
)
from tests.unit.edge.detector_models import (
    CENTRES,
    nanodet,
    opened,
    rfdetr,
    ultralytics,
    yolo26,
    yolov6,
    yolox,
    yolox_decoded,
)
from tests.unit.edge.tiny_models import ONE_THREAD, constant_detector, detector_card, save


@pytest.mark.parametrize("task", ["segment", "obb", "classify"])
def test_a_model_made_for_another_task_is_refused_with_it(task: str, tmp_path: Path) -> None:
    path = constant_detector(
        tmp_path / "model.onnx",
        {"output0": np.zeros((1, 6, 84), np.float32)},
        metadata={"author": "Ultralytics", "task": task},
    )

    with pytest.raises(WrongKind, match=f"made for {task}"):
        opened(path)


def test_a_model_that_knows_no_people_is_refused(tmp_path: Path) -> None:
    path = constant_detector(
        tmp_path / "model.onnx",
        {"output0": np.zeros((1, 6, 84), np.float32)},
        metadata={"names": "{0: 'car', 1: 'dog'}"},
    )

    with pytest.raises(WrongKind, match="detects car, dog… and no people"):
        opened(path)


@pytest.mark.parametrize(
    ("make", "classes"),
    [(yolox, 1), (yolox_decoded, 1), (yolov6, 1), (ultralytics, 2), (nanodet, 2), (rfdetr, 91)],
)
def test_a_class_that_the_model_does_not_have_is_refused(
    make: Callable[[Path], Path], classes: int, tmp_path: Path
) -> None:
    path = make(tmp_path / "model.onnx")
    last = detector_card(path, person_class=classes - 1, golden=None)
    beyond = detector_card(path, person_class=classes, golden=None)

    open_detector(ModelFile(path, last), ONE_THREAD, DetectConfig())
    with pytest.raises(CardMismatch, match=f"person_class {classes}, and it has {classes} "):
        open_detector(ModelFile(path, beyond), ONE_THREAD, DetectConfig())


def test_bytes_that_are_no_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"<html>404</html>")

    with pytest.raises(ModelUnreadable, match="is no ONNX model"):
        opened(path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = yolox(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(ModelUnreadable, match="check that the file is whole"):
        opened(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"absent\.onnx"):
        opened(tmp_path / "absent.onnx")


def test_a_file_that_is_not_its_cards_is_refused(tmp_path: Path) -> None:
    path = yolox(tmp_path / "model.onnx")
    card = detector_card(path)
    yolo26(path)

    with pytest.raises(CardMismatch) as refused:
        open_detector(ModelFile(path, card), ONE_THREAD, DetectConfig())

    assert refused.value.field in ("bytes", "sha256")


def test_a_card_of_another_input_size_is_refused(tmp_path: Path) -> None:
    path = yolox(tmp_path / "model.onnx")
    card = detector_card(path, input={"height": 416, "width": 416})

    with pytest.raises(CardMismatch, match="takes 64×64 px, its card says 416×416"):
        open_detector(ModelFile(path, card), ONE_THREAD, DetectConfig())


def test_another_golden_output_than_the_cards_is_refused(tmp_path: Path) -> None:
    path = yolox(tmp_path / "model.onnx")
    card = detector_card(path, golden={"values": (0.5,) * 16, "tolerance": 0.01})

    with pytest.raises(CardMismatch, match="golden output is off by"):
        open_detector(ModelFile(path, card), ONE_THREAD, DetectConfig())


def blind_in_the_dark(path: Path) -> Path:
    """A detector whose boxes are nan for a black picture: it divides by the picture's mean."""
    columns = np.zeros((1, 6, 84), np.float32)
    columns[0, :5, 3] = CENTRES[0]
    score = np.arange(6).reshape(1, 6, 1) >= 4
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Div", ["mean", "mean"], ["one"]),
        helper.make_node("Mul", ["columns", "one"], ["scaled"]),
        helper.make_node("Where", ["is_score", "columns", "scaled"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "blind",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 84])],
        [numpy_helper.from_array(columns, "columns"), numpy_helper.from_array(score, "is_score")],
    )
    return save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def test_a_value_that_is_not_finite_is_said_not_used(tmp_path: Path) -> None:
    columns = np.zeros((1, 6, 84), np.float32)
    columns[0, :5, 3] = (np.nan, 30, 16, 40, 0.9)

    with pytest.raises(ModelMisbehaved, match="not finite"):
        opened(constant_detector(tmp_path / "model.onnx", {"output0": columns}))


def test_rows_of_nan_are_no_empty_picture(tmp_path: Path) -> None:
    rows = np.full((1, 300, 6), np.nan, np.float32)

    with pytest.raises(ModelMisbehaved, match="not finite"):
        opened(constant_detector(tmp_path / "model.onnx", {"output0": rows}))


def test_a_value_that_is_not_finite_on_a_later_frame_is_said(tmp_path: Path) -> None:
    detector = opened(blind_in_the_dark(tmp_path / "model.onnx"))

    with pytest.raises(ModelMisbehaved, match="not finite"):
        detector.detect(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("side", [8, 5000])
def test_a_picture_of_no_usual_size_is_refused(side: int, tmp_path: Path) -> None:
    path = constant_detector(
        tmp_path / "model.onnx",
        {"out": np.zeros((1, 300, 6), np.float32)},
        height=side,
        width=side,
    )

    with pytest.raises(WrongKind, match=f"takes {side}×{side} px"):
        opened(path)
