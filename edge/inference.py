"""The inference thread: takes frames of all cameras in turn through their pipelines.

Promise: cameras take turns, so load beyond the machine lowers the analysed rate of all alike; what
a camera's last frame leaves behind (living tracklets) is told before the thread ends.
Fails: anything unexpected ends the thread, with the reason in `fault`; the owner ends the process.
Threads: owns itself; `start`, `stop` and `join` belong to the owner.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from edge.pipeline import Analysed, CameraPipeline
from edge.types import Frame, Tracklet

# How long the thread sleeps when no camera has a frame; a new frame wakes it at once.
IDLE_S = 0.25


class FrameFeed(Protocol):
    """One camera, as seen from here (edge.sources.reconnect.CameraThread)."""

    @property
    def live(self) -> bool:
        """Whether frames are taken while they happen."""

    @property
    def done(self) -> bool:
        """No frame will come any more, and none waits."""

    def take(self, timeout_s: float) -> Frame | None:
        """The next frame, or None."""


class InferenceThread(threading.Thread):
    """Analyses the frames of all cameras.

    Args:
        cameras: name -> where its frames come from.
        pipelines: name -> its stages.
        emit: takes each revision that is due with the machine's monotonic time (ns) of the frame
            that caused it.
        observe: sees every analysed frame (preview); must be quick.
    """

    def __init__(
        self,
        *,
        cameras: Mapping[str, FrameFeed],
        pipelines: Mapping[str, CameraPipeline],
        emit: Callable[[Tracklet, int], None],
        observe: Callable[[Frame, Analysed], None] | None = None,
    ) -> None:
        super().__init__(name="inference", daemon=True)
        self.fault: BaseException | None = None
        self._cameras = dict(cameras)
        self._pipelines = dict(pipelines)
        self._emit = emit
        self._observe = observe
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def wake(self) -> None:
        """A camera has a frame or has ended."""
        self._wake.set()

    def stop(self) -> None:
        """Take no further frame; tell what lives and end. May be called twice."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        try:
            self._loop()
        except BaseException as fault:  # noqa: BLE001  the owner ends the process with it
            self.fault = fault

    def _loop(self) -> None:
        open_cameras = dict(self._cameras)
        while open_cameras and not self._stopping.is_set():
            self._wake.clear()
            took = False
            for name, camera in list(open_cameras.items()):
                # Asked before taking: a camera that ends in between is looked at once more.
                done = camera.done
                frame = camera.take(0.0)
                if frame is not None:
                    took = True
                    self._analyse(name, frame, live=camera.live)
                elif done:
                    del open_cameras[name]
                    self._finish(name)
                elif camera.live:
                    self._tell(self._pipelines[name].idle(time.monotonic()))
            if not took:
                self._wake.wait(IDLE_S)
        for name in open_cameras:
            self._finish(name)

    def _analyse(self, name: str, frame: Frame, *, live: bool) -> None:
        # A file's clock is its own; its latency counts from when the frame was taken.
        triggered = frame.captured.monotonic_nanos if live else time.monotonic_ns()
        analysed = self._pipelines[name].process(frame)
        for tracklet in analysed.revisions:
            self._emit(tracklet, triggered)
        if self._observe is not None:
            self._observe(frame, analysed)

    def _finish(self, name: str) -> None:
        self._tell(self._pipelines[name].finish())

    def _tell(self, tracklets: Iterable[Tracklet]) -> None:
        for tracklet in tracklets:
            self._emit(tracklet, time.monotonic_ns())
