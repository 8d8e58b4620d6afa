"""Cameras on a real RTSP server that is killed, frozen, and asked for the wrong things."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edge.config import SourceConfig
from edge.sources.base import (
    SourceEndedError,
    SourceNotFoundError,
    SourceTimedOutError,
    SourceUnauthorisedError,
    SourceUnreachableError,
)
from edge.sources.camera import CameraEvent, CameraState, EventKind
from edge.sources.reconnect import CameraThread
from edge.types import Frame, TimeSource
from tests.conftest import skip_or_fail
from tests.support import rtsp
from tests.support.clips import write_clip
from tests.support.rtsp import RtspServer
from tests.support.waiting import eventually

BACK_S = 10.0  # what the project promises after a camera's return
PASSWORD = "se:cr@et/1"
ENCODED = "se%3Acr%40et%2F1"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = rtsp.missing()
    if reason:
        skip_or_fail(reason)
    return write_clip(tmp_path_factory.mktemp("clip") / "camera.mp4", frames=100, fps=25)


class Watched:
    """A running camera, its events, and its frames taken as they come."""

    def __init__(self, url: str, name: str = "gate", **options: object) -> None:
        config = {"frame_timeout_s": 2.0, "open_timeout_s": 3.0, "retry_max_s": 1.0} | options
        self.events: list[CameraEvent] = []
        self.camera = CameraThread(
            config=SourceConfig.model_validate({"name": name, "url": url, **config}),
            on_event=self.events.append,
            rng=random.Random(1),
        )
        self.last: Frame | None = None
        self.taken = 0
        self._stop = threading.Event()
        self._taker = threading.Thread(target=self._take, name=f"take-{name}")
        self.camera.start()
        self._taker.start()

    def _take(self) -> None:
        while not self._stop.is_set():
            frame = self.camera.take(0.1)
            if frame is not None:
                self.last, self.taken = frame, self.taken + 1

    def gives_frames(self, *, within_s: float = BACK_S) -> None:
        before = self.taken
        eventually(
            lambda: self.taken > before + 3 and self.camera.state is CameraState.ONLINE,
            within_s=within_s,
            state=self.describe,
        )

    def gives_pictures_of(self, height: int) -> None:
        eventually(
            lambda: self.last is not None and self.last.height == height,
            within_s=15.0,
            state=self.describe,
        )

    def fails_with(self, kind: type[Exception], *, within_s: float = BACK_S) -> str:
        eventually(
            lambda: isinstance(self.camera.last_error, kind),
            within_s=within_s,
            state=self.describe,
        )
        return str(self.camera.last_error)

    def describe(self) -> object:
        return self.camera.state, self.camera.last_error, self.camera.counters(), self.events

    def close(self) -> None:
        self._stop.set()
        self.camera.stop()
        self._taker.join()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def watch(stack: ExitStack, url: str, name: str = "gate", **options: object) -> Watched:
    watched = Watched(url, name, **options)
    stack.callback(watched.close)
    return watched


def two_cameras(stack: ExitStack, server: RtspServer) -> list[Watched]:
    cameras = [watch(stack, server.url(f"/{name}"), name) for name in ("gate", "hall")]
    for camera in cameras:
        camera.gives_frames(within_s=15.0)
    return cameras


def serve(stack: ExitStack, clip: Path, **options: str) -> RtspServer:
    server = RtspServer({"/gate": clip, "/hall": clip}, **options)
    return stack.enter_context(server)


def test_both_cameras_come_back_after_the_server_was_killed_and_restarted(
    stack: ExitStack, clip: Path
) -> None:
    server = serve(stack, clip)
    cameras = two_cameras(stack, server)

    server.kill()
    for camera in cameras:
        eventually(
            lambda camera=camera: camera.camera.state is not CameraState.ONLINE,
            within_s=5.0,
            state=camera.describe,
        )
    server.start()

    for camera in cameras:
        camera.gives_frames()
        assert camera.camera.counters().reconnects == 1
        offline = [event for event in camera.events if event.kind is EventKind.OFFLINE]
        assert offline, "nothing told of the outage"


def test_a_stream_that_ends_cleanly_is_a_fault_of_a_camera(stack: ExitStack, clip: Path) -> None:
    server = serve(stack, clip)
    camera = watch(stack, server.url("/gate"))
    camera.gives_frames(within_s=15.0)

    server.kill()

    camera_error = (SourceEndedError, SourceUnreachableError)
    eventually(
        lambda: isinstance(camera.camera.last_error, camera_error),
        within_s=5.0,
        state=camera.describe,
    )
    assert not camera.camera.done


def test_a_frozen_server_is_noticed_and_both_cameras_come_back(
    stack: ExitStack, clip: Path
) -> None:
    server = serve(stack, clip)
    cameras = two_cameras(stack, server)

    server.freeze()
    for camera in cameras:
        camera.fails_with(SourceTimedOutError, within_s=5.0)
    server.thaw()

    for camera in cameras:
        camera.gives_frames()
    eventually(
        lambda: sum(thread.name.startswith("read-") for thread in threading.enumerate()) == 2,
        within_s=15.0,
        state=threading.enumerate,
    )  # reads that hung have ended by themselves


def test_a_server_that_is_frozen_before_the_open_is_a_timeout(stack: ExitStack, clip: Path) -> None:
    server = serve(stack, clip)
    server.freeze()
    stack.callback(server.thaw)

    camera = watch(stack, server.url("/gate"), open_timeout_s=1.5)

    camera.fails_with(SourceTimedOutError)
    server.thaw()
    camera.gives_frames()


def test_a_camera_that_is_switched_on_later_is_found(stack: ExitStack, clip: Path) -> None:
    server = serve(stack, clip)
    server.kill()
    camera = watch(stack, server.url("/gate"))
    message = camera.fails_with(SourceUnreachableError)

    server.start()

    camera.gives_frames()
    assert "the connection was refused" in message
    assert "check that the camera is on" in message


def test_a_wrong_path_names_the_path(stack: ExitStack, clip: Path) -> None:
    server = serve(stack, clip)

    camera = watch(stack, server.url("/wrong"))

    message = camera.fails_with(SourceNotFoundError)
    assert f"rtsp://127.0.0.1:{server.port}/wrong" in message
    assert "no such path" in message


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_wrong_credentials_are_told_apart_and_never_written(
    stack: ExitStack, clip: Path, auth: str
) -> None:
    server = serve(stack, clip, user="admin", password=PASSWORD, auth=auth)

    none = watch(stack, server.url("/gate"), "none")
    wrong = watch(stack, server.url("/gate", "admin:hunter2"), "wrong")
    right = watch(stack, server.url("/gate", f"admin:{ENCODED}"), "right")

    right.gives_frames(within_s=15.0)
    none.fails_with(SourceUnauthorisedError)
    message = wrong.fails_with(SourceUnauthorisedError)
    assert "check user and password" in message
    for camera in (none, wrong, right):
        told = " ".join(f"{event.text} {event!r} {event.error!r}" for event in camera.events)
        for secret in ("hunter2", PASSWORD, ENCODED, "admin"):
            assert secret not in told
            assert secret not in repr(camera.camera.last_error)


def test_a_name_nobody_knows_is_unreachable(stack: ExitStack) -> None:
    camera = watch(stack, "rtsp://user:hunter2@camera.invalid/main")

    message = camera.fails_with(SourceUnreachableError)

    assert "no such host" in message
    assert "hunter2" not in message


def test_a_server_that_speaks_no_rtsp_is_no_camera(stack: ExitStack) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    stack.callback(listener.close)
    answered = threading.Event()

    def answer() -> None:
        while not answered.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example ESMTP\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    stack.callback(thread.join)
    stack.callback(lambda: listener.shutdown(socket.SHUT_RDWR))
    stack.callback(answered.set)

    camera = watch(stack, f"rtsp://127.0.0.1:{listener.getsockname()[1]}/main")

    eventually(lambda: camera.camera.last_error is not None, within_s=10.0, state=camera.describe)
    assert camera.camera.counters().frames_in == 0


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_capture_times_come_from_the_cameras_sender_reports(
    stack: ExitStack, clip: Path, transport: str
) -> None:
    server = serve(stack, clip)

    camera = watch(stack, server.url("/gate"), transport=transport)

    eventually(
        lambda: camera.last is not None and camera.last.captured.source is TimeSource.SENDER_REPORT,
        within_s=20.0,
        state=lambda: (camera.last and camera.last.captured, camera.describe()),
    )


@pytest.mark.parametrize(("codec", "suffix"), [("libx265", "mp4"), ("mjpeg", "mkv")])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_h265_and_motion_jpeg_cameras_are_read_like_others(
    stack: ExitStack, clip: Path, codec: str, suffix: str, transport: str
) -> None:
    film = write_clip(clip.with_name(f"{codec}.{suffix}"), frames=50, codec=codec)
    server = stack.enter_context(RtspServer({"/gate": film}))

    camera = watch(stack, server.url("/gate"), transport=transport)

    camera.gives_frames(within_s=15.0)
    assert camera.last is not None
    assert camera.last.image.shape == (240, 320, 3)
    yellow = np.abs(camera.last.image.astype(int) - (40, 200, 240)).max(2) < 40
    assert 0.04 < yellow.mean() < 0.06, "the square of the film is a twentieth of the picture"


def test_a_camera_that_changes_its_size_goes_on_in_the_new_one(
    stack: ExitStack, clip: Path
) -> None:
    small = write_clip(clip.with_name("small.mp4"), frames=50, width=320, height=240)
    large = write_clip(clip.with_name("large.mp4"), frames=50, width=640, height=360)
    server = stack.enter_context(RtspServer({"/gate": (small, large)}))

    camera = watch(stack, server.url("/gate"))

    for height in (240, 360, 240):
        camera.gives_pictures_of(height)
    assert camera.camera.counters().reconnects == 0
