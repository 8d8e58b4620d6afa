"""Does each family of detectors give back the people that its output holds, and who is refused?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.config import DetectConfig
from edge.detect import Detector, open_detector
from edge.detect.nanodet import STRIDES as NANODET_STRIDES
from edge.types import Detections
from reid.card import ModelFile, read_card
from reid.model_errors import (
    CardMismatch,
    FamilyAmbiguous,
    FamilyUnknown,
    ModelMisbehaved,
    ModelNotFound,
    ModelUnreadable,
    WrongKind,
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

# Two people in a picture of 64×64: x1 y1 x2 y2 score. And one of another class, to be left out.
PEOPLE = np.array([[8, 10, 24, 50, 0.9], [36, 8, 50, 44, 0.7]], np.float32)
CENTRES = np.array([[16, 30, 16, 40, 0.9], [43, 26, 14, 36, 0.7]], np.float32)


def opened(path: Path, **detect: object) -> Detector:
    return open_detector(path, ONE_THREAD, DetectConfig.model_validate(detect))


def renamed(make: Callable[[Path], Path], path: Path, name: str) -> Path:
    """A model of one output, with another name for it."""
    model = onnx.load(make(path))
    old = model.graph.output[0].name
    model.graph.output[0].name = name
    for node in model.graph.node:
        node.output[:] = [name if output == old else output for output in node.output]
    return save(model, path)


def looked(path: Path, **detect: object) -> Detections:
    return opened(path, **detect).detect(np.zeros((64, 64, 3), np.uint8))


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


@pytest.mark.parametrize("task", ["segment", "obb", "classify"])
def test_a_model_made_for_another_task_is_refused_with_it(task: str, tmp_path: Path) -> None:
    path = constant_detector(
        tmp_path / "model.onnx",
        {"output0": np.zeros((1, 6, 84), np.float32)},
        metadata={"author": "Ultralytics", "task": task},
    )

    with pytest.raises(WrongKind, match=f"made for {task}"):
        opened(path)


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8, 16, 32, 64)])
def test_an_ultralytics_model_with_a_level_more_is_read(
    strides: tuple[int, ...], tmp_path: Path
) -> None:
    cells = sum((64 // stride) ** 2 for stride in strides)
    columns = np.zeros((1, 5, cells), np.float32)
    columns[0, :, :2] = CENTRES.T
    path = constant_detector(tmp_path / "model.onnx", {"output0": columns})

    np.testing.assert_allclose(looked(path).boxes, PEOPLE[:, :4], atol=0.05)


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


def test_an_embedder_is_no_detector(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "model.onnx")

    with pytest.raises(FamilyUnknown, match="no detector family"):
        opened(path)


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
