"""One camera's life: read it in a thread, notice when it stops, open it again.

Promise: live sources are opened anew for ever, with jitter, whatever they fail with; files are
read once. A read that hangs cannot be cancelled: its thread is left to end by itself, counted, and
at most MAX_ABANDONED of them wait at a time. Frames of an abandoned reader are never delivered.
Full: live keeps the newest frame and counts the others; a file waits (see handover).
Failing: a source that fails is an event and a state, never an exception; a fault of our own code
comes out of `take` as CameraFaultError and is meant to end the process.
Threads: start, take and stop from any thread, take from one at a time; on_event and on_frame are
called from the camera's own threads and must not block.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from edge.config import SourceConfig
from edge.sources.base import (
    Reading,
    Source,
    SourceEndedError,
    SourceError,
    SourceTimedOutError,
    open_source,
)
from edge.sources.camera import (
    CameraCounters,
    CameraEvent,
    CameraFaultError,
    CameraState,
    EventKind,
)
from edge.sources.handover import EveryFrame, Handover, NewestFrame, Numbered, RateLimit
from edge.sources.watch import WATCH_S, Backoff, Watchdog
from edge.types import Frame
from reid.clock import Clock, SystemClock
from reid.logs import mask_address

# A hung read ends by the library's own time-out, so more than this many means that it does not.
MAX_ABANDONED = 3
# How long stop() waits for a read in progress before it leaves that thread to itself.
STOP_S = 2.0
# The same fault again and again becomes one line in this time.
REPEAT_S = 60.0


class _Reader(threading.Thread):
    """Opens one source, reads it to its end and closes it; the only user of that source."""

    def __init__(self, camera: CameraThread, source: Source, started_s: float) -> None:
        super().__init__(name=f"read-{camera.name}", daemon=True)
        self.source = source
        self.started_s = started_s
        self.opened_s: float | None = None
        self.data_s: float | None = None
        self.data_bytes = 0
        self.frame_s: float | None = None
        self.error: SourceError | None = None
        self.fault: BaseException | None = None
        self.finished = False
        self._camera = camera

    def run(self) -> None:
        try:
            self.source.open()
            self._camera._opened(self)
            while self._camera._deliver(self, self.source.read()):
                pass
        except SourceError as error:
            # Without its frames: they hold this reader, and with it the source and its buffers.
            error.__context__ = None
            self.error = error.with_traceback(None)
        except BaseException as fault:  # noqa: BLE001  handed to take(), which ends the process
            self.fault = fault
        finally:
            self.source.close()
            self._camera._finished(self)


class CameraThread:
    """Keeps one camera open and hands its frames over."""

    def __init__(
        self,
        *,
        config: SourceConfig,
        make_source: Callable[[SourceConfig, Clock], Source] = open_source,
        clock: Clock | None = None,
        max_fps: float | None = None,
        on_event: Callable[[CameraEvent], None] | None = None,
        on_frame: Callable[[], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Args: max_fps limits live sources only; on_frame is called when `take` has something
        new or the camera has ended, so that one event can stand for several cameras.

        Raises: ValueError: the address cannot be understood.
        """
        self.name = config.name
        self._config = config
        self._clock = clock or SystemClock()
        self._make_source = make_source
        self._on_event = on_event or (lambda event: None)
        self._on_frame = on_frame or (lambda: None)
        self._backoff = Backoff(
            min_s=config.retry_min_s, max_s=config.retry_max_s, rng=rng or random.Random()
        )
        self._watchdog = Watchdog(
            open_timeout_s=config.open_timeout_s, frame_timeout_s=config.frame_timeout_s
        )
        self._next_source: Source | None = make_source(config, self._clock)
        self.live = self._next_source.live
        self._handover: Handover = NewestFrame(RateLimit(max_fps)) if self.live else EveryFrame()
        self._changed = threading.Condition()  # guards all below; wakes the supervisor
        self._stopping = threading.Event()
        self._state = CameraState.CONNECTING
        self._current: _Reader | None = None
        self._abandoned: list[_Reader] = []
        self._size: tuple[int, int] | None = None
        self._frames_in = self._corrupt = self._size_changes = 0
        self._reconnects = self._failed_opens = self._abandoned_total = 0
        self._closed_bytes = self._closed_undecodable = 0
        self._was_online = False
        self._last_frame_s: float | None = None
        self._last_error: SourceError | None = None
        self._fault: BaseException | None = None
        self._told_online = False
        self._told: tuple[type[SourceError], float, int] | None = None
        self._thread = threading.Thread(target=self._run, name=f"camera-{self.name}", daemon=True)

    # -- what the owner calls ---------------------------------------------------------------

    def start(self) -> None:
        """Begin to read; once."""
        self._thread.start()

    def take(self, timeout_s: float) -> Frame | None:
        """The next frame, converted to BGR here; None: none came in time, or `done`.

        Raises: CameraFaultError: our own code failed in a thread of this camera.
        """
        item = self._handover.take(timeout_s)
        if self._fault is not None:
            raise CameraFaultError(self.name, self._fault) from self._fault
        if item is None:
            return None
        reading = item.reading
        return Frame(self.name, item.index, reading.to_bgr(), reading.captured, reading.corrupt)

    def stop(self) -> None:
        """End all reading and wait for it; may come twice, from any thread but the camera's own.

        Returns within STOP_S also where a read hangs; that thread ends by itself later.
        """
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        self._handover.close()
        if self._thread.ident is not None:
            self._thread.join()
        with self._changed:
            if self._state not in (CameraState.ENDED, CameraState.FAILED):
                self._state = CameraState.STOPPED

    @property
    def state(self) -> CameraState:
        return self._state

    @property
    def done(self) -> bool:
        """No frame will come any more, and none waits."""
        over = (CameraState.ENDED, CameraState.FAILED, CameraState.STOPPED)
        return self._state in over and not len(self._handover)

    @property
    def last_error(self) -> SourceError | None:
        """Why it is offline or failed; None once frames come again."""
        return self._last_error

    @property
    def last_frame_age_s(self) -> float | None:
        """Seconds since the last decoded frame; None before the first."""
        last_s = self._last_frame_s
        return None if last_s is None else max(0.0, self._now_s() - last_s)

    def counters(self) -> CameraCounters:
        """All counts at one instant."""
        with self._changed:
            reader = self._current
            read = reader.source.bytes_in if reader else 0
            undecodable = reader.source.undecodable if reader else 0
            return CameraCounters(
                frames_in=self._frames_in,
                frames_skipped=self._handover.skipped,
                frames_dropped=self._handover.dropped,
                corrupt=self._corrupt + self._closed_undecodable + undecodable,
                reconnects=self._reconnects,
                failed_opens=self._failed_opens,
                abandoned=self._abandoned_total,
                size_changes=self._size_changes,
                bytes_video_in=self._closed_bytes + read,
            )

    # -- what the reader calls --------------------------------------------------------------

    def _opened(self, reader: _Reader) -> None:
        with self._changed:
            reader.opened_s = self._now_s()

    def _deliver(self, reader: _Reader, reading: Reading) -> bool:
        """Hand one frame over; False: nobody wants this reader's frames any more."""
        events = []
        with self._changed:
            if self._stopping.is_set() or reader is not self._current:
                return False
            reader.frame_s = self._last_frame_s = self._now_s()
            if self._state is not CameraState.ONLINE:
                self._state = CameraState.ONLINE
                self._reconnects += self._was_online
                self._was_online = True
                self._last_error = None
                if not self._told_online:
                    self._told_online = True
                    events.append(self._event(EventKind.ONLINE, self._online_text(reading)))
            size = (reading.width, reading.height)
            if self._size not in (None, size):
                self._size_changes += 1
                events.append(self._event(EventKind.RESIZED, self._resized_text(size)))
            self._size = size
            item = Numbered(self._frames_in, reading)
            self._frames_in += 1
            self._corrupt += reading.corrupt
        for event in events:
            self._on_event(event)
        wanted = self._handover.offer(item)
        self._on_frame()
        return wanted

    def _online_text(self, reading: Reading) -> str:
        return (
            f"camera {self.name!r}: frames of {reading.width}x{reading.height} "
            f"from {mask_address(self._config.url)}"
        )

    def _resized_text(self, size: tuple[int, int]) -> str:
        before = self._size or size
        return (
            f"camera {self.name!r}: frames are {size[0]}x{size[1]} now, were "
            f"{before[0]}x{before[1]}; tracklets start afresh"
        )

    def _finished(self, reader: _Reader) -> None:
        with self._changed:
            reader.finished = True
            if reader in self._abandoned:
                self._abandoned.remove(reader)
                self._fault = self._fault or reader.fault
            self._changed.notify_all()

    # -- the supervisor ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._attempt():
                pass
        except BaseException as fault:  # noqa: BLE001  handed to take(), which ends the process
            self._fault = fault
            self._state = CameraState.FAILED
        finally:
            self._handover.close()
            self._on_frame()

    def _attempt(self) -> bool:
        """Open and read once; True: try again."""
        source = self._next_source or self._make_source(self._config, self._clock)
        self._next_source = None
        with self._changed:
            if self._stopping.is_set():
                return False
            self._state = CameraState.CONNECTING
            reader = self._current = _Reader(self, source, self._now_s())
        reader.start()
        error = self._watch(reader)
        with self._changed:
            self._current = None
            self._closed_bytes += source.bytes_in
            self._closed_undecodable += source.undecodable
            stopping = self._stopping.is_set()
        if reader.fault is not None:
            raise reader.fault
        if stopping:
            reader.join(STOP_S)
            return False
        if error is None:
            raise RuntimeError("a reader ended without a reason")
        return self._lost(reader, error) if self.live else self._over(source, error)

    def _watch(self, reader: _Reader) -> SourceError | None:
        """Wait until the reader ends, hangs, or we are stopped."""
        with self._changed:
            while not reader.finished and not self._stopping.is_set():
                self._changed.wait(WATCH_S)
                if self.live and not reader.finished and not self._stopping.is_set():
                    verdict = self._judge(reader)
                    if verdict is not None:
                        self._abandoned.append(reader)
                        self._abandoned_total += 1
                        return SourceTimedOutError(self._config.url, verdict)
            return reader.error

    def _judge(self, reader: _Reader) -> str | None:
        now_s = self._now_s()
        if reader.source.bytes_in > reader.data_bytes:
            reader.data_bytes, reader.data_s = reader.source.bytes_in, now_s
        return self._watchdog.verdict(
            now_s=now_s,
            started_s=reader.started_s,
            opened_s=reader.opened_s,
            data_s=reader.data_s,
            frame_s=reader.frame_s,
        )

    def _over(self, source: Source, error: SourceError) -> bool:
        """A file has ended or failed."""
        events = []
        ended = isinstance(error, SourceEndedError)
        if isinstance(error, SourceEndedError) and error.missing_s > 0.0:
            events.append(self._event(EventKind.DAMAGED, f"camera {self.name!r}: {error}"))
        if source.undecodable:
            text = (
                f"camera {self.name!r}: {source.undecodable} damaged pictures in "
                f"{mask_address(self._config.url)} gave no frame; the file is cut off or damaged"
            )
            events.append(self._event(EventKind.DAMAGED, text))
        if ended:
            text = f"camera {self.name!r}: {mask_address(self._config.url)} has ended"
            events.append(self._event(EventKind.ENDED, text))
        else:
            self._last_error = error
            text = f"camera {self.name!r}: {error}"
            events.append(self._event(EventKind.FAILED, text, error=error))
        for event in events:
            self._on_event(event)
        self._handover.close()
        with self._changed:
            self._state = CameraState.ENDED if ended else CameraState.FAILED
        return False

    def _lost(self, reader: _Reader, error: SourceError) -> bool:
        """A live source is gone: say so, wait, and try again."""
        with self._changed:
            self._state = CameraState.OFFLINE
            self._last_error = error
            self._failed_opens += reader.frame_s is None
        lasted_s = (reader.frame_s or 0.0) - (reader.opened_s or 0.0)
        if reader.frame_s is not None and lasted_s > self._config.retry_max_s:
            # only a connection that lasted: one that flaps shall neither storm nor be told twice
            self._backoff.reset()
            self._told = None
        wait_s = self._backoff.next_s()
        self._tell(error, wait_s)
        until_s = self._now_s() + wait_s
        with self._changed:
            while not self._stopping.is_set():
                left_s = until_s - self._now_s()
                full = len(self._abandoned) >= MAX_ABANDONED
                if left_s <= 0 and not full:
                    break
                self._changed.wait(WATCH_S if left_s <= 0 else left_s)
            return not self._stopping.is_set()

    def _tell(self, error: SourceError, wait_s: float) -> None:
        """Report a fault, but the same kind again only once in REPEAT_S."""
        now_s = self._now_s()
        kind, told_s, held = self._told or (None, now_s, 0)
        if kind is type(error) and now_s - told_s < REPEAT_S:
            self._told = (kind, told_s, held + 1)
            return
        self._told = (type(error), now_s, 0)
        self._told_online = False
        text = f"camera {self.name!r}: {error}; retrying in {wait_s:.1f} s, for as long as it takes"
        event = self._event(EventKind.OFFLINE, text, error=error)
        self._on_event(CameraEvent(event.camera, event.kind, event.text, held, error))

    def _event(
        self, kind: EventKind, text: str, *, error: SourceError | None = None
    ) -> CameraEvent:
        return CameraEvent(self.name, kind, text, 0, error)

    def _now_s(self) -> float:
        return self._clock.monotonic_nanos() * 1e-9
