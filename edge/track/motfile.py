"""Writes the tracks of one camera in MOTChallenge's text format (`edge-run --tracks FILE`).

    frame,id,left,top,width,height,score,-1,-1,-1

Frames count from 1, pixels from 0. Promise: written with the tracker's hindsight: hits before a
confirmation and the gaps inside a tracklet (interpolated, score 0) stand in the file, so its lines
are ordered by when they were known, not by frame; evaluation tools take them in any order.
Full or not writable: TracksFileError. Threads: one (the inference thread); close() from its owner.
Source: Milan et al., MOT16, arXiv:1603.00831, section 4.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from edge.types import TrackedBox, TrackStep


class TracksFileError(Exception):
    """The file of tracks cannot be written.

    Attributes:
        path: where. reason: what the system said.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(
            f"tracks file {path}: {reason}. Give --tracks a file in a folder that exists, "
            "may be written and has room."
        )


class MotFile:
    """The tracks of one camera. Opened by the first write, or by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None
        self._closed = False

    def open(self) -> None:
        """Create the file, empty. Raises TracksFileError."""
        if self._file is None and not self._closed:
            try:
                self._file = self.path.open("w", encoding="ascii", newline="\n")
            except OSError as error:
                raise TracksFileError(self.path, error.strerror or str(error)) from error

    def write(self, step: TrackStep, *, frame_index: int) -> None:
        """Append what one frame said. Raises TracksFileError."""
        self.open()
        lines = [_line(late.frame_index, late.box) for late in step.earlier]
        lines += [_line(frame_index, box) for box in step.boxes]
        if self._file is not None:
            try:
                self._file.writelines(lines)
            except OSError as error:
                raise TracksFileError(self.path, error.strerror or str(error)) from error

    def close(self) -> None:
        """Write out what is buffered; a camera that saw nobody leaves an empty file."""
        if self._closed:
            return
        self.open()
        self._closed = True
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                raise TracksFileError(self.path, error.strerror or str(error)) from error


def path_for(path: Path, camera: str, cameras: int) -> Path:
    """Where a camera's tracks go: FILE itself, or FILE-CAMERA.suffix where there are several."""
    if cameras == 1:
        return path
    return path.with_name(f"{path.stem}-{camera.replace(' ', '_')}{path.suffix}")


def _line(frame_index: int, box: TrackedBox) -> str:
    left, top, right, bottom = (float(value) for value in box.box)
    return (
        f"{frame_index + 1},{box.tracklet},{left:.2f},{top:.2f},{right - left:.2f},"
        f"{bottom - top:.2f},{box.score:.3f},-1,-1,-1\n"
    )
