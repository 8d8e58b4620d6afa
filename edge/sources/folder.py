"""A folder of pictures as a film: `folder:PATH?fps=10`, sorted by name as a person would.

Promise: every picture that can be read comes out once. One that cannot is counted and passed by.
Capture time: `start_time` where given, else the first picture's file time, plus index / fps.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from edge.config import SourceConfig
from edge.sources.base import (
    Reading,
    SourceBrokenError,
    SourceEndedError,
    SourceNotFoundError,
    SourceNotVideoError,
    SourceUnauthorisedError,
)
from edge.sources.capture_time import (
    GIVEN_UNCERTAINTY_MS,
    MTIME_UNCERTAINTY_MS,
    FileTimes,
)
from edge.sources.urls import parse
from edge.types import Image, TimeSource
from reid.clock import Clock

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
DEFAULT_FPS = 10.0
MAX_FPS = 240.0


class FolderSource:
    """The pictures of one folder, not of folders below it."""

    def __init__(self, *, config: SourceConfig, clock: Clock) -> None:
        """Raises: ValueError: an option other than fps, or an fps that is none."""
        address = parse(config.url)
        unknown = sorted(set(address.options) - {"fps"})
        if unknown:
            raise ValueError(f"{config.url}: unknown option {unknown[0]!r}; a folder takes fps")
        self.live = False
        self.bytes_in = 0
        self.undecodable = 0
        self._config = config
        self._clock = clock
        self._folder = Path(address.target)
        self._fps = _fps(config.url, address.options.get("fps"))
        self._files: list[Path] = []
        self._next = 0
        self._times: FileTimes | None = None

    def open(self) -> None:
        where = self._config.url
        try:
            entries = list(self._folder.iterdir())
        except FileNotFoundError:
            raise SourceNotFoundError(
                where, f"there is no such folder (looked from {Path.cwd()})"
            ) from None
        except NotADirectoryError:
            raise SourceNotFoundError(
                where, "this is no folder", f"for a video file give its path alone: {self._folder}"
            ) from None
        except PermissionError:
            raise SourceUnauthorisedError(
                where, "this user may not read the folder", "check its owner and mode"
            ) from None
        except OSError as error:
            raise SourceBrokenError(where, f"the folder cannot be read: {error.strerror}") from None
        self._files = sorted(
            (entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()),
            key=_natural,
        )
        if not self._files:
            raise SourceNotVideoError(
                where,
                f"the folder holds no picture ({len(entries)} other entries)",
                f"give a folder with {', '.join(sorted(SUFFIXES))}",
            )
        given = self._config.start_time
        self._times = FileTimes(
            start_unix_nanos=(
                self._files[0].stat().st_mtime_ns
                if given is None
                else round(given.timestamp() * 1e6) * 1000
            ),
            start_monotonic_nanos=self._clock.monotonic_nanos(),
            source=TimeSource.FILE if given is None else TimeSource.GIVEN,
            uncertainty_ms=MTIME_UNCERTAINTY_MS if given is None else GIVEN_UNCERTAINTY_MS,
        )

    def read(self) -> Reading:
        while self._times is not None and self._next < len(self._files):
            index, self._next = self._next, self._next + 1
            image = self._load(self._files[index])
            if image is not None:
                return Reading.of_image(image, self._times.captured(index / self._fps))
            self.undecodable += 1
        raise SourceEndedError(self._config.url, "all pictures were read")

    def close(self) -> None:
        self._files = []

    def _load(self, file: Path) -> Image | None:
        try:
            data = file.read_bytes()
        except OSError:  # gone or unreadable since the open: counted like a damaged one
            return None
        self.bytes_in += len(data)
        if not data:
            return None
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # larger than OpenCV takes
            return None
        return None if image is None else np.asarray(image, np.uint8)


def _fps(where: str, text: str | None) -> float:
    try:
        fps = DEFAULT_FPS if text is None else float(text)
    except ValueError:
        fps = 0.0
    if not 0.0 < fps <= MAX_FPS:
        raise ValueError(f"{where}: fps is pictures per second, above 0 to {MAX_FPS:g}; got {text}")
    return fps


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that puts frame9 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part.lower()) for part in parts]
