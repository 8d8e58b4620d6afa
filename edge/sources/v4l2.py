"""A camera at this machine: `v4l2:/dev/video0?size=1280x720&fps=30&format=mjpeg`.

Promise: options are checked before anything is opened; unknown ones are refused.
Failing: a device that is missing, no camera, in use or forbidden says which of these it is.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from edge.config import SourceConfig
from edge.sources.av import AvSource, Plan
from edge.sources.base import (
    SourceNotFoundError,
    SourceNotVideoError,
    SourceUnauthorisedError,
)
from edge.sources.urls import parse
from reid.clock import Clock

OPTIONS = ("size", "fps", "format")
# libav's names of what cameras send; others are possible, these are what is met.
FORMATS = frozenset({"mjpeg", "h264", "yuyv422", "nv12", "yuv420p", "uyvy422", "bgr24", "rgb24"})
_SIZE = re.compile(r"^[1-9]\d{1,4}x[1-9]\d{1,4}$")
_FPS = re.compile(r"^[1-9]\d{0,2}(\.\d+)?$")
# V4L2 major number, Linux Documentation/admin-guide/devices.txt
_VIDEO_MAJOR = 81


def plan_v4l2(config: SourceConfig) -> Plan:
    """How a v4l2: address is opened.

    Raises: ValueError: an unknown option or a value that is none.
    """
    address = parse(config.url)
    options = {}
    for name, value in address.options.items():
        if name == "size" and _SIZE.match(value):
            options["video_size"] = value
        elif name == "fps" and _FPS.match(value):
            options["framerate"] = value
        elif name == "format" and value in FORMATS:
            # libav knows compressed and raw formats under one option
            options["input_format"] = value
        elif name in OPTIONS:
            raise ValueError(
                f"{config.url}: {name}={value} is not possible; size is WIDTHxHEIGHT, fps a "
                f"number, format one of {', '.join(sorted(FORMATS))}"
            )
        else:
            raise ValueError(
                f"{config.url}: unknown option {name!r}; v4l2 takes {', '.join(OPTIONS)}"
            )
    return Plan(address.target, live=True, format="v4l2", options=options, media="device")


class V4l2Source(AvSource):
    """A V4L2 device, checked and then read like any other stream."""

    def __init__(self, *, config: SourceConfig, clock: Clock) -> None:
        """Raises: ValueError: as plan_v4l2."""
        super().__init__(config=config, clock=clock, how=plan_v4l2(config))

    def open(self) -> None:
        where = self._config.url
        device = Path(parse(where).target)
        try:
            mode = device.stat()
        except OSError:
            raise SourceNotFoundError(where, "there is no such device", _cure()) from None
        if not stat.S_ISCHR(mode.st_mode) or os.major(mode.st_rdev) != _VIDEO_MAJOR:
            raise SourceNotVideoError(where, "this is no video device", _cure())
        if not os.access(device, os.R_OK | os.W_OK):
            raise SourceUnauthorisedError(
                where,
                "this user may not open the device",
                "add the user to the group video; in a container pass --device and --group-add",
            )
        super().open()


def _cure() -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    seen = f"this machine has {', '.join(found)}" if found else "this machine shows no camera"
    return f"{seen}; check the plug, and in a container pass --device"
