"""Eight megabytes that are given back when the disk is full.

Promise: on a full disk SQLite can neither delete nor checkpoint, for both write to the WAL; freeing
this file gives it the room to do so. It is made again once the disk has twice its size to spare.
Fails: never; without room there is no ballast, and `held` says so.
Threads: the spool writer's alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

_ROOM_BYTES = 4 << 20


class Ballast:
    """The file.

    Args:
        path: beside the database.
        size_bytes: 0: none is kept.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size = size_bytes

    @property
    def held(self) -> bool:
        """Whether it is there, whole."""
        try:
            return self._size > 0 and self._path.stat().st_size >= self._size
        except OSError:
            return False

    def fill(self) -> bool:
        """Make it if the disk has twice its size free; returns whether the disk has room."""
        if self.held:
            return True
        try:
            # Without a ballast the answer is whether the disk has room again.
            if shutil.disk_usage(self._path.parent).free < 2 * (self._size or _ROOM_BYTES):
                return False
            if self._size == 0:
                return True
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, self._size)
            finally:
                os.close(fd)
        except OSError:
            # Half a ballast would take the room it is meant to give.
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            return False
        return True

    def release(self) -> bool:
        """Give its room back; returns whether there was any."""
        had = self.held
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        return had
