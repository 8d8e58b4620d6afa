"""Video files, good and bad."""

from __future__ import annotations

import os
import wave
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from edge import app
from edge.config import Config, SourceConfig
from edge.exit_codes import ExitCode
from edge.sources.av import Damage
from edge.sources.av_errors import translate
from edge.sources.base import (
    Reading,
    SourceEndedError,
    SourceError,
    SourceNotFoundError,
    SourceNotVideoError,
    SourceUnauthorisedError,
    open_source,
)
from edge.sources.camera import CameraEvent, CameraState, EventKind
from edge.sources.reconnect import CameraThread
from edge.types import Frame, TimeSource
from tests.support.clips import picture, write_clip


def read_all(path: Path | str, **options: object) -> tuple[list[Reading], SourceError]:
    source = open_source(SourceConfig.model_validate({"name": "a", "url": str(path), **options}))
    readings: list[Reading] = []
    try:
        source.open()
        while True:
            readings.append(source.read())
    except SourceError as error:
        return readings, error
    finally:
        source.close()


def play(path: Path) -> tuple[list[Frame], CameraThread, list[CameraEvent]]:
    """Everything a camera thread makes of a file."""
    events: list[CameraEvent] = []
    camera = CameraThread(config=SourceConfig(name="a", url=str(path)), on_event=events.append)
    camera.start()
    frames = []
    while not camera.done:
        frame = camera.take(5.0)
        if frame is not None:
            frames.append(frame)
    camera.stop()
    return frames, camera, events


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_every_frame_of_a_file_comes_once_and_looks_as_it_was_filmed(
    tmp_path: Path, suffix: str
) -> None:
    path = write_clip(tmp_path / f"a{suffix}", frames=30, fps=10)

    frames, camera, events = play(path)

    assert [frame.index for frame in frames] == list(range(30))
    assert camera.state is CameraState.ENDED
    assert [event.kind for event in events] == [EventKind.ONLINE, EventKind.ENDED]
    assert camera.counters().bytes_video_in > 0.7 * os.path.getsize(path)
    for frame in frames:
        assert frame.image.flags["C_CONTIGUOUS"]
        wanted = picture(frame.index).astype(int)
        assert np.abs(frame.image.astype(int) - wanted).mean() < 12.0


def test_times_of_a_file_advance_with_its_own_timestamps(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=30, fps=10)
    os.utime(path, (1_700_000_003, 1_700_000_003))

    readings, _ = read_all(path)

    steps = np.diff([reading.captured.monotonic_nanos for reading in readings])
    assert steps == pytest.approx(1e8, abs=1e3)
    first = readings[0].captured
    assert first.source is TimeSource.FILE
    assert first.unix_nanos == 1_700_000_000 * 10**9  # written when its 3 s had ended
    assert first.uncertainty_ms >= 1000.0


def test_a_given_start_time_beats_the_files_own(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=5, fps=10)

    readings, _ = read_all(path, start_time="2026-01-31T08:00:00Z")

    assert readings[0].captured.source is TimeSource.GIVEN
    begins = datetime(2026, 1, 31, 8, tzinfo=UTC).timestamp()
    assert readings[0].captured.unix_nanos == round(begins) * 10**9
    assert readings[4].captured.unix_nanos - readings[0].captured.unix_nanos == 400_000_000


@pytest.mark.parametrize(
    ("name", "content", "kind", "says"),
    [
        ("notes.txt", b"some words, no film\n" * 400, SourceNotVideoError, "not a video"),
        ("noise.mp4", bytes(range(256)) * 64, SourceNotVideoError, "not a video"),
        ("nothing.mp4", b"", SourceNotVideoError, "the file is empty"),
    ],
)
def test_a_file_that_is_no_video_says_so(
    tmp_path: Path, name: str, content: bytes, kind: type[SourceError], says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    frames, camera, events = play(path)

    assert frames == []
    assert camera.state is CameraState.FAILED
    assert isinstance(camera.last_error, kind)
    assert says in events[-1].text
    assert "give a video file" in events[-1].text


def test_a_text_in_the_form_of_terminal_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("hello world\n" * 100)  # libav alone plays this as a film of letters

    readings, error = read_all(path)

    assert readings == []
    assert isinstance(error, SourceNotVideoError)


def test_a_file_of_sound_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))

    _, error = read_all(path)

    assert isinstance(error, SourceNotVideoError)
    assert "it holds no video, only audio" in str(error)


