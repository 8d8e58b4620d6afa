"""The rendered street as a source: `synth://street?cameras=2&people=8&seed=1&camera=1`.

Promise: a camera or a file, as asked (`SceneParams.live`). Live: paced in real time; a reader that
is late gets the newest picture and the others are never drawn; endless live sources of one scene
show the same moment, since their scene time is UTC. As a file (`frames=N`, or `pace=0`): every
picture from scene time 0, as fast as it is read. A picture is drawn when it is converted, in the
thread that does so.
Failing: a wrong address is a ValueError of the constructor; the last frame a SourceEndedError.
Threads: as every source; `close` from another thread ends a waiting `read`.
"""

from __future__ import annotations

import threading

from edge.config import SourceConfig
from edge.sources.base import Reading, SourceEndedError
from edge.sources.capture_time import GIVEN_UNCERTAINTY_MS, FileTimes
from edge.sources.scene import SceneParams, SynthScene
from edge.types import CaptureTime, Image, TimeSource
from reid.clock import Clock

SECOND_NS = 1_000_000_000
# Pacing is as good as the wake-up of a thread; the instant itself is exact by definition.
LIVE_UNCERTAINTY_MS = 1.0


class SynthSource:
    """One camera of a rendered scene."""

    def __init__(self, *, config: SourceConfig, clock: Clock) -> None:
        """Raises: SceneError (a ValueError): another scene, an unknown key, a wrong value."""
        self._params = SceneParams.parse(config.url)
        self.live = self._params.live
        self.bytes_in = 0  # there is no compressed video
        self.undecodable = 0
        self._config = config
        self._clock = clock
        self._closed = threading.Event()
        self._drawing = threading.Lock()  # a scene is drawn by one thread at a time
        self._scene: SynthScene | None = None
        self._next = 0  # index of the next frame
        self._zero_mono_ns = 0  # when frame 0 is due, live
        self._zero_unix_ns = 0
        self._times: FileTimes | None = None

    def open(self) -> None:
        self._closed.clear()
        self._scene = SynthScene(self._params)
        self._scene.prepare(self._params.camera)  # takes a second; a camera does not stall later
        unix_ns, mono_ns = self._clock.unix_nanos(), self._clock.monotonic_nanos()
        self._next = 0
        if self.live:
            began_ns = unix_ns if self._params.frames else 0
            self._zero_unix_ns = began_ns
            self._zero_mono_ns = mono_ns - (unix_ns - began_ns)
            return
        given = self._config.start_time
        if given is None:  # as if it had just been recorded, to the second: cameras agree
            length_ns = round(self._params.frames / self._params.fps * 1e9)
            start_ns = (unix_ns - length_ns) // SECOND_NS * SECOND_NS
        else:
            start_ns = round(given.timestamp() * 1e6) * 1000
        self._times = FileTimes(
            start_unix_nanos=start_ns,
            start_monotonic_nanos=mono_ns,
            source=TimeSource.FILE if given is None else TimeSource.GIVEN,
            uncertainty_ms=1000.0 if given is None else GIVEN_UNCERTAINTY_MS,
        )

    def read(self) -> Reading:
        scene = self._scene
        if scene is None or self._closed.is_set():
            raise SourceEndedError(self._config.url, "it is closed", "open it first")
        index = self._wait_for_newest() if self.live else self._next
        if self._params.frames and index >= self._params.frames:
            raise SourceEndedError(self._config.url, f"all {self._params.frames} frames were read")
        self._next = index + 1

        def draw() -> Image:
            with self._drawing:
                return scene.frame(self._params.camera, index)

        return Reading(draw, self._params.width, self._params.height, self._captured(index))

    def close(self) -> None:
        self._closed.set()

    def _wait_for_newest(self) -> int:
        """The index that is due now or next, never one twice."""
        while True:
            now_ns = self._clock.monotonic_nanos()
            due = int((now_ns - self._zero_mono_ns) * self._params.fps / 1e9)
            if due >= self._next:
                return due
            wait_s = (self._offset_ns(self._next) + self._zero_mono_ns - now_ns) * 1e-9
            if self._closed.wait(max(wait_s, 1e-3)):
                raise SourceEndedError(self._config.url, "it was closed", "open it again")

    def _captured(self, index: int) -> CaptureTime:
        if self._times is not None:
            return self._times.captured(index / self._params.fps)
        offset_ns = self._offset_ns(index)
        return CaptureTime(
            self._zero_unix_ns + offset_ns,
            max(self._zero_mono_ns + offset_ns, 0),
            TimeSource.ARRIVAL,
            LIVE_UNCERTAINTY_MS,
        )

    def _offset_ns(self, index: int) -> int:
        return round(index / self._params.fps * 1e9)
