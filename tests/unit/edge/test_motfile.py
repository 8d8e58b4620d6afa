"""The file that --tracks writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.track.motfile import MotFile, TracksFileError, path_for
from edge.types import EarlierBox, TrackedBox, TrackStep
from tests.unit.edge.tracks import captured, tracked


def test_a_line_has_frame_from_one_and_left_top_width_height(tmp_path: Path) -> None:
    file = MotFile(tmp_path / "tracks.txt")

    file.write(
        TrackStep((tracked(7, np.array([10, 20, 40, 100.5], np.float32), 0.9),)), frame_index=0
    )
    file.close()

    text = (tmp_path / "tracks.txt").read_text()
    assert text == "1,7,10.00,20.00,30.00,80.50,0.900,-1,-1,-1\n"


def test_boxes_told_late_stand_at_their_own_frame(tmp_path: Path) -> None:
    file = MotFile(tmp_path / "tracks.txt")
    box = np.array([0, 0, 10, 20], np.float32)
    late = EarlierBox(TrackedBox(1, box, 0.0, False), captured(0.0), 3)

    file.write(TrackStep((tracked(1, box),), earlier=(late,)), frame_index=5)
    file.close()

    lines = (tmp_path / "tracks.txt").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [["4", "1"], ["6", "1"]]
    assert lines[0].split(",")[6] == "0.000"


def test_a_camera_that_saw_nobody_leaves_an_empty_file(tmp_path: Path) -> None:
    file = MotFile(tmp_path / "tracks.txt")

    file.close()
    file.close()

    assert (tmp_path / "tracks.txt").read_bytes() == b""


def test_a_file_that_cannot_be_written_says_where_and_what_to_do(tmp_path: Path) -> None:
    file = MotFile(tmp_path / "missing" / "tracks.txt")

    with pytest.raises(TracksFileError, match=r"missing.*--tracks a file in a folder") as caught:
        file.open()

    assert caught.value.path == tmp_path / "missing" / "tracks.txt"


def test_several_cameras_get_a_file_each() -> None:
    asked = Path("out/tracks.txt")

    assert path_for(asked, "lobby", 1) == asked
    assert path_for(asked, "north gate", 2) == Path("out/tracks-north_gate.txt")
