"""A camera that takes the connection and never speaks does not hold up the end, nor spoil it."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

from tests.support.processes import Box
from tests.support.standins import write_models

WITHIN_S = 120.0


def test_a_box_whose_camera_never_answers_ends_well_on_sigterm(tmp_path: Path) -> None:
    connected = threading.Event()
    with socket.socket() as camera:
        camera.bind(("127.0.0.1", 0))
        camera.listen()
        kept: list[socket.socket] = []

        def accept() -> None:
            kept.append(camera.accept()[0])
            connected.set()

        waiting = threading.Thread(target=accept)
        waiting.start()
        url = f"rtsp://127.0.0.1:{camera.getsockname()[1]}/x"
        models = write_models(tmp_path / "models")
        with Box(tmp_path / "data", models, "--rtsp", url, "--matcher", "127.0.0.1:1") as box:
            assert connected.wait(WITHIN_S), box.text()
            box.process.send_signal(signal.SIGTERM)
            ended = box.finish(WITHIN_S)
        waiting.join()
        kept[0].close()

    assert ended.code == 0, ended.stderr
    assert ended.summary["exit_reason"] == "told to stop"
    assert "terminate" not in ended.stderr
