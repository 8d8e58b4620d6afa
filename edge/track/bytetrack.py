"""skeleton"""
from __future__ import annotations
from collections.abc import Callable
from edge.config import TrackConfig
from edge.types import CaptureTime, Detections, Floats, TrackStep

Appearance = Callable[[Floats], Floats]


class Tracker:
    """Follows the people of one camera from frame to frame.

    Args:
        config: thresholds and times.
        frame_size: (width, height) of the frames, pixels.
    """

    def __init__(self, *, config: TrackConfig, frame_size: tuple[int, int]) -> None: ...

    @property
    def alive(self) -> bool:
        """Whether any tracklet or candidate is being followed: the motion gate stays open."""
        raise NotImplementedError

    def update(
        self,
        detections: Detections,
        *,
        captured: CaptureTime,
        frame_index: int,
        appearance: Appearance | None = None,
    ) -> TrackStep:
        """Take one frame's detections in.

        Args:
            detections: of this frame.
            captured: when it was exposed; times of one tracker never go back.
            frame_index: its index in the camera.
            appearance: called at most once a frame and seldom with boxes (n, 4) in pixels of
                this frame; returns (n, d) unit embeddings, rows of NaN where the budget
                refuses. None: boxes alone decide.
        """
        raise NotImplementedError

    def remember(self, tracklet: int, embedding: Floats) -> None:
        """Take in an embedding that was made of a tracklet anyway (a shot)."""
        raise NotImplementedError

    def finish(self) -> TrackStep:
        """End all tracklets: the source has ended."""
        raise NotImplementedError
