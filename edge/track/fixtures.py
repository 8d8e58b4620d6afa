"""Places where the detector sees a person who never moves: a sign, a mannequin, a poster.

Promise: what stood still for STANDING_S since it was first seen, and was not confirmed by motion,
becomes a fixture. A fixture claims its own detections like a tracklet does, so that a passer-by's
tracklet does not stay behind on the sign. Somebody who was standing and walks away leaves the
fixture's box and starts as a new candidate.
Full: the MOST fixtures seen last are kept. Threads: one owner (the camera's tracker).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.track.overlap import iou
from edge.types import Floats

STANDING_S = 2.0  # people who stand so long in view of a fresh box are rare; signs are not
MIN_IOU = 0.7  # YOLOX-nano's box on a sign strays by 4 % of its sides: IoU above 0.85
NEAR_IOU = 0.6  # an unclaimed detection this near is the fixture's second box
FOLLOW_S = 10.0  # time constant with which a fixture follows its detections (light, wind)
UNSEEN_S = 60.0  # a fixture not seen in so much analysed time is gone
LONGEST_STEP_S = 1.0  # a pause (motion gate closed, camera away) counts as no more than this
MOST = 64


class Fixtures:
    """The fixtures of one camera."""

    def __init__(self) -> None:
        self._boxes: npt.NDArray[np.float64] = np.zeros((0, 4))
        self._unseen_s: npt.NDArray[np.float64] = np.zeros(0)
        self._step_s = 0.0
        self._claimed: npt.NDArray[np.bool_] = np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self._boxes)

    def advance(self, dt: float) -> None:
        """A frame dt seconds after the last one begins."""
        self._step_s = min(dt, LONGEST_STEP_S)
        self._unseen_s += self._step_s
        keep = self._unseen_s <= UNSEEN_S
        if not keep.all():
            self._boxes, self._unseen_s = self._boxes[keep], self._unseen_s[keep]
        self._claimed = np.zeros(len(self._boxes), bool)

    def add(self, box: Floats) -> None:
        """A candidate at this box (4,) stood still too long; claims count from the next frame."""
        self._boxes = np.concatenate([self._boxes, np.asarray(box, np.float64)[None]])
        self._unseen_s = np.append(self._unseen_s, 0.0)
        if len(self._boxes) > MOST:
            keep = np.sort(np.argsort(self._unseen_s, kind="stable")[:MOST])
            self._boxes, self._unseen_s = self._boxes[keep], self._unseen_s[keep]
        self._claimed = np.ones(len(self._boxes), bool)

    def likeness(self, boxes: Floats) -> npt.NDArray[np.float64]:
        """(m, 4) -> (n, m) IoU with each fixture; 0 below MIN_IOU and for claimed fixtures."""
        overlap = iou(self._boxes.astype(np.float32), boxes)
        return np.where((overlap >= MIN_IOU) & ~self._claimed[:, None], overlap, 0.0)

    def overlaps(self, boxes: Floats) -> npt.NDArray[np.bool_]:
        """(m, 4) -> (m,) whether a box is so near a fixture that it starts nothing."""
        overlap = iou(self._boxes.astype(np.float32), boxes)
        return np.asarray(overlap.max(axis=0, initial=0.0) >= NEAR_IOU)

    def claim(self, fixture: int, box: Floats) -> None:
        """This detection (4,) is of this fixture."""
        share = 1.0 - float(np.exp(-self._step_s / FOLLOW_S))
        self._boxes[fixture] += share * (np.asarray(box, np.float64) - self._boxes[fixture])
        self._unseen_s[fixture] = 0.0
        self._claimed[fixture] = True
