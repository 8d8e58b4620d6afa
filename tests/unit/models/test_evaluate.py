"""`edge-models evaluate` on drawn people, from the command line down to the card."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from models.cli import app
from models.data.readers import open_dataset
from models.evaluate import (
    TrainedOnThis,
    embed_samples,
    evaluate,
    open_model,
    refuse_trained_people,
    shows_judged_people,
)
from models.ranking import Metric
from reid.card import card_path
from tests.unit.models.conftest import evaluated
from tests.unit.models.drawn_people import figure, market, write


def test_json_has_the_promised_keys_in_percent(place: Path) -> None:
    found = evaluated(place)

    assert {"rank1", "rank5", "rank10", "map", "minp"} <= found.keys()
    assert 0 < found["map"] <= 100
    assert found["rank1"] <= found["rank5"] <= found["rank10"]


def test_a_box_without_torch_judges_an_onnx_file_and_says_what_a_checkpoint_needs(
    place: Path,
) -> None:
    without = "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'scipy']))"
    of_set = ["--data", str(place / "set"), "--protocol", "market1501", "--json"]

    def box(model: str) -> subprocess.CompletedProcess[str]:
        script = f"{without}; from models.cli import main; main()"
        command = [sys.executable, "-c", script, "evaluate", str(place / model), *of_set]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    judged, refused = box("net.onnx"), box("net.pth")

    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["map"] == pytest.approx(evaluated(place)["map"], abs=0.01)
    assert refused.returncode == 2
    assert "this needs torch, which a box does without" in refused.stderr


def test_a_checkpoint_scores_as_its_export(place: Path) -> None:
    by_onnx, by_checkpoint = evaluated(place), evaluated(place, model="net.pth")

    assert by_checkpoint["map"] == pytest.approx(by_onnx["map"], abs=0.01)


@pytest.mark.parametrize("more", [["--metric", "euclidean"], ["--flip"], ["--rerank"]])
def test_every_way_of_comparing_runs(place: Path, more: list[str]) -> None:
    assert 0 < evaluated(place, *more)["map"] <= 100


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_with_flip_a_crop_and_its_mirror_image_are_one(
    place: Path, tmp_path: Path, metric: Metric
) -> None:
    crop = figure(3, 1, 0)
    write(tmp_path / "train" / "1_c1_a.png", crop)
    write(tmp_path / "train" / "1_c1_b.png", np.ascontiguousarray(crop[:, ::-1]))
    dataset, model = open_dataset("folder", tmp_path), open_model(place / "net.onnx")

    plain, both = (
        embed_samples(model, dataset, dataset.train, metric=metric, flip=flip)
        for flip in (False, True)
    )

    assert np.abs(plain[0] - plain[1]).max() > 1e-3
    np.testing.assert_allclose(both[0], both[1], atol=1e-4)


def test_a_file_that_takes_one_number_of_crops_is_judged_like_any(
    place: Path, tmp_path: Path
) -> None:
    network = onnx.load(place / "net.onnx")
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
    fixed = tmp_path / "fixed.onnx"
    onnx.save(network, fixed)
    dataset = open_dataset("market1501", place / "set")

    scores, _, _ = evaluate(open_model(fixed), dataset, metric="euclidean")

    free, _, _ = evaluate(open_model(place / "net.onnx"), dataset, metric="euclidean")
    assert scores == free


def test_a_file_without_card_is_fed_as_published(place: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.onnx"
    bare.write_bytes((place / "net.onnx").read_bytes())
    dataset = open_dataset("market1501", place / "set")

    scores, _, _ = evaluate(open_model(bare), dataset)

    assert scores.map == pytest.approx(evaluated(place)["map"], abs=0.01)


def test_people_of_the_training_are_not_judged_on_unless_insisted(place: Path) -> None:
    model = open_model(place / "net.onnx")
    knowing = dataclasses.replace(model, trained_on=("market1501:query", "cuhk03:train"))
    dataset = open_dataset("market1501", place / "set")

    with pytest.raises(TrainedOnThis, match="market1501:query"):
        evaluate(knowing, dataset)
    scores, _, _ = evaluate(knowing, dataset, insist=True)

    assert scores.queries > 0


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("market1501:query", True),
        ("market1501:gallery:without-labels", True),
        ("market1501:all", True),
        ("Market-1501 (everything)", True),
        ("market1501:train", False),
        ("market1501:train:without-labels", False),
        ("cuhk03:query", False),
    ],
)
def test_a_source_counts_unless_it_names_a_part_of_other_people(
    tmp_path: Path, source: str, shown: bool
) -> None:
    dataset = open_dataset("market1501", market(tmp_path, train=1, test=1, shots=1))

    assert shows_judged_people(source, dataset) is shown


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("cuhk03-np:train", "cuhk03"),
        ("CUHK03-NP", "cuhk03"),
        ("cuhk03:train", "cuhk03-np"),
        ("cuhk03-np:query", "cuhk03-np"),
        ("DukeMTMC-reID (all)", "dukemtmc"),
    ],
)
def test_a_set_by_another_name_counts_as_seen(tmp_path: Path, source: str, name: str) -> None:
    dataset = open_dataset("market1501", market(tmp_path, train=1, test=1, shots=1))

    assert shows_judged_people(source, dataclasses.replace(dataset, name=name))
    assert not shows_judged_people(source, dataset)


def test_the_new_protocols_own_training_people_are_not_its_test_people(tmp_path: Path) -> None:
    market1501 = open_dataset("market1501", market(tmp_path, train=1, test=1, shots=1))
    dataset = dataclasses.replace(market1501, name="cuhk03-np")

    assert not shows_judged_people("cuhk03-np:train", dataset)


@pytest.mark.shared
def test_a_known_public_file_is_refused_by_the_catalogues_card(
    shared_dir: Path, tmp_path: Path
) -> None:
    for part in ("query", "gallery"):
        write(tmp_path / part / "1_c1.jpg", figure(1, 1, 0))
    msmt17 = dataclasses.replace(open_dataset("folder", tmp_path), name="msmt17")
    public = open_model(shared_dir / "models" / "osnet_x0_25_msmt17_combineall.onnx")

    with pytest.raises(TrainedOnThis, match="MSMT17"):
        refuse_trained_people(public, msmt17)


def test_the_command_refuses_with_a_usage_error_and_says_how_to_insist(
    place: Path, tmp_path: Path
) -> None:
    known = tmp_path / "known.onnx"
    known.write_bytes((place / "net.onnx").read_bytes())
    text = card_path(place / "net.onnx").read_text()
    card_path(known).write_text(
        text.replace("drawn:train", "market1501:gallery").replace("net.onnx", "known.onnx")
    )
    arguments = ["evaluate", str(known), "--data", str(place / "set"), "--protocol", "market1501"]

    refused = CliRunner().invoke(app, arguments)
    insisted = CliRunner().invoke(app, [*arguments, "--trained-on-this"])

    assert refused.exit_code == 2
    assert "--trained-on-this" in refused.output
    assert insisted.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["net.onnx", "--data", "nowhere", "--protocol", "market1501"], 2),
        (["net.onnx", "--data", "set", "--protocol", "prid"], 2),
        (["none.onnx", "--data", "set", "--protocol", "market1501"], 3),
        (["none.pth", "--data", "set", "--protocol", "market1501"], 3),
        (["net.onnx", "--data", "alone", "--protocol", "folder"], 2),
        (["net.onnx", "--data", "large", "--protocol", "folder"], 2),
        (["net.onnx", "--data", "trained", "--protocol", "folder"], 2),
        (["net.onnx", "--data", "set", "--protocol", "market1501", "--page", "no/p.html"], 2),
        (["net.onnx", "--data", "set", "--protocol", "market1501", "--page", "set"], 2),
        (["net.onnx", "--data", "set", "--protocol", "market1501", "--page", "/proc/p.html"], 2),
        (["net.pth", "--data", "set", "--protocol", "market1501", "--height", "0"], 2),
        (["net.pth", "--data", "set", "--protocol", "market1501", "--width", "5000"], 2),
        (["set", "--data", "set", "--protocol", "market1501"], 3),
    ],
)
def test_what_cannot_be_used_is_told_apart_by_exit_code(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.chdir(place)
    for part in ("query", "gallery"):  # the same person by the same camera only
        write(place / "alone" / part / "1_c1.jpg", figure(1, 1, 0))
        write(place / "large" / part / f"{2**63}_c1.jpg", figure(1, 1, 0))
    write(place / "trained" / "train" / "1_c1.jpg", figure(1, 1, 0))

    result = CliRunner().invoke(app, ["evaluate", *arguments])

    assert result.exit_code == code, result.output


@pytest.mark.parametrize(
    "more", [[], ["--metric", "euclidean"], ["--rerank"]], ids=["cosine", "euclidean", "re-ranked"]
)
def test_the_page_shows_queries_as_they_were_judged(
    place: Path, tmp_path: Path, more: list[str]
) -> None:
    page = tmp_path / "page.html"

    found = evaluated(place, "--page", str(page), *more)

    rows = page.read_text().split("<tr>")[1:]
    assert len(rows) == len(open_dataset("market1501", place / "set").query)
    assert all("data:image/jpeg;base64," in row for row in rows)
    first = [row.split("<td")[2] for row in rows]
    right = sum("class=right" in answer for answer in first)
    assert 100 * right / len(rows) == pytest.approx(found["rank1"])


@pytest.mark.shared
@pytest.mark.reference
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("name", "rank1", "mean_ap"),
    [
        ("osnet_x0_25_market1501.pth", 91.48, 77.38),
        ("osnet_x0_25_msmt17_combineall.onnx", 60.10, 33.68),
        ("osnet_x0_25_msmt17.pth", 49.73, 24.67),
    ],
)
def test_reference_figures_are_reproduced(
    shared_dir: Path, name: str, rank1: float, mean_ap: float
) -> None:
    with_market = open_dataset("market1501", shared_dir / "data" / "market1501.tar")

    scores, _, _ = evaluate(open_model(shared_dir / "models" / name), with_market)

    assert scores.rank1 == pytest.approx(rank1, abs=0.3)
    assert scores.map == pytest.approx(mean_ap, abs=0.3)
