"""Cameras at this machine, as far as a machine without one can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import SourceConfig
from edge.sources.base import SourceNotFoundError, SourceNotVideoError, open_source
from edge.sources.v4l2 import plan_v4l2


def config(url: str) -> SourceConfig:
    return SourceConfig(name="desk", url=url)


def test_options_become_those_of_the_driver() -> None:
    plan = plan_v4l2(config("v4l2:/dev/video0?size=1280x720&fps=30&format=mjpeg"))

    assert plan.url == "/dev/video0"
    assert plan.format == "v4l2"
    assert plan.live
    assert plan.options == {
        "video_size": "1280x720",
        "framerate": "30",
        "input_format": "mjpeg",
    }


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("size=big", "size=big is not possible; size is WIDTHxHEIGHT"),
        ("size=0x0", "size=0x0 is not possible"),
        ("fps=-1", "fps=-1 is not possible"),
        ("format=vp9", "format=vp9 is not possible.*mjpeg"),
        ("resolution=1x1", "unknown option 'resolution'; v4l2 takes size, fps, format"),
    ],
)
def test_wrong_options_are_refused_with_the_right_ones(query: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_source(config(f"v4l2:/dev/video0?{query}"))


def test_a_missing_device_says_which_ones_there_are() -> None:
    source = open_source(config("v4l2:/dev/video99"))

    with pytest.raises(SourceNotFoundError, match=r"no such device; this machine (has|shows)"):
        source.open()


@pytest.mark.parametrize("path", ["/dev/null", __file__])
def test_what_is_no_camera_is_refused(path: str) -> None:
    source = open_source(config(f"v4l2:{Path(path)}"))

    with pytest.raises(SourceNotVideoError, match="this is no video device"):
        source.open()
    assert source.live
