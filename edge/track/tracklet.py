"""The life of a tracklet, from confirmation to end, and when the matcher is to be told.

Promise: a Tracklet is told when it is confirmed, when its evidence clearly changed (first shot, a
much better shot, all shots together, a new minute), and once when it ends, as final; nothing is
told after that. Memory is bounded: shots, path, neighbours and embeddings per tracklet, frames of
hindsight.
Fails: never. Threads: one (the inference thread); one book for each camera.

    confirmed ─▶ told ─▶ (evidence clearly changed ─▶ told)* ─▶ ended ─▶ told, final
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.types import CaptureTime, Floats, PathPoint, Shot, Tracklet, TrackStep
from reid import limits

MUCH_BETTER = 1.4  # a best shot better by so much is told
MINUTE_S = 60.0  # a living tracklet is told anew after so long
CHANGE_S = 1.0  # changes are told no more often than this
HINDSIGHT = 512  # frames in which late-told boxes still find who else was there
KEPT_EMBEDDINGS = 32  # a new embedding is compared with so many earlier ones
# Two boxes of which one covers the other by more than this may show one person twice: they do not
# testify that the two are different people.
SURE_COVER = 0.5


class TrackletBook:
    """The tracklets of one camera.

    Args:
        camera: the camera's name.
    """

    def __init__(self, *, camera: str) -> None:
        self._camera = camera
        self._lives: dict[int, _Life] = {}
        self._recent: deque[tuple[int, dict[int, Floats]]] = deque(maxlen=HINDSIGHT)

    @property
    def living(self) -> tuple[int, ...]:
        """Numbers of the tracklets that have not ended."""
        return tuple(self._lives)

    def add(
        self,
        step: TrackStep,
        shots: Sequence[tuple[int, Shot]],
        *,
        captured: CaptureTime,
        frame_index: int,
        frame_size: tuple[int, int],
    ) -> list[Tracklet]:
        """Take one frame in.

        Args:
            step: the tracker's word on it.
            shots: (number, shot) made of it.
            captured, frame_index: of the frame.
            frame_size: (width, height), pixels.
        Returns:
            what is to be told now, in the order of numbers; ended ones are final.
        """
        width, height = frame_size
        scale = np.array([width, height, width, height], np.float32)
        for number in step.confirmed:
            self._lives[number] = _Life(number, frame_size)
        for late in step.earlier:
            if late.box.detected and late.box.tracklet in self._lives:
                self._lives[late.box.tracklet].see(late.captured, late.box.box / scale)
                self._meet_late(late.frame_index, late.box.tracklet, late.box.box)
        here = {box.tracklet: box.box for box in step.boxes if box.detected}
        for number, box in here.items():
            self._lives[number].see(captured, box / scale)
        self._meet(here)
        self._recent.append((frame_index, here))
        for number, shot in shots:
            self._lives[number].shoot(shot)

        due = []
        for number in step.ended:
            life = self._lives.pop(number, None)
            if life is not None:
                due.append(life.told(self._camera, captured, final=True))
        for number, life in self._lives.items():
            if number in step.confirmed or life.changed(captured):
                due.append(life.told(self._camera, captured, final=False))
        return sorted(due, key=lambda tracklet: tracklet.number)

    def _meet(self, here: dict[int, Floats]) -> None:
        """Everybody in one frame was seen with everybody else."""
        if len(here) < 2:
            return
        numbers = list(here)
        apart = _surely_two(np.stack([here[number] for number in numbers]))
        for i, number in enumerate(numbers):
            # (a box covers itself: nobody meets himself)
            self._lives[number].meet(numbers[j] for j in np.flatnonzero(apart[i]))

    def _meet_late(self, frame_index: int, number: int, box: Floats) -> None:
        """Somebody turns out to have been in an earlier frame."""
        for index, here in reversed(self._recent):
            if index < frame_index:
                return
            if index == frame_index:
                for other, place in here.items():
                    if other != number and _surely_two(np.stack([box, place]))[0, 1]:
                        self._lives[number].meet([other])
                        if other in self._lives:
                            self._lives[other].meet([number])
                here[number] = box


@dataclass(slots=True)
class _Life:
    """One living tracklet."""

    number: int
    frame_size: tuple[int, int]
    first: CaptureTime | None = None
    last: CaptureTime | None = None
    shots: list[Shot] = field(default_factory=list)
    path: _Path = field(default_factory=lambda: _Path())
    similarity: _Similarity = field(default_factory=lambda: _Similarity())
    met: set[int] = field(default_factory=set)
    # what was told last
    told_s: float = -math.inf
    told_quality: float = 0.0
    told_shots: int = 0

    def see(self, captured: CaptureTime, box_normalised: Floats) -> None:
        """A detection of it; in the order of time."""
        self.first = self.first or captured
        self.last = captured
        box = np.clip(box_normalised, 0.0, 1.0).astype(np.float32)
        self.path.add(PathPoint(captured, box))

    def meet(self, numbers: Iterable[int]) -> None:
        self.met.update(numbers)
        while len(self.met) > limits.SEEN_WITH:
            self.met.remove(min(self.met))  # the oldest

    def shoot(self, shot: Shot) -> None:
        self.similarity.add(shot.embeddings)
        self.shots = sorted([*self.shots, shot], key=lambda s: -s.quality)[: limits.SHOTS]

    def changed(self, now: CaptureTime) -> bool:
        """Whether the evidence clearly differs from what was told."""
        since_s = now.seconds - self.told_s
        if since_s >= MINUTE_S - 1e-6:
            return True
        if since_s < CHANGE_S - 1e-6 or not self.shots:
            return False
        full = len(self.shots) == limits.SHOTS
        more = len(self.shots) > self.told_shots and (full or not self.told_shots)
        return more or self.shots[0].quality >= MUCH_BETTER * self.told_quality

    def told(self, camera: str, now: CaptureTime, *, final: bool) -> Tracklet:
        """Its state, to be sent now."""
        self.told_s = now.seconds
        self.told_shots = len(self.shots)
        self.told_quality = self.shots[0].quality if self.shots else 0.0
        return Tracklet(
            camera=camera,
            number=self.number,
            first_seen=self.first or now,
            last_seen=self.last or now,
            shots=tuple(self.shots),
            path=self.path.thinned(),
            embedding_count=self.similarity.count,
            similarity_mean=self.similarity.mean,
            similarity_variance=self.similarity.variance,
            seen_with=tuple(sorted(self.met)),
            frame_width=self.frame_size[0],
            frame_height=self.frame_size[1],
            final=final,
        )


class _Path:
    """Where it was, at most limits.PATH_POINTS points, evenly spread; first and last kept."""

    _MOST = 4 * limits.PATH_POINTS

    def __init__(self) -> None:
        self._points: list[PathPoint] = []
        self._stride = 1
        self._seen = 0
        self._last: PathPoint | None = None

    def add(self, point: PathPoint) -> None:
        if self._seen % self._stride == 0:
            self._points.append(point)
            if len(self._points) >= self._MOST:
                self._points = self._points[::2]
                self._stride *= 2
        self._seen += 1
        self._last = point

    def thinned(self) -> tuple[PathPoint, ...]:
        points = list(self._points)
        if self._last is not None and points[-1] is not self._last:
            points.append(self._last)
        count = min(len(points), limits.PATH_POINTS)
        rows = np.linspace(0, len(points) - 1, count).round().astype(int)
        return tuple(points[row] for row in rows)


class _Similarity:
    """Mean and variance of the cosines between its embeddings, of the main space.

    Each new embedding is compared with the KEPT_EMBEDDINGS latest ones: with up to that many it
    is all pairs. Another main space starts afresh. Welford's running form (Technometrics 1962).
    """

    def __init__(self) -> None:
        self._start(None)

    def _start(self, space: str | None) -> None:
        self._space = space
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0
        self._pairs = 0
        self._kept: deque[Floats] = deque(maxlen=KEPT_EMBEDDINGS)

    @property
    def variance(self) -> float:
        return self._squares / self._pairs if self._pairs else 0.0

    def add(self, embeddings: dict[str, Floats]) -> None:
        space = next(iter(embeddings), None)
        if space is None:
            return
        if space != self._space:
            self._start(space)
        row = embeddings[space]
        self.count += 1
        self._take(float(row @ kept) for kept in self._kept)
        self._kept.append(row)

    def _take(self, cosines: Iterable[float]) -> None:
        for cosine in cosines:
            self._pairs += 1
            step = cosine - self.mean
            self.mean += step / self._pairs
            self._squares += step * (cosine - self.mean)


def _surely_two(boxes: Floats) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """(n, 4) -> (n, n): neither box covers the other beyond SURE_COVER."""
    a, b = boxes[:, None].astype(np.float64), boxes[None].astype(np.float64)
    shared = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    part = np.clip(shared, 0.0, None).prod(axis=2)
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float64), 1e-9)
    return np.asarray(part / np.minimum(area[:, None], area[None]) <= SURE_COVER)
