"""Is a detector judged by what it finds, from the command line too?"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from edge.detect import Detector
from models.cli import app
from models.detector_data import DatasetError, Picture, write_coco
from models.evaluate_detector import evaluate
from tests.unit.models.detector_pictures import boxed_picture

SIDE = 64
CELLS = 84  # 8·8 + 4·4 + 2·2


def knowing_detector(path: Path, *boxes: tuple[float, float, float, float, float]) -> Path:
    """A detector that says the same boxes (cx, cy, w, h, score) of every picture."""
    rows = np.zeros((1, CELLS, 6), np.float32)
    rows[0, :, :4] = (60.0, 60.0, 4.0, 4.0)
    for row, box in zip(rows[0], boxes, strict=False):
        row[:5] = box
        row[5] = 1.0
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nought"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "knowing",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, CELLS, 6])],
        [
            numpy_helper.from_array(rows, "rows"),
            numpy_helper.from_array(np.zeros(1, np.float32), "nought"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures of 128 pixels, one person each, 80 pixels tall, at the same place."""
    path = tmp_path / "people.tar"
    write_coco(path, [boxed_picture((40, 20, 80, 100), size=(128, 128))] * 2)
    return path


def test_finding_everybody_gives_full_marks_in_their_band(tmp_path: Path, data: Path) -> None:
    model = knowing_detector(tmp_path / "right.onnx", (30.0, 30.0, 20.0, 40.0, 0.9))

    found = evaluate(model, data, progress=False)

    bands = found["bands"]
    assert isinstance(bands, dict)
    assert (found["images"], found["people"]) == (2, 2)
    assert (found["recall"], found["ap50"]) == (1.0, 1.0)
    assert (bands["medium"]["recall"], bands["small"]["people"]) == (1.0, 0)
    assert found["family"] == "yolox-decoded"


def test_finding_somebody_elsewhere_gives_none(tmp_path: Path, data: Path) -> None:
    model = knowing_detector(tmp_path / "wrong.onnx", (10.0, 50.0, 10.0, 20.0, 0.9))

    found = evaluate(model, data, progress=False)

    assert (found["recall"], found["ap50"]) == (0.0, 0.0)


def test_pictures_of_another_size_than_their_list_says_are_counted_and_said(
    tmp_path: Path,
) -> None:
    right = boxed_picture((40, 20, 80, 100), size=(128, 128))
    path = tmp_path / "scaled.tar"
    write_coco(path, [right, dataclasses.replace(right, width=256, height=256)])
    model = knowing_detector(tmp_path / "d.onnx", (30.0, 30.0, 20.0, 40.0, 0.9))

    found = evaluate(model, path, progress=False)
    result = CliRunner().invoke(
        app, ["evaluate", str(model), "--data", str(path), "--protocol", "coco-person"]
    )

    assert found["other_size"] == 1
    assert "1 of 2 pictures have another size" in " ".join(result.stderr.split())


def test_the_command_prints_one_json_object(tmp_path: Path, data: Path) -> None:
    model = knowing_detector(tmp_path / "right.onnx", (30.0, 30.0, 20.0, 40.0, 0.9))
    command = ["evaluate", str(model), "--data", str(data), "--protocol", "coco-person", "--json"]

    done = CliRunner().invoke(app, command)

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.strip().splitlines()[-1])["ap50"] == 1.0


@pytest.mark.parametrize(("missing", "code"), [("model", 3), ("data", 2)])
def test_the_command_says_which_file_cannot_be_used(
    tmp_path: Path, data: Path, missing: str, code: int
) -> None:
    model = knowing_detector(tmp_path / "right.onnx", (30.0, 30.0, 20.0, 40.0, 0.9))
    gone = tmp_path / "gone"
    paths = {"model": str(model), "data": str(data), missing: str(gone)}
    command = ["evaluate", paths["model"], "--data", paths["data"], "--protocol", "coco-person"]

    done = CliRunner().invoke(app, command)

    assert done.exit_code == code
    assert "gone" in done.output


def test_the_command_judges_only_what_was_held_out_when_asked_to(tmp_path: Path) -> None:
    data = tmp_path / "five.tar"
    write_coco(data, [boxed_picture((40, 20, 80, 100), size=(128, 128))] * 5)
    model = knowing_detector(tmp_path / "d.onnx", (30.0, 30.0, 20.0, 40.0, 0.9))
    at = ["evaluate", str(model), "--data", str(data), "--protocol", "coco-person", "--json"]

    whole, held_out = (
        json.loads(CliRunner().invoke(app, [*at, *more]).stdout) for more in ([], ["--held-out"])
    )

    assert (whole["images"], whole["part"]) == (5, "all")
    assert (held_out["images"], held_out["part"]) == (1, "held-out")


def test_an_unknown_protocol_names_the_one_for_detectors(tmp_path: Path, data: Path) -> None:
    command = ["evaluate", str(tmp_path / "d.onnx"), "--data", str(data), "--protocol", "coco"]

    done = CliRunner().invoke(app, command)

    assert done.exit_code == 2
    assert "coco-person" in done.stderr


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    model = knowing_detector(tmp_path / "right.onnx")
    (tmp_path / "empty").mkdir()

    with pytest.raises(DatasetError, match=r"needs one annotations\.json.*has none"):
        evaluate(model, tmp_path / "empty", progress=False)


def test_a_set_without_pictures_is_refused(tmp_path: Path) -> None:
    model = knowing_detector(tmp_path / "right.onnx")
    write_coco(tmp_path / "none.tar", [])

    with pytest.raises(DatasetError, match="holds no pictures to judge by"):
        evaluate(model, tmp_path / "none.tar", progress=False)


def test_a_set_without_people_is_refused(tmp_path: Path) -> None:
    model = knowing_detector(tmp_path / "right.onnx")
    empty = dataclasses.replace(
        boxed_picture((40, 20, 80, 100)), boxes=np.zeros((0, 4), np.float32)
    )
    write_coco(tmp_path / "street.tar", [empty])

    with pytest.raises(DatasetError, match="no person is labelled in its 1 pictures"):
        evaluate(model, tmp_path / "street.tar", progress=False)


def test_pictures_are_decoded_one_at_a_time(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = knowing_detector(tmp_path / "right.onnx", (30.0, 30.0, 20.0, 40.0, 0.9))
    order: list[str] = []
    decode, detect = Picture.decode, Detector.detect
    monkeypatch.setattr(Picture, "decode", lambda self: order.append("decoded") or decode(self))
    monkeypatch.setattr(
        Detector, "detect", lambda self, image: order.append("seen") or detect(self, image)
    )

    evaluate(model, data, progress=False)

    assert order == ["decoded", "seen"] * 2
