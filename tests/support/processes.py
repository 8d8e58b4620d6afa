"""Real processes of ours for tests: `edge-run` and `edge-match serve`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tests.support.waiting import eventually

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Finished:
    """How a box ended.

    Attributes:
        code: exit code.
        stdout, stderr: everything it wrote.
        summary: the JSON object of its last line; empty where there is none.
    """

    code: int
    stdout: str
    stderr: str
    summary: dict[str, Any]


class Box:
    """`edge-run` as a process of its own; killed where a test leaves it running."""

    def __init__(self, data_dir: Path, models: Path, *arguments: str, summary: bool = True) -> None:
        command = [sys.executable, "-m", "edge.cli", *arguments]
        command += ["--data-dir", str(data_dir), "--models-dir", str(models)]
        if summary:
            command += ["--summary", "json"]
        if "--metrics" not in arguments:
            command += ["--metrics", "off"]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("EDGE_")}
        # What is fastest here is not what these tests are about.
        environ["EDGE_RUNTIME__BACKEND"] = "onnxruntime"
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", self.process.stdout), ("stderr", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: IO[str] | None) -> None:
        assert stream is not None
        for line in stream:
            self._lines[name].append(_ANSI.sub("", line))

    def __enter__(self) -> Box:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def text(self, name: str = "stderr") -> str:
        """What it has written so far."""
        return "".join(list(self._lines[name]))

    def wait_for_log(self, part: str, within_s: float = 40.0) -> None:
        """Wait until its log holds this text."""
        eventually(
            lambda: part in self.text() or self.process.poll() is not None,
            within_s=within_s,
            state=self.text,
        )
        assert part in self.text(), self.text()

    def finish(self, within_s: float = 100.0) -> Finished:
        """Wait for its end."""
        code = self.process.wait(within_s)
        for reader in self._readers:
            reader.join(10)
        stdout = self.text("stdout")
        last = stdout.splitlines()[-1] if stdout.strip() else ""
        summary = json.loads(last) if last.startswith("{") else {}
        return Finished(code, stdout, self.text(), summary)

    def kill(self) -> None:
        """kill -9, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def run_box(data_dir: Path, models: Path, *arguments: str, summary: bool = True) -> Finished:
    """Run `edge-run` to its end."""
    with Box(data_dir, models, *arguments, summary=summary) as box:
        return box.finish()


class MatcherProcess:
    """`edge-match serve` as a process of its own.

    Args:
        data_dir: where its ledger lies.
        listen: HOST:PORT; a free port by default.
        arguments: more flags.
    """

    def __init__(self, data_dir: Path, *arguments: str, listen: str = "127.0.0.1:0") -> None:
        self.data_dir = data_dir
        self._listen = listen
        self._arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        ready = self.data_dir / "ready.json"
        ready.unlink(missing_ok=True)
        with (self.data_dir / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "matcher.cli", "serve", "--listen", self._listen),
                    *("--data-dir", str(self.data_dir), "--ready-file", str(ready)),
                    *("--metrics", "", *self._arguments),
                ],
                stdout=log,
                stderr=log,
            )
        process = self.process
        eventually(
            lambda: ready.is_file() or process.poll() is not None,
            within_s=40,
            state=lambda: (self.data_dir / "log.txt").read_text(),
        )
        assert ready.is_file(), (self.data_dir / "log.txt").read_text()
        self.address = str(json.loads(ready.read_text())["address"])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; returns its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(20)

    def __enter__(self) -> MatcherProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(signal.SIGTERM)
