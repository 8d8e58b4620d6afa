"""Does a YOLO checkpoint become a model with a card, and is what fails said?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

from edge.detect.recognise import FAMILIES
from edge.models_dir import model_at
from models.cli import app
from models.export_yolo import YoloExportError, export_yolo
from reid.card import sha256_of
from reid.model_errors import FamilyUnknown
from tests.conftest import ROOT, skip_or_fail
from tests.unit.edge.tiny_models import constant_detector


def fake_ultralytics(
    exported: Path | None, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, object]]:
    """Stands in for a package of several hundred MB under another licence; the options asked for.

    Writes beside the checkpoint, as the original does; fails as the original does.
    """
    asked: list[dict[str, object]] = []

    class YOLO:
        def __init__(self, path: str, task: str) -> None:
            self.path = Path(path)

        def export(self, **options: object) -> str:
            asked.append(options)
            if exported is None:
                raise RuntimeError("Weights only load failed")
            return str(shutil.copy(exported, self.path.with_suffix(".onnx")))

    module = ModuleType("ultralytics")
    module.YOLO = YOLO  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ultralytics", module)
    return asked


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "yolo.pt").write_bytes(b"weights")
    return folder / "yolo.pt"


def test_a_checkpoint_becomes_a_model_with_its_licence(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = np.zeros((1, 6, 84), np.float32)
    fake_ultralytics(constant_detector(tmp_path / "made", {"output0": columns}), monkeypatch)

    card = export_yolo(checkpoint, tmp_path / "models" / "street.onnx")

    model = model_at(tmp_path / "models" / "street.onnx")
    assert model.card == card
    assert (card.name, card.family, card.commercial_use) == ("street", "ultralytics", False)
    assert card.licence.startswith("AGPL-3.0")
    assert card.sha256 == sha256_of(model.read())
    assert [path.name for path in checkpoint.parent.iterdir()] == ["yolo.pt"]


REAL = """
import sys
from pathlib import Path
from ultralytics import YOLO
from models.export_yolo import export_yolo
for name, end_to_end in (("yolov8n", True), ("yolo26n", True), ("yolo26n", False)):
    made = Path(sys.argv[1]) / f"{name}.pt"
    YOLO(f"{name}.yaml", task="detect").save(str(made))
    print(export_yolo(made, made.with_suffix(".onnx"), size=128, end_to_end=end_to_end).family)
"""


@pytest.mark.reference
@pytest.mark.timeout(600)
def test_models_of_ultralytics_itself_are_exported_and_read(tmp_path: Path) -> None:
    python = os.environ.get("REID_ULTRALYTICS")
    if not python:
        skip_or_fail("REID_ULTRALYTICS names no Python that has the extra export: make reference")

    done = subprocess.run(
        [str(python), "-c", REAL, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "YOLO_CONFIG_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    families = [line for line in done.stdout.splitlines() if line in FAMILIES]
    assert families == ["ultralytics", "yolo26", "ultralytics"]


def test_the_head_is_chosen_by_a_flag(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = np.zeros((1, 6, 84), np.float32)
    asked = fake_ultralytics(
        constant_detector(tmp_path / "made", {"output0": columns}), monkeypatch
    )
    command = ["export", "--yolo", str(checkpoint), str(tmp_path / "street.onnx")]

    CliRunner().invoke(app, command)
    CliRunner().invoke(app, [*command, "--no-end-to-end"])

    assert [options["nms"] for options in asked] == [False, None]


def test_a_result_that_the_box_cannot_read_is_not_left_behind(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {name: np.zeros((1, 3), np.float32) for name in ("a", "b")}
    fake_ultralytics(constant_detector(tmp_path / "made", two), monkeypatch)

    with pytest.raises(FamilyUnknown):
        export_yolo(checkpoint, tmp_path / "models" / "street.onnx")

    assert not (tmp_path / "models").exists()


def test_the_missing_extra_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)

    with pytest.raises(YoloExportError, match=r"pip install 'edge-reid\[export\]'"):
        export_yolo(checkpoint, tmp_path / "street.onnx")


def test_a_checkpoint_that_cannot_be_read_is_said(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ultralytics(None, monkeypatch)

    with pytest.raises(YoloExportError, match="Weights only load failed"):
        export_yolo(checkpoint, tmp_path / "street.onnx")


def test_a_missing_checkpoint_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(YoloExportError, match="there is no such file"):
        export_yolo(tmp_path / "yolo11n.pt", tmp_path / "street.onnx")


def test_the_command_exports_and_says_the_licence(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = np.zeros((1, 6, 84), np.float32)
    fake_ultralytics(constant_detector(tmp_path / "made", {"output0": columns}), monkeypatch)
    out = tmp_path / "street.onnx"

    done = CliRunner().invoke(app, ["export", "--yolo", str(checkpoint), str(out)])
    failed = CliRunner().invoke(app, ["export", "--yolo", str(tmp_path / "no.pt"), str(out)])

    assert (done.exit_code, failed.exit_code) == (0, 3)
    assert "family ultralytics, detector street: AGPL-3.0" in done.stdout
    assert "there is no such file" in failed.stderr
