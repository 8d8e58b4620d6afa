"""A folder of pictures as a film."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.config import SourceConfig
from edge.sources.base import (
    SourceEndedError,
    SourceNotFoundError,
    SourceNotVideoError,
    open_source,
)
from edge.types import TimeSource
from tests.support.clips import picture


def folder_of(path: Path, count: int = 12) -> Path:
    path.mkdir()
    for number in range(count):
        cv2.imwrite(str(path / f"frame{number}.png"), picture(number, width=64, height=48))
    return path


def config(url: str, **options: object) -> SourceConfig:
    return SourceConfig.model_validate({"name": "a", "url": url, **options})


def test_pictures_come_in_the_order_a_person_counts(tmp_path: Path) -> None:
    source = open_source(config(f"folder:{folder_of(tmp_path / 'p')}?fps=5"))

    source.open()
    readings = [source.read() for _ in range(12)]

    for number, reading in enumerate(readings):
        assert (reading.to_bgr() == picture(number, width=64, height=48)).all()
    steps = {b.captured.unix_nanos - a.captured.unix_nanos for a, b in pairwise(readings)}
    assert steps == {200_000_000}
    assert readings[0].captured.source is TimeSource.FILE
    assert source.bytes_in == sum(file.stat().st_size for file in (tmp_path / "p").iterdir())
    with pytest.raises(SourceEndedError):
        source.read()


def test_a_damaged_picture_is_counted_and_passed_by(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", count=3)
    (folder / "frame1.png").write_bytes(b"not a picture")
    (folder / "frame1b.png").touch()
    (folder / "notes.txt").write_text("no picture either")
    source = open_source(config(f"folder:{folder}"))

    source.open()
    source.read()
    source.read()

    assert source.undecodable == 2
    with pytest.raises(SourceEndedError):
        source.read()


def test_an_empty_folder_says_what_it_should_hold(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    source = open_source(config(f"folder:{tmp_path}"))

    with pytest.raises(SourceNotVideoError, match=r"holds no picture \(1 other entries\).*\.jpg"):
        source.open()


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()

    with pytest.raises(SourceNotFoundError, match="no such folder"):
        open_source(config(f"folder:{tmp_path}/nowhere")).open()
    with pytest.raises(SourceNotFoundError, match="this is no folder"):
        open_source(config(f"folder:{tmp_path}/clip.mp4")).open()


@pytest.mark.parametrize(
    ("query", "says"),
    [("fps=0", "above 0"), ("fps=fast", "above 0"), ("size=1x1", "unknown option 'size'")],
)
def test_options_are_checked_before_anything_is_opened(query: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_source(config(f"folder:/tmp?{query}"))


def test_a_given_start_time_counts_for_folders_too(tmp_path: Path) -> None:
    source = open_source(
        config(f"folder:{folder_of(tmp_path / 'p', 1)}", start_time="2026-01-31T08:00:00Z")
    )

    source.open()

    assert source.read().captured.source is TimeSource.GIVEN


def test_a_picture_larger_than_opencv_takes_is_passed_by(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    huge = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0"))
    (tmp_path / "1.png").write_bytes(huge + chunk(b"IEND", b""))
    cv2.imwrite(str(tmp_path / "2.png"), np.zeros((20, 30, 3), np.uint8))
    source = open_source(config(f"folder:{tmp_path}"))

    source.open()
    reading = source.read()

    assert (reading.width, reading.height, source.undecodable) == (30, 20, 1)
