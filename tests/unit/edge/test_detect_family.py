"""Is a detector's family found by flag, card, note, names and values, and never guessed?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge.config import DetectConfig
from edge.detect import open_detector
from reid.card import ModelFile, read_card
from reid.model_errors import FamilyAmbiguous, FamilyUnknown
from tests.unit.edge.detector_models import (
    CENTRES,
    opened,
    rfdetr,
    yolo26,
    yolov6,
    yolox,
    yolox_decoded,
)
from tests.unit.edge.tiny_models import (
    ONE_THREAD,
    constant_detector,
    detector_card,
    echo_detector,
    mean_embedder,
    save,
    yolox_rows,
)


def renamed(make: Callable[[Path], Path], path: Path, name: str) -> Path:
    """A model of one output, with another name for it."""
    model = onnx.load(make(path))
    old = model.graph.output[0].name
    model.graph.output[0].name = name
    for node in model.graph.node:
        node.output[:] = [name if output == old else output for output in node.output]
    return save(model, path)


def test_the_flag_wins_over_the_card_and_the_card_over_the_values(tmp_path: Path) -> None:
    path = yolo26(tmp_path / "model.onnx")
    detector_card(path, family="yolo-rtdetr")
    model = ModelFile(path, read_card(tmp_path / "model.toml"))

    by_card = open_detector(model, ONE_THREAD, DetectConfig())
    by_flag = open_detector(model, ONE_THREAD, DetectConfig(family="yolo26"))

    assert (by_card.family, by_card.family_from) == ("yolo-rtdetr", "card")
    assert (by_flag.family, by_flag.family_from) == ("yolo26", "flag")


def test_two_families_that_fit_are_refused_with_both_named(tmp_path: Path) -> None:
    path = constant_detector(tmp_path / "model.onnx", {"out": np.zeros((1, 300, 6), np.float32)})

    with pytest.raises(FamilyAmbiguous) as refused:
        opened(path)

    assert refused.value.candidates == ("yolo26", "yolo-rtdetr")
    assert "could be yolo26 or yolo-rtdetr" in str(refused.value)
    assert "--detector-family" in str(refused.value)


@pytest.mark.parametrize(
    ("make", "name", "candidates"),
    [
        (yolov6, "output", "yolov6 or yolox or yolox-decoded"),  # YOLOX's name, YOLOv6's ones
        (lambda path, name: renamed(yolox, path, name), "outputs", "yolox or yolov6"),
        (lambda path, name: renamed(yolox_decoded, path, name), "outputs", "decoded or yolov6"),
    ],
)
def test_a_name_of_one_family_over_values_of_another_is_refused_with_both_named(
    make: Callable[..., Path], name: str, candidates: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "model.onnx", name=name)

    with pytest.raises(FamilyAmbiguous, match=candidates) as refused:
        opened(path)

    assert f"its output is called {name}" in str(refused.value)
    for family in refused.value.candidates:
        assert opened(path, family=family).family_from == "flag"


def test_names_that_no_exporter_here_gives_leave_it_to_the_values(tmp_path: Path) -> None:
    assert opened(renamed(yolox, tmp_path / "a.onnx", "pred")).family == "yolox"
    assert opened(renamed(yolov6, tmp_path / "b.onnx", "pred")).family == "yolov6"


def test_outputs_named_as_transformers_names_them_are_no_rfdetr(tmp_path: Path) -> None:
    path = rfdetr(tmp_path / "model.onnx", names=("pred_boxes", "logits"))

    with pytest.raises(FamilyUnknown, match="Transformers") as refused:
        opened(path)

    assert "--detector-family rfdetr" in str(refused.value)
    assert opened(path, family="rfdetr").family == "rfdetr"


EMPTY_ROWS = np.zeros((1, 300, 6), np.float32)


INSIDE_OUT = np.array([9.0, 9.0, 4.0, 4.0, 0.01, 0.0], np.float32) * np.ones((1, 300, 1), "f4")


@pytest.mark.parametrize("rows", [EMPTY_ROWS, INSIDE_OUT])
@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"head": "Detect", "end2end": "True"}, "yolo26"),
        ({"head": "v10Detect"}, "yolo26"),
        ({"head": "RTDETRDecoder"}, "yolo-rtdetr"),
        ({"end2end": "True"}, "yolo26"),  # before it wrote the head
    ],
)
def test_what_ultralytics_wrote_into_the_file_decides_where_values_cannot(
    rows: np.ndarray, metadata: dict[str, str], family: str, tmp_path: Path
) -> None:
    path = constant_detector(
        tmp_path / "model.onnx",
        {"output0": rows},
        metadata={"author": "Ultralytics", "task": "detect", **metadata},
    )

    detector = opened(path)

    assert (detector.family, detector.family_from) == (family, "metadata")


def test_a_note_of_the_exporter_that_the_shapes_deny_is_refused(tmp_path: Path) -> None:
    path = constant_detector(
        tmp_path / "model.onnx",
        {"output": yolox_rows(CENTRES, raw=True)},
        metadata={"author": "Ultralytics", "head": "Detect", "task": "detect"},
    )

    with pytest.raises(FamilyUnknown, match=r"note is of ultralytics or yolo26.*--detector-family"):
        opened(path)
    assert opened(path, family="yolox").family_from == "flag"


def test_boxes_that_begin_outside_the_picture_are_corners(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, :, :4] = (-8, -8, 24, 24)  # all the same, as untrained weights give
    path = constant_detector(tmp_path / "model.onnx", {"out": rows})

    assert opened(path).family == "yolo26"


def test_numbers_in_place_of_class_names_are_no_names(tmp_path: Path) -> None:
    path = constant_detector(
        tmp_path / "model.onnx",
        {"output0": np.zeros((1, 6, 84), np.float32)},
        metadata={"names": "{0: '0', 1: '1'}"},
    )

    assert opened(path).family == "ultralytics"


def test_an_output_that_no_family_has_is_refused_with_its_shape(tmp_path: Path) -> None:
    path = constant_detector(tmp_path / "model.onnx", {"out": np.zeros((1, 1000), np.float32)})

    with pytest.raises(FamilyUnknown, match=r"outputs 1×1000 for an input of 64×64"):
        opened(path)


def test_a_family_that_the_shapes_deny_is_refused(tmp_path: Path) -> None:
    path = yolo26(tmp_path / "model.onnx")

    with pytest.raises(FamilyUnknown, match="said to be yolox, yet its outputs are 1×300×6"):
        opened(path, family="yolox")


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = yolox(tmp_path / "model.onnx")

    with pytest.raises(FamilyUnknown, match="no family 'yolo99'; take one of yolox"):
        opened(path, family="yolo99")


def test_an_embedder_is_no_detector(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "model.onnx")

    with pytest.raises(FamilyUnknown, match="no detector family"):
        opened(path)


def test_no_rows_on_the_golden_picture_fit_every_family_of_their_shape(tmp_path: Path) -> None:
    rows = constant_detector(tmp_path / "rows.onnx", {"out": np.zeros((1, 0, 6), np.float32)})
    queries = constant_detector(
        tmp_path / "queries.onnx",
        {"dets": np.zeros((1, 0, 4), np.float32), "labels": np.zeros((1, 0, 91), np.float32)},
    )

    with pytest.raises(FamilyAmbiguous, match="yolo26 or yolo-rtdetr"):
        opened(rows)
    assert opened(queries).family == "rfdetr"


def test_an_output_that_is_no_array_is_refused(tmp_path: Path) -> None:
    shape = [1, 3, 64, 64]
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["images"], ["out"])],
        "sequence",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_sequence_value_info("out", TensorProto.FLOAT, None)],
    )
    path = save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]),
        tmp_path / "model.onnx",
    )

    with pytest.raises(FamilyUnknown, match="no array of numbers"):
        opened(path)


def test_a_model_that_gives_its_picture_back_is_no_detector(tmp_path: Path) -> None:
    path = echo_detector(tmp_path / "model.onnx")

    with pytest.raises(FamilyUnknown, match="1×3×64×64"):
        opened(path)


@pytest.mark.shared
def test_yolox_nano_is_recognised_without_its_card(shared_dir: Path) -> None:
    detector = open_detector(
        ModelFile(shared_dir / "models" / "yolox_nano.onnx", None), ONE_THREAD, DetectConfig()
    )

    assert (detector.family, detector.input.height) == ("yolox", 416)
