"""A camera's life: the newest frame, the hang, the retry, the end."""

from __future__ import annotations

import gc
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edge.config import SourceConfig
from edge.sources.base import (
    Reading,
    Source,
    SourceEndedError,
    SourceError,
    SourceNotVideoError,
    SourceTimedOutError,
    SourceUnreachableError,
)
from edge.sources.camera import CameraEvent, CameraFaultError, CameraState, EventKind
from edge.sources.handover import EveryFrame, NewestFrame, Numbered, RateLimit
from edge.sources.reconnect import MAX_ABANDONED, CameraThread
from edge.sources.watch import FIRST_FRAME_S, Backoff, Watchdog
from edge.types import CaptureTime, TimeSource
from reid.clock import Clock
from tests.support.waiting import eventually


def reading(at_s: float, *, size: int = 8, corrupt: bool = False) -> Reading:
    captured = CaptureTime(0, round(at_s * 1e9), TimeSource.ARRIVAL, 1.0)
    return Reading.of_image(np.zeros((size, size, 3), np.uint8), captured, corrupt)


class Scripted:
    """A source that does as told: readings, errors to raise, or calls (that may block)."""

    def __init__(self, script: list[Reading | Exception | Callable[[], None]], live: bool) -> None:
        self.live = live
        self.bytes_in = 0
        self.undecodable = 0
        self.closed = threading.Event()
        self._script = iter(script)

    def open(self) -> None:
        pass

    def read(self) -> Reading:
        for step in self._script:
            if isinstance(step, Reading):
                self.bytes_in += 100
                return step
            if isinstance(step, Exception):
                raise step
            step()
        raise SourceEndedError("scripted", "the script is over")

    def close(self) -> None:
        self.closed.set()


class Attempts:
    """Hands out one scripted source per open; the last one again and again."""

    def __init__(self, *scripts: list[Reading | Exception | Callable[[], None]], live: bool = True):
        self.made: list[Scripted] = []
        self._scripts = scripts
        self._live = live

    def __call__(self, config: SourceConfig, clock: Clock) -> Source:
        script = self._scripts[min(len(self.made), len(self._scripts) - 1)]
        self.made.append(Scripted(script, self._live))
        return self.made[-1]


@pytest.fixture
def run() -> Iterator[Callable[..., CameraThread]]:
    cameras: list[CameraThread] = []

    def start(attempts: Attempts, **options: object) -> CameraThread:
        quick = {"frame_timeout_s": 0.3, "retry_min_s": 0.01, "retry_max_s": 0.05}
        camera = CameraThread(
            config=SourceConfig.model_validate(
                {"name": "gate", "url": "rtsp://u:hunter2@cam/x", **quick}
            ),
            make_source=attempts,
            rng=random.Random(1),
            **options,  # type: ignore[arg-type]
        )
        cameras.append(camera)
        camera.start()
        return camera

    yield start
    for camera in cameras:
        camera.stop()


def test_a_source_that_failed_is_let_go_at_once(run: Callable[..., CameraThread]) -> None:
    """Not only when the garbage collector comes round: a decoder holds megabytes."""
    made: list[weakref.ref[Scripted]] = []

    class Forgetful(Attempts):
        def __call__(self, config: SourceConfig, clock: Clock) -> Source:
            try:
                raise OSError("as libav does")
            except OSError:
                error = SourceUnreachableError("rtsp://cam/x", "it is away")
                error.__context__ = sys.exception()
            source = Scripted([reading(0.0), error], live=True)
            made.append(weakref.ref(source))
            return source

    gc.collect()
    gc.disable()
    try:
        camera = run(Forgetful())
        eventually(lambda: camera.counters().reconnects >= 5, within_s=10.0, state=camera.counters)
        camera.stop()
        alive = sum(one() is not None for one in made)
    finally:
        gc.enable()

    assert len(made) > 5
    assert alive <= 1


def test_a_file_hands_over_every_frame_in_order_and_ends(run: Callable[..., CameraThread]) -> None:
    camera = run(Attempts([reading(n / 10) for n in range(50)], live=False))

    taken = []
    while not camera.done:
        frame = camera.take(1.0)
        if frame is not None:
            taken.append(frame.index)

    assert taken == list(range(50))
    assert camera.state is CameraState.ENDED
    assert camera.last_error is None


def test_a_file_waits_for_its_consumer(run: Callable[..., CameraThread]) -> None:
    attempts = Attempts([reading(n / 10) for n in range(50)], live=False)

    camera = run(attempts)

    eventually(lambda: camera.counters().frames_in == 3, within_s=5.0, state=camera.counters)
    assert not camera.done
    assert camera.counters().frames_dropped == 0


def test_a_live_source_keeps_the_newest_frame_and_counts_the_others(
    run: Callable[..., CameraThread],
) -> None:
    blocked = threading.Event()

    camera = run(Attempts([*(reading(n / 10) for n in range(5)), lambda: blocked.wait(5) or None]))

    eventually(lambda: camera.counters().frames_in == 5, within_s=5.0, state=camera.counters)
    frame = camera.take(1.0)
    blocked.set()
    assert frame is not None
    assert frame.index == 4
    assert camera.counters().frames_dropped == 4


