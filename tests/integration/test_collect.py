"""`edge-run --collect` as its owner meets it: said, kept on the box, and never without asking."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2
import pytest

from edge.collect import COUNT
from tests.support.processes import MatcherProcess, run_box
from tests.support.standins import write_film, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4")


def test_crops_are_kept_only_where_asked_for_and_every_such_start_says_so(
    tmp_path: Path, models: Path, film: Path
) -> None:
    crops = tmp_path / "crops"
    crops.mkdir(mode=0o700)
    old, theirs = crops / "1795288623332000001_c1_000002.jpg", crops / "holiday.jpg"
    for path in (old, theirs):
        path.write_bytes(b"x")
        os.utime(path, (1, 1))
    with MatcherProcess(tmp_path / "ledger") as matcher:
        box = (tmp_path / "box", models, "--source", f"hall={film}", "--matcher", matcher.address)
        plain = run_box(*box)
        before = sorted(crops.iterdir())
        asked = run_box(*box, "--collect", str(crops), "--collect-keep", "1")
        (crops / COUNT).write_text("86400\n")
        spent = run_box(*box, "--collect", str(crops))

    assert (plain.code, asked.code, spent.code) == (0, 0, 0), asked.stderr
    assert "--collect" not in plain.stderr and before == [old, theirs]
    assert "crops of people are kept on this box (--collect)" in asked.stderr
    kept = [path for path in crops.glob("*.jpg") if path != theirs]
    assert old not in kept and theirs.exists()
    assert len(kept) == asked.summary["cameras"]["hall"]["embeddings"] > 0
    assert {stat.S_IMODE(path.stat().st_mode) for path in [*kept, crops / COUNT]} == {0o600}
    assert "no crops are kept" in spent.stderr and sorted(crops.glob("*.jpg")) == sorted(
        [*kept, theirs]
    )
    assert stat.S_IMODE(crops.stat().st_mode) == 0o700
    assert all(cv2.imread(str(path)) is not None for path in kept)
