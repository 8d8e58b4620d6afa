"""Export and cards: what is written computes the same, and only the file of the card is taken."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from edge.config import DetectConfig, EmbedConfig, RuntimeConfig
from edge.detect.detector import open_detector
from edge.embed import open_embedder
from models import checkpoints
from models.cli import app
from models.describe import describe, input_spec, space_of, write_model
from models.export import ExportError, to_onnx
from models.licence import all_sources, refuse_commercial_use
from models.osnet import Architecture, OSNet
from models.ranking import row_cosines
from reid.card import ModelFile, card_path, card_text, read_card, sha256_of
from reid.golden import golden_image
from reid.model_errors import CardInvalid, CardMismatch
from tests.support.disk import files_of_at_most

SIZE = (64, 32)


def test_the_box_embeds_what_torch_computes(exported: Path) -> None:
    card = read_card(card_path(exported))
    crops = [golden_image(h, w, seed) for seed, (h, w) in enumerate([(64, 32), (90, 40), (50, 30)])]

    embedder = open_embedder(ModelFile(exported, card), RuntimeConfig(threads=1), EmbedConfig())
    rows = embedder.embed(crops)

    spec = card.input
    assert spec is not None
    inputs = np.empty((len(crops), 3, 64, 32), np.float32)
    for index, crop in enumerate(crops):
        rgb = cv2.resize(crop, (32, 64), interpolation=cv2.INTER_LINEAR)[:, :, ::-1] / 255.0
        inputs[index] = ((rgb - spec.mean) / spec.std).transpose(2, 0, 1)
    with torch.inference_mode():
        wanted = checkpoints.load(exported.with_name("last.pth"))(torch.from_numpy(inputs)).numpy()
    assert row_cosines(rows, wanted).min() > 0.9999


def test_the_card_states_what_the_run_knows(exported: Path) -> None:
    card = read_card(card_path(exported))

    assert card.training_data == ("drawn:train",)
    assert (card.kind, card.name, card.variant_id) == ("embedder", "small", "float32")
    assert card.space_id is not None
    assert card.space_id.startswith("small-")
    assert card.bytes == exported.stat().st_size
    assert not card.commercial_use


def test_the_file_carries_no_trace_of_the_machine_that_made_it(exported: Path) -> None:
    content = exported.read_bytes()

    assert b"/models/osnet.py" not in content
    assert str(Path.cwd()).encode() not in content
    assert not onnx.load(exported).metadata_props


def test_any_number_of_crops_is_taken(exported: Path) -> None:
    shape = onnx.load(exported).graph.input[0].type.tensor_type.shape

    assert shape.dim[0].dim_param
    assert [d.dim_value for d in shape.dim][1:] == [3, 64, 32]


RECIPE = 'kind = "osnet"\n'


@pytest.mark.parametrize(
    "command", [["export"], ["quantize", "--data", "d", "--protocol", "market1501", "--out"]]
)
def test_a_recipe_of_the_models_name_is_not_taken_for_its_card(
    command: list[str], exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    checkpoint, out = str(exported.with_name("last.pth")), str(tmp_path / "small.onnx")
    first, *flags = command

    result = CliRunner().invoke(app, [first, checkpoint, *flags, out])

    assert result.exit_code == 3
    assert "small.toml: lies where the card of small.onnx belongs" in result.stderr
    assert "move it away" in result.stderr
    assert (tmp_path / "small.toml").read_text() == RECIPE
    assert not (tmp_path / "small.onnx").exists()


def test_a_model_and_its_card_may_be_written_anew_but_nothing_else_is_replaced(
    exported: Path, tmp_path: Path
) -> None:
    card, path = read_card(card_path(exported)), tmp_path / "one.onnx"
    write_model(b"x", card, path)

    write_model(b"y", card, path)
    card_path(path).write_text(RECIPE)
    with pytest.raises(CardInvalid, match="is no card"):
        write_model(b"z", card, path)

    assert path.read_bytes() == b"y"
    assert card_path(path).read_text() == RECIPE


def _checkpoint(path: Path, *trained_on: str, **architecture: Any) -> Path:
    network = OSNet(Architecture(width=0.25, **architecture))
    checkpoints.save(path, network, trained_on=list(trained_on))
    return path


@pytest.mark.parametrize(
    ("trained_on", "flags", "say"),
    [
        (["market1501:train", "rendered:train"], [], "trained on market1501:train: for research"),
        (["CUHK03-NP (all)"], [], "trained on CUHK03-NP"),
        (["market1501:train"], ["--trained-on", "folder:train"], "trained on market1501:train"),
        (["old.pth: people not known"], [], "people not known: for research only, or not known"),
        ([], [], "does not say whom it was trained on"),
    ],
)
def test_weights_of_research_data_or_of_unknown_people_get_no_commercial_card(
    trained_on: list[str], flags: list[str], say: str, tmp_path: Path
) -> None:
    path = _checkpoint(tmp_path / "last.pth", *trained_on)
    command = ["export", str(path), str(tmp_path / "x.onnx"), "--commercial-use", *flags]

    result = CliRunner().invoke(app, [*command, "--licence", "MIT"])

    assert result.exit_code == 2
    assert say in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]


def test_a_card_that_allows_commercial_use_does_not_say_research_only(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "last.pth", "rendered:train")

    result = CliRunner().invoke(
        app, ["export", str(path), str(tmp_path / "x.onnx"), "--commercial-use"]
    )

    assert result.exit_code == 2
    assert "give --licence too" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("sources", "own"),
    [
        (["rendered:train"], ["rendered:train"]),
        (["folder:train"], []),
        (["our staff, with their consent"], ["old.pth: people not known"]),
    ],
)
def test_who_trained_on_open_pictures_or_his_own_may_allow_commercial_use(
    sources: list[str], own: list[str], tmp_path: Path
) -> None:
    refuse_commercial_use(tmp_path / "last.pth", all_sources(own, sources))


def test_people_that_a_checkpoint_names_stay_on_the_card(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "last.pth", "market1501:train")
    out = tmp_path / "x.onnx"

    result = CliRunner().invoke(app, ["export", str(path), str(out), "--trained-on", "mine:train"])

    assert result.exit_code == 0, result.stderr
    assert read_card(card_path(out)).training_data == ("market1501:train", "mine:train")


def test_a_size_that_leaves_ain_one_cell_is_refused_with_the_least(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "ain.pth", "rendered:train", normalisation="ain")
    command = ["export", str(path), str(tmp_path / "x.onnx"), "--height", "16", "--width"]

    result = CliRunner().invoke(app, [*command, "16"])

    assert result.exit_code == 2
    assert "give one side at least 32 px, the other at least 16" in result.stderr
    with torch.inference_mode():
        assert checkpoints.load(path)(torch.zeros(1, 3, 16, 32)).isfinite().all()


@pytest.mark.parametrize("full", ["one.onnx", "one.toml"])
def test_on_a_full_disk_no_half_model_and_none_without_a_card_is_left(
    full: str, exported: Path, tmp_path: Path
) -> None:
    card = read_card(card_path(exported))
    room = len(card_text(card)) - 1
    content = b"x" * (room + 1 if full == "one.onnx" else room)

    with files_of_at_most(room), pytest.raises(OSError, match="File too large") as error:
        write_model(content, card, tmp_path / "one.onnx")

    assert error.value.filename == str(tmp_path / full)

    assert list(tmp_path.iterdir()) == []


def test_normalisation_inside_gives_the_same_vectors(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "inside.onnx"
    content = to_onnx(checkpoints.load(exported.with_name("last.pth")), *SIZE, inside=True)
    card = describe(
        content,
        path,
        name="inside",
        spec=input_spec(*SIZE, inside=True),
        space_id=space_of("same", content),
        variant_id="float32",
        training_data=(),
    )
    write_model(content, card, path)

    rows = []
    for file in (exported, path):
        model = ModelFile(file, read_card(card_path(file)))
        embedder = open_embedder(model, RuntimeConfig(threads=1), EmbedConfig())
        rows.append(embedder.embed([golden_image(80, 40, 5)]))

    assert card.input is not None
    assert card.input.range == 255
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-4)


def test_a_network_that_exports_to_something_else_is_refused(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SimpleNamespace(model_proto=onnx.load(exported))
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: other)
    torch.manual_seed(6)
    network = OSNet(Architecture(width=0.25, neck=True))

    with pytest.raises(ExportError, match=r"at least 0\.9999"):
        to_onnx(network, *SIZE)


def test_a_truncated_download_is_refused(exported: Path, tmp_path: Path) -> None:
    cut = tmp_path / exported.name
    cut.write_bytes(exported.read_bytes()[:-100])

    with pytest.raises(CardMismatch, match="cut short"):
        open_embedder(
            ModelFile(cut, read_card(card_path(exported))), RuntimeConfig(threads=1), EmbedConfig()
        )


def test_another_models_card_is_refused(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    largest = max(model.graph.initializer, key=lambda item: len(item.raw_data))
    turned = -onnx.numpy_helper.to_array(largest)
    largest.CopyFrom(onnx.numpy_helper.from_array(turned, largest.name))
    content = model.SerializeToString()
    other = tmp_path / exported.name
    other.write_bytes(content)
    card = read_card(card_path(exported))
    disguised = card.model_copy(update={"sha256": sha256_of(content), "bytes": len(content)})

    with pytest.raises(CardMismatch, match=r"sha256|bytes"):
        open_embedder(ModelFile(other, card), RuntimeConfig(threads=1), EmbedConfig())
    with pytest.raises(CardMismatch, match="golden"):
        open_embedder(ModelFile(other, disguised), RuntimeConfig(threads=1), EmbedConfig())


@pytest.mark.parametrize(
    "card",
    sorted((Path(__file__).parents[3] / "models" / "weights").glob("*.toml")),
    ids=lambda path: path.stem,
)
def test_committed_weights_are_what_their_cards_say(card: Path) -> None:
    fields = tomllib.loads(card.read_text())
    model = ModelFile(card.with_name(fields["file"]), read_card(card))

    if fields["kind"] == "embedder":
        opened = open_embedder(model, RuntimeConfig(threads=1), EmbedConfig())
    else:
        opened = open_detector(model, RuntimeConfig(threads=1), DetectConfig())

    assert opened.name == fields["name"]
    assert fields["training_data"]
    trained_for_research_only = "research" in fields["licence"]
    assert fields["commercial_use"] is not trained_for_research_only
