"""One person who is followed, or may be: hits, what was not told yet, how he looks.

Promise: plain state with the few questions that need no other track; the tracker decides.
Threads: one owner (the camera's tracker).
"""

from __future__ import annotations

from collections.abc import Reversible
from dataclasses import dataclass, field

import numpy as np

from edge.track.appearance import Gallery
from edge.types import CaptureTime, EarlierBox, Floats, TrackedBox

# A candidate has moved when its box shifted by so many heights, or grew or shrank by so much in
# both directions (log): a walker does so in 0.3 s, the boxes of signs never did.
MOVED_HEIGHTS, MOVED_LOG_SIZE = 0.15, 0.25


@dataclass(slots=True)
class Track:
    """One candidate (number 0) or tracklet.

    Attributes:
        first_s, last_s: first and last hit, seconds.
        anchor: (4,) where the first hit was.
        last_box: (4,) where the last hit was.
        number: the tracklet's; 0 before the confirmation.
        hits: how many.
        strong: has had a detection of the high band.
        gallery: how he looks.
        untold: a candidate's hits; they are told late, with the number.
    """

    first_s: float
    last_s: float
    anchor: Floats
    last_box: Floats
    number: int = 0
    hits: int = 1
    strong: bool = False
    gallery: Gallery = field(default_factory=Gallery)
    untold: list[EarlierBox] = field(default_factory=list)

    def moved(self, box: Floats) -> bool:
        """Whether a candidate went somewhere: both opposite edges shifted alike, or it grew."""
        shift = box - self.anchor
        size, first = box[2:] - box[:2], self.anchor[2:] - self.anchor[:2]
        growth = np.abs(np.log(np.maximum(size, 1.0) / np.maximum(first, 1.0)))
        if growth.min() > MOVED_LOG_SIZE:
            return True
        alike = shift[:2] * shift[2:] > 0
        moved = np.where(alike, np.minimum(np.abs(shift[:2]), np.abs(shift[2:])), 0.0)
        return bool(moved.max() >= MOVED_HEIGHTS * first[1])

    def told_late(self) -> list[EarlierBox]:
        """The hits before the confirmation, now with their number."""
        late = [
            EarlierBox(numbered(hit.box, self.number), hit.captured, hit.frame_index)
            for hit in self.untold
        ]
        self.untold = []
        return late

    def closed_gap(
        self, box: Floats, now_s: float, history: Reversible[tuple[CaptureTime, int]]
    ) -> list[EarlierBox]:
        """Boxes in the analysed frames since the last hit, interpolated in time.

        Args:
            box: (4,) where the hit that closes the gap is.
            now_s: when.
            history: capture time and index of the analysed frames before this one.
        """
        late: list[EarlierBox] = []
        for captured, frame_index in reversed(history):
            if captured.seconds <= self.last_s:
                break
            share = (captured.seconds - self.last_s) / (now_s - self.last_s)
            between = (self.last_box + share * (box - self.last_box)).astype(np.float32)
            late.append(
                EarlierBox(TrackedBox(self.number, between, 0.0, False), captured, frame_index)
            )
        return late[::-1]


def numbered(box: TrackedBox, number: int) -> TrackedBox:
    """The same box with its tracklet's number."""
    return TrackedBox(number, box.box, box.score, box.detected, box.detection)
