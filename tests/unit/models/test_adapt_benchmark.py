"""The embeddings-only benchmark: the replay rule, its last line, and that judging sees no leak."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import bench_adapt
from benchmarks.adapt_curves import BINS, draw, draw_losses
from benchmarks.market_replay import FRAMES_PER_S, replay
from models.adapt_embeddings import camera_statistics, finished_map
from models.data.readers import Sample, open_dataset
from models.site_acceptance import Verdict, judge
from models.site_evidence import Evidence
from models.site_measures import separation
from models.site_projection import Projection, ProjectionRecipe
from reid.site_map import SiteMap
from tests.unit.models.drawn_site import drawn_site
from tests.unit.models.test_adapt_embeddings import QUICK


def sample(name: str) -> Sample:
    return Sample(name, int(name.split("_")[0]), int(name.split("_")[1][1]))


def test_images_are_tracklets_until_a_gap_over_fifty_frames() -> None:
    names = [
        "0002_c1s1_000100_01.jpg",
        "0002_c1s1_000150_01.jpg",  # 50 frames later: the same tracklet
        "0002_c1s1_000201_01.jpg",  # 51: another
        "0002_c2s1_000201_01.jpg",  # another camera
        "0002_c1s2_000210_01.jpg",  # another sequence
        "0007_c1s1_000120_01.jpg",  # another person, at once with the first
        "0000_c1s1_000130_01.jpg",  # nobody's box: alone
        "0000_c1s1_000131_01.jpg",
        "-1_c1s1_000140_01.jpg",  # junk
    ]
    vectors = np.eye(len(names), dtype=np.float32)

    evidence, person = replay([sample(one) for one in names], vectors, space_id="s")

    of_image = evidence.tracklet.tolist()
    assert len(of_image) == 8 and evidence.tracklets == 7
    assert of_image[0] == of_image[1]
    assert len(set(of_image[1:])) == 7
    np.testing.assert_array_equal(evidence.vectors, vectors[:8])
    assert sorted(person.tolist()) == [0, 0, 2, 2, 2, 2, 7]
    assert evidence.cameras == ("c1", "c2")
    first, second = of_image[0], of_image[5]
    assert (evidence.last - evidence.first)[first] == 50 / FRAMES_PER_S
    together = {tuple(sorted(pair)) for pair in evidence.together.tolist()}
    assert tuple(sorted((first, second))) in together
    # the second sequence of a camera begins where its first ends
    assert evidence.first[of_image[4]] == pytest.approx((201 + 210) / FRAMES_PER_S)


def test_a_name_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="not named as Market-1501"):
        replay([Sample("holiday.jpg", 1, 1)], np.ones((1, 2), np.float32), space_id="s")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Market-1501's layout with empty images, and the vectors of a drawn site in the cache."""
    evidence, person = drawn_site(people=40, visits=6)
    folder = tmp_path / "data" / "market1501.tar"
    parts = ("bounding_box_train", "query", "bounding_box_test")
    for part in parts:
        (folder / part).mkdir(parents=True)
    vector_of = {}
    for row, number in enumerate(evidence.tracklet.tolist()):
        frame = round((evidence.first[number] + 100) * FRAMES_PER_S) + 48 * (row % 3)
        name = f"{person[number] + 1:04d}_c{evidence.camera[number] + 1}s1_{frame:06d}_00.jpg"
        (folder / parts[0] / name).touch()
        vector_of[name] = evidence.vectors[row]
        if frame < 5000:  # the first visit is judged on
            (folder / parts[1 + (row % 3 > 0)] / name).touch()
    dataset = open_dataset("market1501", folder)
    held = {}
    for part in ("train", "query", "gallery"):
        names = [one.name for one in getattr(dataset, part)]
        held[part] = np.stack([vector_of[name.rsplit("/", 1)[-1]] for name in names])
        held[f"{part}_names"] = np.array(names)
    np.savez(tmp_path / "cache.npz", model=np.array("drawn.onnx"), **held)  # type: ignore[arg-type]
    return tmp_path