def test_a_lost_camera_is_opened_again_and_its_frames_count_on(
    run: Callable[..., CameraThread],
) -> None:
    events: list[CameraEvent] = []
    stay = threading.Event()
    attempts = Attempts(
        [reading(0.0), SourceEndedError("rtsp://u:hunter2@cam/x", "the stream has ended")],
        [SourceUnreachableError("rtsp://u:hunter2@cam/x", "the connection was refused")],
        [reading(1.0), lambda: stay.wait(5) or None],
    )

    camera = run(attempts, on_event=events.append)

    eventually(lambda: camera.counters().reconnects == 1, within_s=5.0, state=camera.counters)
    stay.set()
    counters = camera.counters()
    assert counters.frames_in == 2
    assert counters.failed_opens == 1
    assert counters.bytes_video_in == 200
    kinds = [event.kind for event in events]
    assert kinds[:4] == [EventKind.ONLINE, EventKind.OFFLINE, EventKind.OFFLINE, EventKind.ONLINE]
    assert "retrying in" in events[1].text
    assert "hunter2" not in "".join(repr(event) for event in events)
    assert attempts.made[0].closed.is_set()


def test_a_read_that_hangs_is_abandoned_and_the_camera_opened_anew(
    run: Callable[..., CameraThread],
) -> None:
    hang, stay = threading.Event(), threading.Event()
    late = reading(99.0)
    attempts = Attempts(
        [reading(0.0), lambda: hang.wait(10) or None, late],
        [reading(1.0), lambda: stay.wait(0.2) or None, *(reading(2 + n / 10) for n in range(3))],
    )

    camera = run(attempts)

    eventually(lambda: camera.counters().reconnects >= 1, within_s=5.0, state=camera.counters)
    hang.set()
    assert attempts.made[0].closed.wait(5.0), "the abandoned reader did not close its source"
    assert camera.counters().abandoned >= 1
    frame = camera.take(0.5)
    assert frame is None or frame.captured.seconds < 99.0


def test_only_so_many_hung_reads_wait_at_a_time(run: Callable[..., CameraThread]) -> None:
    hang = threading.Event()
    attempts = Attempts([lambda: hang.wait(20) or None])
    events: list[CameraEvent] = []

    camera = run(attempts, on_event=events.append)

    eventually(
        lambda: camera.counters().abandoned == MAX_ABANDONED, within_s=10.0, state=camera.counters
    )
    assert len(attempts.made) == MAX_ABANDONED
    hang.set()
    eventually(
        lambda: len(attempts.made) > MAX_ABANDONED, within_s=5.0, state=lambda: attempts.made
    )
    assert isinstance(events[0].error, SourceTimedOutError)


def test_the_same_fault_again_and_again_is_told_once(run: Callable[..., CameraThread]) -> None:
    events: list[CameraEvent] = []

    camera = run(
        Attempts([SourceUnreachableError("rtsp://cam/x", "refused")]), on_event=events.append
    )

    eventually(lambda: camera.counters().failed_opens >= 5, within_s=10.0, state=camera.counters)
    assert len(events) == 1
    assert camera.state in (CameraState.OFFLINE, CameraState.CONNECTING)


def test_a_camera_that_flaps_does_not_storm(run: Callable[..., CameraThread]) -> None:
    events: list[CameraEvent] = []

    camera = run(
        Attempts([reading(0.0), SourceEndedError("rtsp://cam/x", "the stream has ended")]),
        on_event=events.append,
    )

    eventually(lambda: camera.counters().reconnects >= 5, within_s=10.0, state=camera.counters)
    kinds = [event.kind for event in events]
    assert kinds == [EventKind.ONLINE, EventKind.OFFLINE, EventKind.ONLINE]


def test_a_change_of_size_is_an_event_between_the_frames(run: Callable[..., CameraThread]) -> None:
    events: list[CameraEvent] = []

    camera = run(
        Attempts([reading(0.0), reading(0.1), reading(0.2, size=16)], live=False),
        on_event=events.append,
    )
    sizes = []
    while not camera.done:
        frame = camera.take(1.0)
        if frame is not None:
            sizes.append(frame.width)

    assert sizes == [8, 8, 16]
    assert camera.counters().size_changes == 1
    resized = next(event for event in events if event.kind is EventKind.RESIZED)
    assert "16x16 now, were 8x8" in resized.text


def test_a_file_that_cannot_be_read_fails_with_its_reason(run: Callable[..., CameraThread]) -> None:
    error: SourceError = SourceNotVideoError("notes.pdf", "the file is not a video")

    camera = run(Attempts([error], live=False))

    eventually(lambda: camera.done, within_s=5.0, state=lambda: camera.state)
    assert camera.state is CameraState.FAILED
    assert camera.last_error is error


