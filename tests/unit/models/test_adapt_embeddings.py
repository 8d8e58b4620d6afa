"""What a site's map learns from a made-up site, when it is refused, and how it is taken back."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from models.adapt_embeddings import AdaptRecipe, NothingToLearn, fit, mutual_pairs, tracklet_means
from models.cli import app
from models.neighbours import Clustering
from models.site_acceptance import Refused, hold_back, judge
from models.site_adapt import adapt_site, maps_of
from models.site_evidence import EvidenceError, from_records, read_evidence, seen_together
from models.site_measures import certain_distances, equal_error, separation
from models.site_projection import ProjectionRecipe, train_projection, whitening
from models.site_transit import adjustment, learn_transit
from reid.codec import encode
from reid.v1.sighting_pb2 import Sighting
from tests.unit.models.drawn_site import (
    CAMERAS,
    SPACE,
    drawn_site,
    records,
    right_across_cameras,
)

QUICK = AdaptRecipe(
    clustering=Clustering(eps=0.45, k1=6, k2=2, least=2, fewest=16),
    projection=ProjectionRecipe(steps=40, people=16, images=4),
    early_steps=20,
)


def test_a_map_fitted_without_labels_finds_people_across_cameras_better() -> None:
    evidence, person = drawn_site()

    fitted = fit(evidence, QUICK, seed=1)

    cameras = [CAMERAS[number] for number in evidence.camera_of_vector]
    direct = right_across_cameras(evidence.vectors, evidence, person)
    adapted = right_across_cameras(
        fitted.site_map.apply(evidence.vectors, cameras), evidence, person
    )
    assert adapted > direct + 0.2


def test_the_same_seed_gives_the_same_map() -> None:
    evidence, _ = drawn_site(people=80)

    one, other = fit(evidence, QUICK, seed=3), fit(evidence, QUICK, seed=3)

    np.testing.assert_array_equal(one.site_map.weight, other.site_map.weight)


def test_a_site_of_one_camera_or_of_few_tracklets_teaches_nothing() -> None:
    evidence, _ = drawn_site()

    with pytest.raises(NothingToLearn, match="1 camera"):
        fit(evidence.part(evidence.camera == 0), QUICK)
    with pytest.raises(NothingToLearn, match="at least 200"):
        fit(evidence.part(np.arange(evidence.tracklets) < 60), QUICK)


def test_vectors_of_more_numbers_than_a_map_may_have_are_refused() -> None:
    evidence, _ = drawn_site()
    wide = np.zeros((len(evidence.vectors), 4096), np.float32)
    wide[:, 0] = 1.0

    with pytest.raises(NothingToLearn, match=r"vectors of 4096 numbers.*up to 2048"):
        fit(replace(evidence, vectors=wide), QUICK)


def test_clusters_that_run_together_make_no_map() -> None:
    evidence, _ = drawn_site()
    loose = replace(QUICK.clustering, eps=0.79, k1=200)

    with pytest.raises(NothingToLearn, match="clusters collapsed"):
        fit(evidence, replace(QUICK, clustering=loose, transit_weight=0.0))


def test_people_seen_at_once_by_one_camera_are_never_neighbours() -> None:
    evidence, _ = drawn_site(people=40)
    block = np.ones((evidence.tracklets, evidence.tracklets), np.float32)

    adjust = adjustment(None, evidence.camera, evidence.first, evidence.together, weight=0.0)
    adjust(np.arange(evidence.tracklets), block)

    one, other = evidence.together.T
    assert (block[one, other] < -1).all() and (block[other, one] < -1).all()
    assert (block < 0).sum() == 2 * len(evidence.together)


def test_tracklets_that_touch_in_time_in_one_camera_were_seen_together() -> None:
    camera = np.array([0, 0, 0, 1, 0])
    first = np.array([0.0, 4.0, 20.0, 0.0, np.nan])
    last = np.array([5.0, 9.0, 22.0, 50.0, np.nan])

    assert seen_together(camera, first, last).tolist() == [[0, 1]]


def test_usual_delays_are_learned_with_the_clocks_difference() -> None:
    evidence, person = drawn_site()
    late = evidence.first + np.where(evidence.camera == 2, 900.0, 0.0)
    pairs = mutual_pairs(tracklet_means(evidence.vectors, evidence), evidence)
    right = pairs[person[pairs[:, 0]] == person[pairs[:, 1]]]

    transit = learn_transit(right, evidence.camera, late, cameras=3, bandwidth_s=5.0)

    assert transit is not None
    ratio = transit.of(0, 0.0, np.array([2, 2, 2]), np.array([980.0, 700.0, np.nan]))
    assert ratio[0] > 1.0 and ratio[1] < 0.0 and ratio[2] == 0.0


def test_transit_times_need_pairs_and_times() -> None:
    camera, pairs = np.array([0, 1] * 30), np.arange(60).reshape(30, 2)

    assert learn_transit(pairs, camera, np.full(60, np.nan), cameras=2) is None
    assert learn_transit(pairs[:5], camera, np.arange(60.0), cameras=2) is None


def test_whitening_makes_the_scatter_within_groups_round() -> None:
    random = np.random.default_rng(0)
    rows = (random.normal(size=(4000, 4)) * [5.0, 1.0, 0.3, 2.0]).astype(np.float32)
    groups = np.arange(4000) % 10

    white = rows @ whitening(rows, groups, shrinkage=0.0)

    np.testing.assert_allclose(np.cov(white.T), np.eye(4), atol=0.02)


def test_without_a_label_of_two_cameras_the_projection_stays_as_it_was() -> None:
    start = np.eye(4, dtype=np.float32)
    rows = np.eye(4, dtype=np.float32)

    learned = train_projection(
        rows, np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), start, ProjectionRecipe(), seed=1
    )

    np.testing.assert_array_equal(learned.weight, start)


def test_certain_pairs_are_counted_once_and_by_tracklet() -> None:
    evidence, _ = drawn_site(people=40)

    positive, negative = certain_distances(evidence.vectors, evidence)

    assert len(positive) == 3 * evidence.tracklets
    assert len(negative) == 9 * len(evidence.together)
    assert positive.mean() < negative.mean()


def test_equal_error_of_distributions_that_cross_at_a_known_place() -> None:
    random = np.random.default_rng(1)
    positive, negative = random.normal(0.8, 0.1, 50_000), random.normal(1.0, 0.1, 50_000)

    error = equal_error(positive.astype(np.float32), negative.astype(np.float32))

    assert error == pytest.approx(0.1587, abs=0.005)  # one deviation from both means
    assert separation(
        positive.astype(np.float32), negative.astype(np.float32)
    ).overlap == pytest.approx(0.3173, abs=0.01)


def test_a_map_that_does_not_help_is_refused_and_nothing_is_published(tmp_path: Path) -> None:
    evidence, _ = drawn_site(people=120)
    nothing = AdaptRecipe(camera="none", whiten=False, rounds=0)

    with pytest.raises(Refused):
        adapt_site(evidence, tmp_path, recipe=nothing, seed=1)

    assert maps_of(tmp_path, "drawn").current() is None


def test_held_back_slices_of_time_are_whole() -> None:
    evidence, _ = drawn_site(people=200)

    held = hold_back(evidence, seed=1)

    assert 0.05 < held.mean() < 0.2
    changes = np.abs(np.diff(held[np.argsort(evidence.first)].astype(int))).sum()
    assert changes <= 2 * 4  # four slices of forty


def test_too_few_certain_pairs_decide_nothing() -> None:
    evidence, _ = drawn_site()
    alone = replace(evidence, together=evidence.together[:0])
    fitted = fit(alone, QUICK, seed=1)

    with pytest.raises(Refused, match="0 certain negative"):
        judge(fitted.site_map, alone, hold_back(alone, seed=1), fitted.transit)


def test_the_newest_revision_of_a_tracklet_counts_and_damaged_vectors_are_counted() -> None:
    evidence, _ = drawn_site(people=4)
    rows = records(evidence)
    old = {**rows[0], "revision": 1, "shots": []}
    bad = {"space_id": SPACE, "variant_id": "float32", "vector": [float("nan")] * 32}
    rows[1]["shots"] = [{"embeddings": [bad]}, *rows[1]["shots"]]  # type: ignore[misc]

    found = from_records([*rows, old], where="test")

    assert found.left_out == 1
    assert (found.tracklets, len(found.vectors)) == (12, 36)
    assert {*map(tuple, found.together)} == {*map(tuple, evidence.together)}
    np.testing.assert_allclose(found.vectors, evidence.vectors, atol=1e-6)


def test_several_spaces_must_be_chosen_from() -> None:
    evidence, _ = drawn_site(people=4)
    rows = records(evidence) + records(replace(evidence, site="other"))

    with pytest.raises(EvidenceError, match="--site"):
        from_records(rows, where="test")

    assert from_records(rows, where="test", site="other").site == "other"


def test_files_that_are_no_export_are_refused_by_name(tmp_path: Path) -> None:
    text, broken = tmp_path / "a.txt", tmp_path / "b.jsonl"
    broken.write_text("{\n")

    for path, say in ((text, "neither"), (broken, "line 1"), (tmp_path / "no.jsonl", "No such")):
        with pytest.raises(EvidenceError, match=say):
            read_evidence(path)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 20_000,
        b'{"a": 1}',
        b"3",
        b"\xff\xfe",
        b'{"site": "s", "tracklet_id": "t", "revision": "x"}',
    ],
)
def test_lines_that_are_no_sightings_are_refused_by_number(tmp_path: Path, line: bytes) -> None:
    evidence, _ = drawn_site(people=1)
    good = json.dumps(records(evidence)[0]).encode()
    (tmp_path / "a.jsonl").write_bytes(good + b"\n" + line + b"\n")

    with pytest.raises(EvidenceError, match=r"a\.jsonl(, line|: sighting) 2.*edge-match export"):
        read_evidence(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    "changes",
    [
        {"first_seen_unix_nanos": "2026-01-01"},
        {"last_seen_unix_nanos": [1]},
        {"seen_with": 3},
        {"revision": None},
        {"revision": float("inf")},
        {"first_seen_unix_nanos": 10**400},
        {"shots": [{"embeddings": [{"space_id": "s", "vector": "abc"}]}]},
        {"shots": [{"embeddings": [{"space_id": "s", "vector": [10**400]}]}]},
        {"shots": [{"embeddings": [{"space_id": "s" * 129, "vector": [1.0]}]}]},
        {"shots": "abc"},
        {"site": ""},
        {"site": None},
        {"site": "s" * 129},
        {"site": "\ud800"},
    ],
)
def test_fields_of_another_kind_are_refused_by_number(changes: dict[str, object]) -> None:
    evidence, _ = drawn_site(people=1)
    rows = records(evidence)

    with pytest.raises(EvidenceError, match=r"sighting 2 is none .*edge-match export"):
        from_records([rows[0], {**rows[1], **changes}], where="test")


def test_what_is_not_known_of_a_sighting_is_no_error() -> None:
    evidence, _ = drawn_site(people=2)
    rows: list[Any] = records(evidence)
    rows[0] |= {"seen_with": None, "first_seen_unix_nanos": None, "last_seen_unix_nanos": 10**30}
    rows[1]["shots"][0]["embeddings"][0]["vector"] = [[1.0]]

    found = from_records(rows, where="test")

    assert np.isnan(found.first[0]) and np.isnan(found.last[0])
    assert found.left_out == 1


def test_a_space_whose_vectors_differ_in_length_is_refused() -> None:
    evidence, _ = drawn_site(people=2)
    rows: list[Any] = records(evidence)
    for shot in rows[0]["shots"]:
        shot["embeddings"][0]["vector"] = [1.0, 0.0]

    with pytest.raises(EvidenceError, match=r"have 2 and 32 numbers"):
        from_records(rows, where="test")


def test_nothing_to_learn_from_is_told_from_vectors_that_are_missing(tmp_path: Path) -> None:
    evidence, _ = drawn_site(people=1)
    empty = tmp_path / "ledger.db"
    with closing(sqlite3.connect(empty)) as ledger:
        ledger.execute("CREATE TABLE log(position INTEGER PRIMARY KEY, kind INTEGER, body BLOB)")

    with pytest.raises(EvidenceError, match=r"ledger\.db: holds no sightings"):
        read_evidence(empty, site="any")
    with pytest.raises(EvidenceError, match=r"hold no vectors .*--no-embeddings"):
        from_records([{**row, "shots": []} for row in records(evidence)], where="test")


def test_a_ledger_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as ledger:
        ledger.execute("CREATE TABLE log(position INTEGER PRIMARY KEY, kind INTEGER, body BLOB)")
        ledger.execute("INSERT INTO log(kind, body) VALUES (1, 'text')")
        ledger.commit()

    with pytest.raises(EvidenceError, match="no ledger that can be read"):
        read_evidence(path)


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "a.parquet")

    with pytest.raises(EvidenceError, match=r"a\.parquet.*edge-match export"):
        read_evidence(tmp_path / "a.parquet")


def test_a_ledger_gives_the_same_evidence_as_its_export(tmp_path: Path) -> None:
    evidence, _ = drawn_site(people=4)
    rows: list[Any] = records(evidence)
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as ledger:
        ledger.execute("CREATE TABLE log(position INTEGER PRIMARY KEY, kind INTEGER, body BLOB)")
        ledger.execute("INSERT INTO log(kind, body) VALUES (2, ?)", (b"{}",))
        for row in rows:
            sighting = Sighting(
                site=row["site"], edge_id=row["edge_id"], camera=row["camera"],
                tracklet_id=row["tracklet_id"], revision=row["revision"],
                seen_with=row["seen_with"],
            )  # fmt: skip
            sighting.first_seen.unix_nanos = row["first_seen_unix_nanos"]
            sighting.last_seen.unix_nanos = row["last_seen_unix_nanos"]
            for shot in row["shots"]:
                vector = np.array(shot["embeddings"][0]["vector"], np.float32)
                sighting.shots.add().embeddings.append(
                    encode(vector, space_id=SPACE, variant_id="float32", encoding="float32")
                )
            ledger.execute(
                "INSERT INTO log(kind, body) VALUES (1, ?)", (sighting.SerializeToString(),)
            )
        ledger.commit()

    found, wanted = read_evidence(path), from_records(rows, where="test")

    np.testing.assert_allclose(found.vectors, wanted.vectors, atol=1e-6)
    np.testing.assert_array_equal(found.together, wanted.together)
    np.testing.assert_array_equal(found.first, wanted.first)


def test_parquet_gives_the_same_evidence_as_json_lines(tmp_path: Path) -> None:
    evidence, _ = drawn_site(people=4)
    rows: list[Any] = records(evidence)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

    one, other = (read_evidence(tmp_path / f"a.{form}") for form in ("parquet", "jsonl"))

    np.testing.assert_array_equal(one.vectors, other.vectors)
    np.testing.assert_array_equal(one.together, other.together)
    assert one.cameras == other.cameras == CAMERAS


def _write(path: Path) -> Path:
    evidence, _ = drawn_site(people=40, visits=6)
    path.write_text("\n".join(json.dumps(row) for row in records(evidence)) + "\n")
    return path


def test_the_command_publishes_a_map_and_takes_it_back(tmp_path: Path) -> None:
    file, maps = _write(tmp_path / "sightings.jsonl"), tmp_path / "maps"
    run = CliRunner()

    done = run.invoke(
        app, ["adapt", "--embeddings", str(file), "--maps", str(maps), "--steps", "30"]
    )

    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "errors on certain pairs" in told and "within the usual time" in told
    assert f"edge-models adapt --rollback --site drawn --maps {maps}" in done.output.replace(
        "\n", " "
    )
    current = maps_of(maps, "drawn").current()
    assert current is not None
    assert current[1].space_id == f"{SPACE}/drawn/1" and current[1].parent == SPACE
    assert current[1].held_back_before is not None
    back = run.invoke(app, ["adapt", "--rollback", "--site", "drawn", "--maps", str(maps)])
    assert back.exit_code == 0 and maps_of(maps, "drawn").current() is None


def test_a_rollback_of_a_site_without_maps_is_refused_and_makes_no_folder(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps_of(maps, "drawn").use(0)

    result = CliRunner().invoke(app, ["adapt", "--rollback", "--site", "typo", "--maps", str(maps)])

    assert result.exit_code == 2
    assert "no maps of site 'typo'" in " ".join(result.output.split())
    assert "drawn" in result.output
    assert [path.name for path in maps.iterdir()] == ["drawn"]


def test_a_rollback_of_a_site_that_uses_no_map_is_refused(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps_of(maps, "drawn").use(0)

    result = CliRunner().invoke(
        app, ["adapt", "--rollback", "--site", "drawn", "--maps", str(maps)]
    )

    assert result.exit_code == 2
    assert "drawn: nothing to roll back" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rollback", "--site", "drawn", "--embeddings", "s.jsonl"],
        ["--rollback"],
        ["start.pth", "--embeddings", "s.jsonl"],
        ["start.pth", "--images", "crops"],
        ["--embeddings", "s.jsonl", "--images", "crops"],
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_done(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "s.jsonl")

    result = CliRunner().invoke(app, ["adapt", *arguments])

    assert result.exit_code == 2 and "give either" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--embeddings", "s.jsonl", "--loss", "gds"], "--loss"),
        (["--embeddings", "s.jsonl", "--epochs", "3"], "--epochs"),
        (["--rollback", "--site", "drawn", "--height", "256"], "--height"),
        (["start.pth", "--images", "crops", "--out", "o", "--steps", "3"], "--steps"),
        (["start.pth", "--images", "crops", "--out", "o", "--site", "x"], "--site"),
    ],
)
def test_options_of_the_other_way_to_adapt_are_refused(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, ["adapt", *arguments])

    assert result.exit_code == 2
    assert f"Invalid value for {told}" in result.output.replace("'", "")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_maps_that_cannot_be_written_ends_in_a_message(tmp_path: Path) -> None:
    file = _write(tmp_path / "sightings.jsonl")
    (tmp_path / "maps").write_text("a file")

    result = CliRunner().invoke(
        app,
        ["adapt", "--embeddings", str(file), "--maps", str(tmp_path / "maps"), "--steps", "1"],
    )

    assert result.exit_code == 2
    assert "Not a directory" in " ".join(result.output.split())


@pytest.mark.parametrize(
    "option", ["--steps", "--threads", "--epochs", "--height", "--width", "--seed"]
)
def test_numbers_that_mean_nothing_are_refused(option: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["adapt", "--embeddings", "no.jsonl", option, "-1"])

    assert result.exit_code == 2 and option in result.output


def test_the_command_says_what_it_needs() -> None:
    result = CliRunner().invoke(app, ["adapt"])

    assert result.exit_code == 2 and "--embeddings FILE" in result.output
