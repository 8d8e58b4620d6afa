"""What a camera tells: its state, its events, its counters, its fault.

Promise: texts name the camera, what happened and what to do, and hold no credential.

    CONNECTING ──first frame──▶ ONLINE ──fault──▶ OFFLINE ──retry──▶ CONNECTING   live
    CONNECTING ──first frame──▶ ONLINE ──end──▶ ENDED                             file
    CONNECTING ──error──▶ FAILED                                                  file
    any ──stop──▶ STOPPED
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from edge.sources.base import SourceError


class CameraState(enum.Enum):
    """Where a camera is in its life; drawn above."""

    CONNECTING = "connecting"
    ONLINE = "online"
    OFFLINE = "offline"
    ENDED = "ended"
    FAILED = "failed"
    STOPPED = "stopped"


class EventKind(enum.Enum):
    """What happened to a camera."""

    ONLINE = "online"  # the first frame after an open
    OFFLINE = "offline"  # a live source was lost; it will be opened anew
    RESIZED = "resized"  # frames have another size from now on: trackers start afresh
    DAMAGED = "damaged"  # a file gave undecodable data, or ended in the middle
    ENDED = "ended"  # a file was read to its end
    FAILED = "failed"  # a file cannot be opened or read


@dataclass(frozen=True, slots=True)
class CameraEvent:
    """Something that people want to read about.

    Attributes:
        camera: its name.
        kind: what happened.
        text: one sentence with what, where and what to do; no credential.
        repeated: how many like it were held back since the last one told.
        error: the failure, where there is one.
    """

    camera: str
    kind: EventKind
    text: str
    repeated: int = 0
    error: SourceError | None = None


@dataclass(frozen=True, slots=True)
class CameraCounters:
    """Counted since start, over all reconnects.

    Attributes:
        frames_in: decoded frames.
        frames_skipped: live, not due at the limited rate.
        frames_dropped: live, due, but replaced by a newer one before it was taken.
        corrupt: frames marked corrupt, and pictures so damaged that they gave no frame.
        reconnects: times a lost live source gave frames again.
        failed_opens: attempts that gave no frame.
        abandoned: hung reads that were left to themselves.
        size_changes: times the frame size changed.
        bytes_video_in: compressed bytes read.
    """

    frames_in: int
    frames_skipped: int
    frames_dropped: int
    corrupt: int
    reconnects: int
    failed_opens: int
    abandoned: int
    size_changes: int
    bytes_video_in: int


class CameraFaultError(RuntimeError):
    """Our own code failed in a camera's thread; the process is meant to end.

    Attributes:
        camera: whose thread it was.
    """

    def __init__(self, camera: str, cause: BaseException) -> None:
        self.camera = camera
        super().__init__(f"camera {camera!r}: its thread died of {type(cause).__name__}")
