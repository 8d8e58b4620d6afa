"""The rendered street as a source: a file or a camera."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from edge.config import SourceConfig
from edge.sources.base import SourceEndedError, open_source
from edge.sources.scene import SceneError, SceneParams, SynthScene
from edge.sources.synth import SynthSource
from edge.types import TimeSource
from reid.clock import SystemClock

SIZE = "people=2&width=192&height=144&fps=10"
NOON_NS = 1_790_000_000_000_000_000


class SteppingClock:
    """Time moves by a fixed step at each look."""

    boot_id = "00000000-0000-0000-0000-000000000000"

    def __init__(self, step_ns: int) -> None:
        self.step_ns = step_ns
        self.now_ns = 5_000_000_000

    def monotonic_nanos(self) -> int:
        self.now_ns += self.step_ns
        return self.now_ns

    def unix_nanos(self) -> int:
        return NOON_NS + self.now_ns


def source(query: str, clock: SteppingClock | None = None, **more: object) -> SynthSource:
    config = SourceConfig(name="street", url=f"synth://street?{SIZE}&{query}", **more)  # type: ignore[arg-type]
    return SynthSource(config=config, clock=clock or SteppingClock(0))


def test_as_a_file_every_frame_comes_once_and_then_it_ends() -> None:
    film = source("frames=5&camera=2")
    film.open()

    readings = [film.read() for _ in range(5)]

    assert film.live is False
    scene = SynthScene(SceneParams(people=2, width=192, height=144, fps=10))
    for index in (0, 4):
        assert np.array_equal(readings[index].to_bgr(), scene.frame(2, index))
    steps = np.diff([one.captured.monotonic_nanos for one in readings])
    assert steps.tolist() == [100_000_000] * 4
    assert readings[0].captured.source is TimeSource.FILE
    with pytest.raises(SourceEndedError, match="all 5 frames"):
        film.read()
    film.close()
    film.close()


def test_a_given_start_time_is_that_of_the_first_frame() -> None:
    start = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    film = source("frames=2", start_time=start)
    film.open()

    captured = film.read().captured

    assert captured.unix_nanos == int(start.timestamp()) * 1_000_000_000
    assert captured.source is TimeSource.GIVEN


def test_a_late_reader_of_a_live_street_gets_the_newest_frame() -> None:
    clock = SteppingClock(350_000_000)  # three and a half frames at each look
    camera = source("camera=1", clock)
    camera.open()

    times = [camera.read().captured.monotonic_nanos for _ in range(6)]

    assert camera.live is True
    gaps = np.diff(times) / 100_000_000
    assert set(gaps.tolist()) == {3.0, 4.0}
    assert clock.now_ns - times[-1] < 100_000_000


def test_live_cameras_of_one_scene_show_the_same_moment() -> None:
    one, other = source("camera=1"), source("camera=1", SteppingClock(1_000_000))
    one.open()
    other.open()

    first, second = one.read(), other.read()
    apart_ns = abs(first.captured.unix_nanos - second.captured.unix_nanos)

    assert apart_ns <= 100_000_000
    assert first.captured.unix_nanos % 100_000_000 == 0


def test_pace_makes_a_finite_street_live_and_an_endless_one_a_file() -> None:
    assert source("frames=3&pace=1").live is True
    assert source("pace=0").live is False


def test_a_live_street_with_a_limit_ends() -> None:
    camera = source("frames=3&pace=1", SteppingClock(110_000_000))
    camera.open()

    for _ in range(2):
        camera.read()

    with pytest.raises(SourceEndedError, match="all 3 frames"):
        camera.read()


def test_close_wakes_a_reader_that_waits_for_the_next_frame() -> None:
    config = SourceConfig(
        name="slow", url="synth://street?people=0&width=64&height=64&fps=0.1&frames=9&pace=1"
    )
    camera = SynthSource(config=config, clock=SystemClock())
    camera.open()
    camera.read()
    caught: list[Exception] = []

    def read() -> None:
        try:
            camera.read()
        except SourceEndedError as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    camera.close()
    reader.join(5)

    assert not reader.is_alive()
    assert len(caught) == 1


def test_a_wrong_address_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(SceneError, match="people"):
        open_source(SourceConfig(name="x", url="synth://street?people=many"))
