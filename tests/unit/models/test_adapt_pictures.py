"""Adapting a checkpoint on drawn crops without labels: goes on, repeats, refuses."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models import adapt, adapt_judge, checkpoints
from models.adapt import LEAST_IMAGES, LOSSES, Adaptation, PictureRecipe
from models.adapt_crops import Crops, TooFewCrops, embed, open_crops
from models.adapt_judge import BY_ITSELF, BY_PARENT, AdaptError
from models.augment import normalise
from models.cli import app
from models.gds import pair_distances
from models.neighbours import Clustering
from models.osnet import Architecture, OSNet
from models.recipe import Augment
from models.site_projection import unit
from reid.card import card_path, read_card
from tests.support.disk import files_of_at_most

QUICK = PictureRecipe(
    epochs=2, steps=2, people=4, images=3, augment=Augment(),
    clustering=Clustering(eps=0.6, least=2, k1=5, k2=2),
)  # fmt: skip
PEOPLE, IMAGES = 12, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve people of two colours each, ten noisy crops of each."""
    folder = tmp_path_factory.mktemp("crops")
    random = np.random.default_rng(4)
    for person in range(PEOPLE):
        top, bottom = random.integers(0, 256, 3), random.integers(0, 256, 3)
        for number in range(IMAGES):
            image = np.empty((32, 16, 3), np.float64)
            image[:16], image[16:] = top, bottom
            image += random.normal(0, 6, image.shape)
            name = folder / f"{person:02d}_{number}.png"
            cv2.imwrite(str(name), image.clip(0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def crops(folder: Path) -> Crops:
    return open_crops(folder, height=32, width=16, least=100)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    network = OSNet(Architecture(width=0.25, neck=True), classes=2)
    network.train()
    for _ in range(3):
        network.heads(torch.randn(8, 3, 32, 16))
    path = tmp_path_factory.mktemp("start") / "start.pth"
    checkpoints.save(path, network, trained_on=["drawn:train"], input={"height": 32, "width": 16})
    return path


def test_an_adapted_model_has_a_card_of_its_own(
    crops: Crops, checkpoint: Path, tmp_path: Path
) -> None:
    # Untrained: so few steps may spoil so small a network, and a spoilt one is not written.
    run = Adaptation(checkpoint, crops, tmp_path, recipe=replace(QUICK, epochs=0))

    path = run.export()

    card = read_card(card_path(path))
    assert card.parent == "start" and card.space_id is not None
    assert card.space_id.startswith("start-adapted-")
    assert any("without-labels" in name for name in card.training_data)
    assert {"before_overlap", "after_overlap"} <= card.metrics[0].values.keys()


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    crops: Crops, checkpoint: Path, tmp_path: Path
) -> None:
    def run(folder: str) -> Adaptation:
        return Adaptation(checkpoint, crops, tmp_path / folder, recipe=QUICK)

    whole = run("whole")
    whole.train()
    run("halves").train(stop_after_epochs=1)
    second = run("halves")
    second.train()

    assert second.epoch == 2
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], value, rtol=0, atol=0)


