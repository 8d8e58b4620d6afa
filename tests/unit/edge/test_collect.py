"""Crops kept for adaptation: whose they are, how many, how long, and what a full disk does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.collect import COUNT, CollectError, Collector
from edge.config import CollectConfig
from models.data.store import open_images
from tests.conftest import skip_or_fail
from tests.support.waiting import eventually

WITHIN_S = 10.0


def crop(seed: int = 1) -> np.ndarray:
    rise = np.linspace(0, 200, 64, dtype=np.uint8)[:, None, None]
    return np.tile(rise, (1, 32, 3)) + np.uint8(seed)


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def collector(folder: Path, *, now_s: Clock | None = None, **config: float) -> Collector:
    def on_fault(name: str, fault: BaseException) -> None:
        raise AssertionError(name) from fault

    made = Collector(
        config=CollectConfig.model_validate({"folder": folder, **config}),
        on_fault=on_fault,
        now_s=now_s or Clock(),
    )
    made.start()
    return made


def test_crops_are_files_of_the_owner_alone_and_can_be_read_as_images(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    kept = collector(folder)

    kept.put("door", 7, crop(1))
    kept.put("yard", 8, crop(2))
    kept.stop()

    names = sorted(path.name for path in folder.glob("*.jpg"))
    assert [(name.split("_")[0][-6:], name.split("_")[1]) for name in names] == [
        ("000007", "c1"),
        ("000008", "c2"),
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with open_images(folder) as images:
        assert len(images.files("")) == 2
    read = cv2.imread(str(folder / names[0]))
    assert read is not None and np.abs(read.astype(int) - crop(1)).mean() < 4
    assert "on this box" in (kept.told() or "")


def test_no_more_is_written_than_the_cap_allows_and_it_is_said(tmp_path: Path) -> None:
    kept = collector(tmp_path / "crops", max_bytes=1 << 20)
    (tmp_path / "crops" / "old.jpg").write_bytes(b"x" * (1 << 20))
    kept.sweep()

    kept.put("door", 1, crop())
    kept.stop()

    assert (kept.written, kept.dropped) == (0, 1)
    assert "are allowed" in (kept.told() or "")


def test_old_crops_are_deleted_and_collecting_ends_after_its_hours(tmp_path: Path) -> None:
    clock = Clock()
    old = tmp_path / "crops" / "1795288623332000001_c1_000002.jpg"
    old.parent.mkdir()
    old.write_bytes(b"x")
    os.utime(old, (1, 1))

    kept = collector(tmp_path / "crops", now_s=clock, max_hours=1.0, keep_hours=2.0)
    clock.s = 3601.0
    kept.put("door", 1, crop())
    kept.stop()

    assert list(old.parent.glob("*.jpg*")) == []
    assert kept.told() is None


def test_hours_are_counted_on_across_restarts_and_begin_anew_without_the_count(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "crops"
    clock = Clock()

    def day(hours: float) -> int:
        """Crops kept at the end of a run of so long."""
        kept = collector(folder, now_s=clock, max_hours=24.0)
        clock.s += 3600.0 * hours
        kept.put("door", 1, crop())
        kept.stop()
        clock.s += 1e6  # another boot: the clock says nothing of the last one
        return kept.written

    written = [day(10.0), day(10.0), day(3.0), day(2.0), day(0.0)]
    count = (folder / COUNT).read_text()
    mode = stat.S_IMODE((folder / COUNT).stat().st_mode)
    (folder / COUNT).unlink()
    anew = day(0.0)

    assert written == [1, 1, 1, 0, 0]
    assert (count, mode, anew) == ("86400\n", 0o600, 1)


def test_a_run_that_was_killed_counts_and_so_does_a_count_that_cannot_be_read(
    tmp_path: Path,
) -> None:
    clock = Clock()
    killed = collector(tmp_path / "crops", now_s=clock, max_hours=1.0)
    after_kill = float((tmp_path / "crops" / COUNT).read_text())
    killed.stop()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / COUNT).write_text("")

    kept = collector(damaged, now_s=clock)
    over = kept.over
    kept.put("door", 1, crop())
    kept.stop()

    assert 0 < after_kill <= 60
    assert over and kept.written == 0
    assert (damaged / COUNT).read_text() == ""


def test_a_count_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    kept = collector(tmp_path / "crops", now_s=clock)
    real = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if target.name == COUNT:
            raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    clock.s = 3600.0

    eventually(lambda: "longer than collect.max_hours" in (kept.told() or ""), within_s=WITHIN_S)
    kept.stop()


def test_pictures_that_are_not_its_own_are_never_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    folder.mkdir(mode=0o700)
    mine, torn, theirs, market = (
        folder / name
        for name in (
            "1795288623332000001_c1_000002.jpg", "1795288623332000001_c1_000003.jpg.part",
            "holiday.jpg", "0002_c1s1_000776_01.jpg",
        )
    )  # fmt: skip
    for path in (mine, torn, theirs, market):
        path.write_bytes(b"x")
        os.utime(path, (1, 1))

    collector(folder).stop()

    assert sorted(folder.glob("*.jpg*")) == sorted([theirs, market])


def test_a_crop_that_cannot_be_deleted_is_said_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "crops"
    folder.mkdir()
    old = folder / "1795288623332000001_c1_000002.jpg"
    old.write_bytes(b"x")
    os.utime(old, (1, 1))
    real = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".jpg":
            raise PermissionError(1, "Operation not permitted")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    kept = collector(folder)
    kept.stop()

    assert old.name in (kept.told() or "") and "Operation not permitted" in (kept.told() or "")


def test_a_full_disk_is_counted_and_said_and_over_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        skip_or_fail("there is no /dev/full, a device that is always full")
    kept = collector(tmp_path / "crops")
    real = os.open

    def full(path: Path, flags: int, mode: int = 0o600) -> int:
        return real("/dev/full", os.O_WRONLY)

    monkeypatch.setattr("edge.collect.os.open", full)
    kept.put("door", 1, crop())
    eventually(lambda: kept.dropped == 1, within_s=WITHIN_S)
    said = kept.told() or ""
    monkeypatch.undo()
    kept.put("door", 1, crop())
    kept.stop()

    assert "No space left" in said and "1 crops lost" in said
    assert kept.written == 1
    assert kept.problem == ""


@pytest.mark.parametrize(("mode", "holds"), [(0o755, "notes.txt"), (0o1777, "")])
def test_a_folder_that_others_use_is_refused_and_left_as_it_is(
    mode: int, holds: str, tmp_path: Path
) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    if holds:
        (folder / holds).write_text("mine")
    folder.chmod(mode)

    with pytest.raises(CollectError, match="chmod 700"):
        collector(folder)

    assert stat.S_IMODE(folder.stat().st_mode) == mode
    assert [path.name for path in folder.iterdir()] == ([holds] if holds else [])


def test_an_empty_volume_is_closed_to_others_and_used(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    (folder / "lost+found").mkdir(parents=True)
    folder.chmod(0o755)

    collector(folder).stop()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CollectError, match="file/crops"):
        collector(tmp_path / "file" / "crops")
