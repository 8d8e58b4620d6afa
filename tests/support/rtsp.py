"""The RTSP test server as a child process: start, kill, freeze."""

from __future__ import annotations

import select
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

SCRIPT = Path(__file__).with_name("rtsp_server.py")
PYTHON = "/usr/bin/python3"
START_S = 20.0


def missing() -> str | None:
    """What this machine lacks for the server, or None."""
    check = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); "
        "gi.require_version('Gst', '1.0'); from gi.repository import Gst, GstRtspServer; "
        "Gst.init(None); assert Gst.ElementFactory.find('h264parse')"
    )
    try:
        done = subprocess.run(
            [PYTHON, "-c", check], capture_output=True, timeout=START_S, check=False
        )
    except OSError:
        return f"there is no {PYTHON}"
    return None if done.returncode == 0 else "GStreamer's RTSP server is not installed"


class RtspServer:
    """One server with some cameras; the port stays the same over restarts.

    Args:
        mounts: the clip that each path plays, or several of one codec, one after the other.
    """

    def __init__(
        self,
        mounts: Mapping[str, Path | tuple[Path, ...]],
        *,
        user: str | None = None,
        password: str | None = None,
        auth: str = "digest",
    ) -> None:
        self.port = 0
        self._arguments = [
            f"--mount={path}={'+'.join(map(str, file if isinstance(file, tuple) else (file,)))}"
            for path, file in mounts.items()
        ]
        if user is not None:
            self._arguments += [f"--user={user}", f"--password={password}", f"--auth={auth}"]
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, path: str, credentials: str = "") -> str:
        at = f"{credentials}@" if credentials else ""
        return f"rtsp://{at}127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        """Start, and wait until clients can come."""
        command = [PYTHON, str(SCRIPT), f"--port={self.port}", "--exit-with-parent"]
        process = subprocess.Popen(
            [*command, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._process = process
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline().split() if ready else []
        if line[:1] != [b"READY"]:
            process.kill()
            _, errors = process.communicate()
            raise RuntimeError(f"the RTSP server did not start: {errors.decode(errors='replace')}")
        self.port = int(line[1])

    def freeze(self) -> None:
        """It lives and answers nothing, connections stay open."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; may come twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server is not running"
        return self._process

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
