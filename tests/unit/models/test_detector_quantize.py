"""Does `edge-models quantize` make, judge, admit and refuse an int8 detector?"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from edge.config import DetectConfig, RuntimeConfig
from edge.detect.detector import open_detector
from edge.models_dir import model_at, variants_of
from models import detector_quantize
from models.cli import app
from models.detector import Detector
from models.detector_data import write_coco
from models.detector_export import write_detector_card, write_onnx
from tests.unit.edge.tiny_models import constant_detector, detector_card, yolox_rows
from tests.unit.models.detector_pictures import boxed_picture


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("exported") / "street.onnx"
    write_onnx(Detector().eval(), path, 64, 64)
    write_detector_card(path, "street", 64, 64, "research")
    return path


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    for path in exported.parent.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / exported.name


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "set.tar"
    write_coco(path, [boxed_picture(), boxed_picture((20, 20, 60, 150))])
    return path


def took(ms_float: float, ms_int8: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are the machine's; the decision on them is what is tried here."""
    monkeypatch.setattr(
        detector_quantize,
        "processor_ms",
        lambda path: ms_int8 if "int8" in path.name else ms_float,
    )


def quantized(model: Path, data: Path, *options: str) -> Result:
    command = ["quantize", str(model), "--data", str(data), "--protocol", "coco-person"]
    return CliRunner().invoke(app, [*command, *options])


def test_a_variant_that_is_quicker_and_no_worse_lands_beside_its_model(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took(10.0, 5.0, monkeypatch)

    done = quantized(model, data, "--crops", "2")

    made = model_at(model.with_name("street_int8.onnx"))
    opened = open_detector(
        made, RuntimeConfig(threads=1, backend="onnxruntime"), DetectConfig()
    )  # checks sha256 and golden values
    assert done.exit_code == 0
    assert "float 10.0 ms, int8 (u8s8) 5.0 ms" in done.stdout
    assert "recall at precision 0.9" in done.stdout
    assert (opened.variant_id, made.card.parent if made.card else "") == ("int8", "street")
    assert [one.name for one in variants_of(model_at(model), model.parent)] == ["street_int8"]


def test_a_variant_that_is_hardly_quicker_leaves_no_file(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took(10.0, 9.9, monkeypatch)

    done = quantized(model, data, "--out", str(model.with_name("other_int8.onnx")))

    assert done.exit_code == 3
    assert "must be 1.15 times as quick; nothing was written" in done.stderr
    assert sorted(path.name for path in model.parent.glob("*.onnx")) == ["street.onnx"]


def test_a_recipe_where_the_variants_card_belongs_stays(model: Path, data: Path) -> None:
    recipe = model.with_name("street_int8.toml")
    recipe.write_text('kind = "detector"\n')

    done = quantized(model, data)

    assert done.exit_code == 3
    assert "street_int8.toml: lies where the card of street_int8.onnx belongs" in done.stderr
    assert recipe.read_text() == 'kind = "detector"\n'


def test_a_detector_that_is_not_ours_is_refused(tmp_path: Path, data: Path) -> None:
    rows = yolox_rows([(16, 30, 16, 40, 0.9)], raw=True)
    path = constant_detector(tmp_path / "theirs.onnx", {"output": rows})

    bare = quantized(path, data)
    detector_card(path)
    carded = quantized(path, data)

    assert (bare.exit_code, carded.exit_code) == (3, 3)
    assert "has no card" in bare.stderr
    assert "no export of our detector" in carded.stderr


def test_data_that_cannot_be_read_and_a_scheme_of_no_kind_are_usage(
    model: Path, tmp_path: Path, data: Path
) -> None:
    missing = quantized(model, tmp_path / "none.tar")
    strange = quantized(model, data, "--scheme", "int4")
    foreign = quantized(model, data, "--bf16")
    reader = quantized(model, data, "--calibration-protocol", "folder")

    assert [one.exit_code for one in (missing, strange, foreign, reader)] == [2] * 4
    assert "none.tar" in missing.stderr
    assert "for embedders only" in foreign.stderr
    assert "for embedders only" in reader.stderr
