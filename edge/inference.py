"""The inference thread: takes frames of all cameras in turn through their pipelines.

Promise: cameras take turns, so load beyond the machine lowers the analysed rate of all alike; what
a camera's last frame leaves behind (living tracklets) is told before the thread ends.
Fails: anything unexpected ends the thread, with the reason in `fault`; the owner ends the process.
Threads: owns itself; `start`, `add`, `remove`, `hold`, `stop` and `join` belong to the owner.
"""

from __future__ import annotations

import queue
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
        self._open = dict(cameras)
        self._pipelines = dict(pipelines)
        # What the owner asked for between frames; bounded by the number of cameras.
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._emit = emit
        self._observe = observe
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._held = threading.Event()

    def wake(self) -> None:
        """A camera has a frame or has ended."""
        self._wake.set()

    def add(self, name: str, camera: FrameFeed, pipeline: CameraPipeline) -> None:
        """Analyse one more camera from the next turn on; its name is not in use."""

        def order() -> None:
            self._pipelines[name] = pipeline
            self._open[name] = camera

        self._orders.put(order)
        self.wake()

    def remove(self, name: str) -> threading.Event:
        """Take no more frames of this camera and tell what lives; the event is set when done."""
        done = threading.Event()

        def order() -> None:
            if self._open.pop(name, None) is not None:
                self._finish(name)
            self._pipelines.pop(name, None)
            done.set()

        self._orders.put(order)
        self.wake()
        return done

    def hold(self, held: bool) -> None:
        """While held, being without a camera is not the end: one is about to come (a reload)."""
        (self._held.set if held else self._held.clear)()
        self.wake()

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
        while not self._stopping.is_set():
            self._wake.clear()
            self._follow_orders()
            if not self._open and not self._held.is_set():
                break
            if not self._turn():
                self._wake.wait(IDLE_S)
        self._follow_orders()
        for name in self._open:
            self._finish(name)

    def _follow_orders(self) -> None:
        while True:
            try:
                order = self._orders.get_nowait()
            except queue.Empty:
                return
            order()

    def _turn(self) -> bool:
        """One frame of each camera that has one; False: none had."""
        took = False
        for name, camera in list(self._open.items()):
            # Asked before taking: a camera that ends in between is looked at once more.
            done = camera.done
            frame = camera.take(0.0)
            if frame is not None:
                took = True
                self._analyse(name, frame, live=camera.live)
            elif done:
                del self._open[name]
                self._finish(name)
            elif camera.live:
                self._tell(self._pipelines[name].idle(time.monotonic()))
        return took

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
