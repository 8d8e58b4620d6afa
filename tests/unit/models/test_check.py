"""Does `edge-models` say what a file is, write a true card, and choose and undo models?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from edge.config import DetectConfig, EmbedConfig
from edge.detect import open_detector
from edge.embed import open_embedder
from edge.model_pointer import Pointer, read_pointer
from edge.models_dir import find_model, model_at
from models.cli import app
from reid.card import read_card
from tests.unit.edge.tiny_models import (
    ONE_THREAD,
    constant_detector,
    detector_card,
    embedder_card,
    mean_embedder,
    yolox_rows,
)


def ran(*command: str) -> Result:
    return CliRunner().invoke(app, list(command))


def checked(path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    result = ran("check", str(path), "--json", "--seconds", "0", *options)
    return result.exit_code, json.loads(result.stdout)


def yolox(path: Path) -> Path:
    rows = yolox_rows([(16, 30, 16, 40, 0.9)], raw=True)
    return constant_detector(path, {"output": rows})


def facts(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {line["what"]: (line["value"], line["from"]) for line in report["does"]}


def test_a_detector_without_a_card_is_described(tmp_path: Path) -> None:
    code, report = checked(yolox(tmp_path / "d.onnx"))

    found = facts(report)
    assert (code, report["kind"], report["card_from"]) == (0, "detector", "")
    assert report["inputs"] == ["images 1×3×64×64 float32"]
    assert found["family"] == ("yolox", "names, shapes and values of one run")
    assert found["input"] == ("64×64 BGR 0..255, letterbox_top_left", "usual for yolox")
    assert found["golden output"][0] == "not checked"
    assert report["speed"][0]["runtime"] == "onnxruntime f32"
    assert report["speed"][0]["ms"] > 0


def test_a_classifier_that_says_so_is_no_embedder(tmp_path: Path) -> None:
    path = tmp_path / "c.onnx"
    model = onnx.load(mean_embedder(path))
    onnx.helper.set_model_props(model, {"author": "Ultralytics", "task": "classify"})
    onnx.save(model, path)

    result = ran("check", str(path))

    assert result.exit_code == 3
    assert "was made for classify, as it says itself" in result.stderr


def test_an_embedder_without_a_card_would_be_refused(tmp_path: Path) -> None:
    code, report = checked(mean_embedder(tmp_path / "e.onnx"))

    assert (code, report["kind"]) == (3, "embedder")
    assert "--write-card" in report["trouble"]


def test_a_written_card_makes_an_embedder_usable(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "e.onnx")

    code, report = checked(path, "--write-card", "--licence", "MIT", "--made-by", "us")

    card = read_card(tmp_path / "e.toml")
    assert code == 0
    assert facts(report)["golden output"][0] == "as on the card"
    assert (card.licence, card.commercial_use, card.dimension) == ("MIT", False, 8)
    assert card.space_id == f"e-{card.sha256[:8]}"
    assert "input guessed" in card.notes
    open_embedder(model_at(path), ONE_THREAD, EmbedConfig())


def test_what_is_said_about_the_input_stands_on_the_card(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "e.onnx")

    result = ran(
        *("check", str(path), "--write-card", "--colour", "bgr", "--range", "255"),
        *("--mean", "0,0,0", "--std", "1,1,1", "--space-id", "mine", "--seconds", "0"),
    )

    card = read_card(tmp_path / "e.toml")
    assert result.exit_code == 0
    assert card.input is not None
    assert (card.input.colour, card.input.range, card.input.mean) == ("bgr", 255, (0.0, 0.0, 0.0))
    assert (card.space_id, card.notes) == ("mine", "")


def test_a_written_card_keeps_a_detectors_family(tmp_path: Path) -> None:
    path = yolox(tmp_path / "d.onnx")

    code, report = checked(path, "--write-card")

    assert code == 0
    assert facts(report)["family"] == ("yolox", str(tmp_path / "d.toml"))
    detector = open_detector(model_at(path), ONE_THREAD, DetectConfig())
    found = detector.detect(np.zeros((64, 64, 3), np.uint8))
    np.testing.assert_allclose(found.boxes, [[8, 10, 24, 50]], atol=0.05)


@pytest.mark.parametrize(
    ("option", "says"),
    [(("--name", "my model (1)"), "name: "), (("--licence", ""), "licence: ")],
)
def test_a_card_that_would_be_none_is_refused_by_its_field(
    option: tuple[str, str], says: str, tmp_path: Path
) -> None:
    result = ran("check", str(yolox(tmp_path / "d.onnx")), "--write-card", *option)

    assert result.exit_code == 3
    assert says in result.stderr
    assert not (tmp_path / "d.toml").exists()


def test_an_embedder_of_no_usual_size_gets_no_card(tmp_path: Path) -> None:
    result = ran("check", str(mean_embedder(tmp_path / "e.onnx", height=8)), "--write-card")

    assert result.exit_code == 3
    assert "height: Input should be greater" in result.stderr
    assert not (tmp_path / "e.toml").exists()


def test_a_detector_that_found_nothing_gets_a_card_without_golden_values(tmp_path: Path) -> None:
    path = constant_detector(tmp_path / "d.onnx", {"out": np.zeros((1, 1, 0, 7), np.float32)})

    code, report = checked(path, "--write-card")

    assert (code, facts(report)["family"][0]) == (0, "omz-ssd")
    assert read_card(tmp_path / "d.toml").golden is None


def test_a_table_of_rows_is_no_vector_a_picture(tmp_path: Path) -> None:
    path = constant_detector(tmp_path / "d.onnx", {"out": np.zeros((300, 7), np.float32)})

    code, report = checked(path)

    assert (code, report["kind"]) == (3, "detector")
    assert "no detector family known here has outputs 300×7" in report["trouble"]


def test_an_ambiguous_detector_is_told_apart_by_the_flag(tmp_path: Path) -> None:
    path = constant_detector(tmp_path / "d.onnx", {"out": np.zeros((1, 300, 6), np.float32)})

    refused, report = checked(path)
    written, _ = checked(path, "--write-card", "--detector-family", "yolo26")

    assert (refused, written) == (3, 0)
    assert "could be yolo26 or yolo-rtdetr" in report["trouble"]
    assert read_card(tmp_path / "d.toml").family == "yolo26"


def test_a_card_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "e.onnx")
    embedder_card(path, name="first")

    kept = ran("check", str(path), "--write-card", "--name", "second")
    forced = ran("check", str(path), "--write-card", "--name", "second", "--force")

    assert (kept.exit_code, forced.exit_code) == (2, 0)
    assert "--force" in kept.stderr
    assert read_card(tmp_path / "e.toml").name == "second"


def test_a_file_that_is_not_its_cards_is_refused(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "e.onnx", seed=1)
    embedder_card(path)
    mean_embedder(path, seed=2)

    code, report = checked(path)

    assert code == 3
    assert "sha256" in report["trouble"]


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_what_is_no_model_is_refused_with_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    if content is not None:
        path.write_bytes(content)

    result = ran("check", str(path))

    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith(f"edge-models: model {path}: ")


@pytest.mark.parametrize("option", [("--mean", "1,2"), ("--colour", "red"), ("--range", "7")])
def test_a_wrong_option_is_named(option: tuple[str, str], tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "e.onnx")

    result = ran("check", str(path), "--write-card", *option)

    assert result.exit_code == 2
    assert not (tmp_path / "e.toml").exists()


def test_for_people_it_is_a_table(tmp_path: Path) -> None:
    result = ran("check", str(yolox(tmp_path / "d.onnx")), "--seconds", "0")

    assert result.exit_code == 0
    assert "IoU 0.65" in result.stdout
    assert "licence unknown" in result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "b")):
        embedder_card(mean_embedder(tmp_path / f"{name}.onnx", seed=seed), space_id=f"space-{name}")
    detector_card(yolox(tmp_path / "d.onnx"))
    return tmp_path


def test_a_model_is_chosen_and_the_choice_undone(folder: Path) -> None:
    at = ("--models-dir", str(folder))

    codes = [ran("use", name, *at).exit_code for name in ("a", "d", "b")]
    chosen = find_model("default", "embedder", folder).name
    undone = ran("rollback", *at)
    before = find_model("default", "embedder", folder).name
    other = ran("rollback", "detector", *at)

    assert codes == [0, 0, 0]
    assert (chosen, before) == ("b", "a")
    assert undone.stdout == "embedder: a from now on\n"
    assert other.stdout == "detector: default from now on\n"
    assert find_model("default", "embedder", folder).name == "a"


def test_a_rollback_to_a_model_that_has_gone_is_refused_and_changes_nothing(folder: Path) -> None:
    at = ("--models-dir", str(folder))
    for name in ("a", "b"):
        ran("use", name, *at)
    (folder / "a.onnx").unlink()

    undone = ran("rollback", *at)

    assert undone.exit_code == 3
    assert "no embedder of that name" in undone.stderr
    assert find_model("default", "embedder", folder).name == "b"


@pytest.mark.parametrize("given", ["{folder}/d.onnx", "d.onnx", "d"])
def test_a_file_of_the_folder_is_chosen_by_its_name(given: str, folder: Path) -> None:
    asked = given.format(folder=folder)

    result = ran("use", asked, "--models-dir", str(folder))

    assert result.exit_code == 0, result.stderr
    assert read_pointer(folder).chosen("detector") == "d"


def test_a_file_without_a_card_is_chosen_by_its_file_name(folder: Path) -> None:
    path = yolox(folder / "bare.onnx")

    result = ran("use", str(path), "--models-dir", str(folder))

    assert result.exit_code == 0, result.stderr
    assert read_pointer(folder).chosen("detector") == "bare.onnx"


def test_a_file_outside_the_folder_is_not_chosen(folder: Path) -> None:
    (folder / "models").mkdir()

    result = ran("use", str(folder / "d.onnx"), "--models-dir", str(folder / "models"))

    assert result.exit_code == 2
    assert "copy it and its card there" in result.stderr
    assert read_pointer(folder / "models") == Pointer()


def test_default_is_no_choice_of_a_model(folder: Path) -> None:
    result = ran("use", "default", "--models-dir", str(folder))

    assert result.exit_code == 2
    assert "edge-models rollback" in result.stderr


def test_a_pointer_that_is_not_ours_is_said_with_a_cure_that_works(folder: Path) -> None:
    at = ("--models-dir", str(folder))
    (folder / "current.toml").write_text("x = [")

    refused = ran("use", "d", *at)
    (folder / "current.toml").unlink()
    again = ran("use", "d", *at)

    assert (refused.exit_code, again.exit_code) == (3, 0)
    assert "delete it, then choose again" in refused.stderr


def test_a_model_that_the_box_would_refuse_is_not_chosen(folder: Path) -> None:
    path = folder / "a.onnx"
    path.write_bytes(path.read_bytes()[:-5])

    result = ran("use", "a", "--models-dir", str(folder))

    assert result.exit_code == 3
    assert "cut short" in result.stderr
    assert read_pointer(folder).chosen("embedder") is None


def test_an_unknown_name_is_refused(folder: Path) -> None:
    result = ran("use", "zebra", "--models-dir", str(folder))

    assert result.exit_code == 3
    assert "a, b" in result.stderr


def test_nothing_to_undo_is_said(folder: Path) -> None:
    result = ran("rollback", "--models-dir", str(folder))

    assert result.exit_code == 2
    assert "nothing to roll back" in result.stderr


def test_without_a_models_folder_the_flag_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_MODELS_DIR", raising=False)

    result = ran("use", "a")

    assert result.exit_code == 2
    assert "--models-dir DIR or set EDGE_MODELS_DIR" in result.stderr


def test_the_list_shows_installed_public_bare_and_broken(folder: Path) -> None:
    mean_embedder(folder / "bare.onnx")
    mean_embedder(folder / "broken.onnx").with_suffix(".toml").write_text("kind = 1")
    ran("use", "b", "--models-dir", str(folder))

    result = ran("list", "--models-dir", str(folder), "--json")
    for_people = ran("list", "--models-dir", str(folder))

    listed = json.loads(result.stdout)
    notes = {row["name"]: row["note"] for row in listed["models"]}
    assert notes["b"] == "default"
    assert notes["a"] == ""
    assert notes["yolox-nano"] == "edge-models pull yolox-nano"
    assert listed["without_card"] == [str(folder / "bare.onnx")]
    assert len(listed["broken_cards"]) == 1
    assert "edge-models pull yolox-nano" in for_people.stdout


def test_the_list_shows_no_damaged_file_as_the_default(folder: Path) -> None:
    ran("use", "b", "--models-dir", str(folder))
    (folder / "b.onnx").write_bytes((folder / "b.onnx").read_bytes()[:-20])
    swapped = bytearray((folder / "a.onnx").read_bytes())
    swapped[-1] ^= 1
    (folder / "a.onnx").write_bytes(swapped)

    result = ran("list", "--models-dir", str(folder), "--json")

    notes = {row["name"]: row["note"] for row in json.loads(result.stdout)["models"]}
    assert notes["b"].startswith("refused: cut short: ")
    assert notes["a"].startswith("refused: sha256 is ")


def test_a_folder_that_does_not_exist_is_no_empty_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_flag = ran("list", "--models-dir", str(tmp_path / "typo"))
    monkeypatch.setenv("EDGE_MODELS_DIR", str(tmp_path / "gone"))
    by_environment = ran("list")

    assert (by_flag.exit_code, by_environment.exit_code) == (2, 2)
    assert f"there is no folder {tmp_path / 'typo'}; check --models-dir" in by_flag.stderr
    assert "check EDGE_MODELS_DIR" in by_environment.stderr


@pytest.mark.shared
def test_the_public_files_are_known_by_their_checksum(shared_dir: Path) -> None:
    code, report = checked(shared_dir / "models" / "yolox_nano.onnx")

    assert code == 0
    assert report["card_from"] == "the catalogue of known public files"
