"""Keeps crops of people on this box, for adapting a model to the site. Off unless asked for.

Promise: only what was embedded is kept, as JPEG, in a folder of the owner's alone (0700, files
0600); nothing of it is ever sent. Collecting ends after max_hours of this run; crops are deleted
once they are older than keep_hours, and none is written while max_bytes of .jpg are in the folder.
Files that are not named as crops are never deleted.
Full or failing: a crop that cannot be written is counted, `problem` says why, and the box goes on;
so it does where one cannot be deleted, which is said until the next look.
Threads: `put` from the inference thread, never waits; files are written by one thread of its own.

    FOLDER/PERSON_cCAMERA_INDEX.jpg    PERSON: the run's start in ms, then the tracklet's number, so
                                       runs never share one
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2

from edge.config import CollectConfig
from edge.types import Image

QUEUE_CROPS = 64  # some seconds of the crop budget; beyond it crops are dropped and counted
SWEEP_S = 60.0
_QUALITY = 92  # JPEG; what training sees after scaling differs little from the crop
_HOUR_S = 3600.0
# The folder may have been the owner's before: what deletes looks twice.
_OURS = re.compile(r"\d{7,}_c\d+_\d{6,}\.jpg(\.part)?")


class CollectError(Exception):
    """The folder cannot be used: exit code 2. The text says where and what to do."""


@dataclass(frozen=True)
class _Crop:
    name: str
    image: Image


class Collector:
    """See the module's text.

    Attributes:
        written, dropped: crops, since start.
        problem: why none is written now; empty while all is well.
    """

    def __init__(
        self,
        *,
        config: CollectConfig,
        on_fault: Callable[[str, BaseException], None],
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            on_fault: told the thread's name and what nobody foresaw.
        """
        assert config.folder is not None
        self._folder = config.folder
        self._config = config
        self._on_fault = on_fault
        self._cameras: dict[str, int] = {}  # numbered in the order in which they first gave a crop
        self._now_s = now_s
        self._wall_s = wall_s
        self._queue: queue.Queue[_Crop] = queue.Queue(QUEUE_CROPS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collect")
        self._began_s = 0.0
        self._start = ""
        self._index = 0
        self._bytes = 0
        self.written = 0
        self.dropped = 0
        self.problem = ""
        self._undeleted = ""

    def start(self) -> None:
        """Make the folder and begin.

        Raises:
            CollectError: the folder cannot be made or written, or others may read it.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.chmod(0o700)
            probe = self._folder / f".probe-{os.getpid()}"
            probe.touch(mode=0o600)
            probe.unlink()
        except OSError as error:
            raise CollectError(
                f"--collect {self._folder}: cannot be written ({error.strerror}); give a folder "
                "of this user's own"
            ) from error
        self._began_s = self._now_s()
        self._start = str(round(self._wall_s() * 1000))
        self.sweep()
        self._thread.start()

    def told(self) -> str | None:
        """What people are told for as long as crops are kept; None once that is over."""
        if self._over():
            return self.problem or self._undeleted or None
        if self.problem:
            return f"{self.problem} ({self.dropped} crops lost)"
        if self._undeleted:
            return self._undeleted
        return f"crops of people are kept in {self._folder}, on this box (--collect)"

    def put(self, camera: str, tracklet: int, crop: Image) -> None:
        """Keep a crop (h, w, 3) uint8, BGR; a copy is taken."""
        if self._over() or self._stop.is_set():
            return
        number = self._cameras.setdefault(camera, len(self._cameras) + 1)
        self._index += 1
        name = f"{self._start}{tracklet:06d}_c{number}_{self._index:06d}.jpg"
        try:
            self._queue.put_nowait(_Crop(name, crop.copy()))
        except queue.Full:
            self.dropped += 1

    def stop(self) -> None:
        """Write what waits and end; may be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> None:
        """Delete what is too old, and count what is there."""
        oldest = self._wall_s() - self._config.keep_hours * _HOUR_S
        held, undeleted = 0, ""
        for path in self._folder.glob("*.jpg*"):
            try:
                found = path.stat()
                if found.st_mtime < oldest and _OURS.fullmatch(path.name):
                    path.unlink()
                else:
                    held += found.st_size
            except FileNotFoundError:
                continue  # the owner took it away
            except OSError as error:
                undeleted = (
                    f"{path}: a crop older than {self._config.keep_hours:g} h cannot be deleted "
                    f"({error.strerror}); delete it by hand"
                )
        self._bytes, self._undeleted = held, undeleted

    def _over(self) -> bool:
        return self._now_s() - self._began_s > self._config.max_hours * _HOUR_S

    def _run(self) -> None:
        try:
            self._work()
        except Exception as fault:  # noqa: BLE001  it ends the process, with its name
            self._on_fault("collect", fault)

    def _work(self) -> None:
        swept_s = self._now_s()
        while not (self._stop.is_set() and self._queue.empty()):
            try:
                crop = self._queue.get(timeout=0.2)
            except queue.Empty:
                pass
            else:
                self._write(crop)
            if self._now_s() - swept_s > SWEEP_S:
                swept_s = self._now_s()
                self.sweep()

    def _write(self, crop: _Crop) -> None:
        encoded = cv2.imencode(".jpg", crop.image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
        content = encoded.tobytes()
        if self._bytes + len(content) > self._config.max_bytes:
            self._lost(f"{self._bytes} bytes are there, {self._config.max_bytes} are allowed")
            return
        part = self._folder / f"{crop.name}.part"
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
            part.rename(self._folder / crop.name)
        except OSError as error:
            part.unlink(missing_ok=True)
            self._lost(f"cannot write ({error.strerror})")
            return
        self._bytes += len(content)
        self.written += 1
        self.problem = ""

    def _lost(self, why: str) -> None:
        self.dropped += 1
        self.problem = f"crops are not collected in {self._folder}: {why}; the box goes on"