def test_every_epoch_that_a_checkpoint_has_is_in_the_log(
    crops: Crops, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Adaptation(checkpoint, crops, tmp_path, recipe=QUICK)
    real = Adaptation._save

    def killed(self: Adaptation) -> None:
        real(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Adaptation, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            run.train()
    Adaptation(checkpoint, crops, tmp_path, recipe=QUICK).train()

    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]


def test_pairs_are_judged_on_so_many_images_at_most(
    crops: Crops, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(embeddings: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        asked.append(len(labels))
        return pair_distances(embeddings, labels)

    monkeypatch.setattr(adapt, "MOST_JUDGED", 15)
    monkeypatch.setattr(adapt_judge, "pair_distances", counted)

    one = Adaptation(checkpoint, crops, tmp_path / "one", recipe=QUICK)
    other = Adaptation(checkpoint, crops, tmp_path / "other", recipe=QUICK)

    assert asked == [15, 15]
    assert one.before == other.before


def test_another_recipe_does_not_go_on_in_the_same_folder(
    crops: Crops, checkpoint: Path, tmp_path: Path
) -> None:
    Adaptation(checkpoint, crops, tmp_path, recipe=QUICK).train(stop_after_epochs=1)

    with pytest.raises(AdaptError, match="other settings"):
        Adaptation(checkpoint, crops, tmp_path, recipe=replace(QUICK, loss="baseline"))


def test_other_crops_or_another_checkpoint_do_not_go_on_in_the_same_folder(
    crops: Crops, checkpoint: Path, tmp_path: Path
) -> None:
    Adaptation(checkpoint, crops, tmp_path / "run", recipe=QUICK).train(stop_after_epochs=1)
    fewer = Crops(crops.name, crops.images[:-1])
    wider = Crops(crops.name, np.repeat(crops.images, 2, axis=2))
    network = checkpoints.load(checkpoint)
    with torch.no_grad():
        next(network.parameters()).mul_(1.01)
    other = tmp_path / "other.pth"
    checkpoints.save(other, network)

    for start, given in ((checkpoint, fewer), (checkpoint, wider), (other, crops)):
        with pytest.raises(AdaptError, match="other crops or another checkpoint"):
            Adaptation(start, given, tmp_path / "run", recipe=QUICK)


def test_a_model_that_got_worse_on_held_back_crops_is_not_written(
    crops: Crops, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Adaptation(checkpoint, crops, tmp_path, recipe=replace(QUICK, epochs=0))
    random = np.random.default_rng(5)

    def vague(network: OSNet, crops: Crops, rows: np.ndarray) -> np.ndarray:
        """The vectors of a model that sees all that its parent sees, less clearly."""
        vectors = embed(network, crops, rows)
        return unit(vectors + 0.02 * random.normal(size=vectors.shape).astype(np.float32))

    monkeypatch.setattr(adapt, "embed", vague)

    with pytest.raises(AdaptError, match=r"worse on \d+ held-back crops.*no model was written"):
        run.export()

    assert not list(tmp_path.glob("adapted*"))


def test_the_card_says_by_whose_clusters_it_was_judged(
    crops: Crops, checkpoint: Path, tmp_path: Path
) -> None:
    run = Adaptation(checkpoint, crops, tmp_path, recipe=replace(QUICK, epochs=0))

    metrics = read_card(card_path(run.export())).metrics

    assert [metric.protocol for metric in metrics] == [BY_PARENT, BY_ITSELF]
    for metric in metrics:  # nothing was trained
        assert metric.values["before_error"] == pytest.approx(
            metric.values["after_error"], abs=1e-3
        )


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains(loss: str, crops: Crops, checkpoint: Path, tmp_path: Path) -> None:
    run = Adaptation(checkpoint, crops, tmp_path, recipe=replace(QUICK, loss=loss, steps=2))

    run.train(stop_after_epochs=1)

    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert ("separation" in line) == (loss != "baseline")
    assert np.isfinite(list(line.values())).all()


def test_too_few_images_are_refused_with_the_number_found(folder: Path) -> None:
    with pytest.raises(TooFewCrops, match="120 images, at least 1000"):
        open_crops(folder, height=32, width=16, least=LEAST_IMAGES)


def test_of_very_many_images_the_same_ones_are_drawn_and_the_rest_counted(folder: Path) -> None:
    def few() -> Crops:
        return open_crops(folder, height=32, width=16, least=1, most=50)

    one, other = few(), few()

    assert (len(one), one.left_out) == (50, PEOPLE * IMAGES - 50)
    np.testing.assert_array_equal(one.images, other.images)
    assert len(np.unique(one.images.reshape(50, -1), axis=0)) == 50


def test_collapsed_clusters_make_no_model(crops: Crops, checkpoint: Path, tmp_path: Path) -> None:
    none = replace(QUICK, clustering=replace(QUICK.clustering, least=1000))

    with pytest.raises(AdaptError, match="collapsed, no model was written"):
        Adaptation(checkpoint, crops, tmp_path, recipe=none)

    assert not (tmp_path / "adapted.onnx").exists()


@pytest.mark.parametrize("people", [2, 3])
def test_too_few_clusters_to_hold_some_back_make_no_model(
    people: int, crops: Crops, checkpoint: Path, tmp_path: Path
) -> None:
    few = Crops(crops.name, crops.images[: people * IMAGES])

    with pytest.raises(AdaptError, match=rf"{people} clusters, 2 of which are held back"):
        Adaptation(checkpoint, few, tmp_path / "run", recipe=QUICK)

    assert not (tmp_path / "run").exists()


def test_crops_are_embedded_as_in_evaluation_and_training_goes_on(
    crops: Crops, checkpoint: Path
) -> None:
    network = checkpoints.load(checkpoint).train()
    rows = np.array([3, 40, 7])

    found = embed(network, crops, rows)

    assert network.training
    with torch.inference_mode():
        wanted = network.eval()(normalise(crops.tensor(rows))).numpy()
    np.testing.assert_allclose(
        found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5
    )


def test_the_command_ends_with_a_message_where_there_are_too_few_crops(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    result = CliRunner().invoke(
        app, ["adapt", str(checkpoint), "--images", str(folder), "--out", str(out)]
    )

    assert result.exit_code == 2
    assert "120 images, at least 1000 are needed" in " ".join(result.output.split())
    assert not out.exists()


def test_a_checkpoint_that_is_none_is_refused_before_the_crops_are_read(tmp_path: Path) -> None:
    (tmp_path / "start.pth").write_bytes(b"none")

    result = CliRunner().invoke(
        app,
        ["adapt", str(tmp_path / "start.pth"), "--images", str(tmp_path / "nowhere"),
         "--out", str(tmp_path / "run")],
    )  # fmt: skip

    assert result.exit_code == 2
    assert "start.pth" in result.output and "nowhere" not in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_says_how_it_goes_on(
    folder: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    class Interrupted:
        epoch = 4

        def __init__(self, *args: object, **settings: object) -> None: ...

        def train(self) -> None:
            signal.raise_signal(number)

    monkeypatch.setattr(adapt, "Adaptation", Interrupted)
    monkeypatch.setattr(adapt, "LEAST_IMAGES", 100)
    out = tmp_path / "run"

    result = CliRunner().invoke(
        app, ["adapt", str(checkpoint), "--images", str(folder), "--out", str(out)]
    )

    assert result.exit_code == 130
    said = " ".join(result.output.split())
    assert said == f"stopped; the same call goes on after epoch 4 of 10, in {out}"


def test_a_full_disk_ends_a_run_and_leaves_its_last_checkpoint(
    crops: Crops, checkpoint: Path, tmp_path: Path
) -> None:
    run = Adaptation(checkpoint, crops, tmp_path, recipe=QUICK)
    run.train(stop_after_epochs=1)
    before = (tmp_path / "last.pth").read_bytes()

    with (
        files_of_at_most(len(before) // 2),
        pytest.raises(OSError, match=r"File too large.*last\.pth"),
    ):
        run.train()

    assert (tmp_path / "last.pth").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pth", "log.jsonl"]


@pytest.mark.parametrize("device", ["nonsense", "cuda:77"])
def test_a_device_that_is_not_there_ends_in_a_message(
    device: str, folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    result = CliRunner().invoke(
        app,
        ["adapt", str(checkpoint), "--images", str(folder), "--out", str(out), "--device", device],
    )

    assert result.exit_code == 2 and f"--device {device}" in result.output
    assert not out.exists()


def test_the_help_of_the_command_is_one_page_of_options_of_one_line_each() -> None:
    result = CliRunner().invoke(app, ["adapt", "--help"], env={"COLUMNS": "80"})

    lines = [line for line in result.output.splitlines() if line.strip()]
    assert len(lines) <= 40
    assert all(option in result.output for option in ("--embeddings", "--images", "--rollback"))
    assert all(loss in result.output for loss in LOSSES)
