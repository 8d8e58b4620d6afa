"""Two RTSP cameras, the box and the matcher as processes; the camera server dies and freezes.

What is checked: both cameras are back within 10 s of the server's return, both times, and at the
end every sighting that the box committed stands in the matcher's ledger, once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import av
import pytest

from tests.conftest import skip_or_fail
from tests.support import rtsp
from tests.support.rtsp import RtspServer
from tests.support.waiting import eventually

BACK_S = 10.0
CAMERAS = ("gate", "hall")
EDGE_RUN = [sys.executable, "-c", "from edge.cli import main; main()"]
EDGE_MATCH = [sys.executable, "-c", "from matcher.cli import main; main()"]

pytestmark = [pytest.mark.shared, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def clip(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s of people in a street as H.264 without B-frames."""
    reason = rtsp.missing()
    if reason:
        skip_or_fail(reason)
    path = tmp_path_factory.mktemp("clip") / "street.mp4"
    film = shared_dir / "data" / "pets2009_s2l1" / "vtest.avi"
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 768, 576, "yuv420p"
        stream.codec_context.max_b_frames = 0
        stream.codec_context.gop_size = 10
        for number, frame in enumerate(source.decode(video=0)):
            if number == 200:
                break
            picture = frame.reformat(format="yuv420p")
            picture.pts = number
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


class Process:
    """A process of ours with its output in files."""

    def __init__(self, folder: Path, name: str, command: list[str]) -> None:
        self.stdout, self.stderr = folder / f"{name}.out", folder / f"{name}.err"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            environ = {k: v for k, v in os.environ.items() if not k.startswith("EDGE_")}
            self.popen = subprocess.Popen(command, stdout=out, stderr=err, env=environ)

    def log(self) -> str:
        return self.stderr.read_text(errors="replace")[-3000:]

    def end(self, *, within_s: float) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(within_s)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()


class Box(Process):
    """edge-run with its metrics."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._metrics = f"127.0.0.1:{probe.getsockname()[1]}"
        super().__init__(folder, "box", [*EDGE_RUN, *arguments, f"--metrics={self._metrics}"])

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels; empty while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return {}
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in rows}

    def frames(self) -> list[float]:
        values = self.metrics()
        return [
            values.get(f'edge_frames_analysed_total{{camera="{name}"}}', 0.0) for name in CAMERAS
        ]

    def online(self) -> list[bool]:
        values = self.metrics()
        return [values.get(f'edge_camera_online{{camera="{name}"}}') == 1.0 for name in CAMERAS]

    def gives_new_frames(self, *, within_s: float) -> None:
        before = self.frames()
        eventually(
            lambda: (
                all(now > then + 3 for now, then in zip(self.frames(), before, strict=True))
                and all(self.online())
            ),
            within_s=within_s,
            state=lambda: (before, self.frames(), self.online(), self.log()),
        )


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start_matcher(stack: ExitStack, folder: Path) -> tuple[Process, str]:
    ready = folder / "ready.json"
    matcher = Process(
        folder,
        "matcher",
        [
            *EDGE_MATCH,
            "serve",
            "--listen=127.0.0.1:0",
            f"--data-dir={folder / 'ledger'}",
            "--metrics=",
            f"--ready-file={ready}",
        ],
    )
    stack.callback(matcher.close)
    eventually(ready.exists, within_s=30.0, state=matcher.log)
    return matcher, json.loads(ready.read_text())["address"]


def test_every_sighting_of_both_cameras_stands_once_in_the_ledger_after_an_outage_and_a_freeze(
    stack: ExitStack, clip: Path, shared_dir: Path, tmp_path: Path
) -> None:
    server = stack.enter_context(RtspServer({f"/{name}": clip for name in CAMERAS}))
    matcher, address = start_matcher(stack, tmp_path)
    settings = tmp_path / "box.toml"
    settings.write_text('[runtime]\nbackend = "onnxruntime"\nthreads = 1\n')
    box = Box(
        tmp_path,
        [
            *(f"--source={name}={server.url(f'/{name}')}" for name in CAMERAS),
            f"--matcher={address}",
            f"--data-dir={tmp_path / 'box'}",
            f"--models-dir={shared_dir / 'models'}",
            f"--config={settings}",
            "--fps=5",
            "--summary=json",
        ],
    )
    stack.callback(box.close)
    eventually(
        lambda: box.metrics().get("edge_sightings_acked_total", 0.0) > 0,
        within_s=90.0,
        state=box.log,
    )
    box.gives_new_frames(within_s=BACK_S)

    server.kill()
    eventually(lambda: not any(box.online()), within_s=10.0, state=box.log)
    server.start()
    box.gives_new_frames(within_s=BACK_S)

    server.freeze()
    eventually(lambda: not any(box.online()), within_s=10.0, state=box.log)
    server.thaw()
    box.gives_new_frames(within_s=BACK_S)

    code = box.end(within_s=30.0)
    summary = json.loads(box.stdout.read_text().splitlines()[-1])
    assert code == 0, box.log()
    assert matcher.end(within_s=30.0) == 0, matcher.log()
    for name in CAMERAS:
        assert summary["cameras"][name]["reconnects"] >= 2
        assert summary["cameras"][name]["tracklets"] > 0
    with closing(sqlite3.connect(tmp_path / "box" / "spool.sqlite")) as spool:
        committed = spool.execute("SELECT sum(last_seq) FROM writer").fetchone()[0]
        writer = spool.execute("SELECT writer_id FROM writer").fetchone()[0]
    with closing(sqlite3.connect(tmp_path / "ledger" / "ledger.db")) as ledger:
        keys = ledger.execute(
            "SELECT w.writer_id, l.seq FROM log l JOIN writers w ON w.id = l.writer ORDER BY l.seq"
        ).fetchall()
    assert committed > 0
    assert keys == [(writer, number) for number in range(1, committed + 1)]
    assert summary["sightings"]["committed"] == summary["sightings"]["acked"] == committed
