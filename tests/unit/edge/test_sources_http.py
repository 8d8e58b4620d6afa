"""HTTP: motion JPEG from a camera, a file from a server, and refusals."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest

from edge.config import SourceConfig
from edge.sources.base import (
    SourceEndedError,
    SourceNotFoundError,
    SourceTimedOutError,
    SourceUnauthorisedError,
    open_source,
)
from edge.types import TimeSource
from tests.support.clips import picture, write_clip

FRAMES = 40


class Camera(BaseHTTPRequestHandler):
    """Serves /mjpeg, /clip.ts, /private and /silent."""

    clip = b""
    over = threading.Event()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/mjpeg":
            self._mjpeg()
        elif path == "/clip.ts":
            self._send(200, self.clip)
        elif path == "/private":
            wanted = base64.b64encode(b"admin:hunter2").decode()
            if self.headers.get("Authorization") == f"Basic {wanted}":
                self._mjpeg()
            else:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
        elif path == "/silent":
            self.over.wait(30)
        else:
            self._send(404, b"")

    def _send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _mjpeg(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(FRAMES):
            if self.over.is_set():
                return
            jpeg = cv2.imencode(".jpg", picture(number, width=160, height=120))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
            except ConnectionError:  # seen enough
                return

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    clip: Path = write_clip(tmp_path_factory.mktemp("http") / "clip.ts", frames=20)
    Camera.clip = clip.read_bytes()
    Camera.over.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"127.0.0.1:{http.server_port}"
        Camera.over.set()
        http.shutdown()
        thread.join()


def config(url: str, **options: object) -> SourceConfig:
    return SourceConfig.model_validate({"name": "yard", "url": url, **options})


def test_motion_jpeg_is_a_live_camera(server: str) -> None:
    source = open_source(config(f"http://{server}/mjpeg"))

    source.open()
    readings = [source.read() for _ in range(10)]
    source.close()

    assert source.live
    assert {(reading.width, reading.height) for reading in readings} == {(160, 120)}
    assert not any(reading.corrupt for reading in readings)
    assert readings[-1].captured.source is TimeSource.ARRIVAL


def test_a_camera_behind_a_password_lets_us_in(server: str) -> None:
    source = open_source(config(f"http://admin:hunter2@{server}/private"))

    source.open()

    assert source.read().width == 160
    source.close()


def test_a_file_on_a_server_is_read_to_its_end(server: str) -> None:
    source = open_source(config(f"http://{server}/clip.ts"))
    source.open()

    readings = [source.read() for _ in range(20)]

    with pytest.raises(SourceEndedError):
        source.read()
    assert not source.live
    assert not any(reading.corrupt for reading in readings)
    source.close()


def test_what_ends_like_a_file_can_be_called_live(server: str) -> None:
    assert open_source(config(f"http://{server}/clip.ts", live=True)).live
    assert not open_source(config(f"http://{server}/mjpeg", live=False)).live


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/wrong", SourceNotFoundError), ("/private", SourceUnauthorisedError)],
)
def test_refusals_are_told_apart(server: str, path: str, kind: type[Exception]) -> None:
    source = open_source(config(f"http://admin:wr0ng@{server}{path}?token=s3cret"))

    with pytest.raises(kind) as caught:
        source.open()

    assert "***@" in str(caught.value)
    assert "wr0ng" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_silent_server_is_a_timeout(server: str) -> None:
    source = open_source(config(f"http://{server}/silent", open_timeout_s=0.5, frame_timeout_s=0.5))

    with pytest.raises(SourceTimedOutError):
        source.open()
