"""The experiments of benchmarks.adapt_pictures: each run once, a line a run, and the pair count."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import adapt_pictures
from benchmarks.adapt_pictures import read_rows, summary
from benchmarks.bench_association import pairs
from models import checkpoints
from models.osnet import Architecture, OSNet

PEOPLE, CAMERAS, IMAGES = 24, 2, 6


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set named as Market-1501 names its files: people of two colours each."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "data").mkdir()
    random = np.random.default_rng(3)
    with tarfile.open(folder / "data" / "market1501.tar", "w") as tar:
        for person in range(1, PEOPLE + 1):
            colours = random.integers(0, 256, (2, 3))
            for number in range(CAMERAS * IMAGES):
                image = np.repeat(colours, 16, axis=0)[:, None, :].repeat(16, axis=1)
                image = (image + random.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)
                name = f"{person:04d}_c{1 + number % CAMERAS}s1_{number * 10:06d}_00.jpg"
                data = cv2.imencode(".jpg", image)[1].tobytes()
                parts = ("bounding_box_train",)
                if number < CAMERAS:
                    parts = ("query" if number == 0 else "bounding_box_test",)
                for part in parts:
                    info = tarfile.TarInfo(f"{part}/{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    network = OSNet(Architecture(width=0.25, neck=True), classes=2)
    network.train()
    for _ in range(3):
        network.heads(torch.randn(8, 3, 32, 16))
    path = tmp_path_factory.mktemp("source") / "drawn.pth"
    checkpoints.save(path, network, trained_on=[], input={"height": 32, "width": 16})
    return path


def short_run(shared: Path, source: Path, rows: Path, *more: str) -> list[str]:
    """The command line of one epoch of two batches with one seed."""
    return [
        "adapt_pictures", "--shared", str(shared), "--source", str(source), "--seeds", "1",
        "--epochs", "1", "--steps", "2", "--height", "32", "--width", "16",
        "--rows", str(rows), "--runs", str(rows.with_name("runs")), *more,
    ]  # fmt: skip


def test_a_finished_run_is_not_done_again_and_one_cut_short_is(
    shared: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.jsonl"
    monkeypatch.setattr(sys, "argv", short_run(shared, source, rows, "--loss", "gds-h"))

    adapt_pictures.main()
    first = rows.read_text()
    adapt_pictures.main()
    again = rows.read_text()
    rows.write_text(first[:-40] + "\n")
    adapt_pictures.main()

    assert [json.loads(line)["loss"] for line in first.splitlines()] == ["direct", "gds-h"]
    assert again == first
    assert [row["loss"] for row in read_rows(rows)] == ["direct", "gds-h"]


def test_with_true_labels_the_people_are_the_clusters(
    shared: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.jsonl"
    arguments = short_run(shared, source, rows, "--loss", "baseline", "--true-labels")
    monkeypatch.setattr(sys, "argv", arguments)

    adapt_pictures.main()

    run = read_rows(rows)[1]
    held = 5  # people whose pairs judge
    assert run["schedule"].endswith("true labels")
    assert (run["last_epoch"]["clusters"], run["last_epoch"]["clustered"]) == (PEOPLE - held, 1.0)


def test_a_table_tells_means_over_the_seeds_of_one_schedule() -> None:
    def row(loss: str, seed: int, mean_ap: float, schedule: str = "short") -> dict[str, object]:
        return {
            "source": "s", "target": "t", "loss": loss, "seed": seed, "schedule": schedule,
            "rank1": 50.0, "map": mean_ap, "separation": {"overlap": 0.1},
        }  # fmt: skip

    rows = [row("gds", 1, 30.0), row("gds", 2, 32.0), row("gds", 3, 90.0, "long")]

    (line,) = summary(rows, "s", "t", (64, 32), "short")

    assert (line["n"], line["map"]) == (2, 31.0)
    assert line["spread"] == pytest.approx(2**0.5, abs=0.01)


def test_pairs_of_tracklets_are_counted_by_precision_and_recall() -> None:
    identity = np.array([0, 0, 0, 1, 2])
    person = np.array([5, 5, 7, 7, 7])

    precision, recall = pairs(identity, person)

    assert precision == pytest.approx(1 / 3)
    assert recall == pytest.approx(1 / 4)
