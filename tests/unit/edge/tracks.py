"""Generated boxes for the tests of tracker, shots and book: people as walking rectangles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge.config import TrackConfig
from edge.track.bytetrack import Tracker
from edge.types import (
    CaptureTime,
    Detections,
    Floats,
    Frame,
    Image,
    TimeSource,
    TrackedBox,
    TrackStep,
)

WIDTH, HEIGHT = 1280, 720
PERSON_HEIGHT = 120.0
SCORE = 0.9


def captured(seconds: float) -> CaptureTime:
    nanos = round(seconds * 1e9)
    return CaptureTime(1_700_000_000_000_000_000 + nanos, nanos, TimeSource.GIVEN, 0.0)


def person_box(x: float, feet: float = 400.0, height: float = PERSON_HEIGHT) -> Floats:
    """(4,) a person whose feet are at (x, feet)."""
    half = 0.2 * height
    return np.array([x - half, feet - height, x + half, feet], np.float32)


def detections(boxes: Sequence[Floats], score: float | Sequence[float] = SCORE) -> Detections:
    if not len(boxes):
        return Detections.none()
    scores = np.broadcast_to(np.asarray(score, np.float32), len(boxes)).copy()
    return Detections(np.stack(boxes).astype(np.float32), scores)


def frame_at(seconds: float, index: int = 0, image: Image | None = None) -> Frame:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8) if image is None else image
    return Frame("gate", index, picture, captured(seconds))


def tracked(number: int, box: Floats, score: float = SCORE) -> TrackedBox:
    return TrackedBox(number, box, score, True, detection=box)


Walk = Callable[[float], Sequence[Floats]]
Looks = Callable[[Floats, float], Floats]


@dataclass
class Told:
    """What a tracker said over a whole walk."""

    steps: list[tuple[float, TrackStep]]
    tracker: Tracker

    def numbers(self) -> list[int]:
        """Every number that was confirmed, in order."""
        return [number for _, step in self.steps for number in step.confirmed]

    def number_at(self, seconds: float, box: Floats) -> int:
        """Whose tracklet was nearest to this box then."""
        step = next(step for at, step in self.steps if abs(at - seconds) < 1e-6)
        return min(step.boxes, key=lambda b: float(np.abs(b.box - box).sum())).tracklet

    def ended_at(self, number: int) -> float:
        return next(at for at, step in self.steps if number in step.ended)


def follow(
    walk: Walk,
    *,
    until_s: float,
    fps: float = 10.0,
    looks: Looks | None = None,
    config: TrackConfig | None = None,
    score: float | Sequence[float] = SCORE,
) -> Told:
    """Run a tracker over a walk: walk(seconds) gives the boxes that are detected then."""
    tracker = Tracker(config=config or TrackConfig(), frame_size=(WIDTH, HEIGHT))
    steps = []
    for index in range(round(until_s * fps) + 1):
        at = index / fps

        def appearance(boxes: Floats, at: float = at) -> Floats:
            assert looks is not None
            return np.stack([looks(box, at) for box in boxes])

        steps.append(
            (
                at,
                tracker.update(
                    detections(walk(at), score),
                    captured=captured(at),
                    frame_index=index,
                    appearance=appearance if looks else None,
                ),
            )
        )
    return Told(steps, tracker)


def unit(values: Sequence[float]) -> Floats:
    row = np.asarray(values, np.float32)
    return row / np.linalg.norm(row)
