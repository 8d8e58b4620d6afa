"""Keeps crops of people on this box, for adapting a model to the site. Off unless asked for.

Promise: only what was embedded is kept, as JPEG, in a folder of the owner's alone (0700, files
0600); nothing of it is ever sent. Collecting ends after max_hours, all runs with the folder taken
together: the folder's own count of them goes on after a restart, a run that was killed counts up to
a minute too much, and a count that cannot be read counts as spent. Crops are deleted once they are
older than keep_hours, and none is written while max_bytes of .jpg are in the folder. Files that are
not named as crops are never deleted, and a folder that others use is refused, not closed to them.
Full or failing: a crop that cannot be written is counted, `problem` says why, and the box goes on;
so it does where one cannot be deleted, which is said until the next look.
Threads: `put` from the inference thread, never waits; files are written by one thread of its own.

    FOLDER/PERSON_cCAMERA_INDEX.jpg    PERSON: the run's start in ms, then the tracklet's number, so
                                       runs never share one
    FOLDER/collected_seconds.txt       how long has been collected; without it, counting begins anew
"""

from __future__ import annotations

import math
import os
import queue
import re
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2

from edge.config import CollectConfig
from edge.types import Image

QUEUE_CROPS = 64  # some seconds of the crop budget; beyond it crops are dropped and counted
SWEEP_S = 60.0
COUNT = "collected_seconds.txt"
_QUALITY = 92  # JPEG; what training sees after scaling differs little from the crop
_HOUR_S = 3600.0
_VOLUME = "lost+found"  # lies in every new volume
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
        self._earlier_s = 0.0  # collected in earlier runs
        self._counted = -1  # as written last
        self._start = ""
        self._index = 0
        self._bytes = 0
        self.written = 0
        self.dropped = 0
        self.problem = ""
        self._undeleted = ""
        self._uncounted = ""

    def start(self) -> None:
        """Make the folder and begin.

        Raises:
            CollectError: the folder cannot be made or written, or others may read it.
        """
        self._began_s = self._now_s()
        try:
            self._refuse_others_folder()
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.chmod(0o700)
            self._earlier_s = self._counted_s()
            if not self.over:
                self._write_count(ahead_s=SWEEP_S)
        except OSError as error:
            raise CollectError(
                f"--collect {self._folder}: cannot be written ({error.strerror}); give a folder "
                "of this user's own"
            ) from error
        self._start = str(round(self._wall_s() * 1000))
        self.sweep()
        self._thread.start()

    def _refuse_others_folder(self) -> None:
        """A folder that others use is not closed to them, which /tmp or a home would not survive.

        Raises:
            CollectError: others may enter it, and it holds what is not of an earlier run.
        """
        if not self._folder.is_dir() or self.count_file.exists():
            return
        mode = self._folder.stat().st_mode
        held = [
            path
            for path in self._folder.iterdir()
            if path.name != _VOLUME and not _OURS.fullmatch(path.name)
        ]
        if mode & stat.S_ISVTX or (held and mode & 0o077):
            raise CollectError(
                f"--collect {self._folder}: others may enter it and it is not empty; give a folder "
                "of its own, or close it to others yourself (chmod 700)"
            )

    @property
    def over(self) -> bool:
        """Whether the hours are spent: nothing is kept any more."""
        return self._spent_s() >= self._config.max_hours * _HOUR_S

    @property
    def count_file(self) -> Path:
        """Where the hours are counted; who deletes it begins anew."""
        return self._folder / COUNT

    def told(self) -> str | None:
        """What people are told for as long as crops are kept; None once that is over."""
        if self.over:
            return self.problem or self._undeleted or self._uncounted or None
        if self.problem:
            return f"{self.problem} ({self.dropped} crops lost)"
        if self._undeleted or self._uncounted:
            return self._undeleted or self._uncounted
        return f"crops of people are kept in {self._folder}, on this box (--collect)"

    def put(self, camera: str, tracklet: int, crop: Image) -> None:
        """Keep a crop (h, w, 3) uint8, BGR; a copy is taken."""
        if self.over or self._stop.is_set():
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
            self._count(ahead_s=0.0)

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

    def _spent_s(self) -> float:
        return self._earlier_s + self._now_s() - self._began_s

    def _counted_s(self) -> float:
        try:
            counted = float(self.count_file.read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0.0
        except ValueError:
            return math.inf
        return counted if counted >= 0 else math.inf

    def _count(self, *, ahead_s: float) -> None:
        """Keep the count, and say where that fails; spent hours are not written again."""
        if math.isinf(self._earlier_s):
            return
        try:
            self._write_count(ahead_s=ahead_s)
        except OSError as error:
            self._uncounted = (
                f"{self.count_file}: cannot be written ({error.strerror}); after a restart crops "
                "may be collected for longer than collect.max_hours"
            )
        else:
            self._uncounted = ""

    def _write_count(self, *, ahead_s: float) -> None:
        """Write how long was collected, whole or not at all.

        Args:
            ahead_s: counted already, so that a killed run was not for nothing.
        """
        spent_s = min(self._spent_s() + ahead_s, self._config.max_hours * _HOUR_S)
        counted = math.ceil(max(spent_s, self._earlier_s))
        if counted == self._counted:
            return
        part = self._folder / f".{COUNT}.part"
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(f"{counted}\n".encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            part.rename(self.count_file)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._counted = counted

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
                self._count(ahead_s=SWEEP_S)

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
