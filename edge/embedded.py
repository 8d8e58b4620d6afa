"""`--embedded`: a matcher of our own as a child process, for a first look.

Promise: the child listens on a private loopback port, keeps its ledger in a folder of its own, and
ends when this process ends, also when this process is killed (its stdin closes).
Fails: EmbeddedError where the extra `matcher` is missing or the child does not come up.
Threads: the main thread only.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class EmbeddedError(Exception):
    """The embedded matcher cannot be used; the text says why and what to do."""


class EmbeddedMatcher:
    """Starts and stops the child.

    Args:
        data_dir: where its ledger lives.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it; returns its address, HOST:PORT.

        Raises:
            EmbeddedError: not installed, or not up within 30 s.
        """
        if importlib.util.find_spec("matcher") is None or importlib.util.find_spec("faiss") is None:
            raise EmbeddedError(
                "--embedded needs the matcher: pip install 'edge-reid[matcher]', "
                "or give the address of a running one with --matcher HOST:PORT"
            )
        self._data_dir.mkdir(parents=True, exist_ok=True)
        ready = self._data_dir / "ready.json"
        ready.unlink(missing_ok=True)
        log = self._data_dir / "matcher.log"
        with log.open("ab") as sink:
            self._child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "matcher.cli", "serve", "--listen", "127.0.0.1:0"),
                    *("--data-dir", str(self._data_dir), "--ready-file", str(ready)),
                    *("--metrics", "", "--exit-with-parent"),
                ],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                # A Ctrl-C at the terminal is ours to handle: the matcher drains after us.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if ready.is_file():
                return str(json.loads(ready.read_text())["address"])
            if self._child.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        raise EmbeddedError(f"the embedded matcher did not start; its log is {log}")

    @property
    def died(self) -> bool:
        """Whether the child ended by itself."""
        return self._child is not None and self._child.poll() is not None

    def stop(self) -> None:
        """Let it drain and end; may be called twice."""
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdin is not None:
            child.stdin.close()
