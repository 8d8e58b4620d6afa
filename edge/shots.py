"""Which crops are worth an embedding, and who pays for it.

Promise: a tracklet is embedded at most once per interval_s until it has good_shots good crops, then
only for a clearly better one; never a crop below min_height_px or covered beyond max_occluded; all
cameras together never more than budget_per_s (and one second's worth at once).
Full: where the budget is short, tracklets with the fewest shots come first; the rest is asked again
in a later frame. Embeddings that the tracker needed in the same frame are reused, at no cost.
Threads: one (the inference thread) for everything here.

Quality of a crop, 0..1, is the product of size, sharpness, visibility, room to the frame's border
and detector score: one bad factor makes a bad crop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from edge.config import ShotConfig
from edge.types import Floats, Frame, Image, TrackStep

FULL_HEIGHT_PX = 128.0  # half of OSNet's input: beyond it, size adds little
# A good crop: e.g. 70 px high, in the clear, sharp, score 0.75. Worse ones are taken, but do not
# count as good.
GOOD_QUALITY = 0.2
BETTER = 1.25  # "clearly better" than the weakest of the good ones: by so much
LOOK_AGAIN_S = 0.2  # a crop found wanting is not looked at more often than this
BEHIND = 0.5  # a box behind (its feet are higher up) spoils the crop by half of what it covers
BORDER_PX = 2.0  # a box this near the frame's border is cut off ...
CUT_FACTOR = 0.5  # ... and worth half
SHARP_LEVELS = 12.0  # mean gradient, grey levels a pixel, at which a 64x128 crop is half sharp
TRACKING_SHARE = 0.5  # of a full budget stays for shots when the tracker asks


class CropBudget:
    """Crops per second that the whole box may embed: a token bucket shared by all cameras.

    Time is the caller's, seconds. Files of different clocks may share it: time that goes back
    restarts the clock without a refill.

    Args:
        per_s: crops per second, > 0.
        burst_s: the bucket holds so many seconds' worth; it starts full.
    """

    def __init__(self, *, per_s: float, burst_s: float = 1.0) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s * burst_s)
        self._tokens = self._most
        self._seen_s: float | None = None

    def take(self, count: int, now_s: float, *, leave: float = 0.0) -> int:
        """How many of `count` crops may be embedded now.

        Args:
            count: >= 0.
            now_s: seconds.
            leave: share (0..1) of a full bucket that has to stay in it.
        Returns:
            0..count, spent.
        """
        if self._seen_s is not None:
            refill = max(0.0, now_s - self._seen_s) * self._per_s
            self._tokens = min(self._most, self._tokens + refill)
        self._seen_s = now_s
        granted = max(0, min(count, math.floor(self._tokens - leave * self._most + 1e-9)))
        self._tokens -= granted
        return granted


class FrameEmbeddings:
    """Embeddings of boxes of one frame, each made once: tracker and shots ask the same object.

    Args:
        image: the frame, (h, w, 3) uint8 BGR.
        embed: (image, boxes (n, 4) px) -> (n, d) unit rows; called with n > 0 only.
        budget, now_s: what may be spent.
    """

    def __init__(
        self,
        *,
        image: Image,
        embed: Callable[[Image, Floats], Floats],
        budget: CropBudget,
        now_s: float,
    ) -> None:
        self._image = image
        self._embed = embed
        self._budget = budget
        self._now_s = now_s
        self._rows: dict[bytes, Floats] = {}

    def __call__(self, boxes: Floats) -> Floats:
        """(n, 4) -> (n, d) unit rows, in order; NaN where the budget refuses (d = 1 if all)."""
        return self._get(boxes, 0.0)

    def for_tracking(self, boxes: Floats) -> Floats:
        """The same, leaving TRACKING_SHARE of a full budget to the shots: the tracker's way in."""
        return self._get(boxes, TRACKING_SHARE)

    def known(self, box: Floats) -> bool:
        """Whether this very box (4,) was embedded in this frame: it costs nothing more."""
        return _key(box) in self._rows

    def _get(self, boxes: Floats, leave: float) -> Floats:
        keys = [_key(box) for box in boxes]
        missing = [i for i, key in enumerate(keys) if key not in self._rows]
        granted = self._budget.take(len(missing), self._now_s, leave=leave)
        if granted:
            chosen = missing[:granted]
            rows = self._embed(self._image, boxes[chosen])
            self._rows.update((keys[i], row) for i, row in zip(chosen, rows, strict=True))
        size = next((len(row) for row in self._rows.values()), 1)
        refused = np.full(size, np.nan, np.float32)
        found = [self._rows.get(key, refused) for key in keys]
        return np.stack(found) if found else np.zeros((0, size), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A crop worth an embedding now.

    Attributes:
        tracklet: its number.
        box: (4,) float32, the detector's box in pixels.
        quality: 0..1.
        detector_score: 0..1.
    """

    tracklet: int
    box: Floats
    quality: float
    detector_score: float


@dataclass(slots=True)
class _Taken:
    """What a tracklet has: qualities of its good shots, best first; when it was last looked at."""

    good: list[float] = field(default_factory=list)
    count: int = 0
    embedded_s: float = -math.inf
    looked_s: float = -math.inf


class ShotSelector:
    """Which crops of one camera are worth an embedding."""

    def __init__(self, *, config: ShotConfig) -> None:
        self._config = config
        self._taken: dict[int, _Taken] = {}

    def choose(
        self, frame: Frame, step: TrackStep, *, embedded: Callable[[Floats], bool] | None = None
    ) -> list[Candidate]:
        """What to embed of this frame, most wanted first.

        Args:
            frame: the frame; a corrupt one gives nothing.
            step: the tracker's word on it.
            embedded: whether a box has its embedding already; such come first, as they are free.
        """
        for number in step.ended:
            self._taken.pop(number, None)
        now_s = frame.captured.seconds
        found = [box for box in step.boxes if box.detection is not None]
        if frame.corrupt or not found:
            return []
        boxes = np.array([box.detection for box in found], np.float32)
        hidden = occlusion(boxes)
        height = boxes[:, 3] - boxes[:, 1]
        cut = (boxes[:, 0] <= BORDER_PX) | (boxes[:, 2] >= frame.width - BORDER_PX)
        cut |= (boxes[:, 1] <= BORDER_PX) | (boxes[:, 3] >= frame.height - BORDER_PX)
        scores = np.array([box.score for box in found])
        most = np.clip(height / FULL_HEIGHT_PX, 0.0, 1.0) * (1.0 - hidden) * scores
        most *= np.where(cut, CUT_FACTOR, 1.0)
        fit = (height >= self._config.min_height_px) & (hidden <= self._config.max_occluded)
        chosen: list[tuple[bool, int, float, Candidate]] = []
        for i in np.flatnonzero(fit):
            taken = self._taken.setdefault(found[i].tracklet, _Taken())
            if not self._due(taken, float(most[i]), now_s):
                continue
            taken.looked_s = now_s
            quality = float(most[i]) * sharpness(frame.image, boxes[i])
            if self._wanted(taken, quality):
                candidate = Candidate(found[i].tracklet, boxes[i], quality, float(scores[i]))
                costs = embedded is None or not embedded(boxes[i])
                chosen.append((costs, taken.count, -quality, candidate))
        return [candidate for *_, candidate in sorted(chosen, key=lambda item: item[:3])]

    def embedded(self, candidates: Sequence[Candidate], now_s: float) -> None:
        """Tell which candidates were embedded; the budget may have refused some."""
        for candidate in candidates:
            taken = self._taken.setdefault(candidate.tracklet, _Taken())
            taken.embedded_s = now_s
            taken.count += 1
            if candidate.quality >= GOOD_QUALITY:
                good = sorted([*taken.good, candidate.quality], reverse=True)
                taken.good = good[: self._config.good_shots]

    def _due(self, taken: _Taken, most: float, now_s: float) -> bool:
        """Whether a crop of at most this quality deserves a look."""
        # a hair of slack: frame times are floats
        if now_s - taken.embedded_s < self._config.interval_s - 1e-6:
            return False
        return now_s - taken.looked_s >= LOOK_AGAIN_S - 1e-6 and self._wanted(taken, most)

    def _wanted(self, taken: _Taken, quality: float) -> bool:
        if len(taken.good) < self._config.good_shots:
            return quality > 0.0
        return quality >= BETTER * taken.good[-1]


def occlusion(boxes: Floats) -> npt.NDArray[np.float64]:
    """How much of each box the worst of the other boxes takes: (n, 4) -> (n,) in 0..1.

    A box whose lower edge is lower stands in front and hides what it covers; one behind spoils
    the crop by BEHIND of it.
    """
    if len(boxes) < 2:
        return np.zeros(len(boxes))
    a, b = boxes[:, None].astype(np.float64), boxes[None].astype(np.float64)
    shared = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    part = np.clip(shared, 0.0, None).prod(axis=2)
    part /= np.maximum((a[..., 2:] - a[..., :2]).prod(axis=2), 1e-9)
    part *= np.where(b[..., 3] >= a[..., 3], 1.0, BEHIND)
    np.fill_diagonal(part, 0.0)
    return np.asarray(part.max(axis=1))


def sharpness(image: Image, box: Floats) -> float:
    """0..1 from the mean gradient of the crop (4,) at 64x128; half at SHARP_LEVELS."""
    height, width = image.shape[:2]
    x1, y1 = max(0, int(box[0])), max(0, int(box[1]))
    x2, y2 = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    if x2 - x1 < 2 or y2 - y1 < 2:
        return 0.0
    grey = cv2.cvtColor(image[y1:y2, x1:x2], cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (64, 128), interpolation=cv2.INTER_AREA).astype(np.float32)
    gradient = float(np.abs(np.diff(small, axis=1)).mean() + np.abs(np.diff(small, axis=0)).mean())
    return gradient / (gradient + SHARP_LEVELS)


def _key(box: Floats) -> bytes:
    return np.asarray(box, np.float32).tobytes()