def test_a_video_that_no_decoder_knows_is_a_fault_of_the_source(tmp_path: Path) -> None:
    content = write_clip(tmp_path / "known.mp4", frames=5).read_bytes()
    file = tmp_path / "unknown.mp4"
    file.write_bytes(content.replace(b"avc1", b"zzzz").replace(b"iso2zzzz", b"iso2avc1"))

    readings, error = read_all(file)

    assert readings == []
    assert isinstance(error, SourceNotVideoError)
    assert "cannot be decoded here; set it to H.264" in str(error)


def test_a_path_that_the_system_does_not_take_is_a_fault_of_the_source(tmp_path: Path) -> None:
    for url in (f"{tmp_path}/{'x' * 300}.mp4", f"folder:{tmp_path}/{'x' * 300}"):
        _, error = read_all(url)

        assert "File name too long" in str(error)
        assert app.run(
            Config(data_dir=tmp_path / "d", sources=(SourceConfig(name="a", url=url),))
        ) == (ExitCode.NO_SOURCE)


def test_a_missing_file_says_from_where_it_was_looked_for(tmp_path: Path) -> None:
    _, error = read_all("nowhere/clip.mp4")

    assert isinstance(error, SourceNotFoundError)
    assert f"looked from {Path.cwd()}" in str(error)


def test_a_folder_given_as_a_file_shows_how_folders_are_written(tmp_path: Path) -> None:
    _, error = read_all(tmp_path)

    assert f"folder:{tmp_path}" in str(error)


def test_a_forbidden_file_says_so() -> None:
    error = translate(PermissionError(13, "Permission denied"), "a.mp4", "file", opening=True)

    assert isinstance(error, SourceUnauthorisedError)
    assert "this user may not read the file; check its owner and mode" in str(error)


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".ts", ".h264"])
def test_a_file_that_ends_mid_frame_gives_what_it_holds_and_says_so(
    tmp_path: Path, suffix: str
) -> None:
    path = write_clip(tmp_path / f"a{suffix}", frames=50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])

    frames, camera, events = play(path)

    assert 25 <= len(frames) <= 32
    assert camera.state is CameraState.ENDED
    # either the last frame is marked, or the length that the file states shows that it is cut
    cut_off = [event for event in events if event.kind is EventKind.DAMAGED]
    assert frames[-1].corrupt or cut_off
    assert not any(frame.corrupt for frame in frames[:-1])


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])

    _, error = read_all(path)

    assert isinstance(error, SourceNotVideoError)


def test_concealed_errors_are_marked_until_the_next_key_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", frames=50, key_every=10)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(number * 37 % 256 for number in range(300))
    path.write_bytes(content)

    frames, camera, _ = play(path)

    corrupt = [frame.index for frame in frames if frame.corrupt]
    assert corrupt, "the damage went unnoticed"
    assert corrupt == list(range(corrupt[0], corrupt[-1] + 1))
    assert corrupt[-1] % 10 == 9
    assert len(corrupt) <= 20
    assert camera.counters().corrupt >= len(corrupt)


def test_a_film_whose_size_changes_goes_on_and_tells(tmp_path: Path) -> None:
    wide = write_clip(tmp_path / "1.h264", frames=20, width=320, height=240)
    small = write_clip(tmp_path / "2.h264", frames=20, width=160, height=120)
    both = tmp_path / "both.h264"
    both.write_bytes(wide.read_bytes() + small.read_bytes())

    frames, camera, events = play(both)

    assert [frame.image.shape for frame in frames] == [(240, 320, 3)] * 20 + [(120, 160, 3)] * 20
    assert camera.counters().size_changes == 1
    assert EventKind.RESIZED in [event.kind for event in events]


def test_a_source_may_be_closed_before_it_was_opened_and_twice(tmp_path: Path) -> None:
    source = open_source(SourceConfig(name="a", url=str(write_clip(tmp_path / "a.mp4", frames=3))))

    source.close()
    source.open()
    source.close()
    source.close()

    with pytest.raises(SourceEndedError):
        source.read()


def test_an_unknown_scheme_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(ValueError, match="unknown kind of source 'ftp'"):
        CameraThread(config=SourceConfig(name="a", url="ftp://cam/x"))


def test_frames_are_distrusted_from_an_error_to_the_next_sound_key_frame() -> None:
    damage = Damage()

    def distrusted(key_frame: bool, corrupt: bool, now_s: float) -> bool:
        return damage.distrusts(key_frame=key_frame, corrupt=corrupt, now_s=now_s)

    assert not distrusted(False, False, 0.0)
    assert distrusted(False, True, 1.0)
    assert distrusted(False, False, 2.0)
    assert distrusted(True, True, 3.0)
    assert not distrusted(True, False, 4.0)
    damage.error(5.0)
    assert distrusted(False, False, 14.0)
    assert not distrusted(False, False, 15.1)  # a stream that never sends another key frame
