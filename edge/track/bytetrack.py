"""Follows the people of one camera from frame to frame: which detection is whom.

Promise: a detection belongs to at most one tracklet; a number is given once, at confirmation, and
never passes to somebody else knowingly; the same video at another frame rate is treated alike, as
all times are seconds and all distances are heights of the person.
Full: nothing to fill; detections are bounded by the detector, tracklets by end_s.
Threads: one at a time (the inference thread).

    detection ─▶ candidate ─── 3 hits, 0.3 s, has moved ──▶ confirmed ◀─▶ lost ─ 2.0 s ─▶ ended
                     │ stood still for 2 s ─▶ fixture (a sign: never tracked)

After ByteTrack (Zhang et al., ECCV 2022, arXiv:2110.06864): strong detections choose first, weak
ones may only continue a tracklet. Departures, each measured by benchmarks/bench_tracking.py:
- boxes are compared after growing by the motion model's own uncertainty (overlap.py), so a
  tracklet lost behind a post is found again without a rule of its own;
- appearance is asked where boxes leave a close decision, or somebody was lost, and there alone
  (an embedding costs more than the rest of the tracker); it shifts the cost, it does not decide;
- fixtures take part in the matching (fixtures.py);
- hits before the confirmation, and gaps closed again, are told late (TrackStep.earlier).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edge.config import TrackConfig
from edge.track.appearance import Appearance, AskedEmbeddings, Gallery, LikenessScale
from edge.track.fixtures import STANDING_S, Fixtures
from edge.track.kalman import BoxFilter
from edge.track.overlap import REFUSED, assign, covered, iou, widened_iou
from edge.track.track import Track, numbered
from edge.types import CaptureTime, Detections, EarlierBox, Floats, TrackedBox, TrackStep

Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

# Boxes grow by so many standard deviations of the prediction before they are compared, by at
# most so many heights: beyond that the widened boxes would no longer tell neighbours apart.
MARGIN_STDS, MARGIN_HEIGHTS = 1.5, 1.0
# Highest cost (1 - overlap · score, ± appearance) at which a pair is taken: ByteTrack's 0.9, 0.5
# and 0.7, of its first, second and unconfirmed matching; stricter, as widened boxes overlap more.
STRONG_LIMIT, WEAK_LIMIT, CANDIDATE_LIMIT = 0.8, 0.4, 0.7
# A pair is plausible from this overlap on, and a rival of the best one from this share of it on.
PLAUSIBLE_OVERLAP, RIVAL_SHARE = 0.1, 0.4
# What a full unit of evidence is worth in cost. Half a unit (a typical likeness) can turn around
# a difference of 0.4 in overlap between two rivals.
APPEARANCE_WEIGHT = 0.4
# The longer boxes were blind the more it is worth: so many times for a lost tracklet, so that a
# certain stranger does not take over the number of whoever was last seen there.
LOST_APPEARANCE = 2.0
# Unseen for longer than this (or one and a half frames), a tracklet counts as lost and appearance
# is asked when it returns; a candidate is given up.
LOST_S = 0.35
# A tracklet with company this near (heights) has its gallery renewed after so long.
COMPANY_HEIGHTS, RENEW_S = 1.0, 1.0
CLEAR_COVER = 0.3  # a box covered by more than this shows two people: it teaches nothing
DUPLICATE_IOU = 0.55  # a detection this close to a matched one starts nothing
WEAK_NOISE = 1.0  # a detection of score s is trusted with (1 + this · (1 - s)) times the noise
HISTORY = 512  # analysed frames kept for closing gaps: end_s at 120 frames/s, twice over


class Tracker:
    """Follows the people of one camera from frame to frame.

    Args:
        config: thresholds and times.
        frame_size: (width, height) of the frames, pixels.
        numbers: gives the numbers of tracklets; share one where several cameras must differ.
    """

    def __init__(
        self,
        *,
        config: TrackConfig,
        frame_size: tuple[int, int],
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._config = config
        self._limits = np.array([*frame_size, *frame_size], np.float32)
        self._filter = BoxFilter()
        self._tracks: list[Track] = []
        self._fixtures = Fixtures()
        self._scale = LikenessScale()
        self._history: deque[tuple[CaptureTime, int]] = deque(maxlen=HISTORY)
        self._now_s: float | None = None
        self._lost_s = LOST_S
        self._numbers = itertools.count(1) if numbers is None else numbers

    @property
    def alive(self) -> bool:
        """Whether any tracklet or candidate is being followed: the motion gate stays open."""
        return bool(self._tracks)

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
            appearance: called seldom, at most twice a frame, with boxes (n, 4) of `detections`,
                unchanged; returns (n, d) unit embeddings, rows of NaN where the budget refuses.
                None: boxes alone decide.
        """
        now_s = captured.seconds
        ended = self._advance(now_s)
        ask = AskedEmbeddings(detections.boxes, appearance if self._config.relink else None)
        hits, free = self._match(detections, ask, now_s)
        rows = np.array(sorted(hits), np.intp)
        found = np.array([hits[row] for row in rows], np.intp)
        self._filter.correct(
            rows,
            detections.boxes[found],
            1.0 + WEAK_NOISE * (1.0 - detections.scores[found].astype(np.float64)),
        )
        boxes = np.clip(self._filter.boxes, 0.0, self._limits)

        tracked: list[TrackedBox] = []
        earlier: list[EarlierBox] = []
        confirmed: list[int] = []
        relinked: list[int] = []
        for row, column in zip(rows.tolist(), found.tolist(), strict=True):
            track = self._tracks[row]
            score, gap_s = float(detections.scores[column]), now_s - track.last_s
            strong = score >= self._config.high_confidence
            if track.number and gap_s > self._lost_s and column in ask:
                relinked.append(track.number)
            if not track.number and strong and not track.strong:
                # what was too weak to start a tracklet is not its beginning
                track.first_s, track.hits, track.anchor, track.untold = now_s, 0, boxes[row], []
            track.strong |= strong
            track.hits += 1
            box = TrackedBox(
                track.number, boxes[row], score, True, detection=detections.boxes[column]
            )
            if not track.number and self._confirms(track, boxes[row], strong, now_s):
                track.number = next(self._numbers)
                confirmed.append(track.number)
                earlier += track.told_late()
                box = numbered(box, track.number)
            if track.number:
                earlier += track.closed_gap(boxes[row], now_s, self._history)
                tracked.append(box)
            else:
                track.untold.append(EarlierBox(box, captured, frame_index))
            track.last_s, track.last_box = now_s, boxes[row]
        self._learn(rows, found, detections, ask, now_s)
        self._settle(now_s)
        self._start(detections, free, captured, frame_index)
        self._history.append((captured, frame_index))
        return TrackStep(tuple(tracked), tuple(confirmed), ended, tuple(earlier), tuple(relinked))

    def remember(self, tracklet: int, embedding: Floats) -> None:
        """Take in an embedding (d,) that was made of a tracklet of this frame anyway (a shot)."""
        for track in self._tracks:
            if track.number == tracklet and track.gallery.updated_s != track.last_s:
                track.gallery.add(embedding, track.last_s)

    def forget_appearance(self) -> None:
        """Embeddings come from another space from now on: what was learnt does not compare."""
        for track in self._tracks:
            track.gallery = Gallery()
        self._scale = LikenessScale()

    def expire(self, now_s: float) -> TrackStep:
        """End what was not seen for end_s, without a frame: the source has stopped for a while."""
        return TrackStep((), ended=self._end(now_s))

    def finish(self) -> TrackStep:
        """End all tracklets: the source has ended. May be called twice."""
        ended = tuple(track.number for track in self._tracks if track.number)
        self._keep([])
        return TrackStep((), ended=ended)

    # ---- one frame, step by step -------------------------------------------------------------

    def _advance(self, now_s: float) -> tuple[int, ...]:
        """Bring everything to now; numbers of the tracklets that end by it."""
        ended = self._end(now_s)
        dt = 0.0 if self._now_s is None else max(0.0, now_s - self._now_s)
        self._now_s = now_s
        self._lost_s = max(LOST_S, 1.5 * dt)
        self._filter.predict(dt)
        self._fixtures.advance(dt)
        return ended

    def _match(
        self, detections: Detections, ask: AskedEmbeddings, now_s: float
    ) -> tuple[dict[int, int], list[int]]:
        """Row → detection for all that were found; detections that belong to nobody."""
        scores, config = detections.scores, self._config
        strong = np.flatnonzero(scores >= config.high_confidence)
        weak = np.flatnonzero((scores < config.high_confidence) & (scores >= config.low_confidence))
        confirmed = np.array([i for i, t in enumerate(self._tracks) if t.number], np.intp)
        candidates = np.array([i for i, t in enumerate(self._tracks) if not t.number], np.intp)
        hits: dict[int, int] = {}
        taken: set[int] = set()

        overlap = self._overlap(confirmed, detections.boxes[strong])
        cost = 1.0 - overlap * scores[strong]
        cost -= APPEARANCE_WEIGHT * self._evidence(confirmed, strong, overlap, ask, now_s)
        self._take(confirmed, strong, cost, STRONG_LIMIT, detections, hits, taken)

        left = np.array([row for row in confirmed if row not in hits], np.intp)
        cost = 1.0 - self._overlap(left, detections.boxes[weak])
        self._take(left, weak, cost, WEAK_LIMIT, detections, hits, taken)

        free = np.array([j for j in (*strong, *weak) if j not in taken], np.intp)
        cost = 1.0 - self._overlap(candidates, detections.boxes[free])
        for row, column in assign(cost, CANDIDATE_LIMIT):
            hits[int(candidates[row])] = int(free[column])
            taken.add(int(free[column]))
        return hits, [int(j) for j in free if j not in taken]

    def _take(
        self,
        rows: Rows,
        columns: Rows,
        cost: Doubles,
        limit: float,
        detections: Detections,
        hits: dict[int, int],
        taken: set[int],
    ) -> None:
        """Assign detections to tracklets and fixtures, who compete for them."""
        likeness = self._fixtures.likeness(detections.boxes[columns])
        standing = np.where(likeness > 0.0, 1.0 - likeness, REFUSED)
        for row, column in assign(np.concatenate([cost, standing]), limit):
            detection = int(columns[column])
            taken.add(detection)
            if row < len(rows):
                hits[int(rows[row])] = detection
            else:
                self._fixtures.claim(row - len(rows), detections.boxes[detection])

    def _overlap(self, rows: Rows, boxes: Floats) -> Doubles:
        """(n, m) widened IoU of predicted and detected boxes."""
        predicted = self._filter.boxes[rows]
        height = (predicted[:, 3:] - predicted[:, 1:2]).astype(np.float64)
        margin = np.minimum(MARGIN_STDS * self._filter.spread[rows], MARGIN_HEIGHTS * height)
        return widened_iou(predicted, boxes, margin)

    def _evidence(
        self, rows: Rows, columns: Rows, overlap: Doubles, ask: AskedEmbeddings, now_s: float
    ) -> Doubles:
        """(n, m) evidence of appearance, weighted; 0 where it was not worth asking."""
        evidence = np.zeros(overlap.shape)
        if not overlap.size or not ask.possible:
            return evidence
        plausible = overlap > PLAUSIBLE_OVERLAP
        rival = plausible & (overlap >= RIVAL_SHARE * overlap.max(axis=1, keepdims=True))
        rival &= overlap >= RIVAL_SHARE * overlap.max(axis=0, keepdims=True)
        lost = np.array([now_s - self._tracks[row].last_s > self._lost_s for row in rows])
        close = (rival.sum(axis=0) > 1) | (rival & (rival.sum(axis=1) > 1)[:, None]).any(axis=0)
        asked = np.flatnonzero(close | (plausible & lost[:, None]).any(axis=0))
        if not len(asked):
            return evidence
        embeddings = ask(columns[asked])
        likeness = np.full((len(rows), len(asked)), np.nan, np.float32)
        for i in np.flatnonzero(plausible[:, asked].any(axis=1)):
            likeness[i] = self._tracks[rows[i]].gallery.likeness(embeddings)
        worth = np.where(lost, LOST_APPEARANCE, 1.0)[:, None]
        evidence[:, asked] = worth * self._scale.evidence(likeness)
        return np.where(plausible, evidence, 0.0)

    def _confirms(self, track: Track, box: Floats, strong: bool, now_s: float) -> bool:
        """Whether this hit makes a candidate a tracklet."""
        config = self._config
        # a float of seconds may fall a hair short of the third frame
        old_enough = now_s - track.first_s >= config.confirm_s - 1e-6
        return strong and track.hits >= config.confirm_hits and old_enough and track.moved(box)

    def _learn(
        self, rows: Rows, found: Rows, detections: Detections, ask: AskedEmbeddings, now_s: float
    ) -> None:
        """Renew galleries before people meet, and learn what a likeness is worth."""
        strong = detections.scores[found] >= self._config.high_confidence
        some = [
            i
            for i, row in enumerate(rows)
            if self._tracks[row].number
            and strong[i]
            and (now_s - self._tracks[row].gallery.updated_s >= RENEW_S or int(found[i]) in ask)
        ]
        if not ask.possible or not some:
            return
        boxes = detections.boxes[found]
        cover = covered(boxes, boxes)
        np.fill_diagonal(cover, 0.0)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        apart = np.hypot(*(centre[:, None] - centre[None]).T)
        np.fill_diagonal(apart, np.inf)
        company = apart.min(axis=1) < COMPANY_HEIGHTS * (boxes[:, 3] - boxes[:, 1])
        due = [
            i
            for i in some
            if cover[i].max() < CLEAR_COVER
            and (company[i] or not len(self._tracks[rows[i]].gallery) or int(found[i]) in ask)
        ]
        if not due:
            return
        embeddings = ask(found[due])
        galleries = [self._tracks[rows[i]].gallery for i in due]
        for k, gallery in enumerate(galleries):
            likeness = gallery.likeness(embeddings)
            self._scale.learn(same=True, likeness=likeness[k : k + 1])
            self._scale.learn(same=False, likeness=np.delete(likeness, k))
        for gallery, embedding in zip(galleries, embeddings, strict=True):
            if now_s - gallery.updated_s >= RENEW_S:
                gallery.add(embedding, now_s)

    def _settle(self, now_s: float) -> None:
        """Candidates that stood still become fixtures; given-up ones go."""
        keep = []
        for row, track in enumerate(self._tracks):
            if not track.number:
                if now_s - track.last_s > self._lost_s:
                    continue
                if now_s - track.first_s >= STANDING_S and not track.moved(track.last_box):
                    self._fixtures.add(track.last_box)
                    continue
            keep.append(row)
        self._keep(keep)

    def _start(
        self, detections: Detections, free: list[int], captured: CaptureTime, frame_index: int
    ) -> None:
        """Make candidates of the detections that belong to nobody."""
        if not free:
            return
        boxes = detections.boxes[free]
        known = np.array([t.last_box for t in self._tracks if t.last_s == self._now_s])
        near = iou(boxes, known.reshape(-1, 4)).max(axis=1, initial=0.0) > DUPLICATE_IOU
        near |= self._fixtures.overlaps(boxes)
        fresh = [j for j, skip in zip(free, near, strict=True) if not skip]
        for j in fresh:
            box, score = detections.boxes[j], float(detections.scores[j])
            track = Track(captured.seconds, captured.seconds, box, box)
            track.strong = score >= self._config.high_confidence
            tracked = TrackedBox(0, box, score, True, detection=box)
            track.untold.append(EarlierBox(tracked, captured, frame_index))
            self._tracks.append(track)
        self._filter.add(detections.boxes[fresh])

    def _end(self, now_s: float) -> tuple[int, ...]:
        """Drop what was last seen end_s ago or earlier; the numbers that ended."""
        ended, keep = [], []
        for row, track in enumerate(self._tracks):
            if now_s - track.last_s < self._config.end_s - 1e-6:
                keep.append(row)
            elif track.number:
                ended.append(track.number)
        self._keep(keep)
        return tuple(ended)

    def _keep(self, rows: list[int]) -> None:
        if len(rows) != len(self._tracks):
            self._tracks = [self._tracks[row] for row in rows]
            self._filter.keep(np.array(rows, np.intp))