def test_every_map_and_trap_is_judged_by_what_it_did_not_learn_from(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learned: list[tuple[SiteMap, set[float]]] = []
    judged: list[bool] = []

    def trap(evidence: Evidence, seed: int) -> SiteMap:
        made = real_trap(evidence, seed)
        learned.append((made, set(evidence.first.tolist())))
        return made

    def recorded(site_map: SiteMap, evidence: Evidence, held: np.ndarray, *more: object) -> Verdict:
        for made, times in learned:
            if made is site_map:
                judged.append(times.isdisjoint(evidence.first[held].tolist()))
        return judge(site_map, evidence, held, *more)  # type: ignore[arg-type]

    real_trap = bench_adapt.trap
    monkeypatch.setattr(bench_adapt, "trap", trap)
    monkeypatch.setattr(bench_adapt, "judge", recorded)
    monkeypatch.setattr(bench_adapt, "PARTS", {})
    monkeypatch.setattr(bench_adapt, "OTHERS", {})
    monkeypatch.setattr(bench_adapt, "_WHOLE", QUICK)
    quick = functools.partial(ProjectionRecipe, steps=5)
    monkeypatch.setattr(bench_adapt, "ProjectionRecipe", quick)
    monkeypatch.setattr(
        sys, "argv",
        ["bench_adapt", "--shared", str(shared), "--model", "drawn.onnx", "--threads", "1",
         "--seeds", "2", "--all", "--cache", str(shared / "cache.npz")],
    )  # fmt: skip

    assert bench_adapt.main() == 0

    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"direct_rank1", "direct_map", "adapted_rank1", "adapted_map"} <= last.keys()
    assert last["adapted_map"] > last["direct_map"]
    assert judged == [True, True]


def colours(picture: Path) -> list[set[str]]:
    """Which of the two distributions' curves the left and the right half of a picture show."""
    image = cv2.imread(str(picture))
    assert image is not None
    middle = image.shape[1] // 2
    kinds = {"one person": (180, 119, 31), "two people": (40, 39, 214)}  # BGR of the curves
    return [
        {name for name, bgr in kinds.items() if (half == np.array(bgr)).all(axis=2).sum() > 20}
        for half in (image[:, :middle], image[:, middle:])
    ]


def test_both_distributions_are_drawn_before_and_after(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = open_dataset("market1501", shared / "data" / "market1501.tar")
    vectors = bench_adapt.embed(dataset, Path("drawn.onnx"), 1, shared / "cache.npz")
    site = bench_adapt.Site(dataset, vectors, "drawn")
    held = np.arange(site.evidence.tracklets) % 2 == 0
    means = camera_statistics(site.evidence, how="mean", damping=1.0)
    identity = Projection(np.eye(vectors["train"].shape[1], dtype=np.float32))

    draw(site, finished_map(site.evidence, *means, identity), held, tmp_path / "pictures")

    drawn = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in drawn] == [
        "adaptation-across-cameras.png", "adaptation-certain-pairs.png",
    ]  # fmt: skip
    both = {"one person", "two people"}
    assert [colours(path) for path in drawn] == [[both, both], [both, both]]
    assert capsys.readouterr().out.count("overlap") == 4


def test_every_loss_has_a_panel_of_its_own(tmp_path: Path) -> None:
    random = np.random.default_rng(1)

    def row(apart: float) -> dict[str, object]:
        positive, negative = (random.normal(1 + shift, 0.1, 500) for shift in (-apart, apart))
        found = separation(positive.astype(np.float32), negative.astype(np.float32))
        return {
            "rank1": 20.0, "map": 8.0, "separation": found.model_dump(),
            "positive": np.histogram(positive, BINS)[0].tolist(),
            "negative": np.histogram(negative, BINS)[0].tolist(),
        }  # fmt: skip

    draw_losses(tmp_path / "losses.png", "drawn", {"direct": row(0.1), "gds-h": row(0.3)})

    both = {"one person", "two people"}
    assert colours(tmp_path / "losses.png") == [both, both]
