"""skeleton"""

from __future__ import annotations
from collections.abc import Sequence
from edge.types import CaptureTime, Shot, Tracklet, TrackStep


class TrackletBook:
    """The tracklets of one camera from confirmation to end, and when a revision of one is due.

    Args:
        camera: the camera's name.
        minute_s: a living tracklet is told anew after so long.
    """

    def __init__(self, *, camera: str) -> None: ...

    def add(
        self,
        step: TrackStep,
        shots: Sequence[tuple[int, Shot]],
        *,
        captured: CaptureTime,
        frame_index: int,
        frame_size: tuple[int, int],
    ) -> list[Tracklet]:
        """Take one frame in; the revisions that are due now (confirmed, changed, final)."""
        raise NotImplementedError