def test_a_fault_of_our_own_comes_out_of_take(run: Callable[..., CameraThread]) -> None:
    camera = run(Attempts([reading(0.0), ZeroDivisionError("ours")], live=False))

    eventually(lambda: camera.done or camera.state is CameraState.FAILED, within_s=5.0)
    with pytest.raises(CameraFaultError, match="its thread died of ZeroDivisionError") as caught:
        camera.take(1.0)

    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_corrupt_frames_are_counted_and_stay_marked(run: Callable[..., CameraThread]) -> None:
    camera = run(Attempts([reading(0.0), reading(0.1, corrupt=True)], live=False))

    frames = [camera.take(2.0), camera.take(2.0)]

    assert [frame is not None and frame.corrupt for frame in frames] == [False, True]
    assert camera.counters().corrupt == 1


def test_stop_wakes_a_waiting_file_and_may_come_twice(run: Callable[..., CameraThread]) -> None:
    camera = run(Attempts([reading(n / 10) for n in range(50)], live=False))
    eventually(lambda: camera.counters().frames_in == 3, within_s=5.0, state=camera.counters)

    camera.stop()
    camera.stop()

    assert camera.state is CameraState.STOPPED
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("-gate")]


def test_stop_before_start_is_harmless() -> None:
    camera = CameraThread(
        config=SourceConfig(name="gate", url="rtsp://cam/x"), make_source=Attempts([])
    )

    camera.stop()

    assert camera.take(0.0) is None
    assert camera.done


def test_whoever_waits_for_several_cameras_is_woken_by_each(
    run: Callable[..., CameraThread],
) -> None:
    woken = threading.Semaphore(0)

    run(Attempts([reading(0.0)], live=False), on_frame=woken.release)

    assert woken.acquire(timeout=5.0)


def test_the_backoff_grows_to_its_bound_and_begins_again_after_a_success() -> None:
    backoff = Backoff(min_s=0.5, max_s=4.0, rng=random.Random(3))

    waits = [backoff.next_s() for _ in range(200)]
    backoff.reset()

    assert waits[0] == 0.5
    assert all(0.5 <= wait <= 4.0 for wait in waits)
    assert max(waits) > 3.5
    assert len({round(wait, 6) for wait in waits}) > 190
    assert backoff.next_s() == 0.5


OPENED = {"started_s": 0.0, "opened_s": 1.0}


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        # still opening
        ({"started_s": 0.0, "opened_s": None, "data_s": None, "frame_s": None, "now_s": 4.9}, None),
        (
            {"started_s": 0.0, "opened_s": None, "data_s": None, "frame_s": None, "now_s": 5.1},
            "did not open within 5 s",
        ),
        # waiting for a first key frame while data comes
        ({**OPENED, "data_s": 10.0, "frame_s": None, "now_s": 13.0}, None),
        ({**OPENED, "data_s": 10.0, "frame_s": None, "now_s": 14.1}, "after it opened"),
        (
            {
                **OPENED,
                "data_s": 1.0 + FIRST_FRAME_S,
                "frame_s": None,
                "now_s": 1.2 + FIRST_FRAME_S,
            },
            "after it opened",
        ),
        # frames came
        ({**OPENED, "data_s": 8.0, "frame_s": 6.0, "now_s": 9.9}, None),
        ({**OPENED, "data_s": 10.0, "frame_s": 6.0, "now_s": 10.1}, "no frame for 4.1 s"),
    ],
)
def test_the_watchdog_tells_a_slow_camera_from_a_dead_one(
    seen: dict[str, float | None], says: str | None
) -> None:
    watchdog = Watchdog(open_timeout_s=5.0, frame_timeout_s=4.0)

    verdict = watchdog.verdict(**seen)  # type: ignore[arg-type]

    assert (verdict is None) if says is None else (says in (verdict or ""))


@pytest.mark.parametrize("camera_fps", [10.0, 12.0, 15.0, 25.0, 29.97, 60.0])
def test_the_limited_rate_is_kept_on_average(camera_fps: float) -> None:
    limit = RateLimit(10.0)
    jitter = random.Random(5)

    due = sum(
        limit.due(n / camera_fps + jitter.uniform(0.0, 0.01)) for n in range(int(camera_fps * 20))
    )

    assert due == pytest.approx(200, abs=4)


def test_a_gap_is_not_made_up_for() -> None:
    limit = RateLimit(10.0)
    assert limit.due(0.0)

    due = [limit.due(60.0 + n * 0.04) for n in range(5)]

    assert due == [True, False, True, False, False] or due == [True, False, False, True, False]


def test_frames_that_are_not_due_are_no_drops() -> None:
    slot = NewestFrame(RateLimit(10.0))

    for number in range(6):
        slot.offer(Numbered(number, reading(number * 0.04)))

    waiting = slot.take(0.0)
    assert waiting is not None
    assert waiting.index == 5  # the newest, though it was not due itself
    assert (slot.dropped, slot.skipped) == (2, 3) or (slot.dropped, slot.skipped) == (1, 4)


def test_a_closed_handover_takes_nothing_and_gives_what_it_holds() -> None:
    queue = EveryFrame()
    queue.offer(Numbered(0, reading(0.0)))

    queue.close()

    assert not queue.offer(Numbered(1, reading(0.1)))
    left = queue.take(0.0)
    assert left is not None
    assert left.index == 0
    assert queue.take(0.0) is None
