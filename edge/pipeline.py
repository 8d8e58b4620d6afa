"""One camera's way from frame to tracklet: gate → detect → track → shots → embed → book.

Promise: stages know nothing of each other; this is where they are joined, once for each camera,
sharing detector, embedders and crop budget. A damaged frame is tracked and never embedded; a frame
of another size starts the camera's tracklets afresh.
Fails: ModelMisbehaved of a detector or embedder goes through to the caller.
Threads: the inference thread only. Nothing here waits.

    frame ─▶ gate ─▶ detector ─▶ tracker ─▶ shots ─▶ embedders ─▶ book ─▶ revisions due
               └── nothing moves, nobody followed: the frame is looked at no further
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge.config import GateConfig, ShotConfig, TrackConfig
from edge.gate import Gate
from edge.shots import Candidate, CropBudget, FrameEmbeddings, ShotSelector
from edge.status import BoxStatus
from edge.track.bytetrack import Tracker
from edge.track.motfile import MotFile
from edge.track.tracklet import TrackletBook
from edge.types import Detections, Floats, Frame, Image, Shot, Tracklet, TrackStep


class Detects(Protocol):
    """What finds people."""

    def detect(self, image: Image) -> Detections:
        """As edge.detect.detector.Detector.detect."""


class Embeds(Protocol):
    """What makes vectors of crops."""

    space_id: str

    def embed(self, crops: Sequence[Image]) -> Floats:
        """As edge.embed.Embedder.embed."""


class Models(Protocol):
    """The models in use; asked anew for each frame, so they may be swapped between frames."""

    def detector(self) -> Detects:
        """The detector of this frame."""

    def embedders(self) -> Sequence[Embeds]:
        """The embedders of this frame, the main one first."""


class FixedModels:
    """Models that stay."""

    def __init__(self, detector: Detects, embedders: Sequence[Embeds]) -> None:
        self._detector = detector
        self._embedders = tuple(embedders)

    def detector(self) -> Detects:
        return self._detector

    def embedders(self) -> Sequence[Embeds]:
        return self._embedders


@dataclass(frozen=True, slots=True, eq=False)
class Analysed:
    """What one frame gave.

    Attributes:
        detections: people found; None where the gate kept the frame from the detector.
        step: what the tracker said.
        revisions: tracklets whose state is to be told now.
    """

    detections: Detections | None
    step: TrackStep
    revisions: tuple[Tracklet, ...]


class CameraPipeline:
    """The stages of one camera.

    Args:
        camera: its name.
        gate, track, shots: their parts of the configuration.
        models: shared by all cameras.
        budget: crops per second, shared by all cameras.
        numbers: gives tracklet numbers, shared by all cameras.
        status: where frames, people and durations are counted.
        tracks: where tracks are written, or None.
        keep: is given camera, tracklet and crop of every shot, where the owner collects them.
    """

    def __init__(
        self,
        *,
        camera: str,
        gate: GateConfig,
        track: TrackConfig,
        shots: ShotConfig,
        models: Models,
        budget: CropBudget,
        numbers: Iterator[int],
        status: BoxStatus,
        tracks: MotFile | None = None,
        keep: Callable[[str, int, Image], None] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.camera = camera
        self._track_config = track
        self._shot_config = shots
        self._gate_config = gate
        self._models = models
        self._budget = budget
        self._numbers = numbers
        self._status = status
        self._counts = status.counts[camera]
        self._tracks = tracks
        self._keep = keep
        self._now_s = now_s
        self._size: tuple[int, int] | None = None
        self._last: Frame | None = None
        self._embedders: tuple[Embeds, ...] = ()
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._gate = Gate(config=self._gate_config)
        self._selector = ShotSelector(config=self._shot_config)
        self._book = TrackletBook(camera=self.camera)
        self._tracker: Tracker | None = None

    def process(self, frame: Frame) -> Analysed:
        """Take one frame through all stages."""
        ended: tuple[Tracklet, ...] = ()
        if self._size != (frame.width, frame.height):
            ended = self.finish()
            self._size = (frame.width, frame.height)
            self._start_afresh()
            self._tracker = Tracker(
                config=self._track_config, frame_size=self._size, numbers=self._numbers
            )
        assert self._tracker is not None
        tracker = self._tracker
        self._last = frame
        now_s = frame.captured.seconds
        if not self._gate.active(frame.image, now_s=now_s, tracks_alive=tracker.alive):
            self._counts.frames_gated += 1
            self._counts.analysed(self._now_s(), detections=0)
            self._counts.people_now = 0
            return Analysed(None, TrackStep(()), ended)
        # Models may be swapped between frames, never inside one.
        before, self._embedders = self._embedders, tuple(self._models.embedders())
        if before and before[0].space_id != self._embedders[0].space_id:
            tracker.forget_appearance()
        started_s = self._now_s()
        found = self._models.detector().detect(self._gate.masked(frame.image))
        self._status.detect.add((self._now_s() - started_s) * 1e3)
        detections = self._gate.inside(found, frame.width, frame.height)
        embeddings = FrameEmbeddings(
            image=frame.image, embed=self._embed_main, budget=self._budget, now_s=now_s
        )
        step = tracker.update(
            detections,
            captured=frame.captured,
            frame_index=frame.index,
            appearance=None if frame.corrupt else embeddings.for_tracking,
        )
        shots = [] if frame.corrupt else self._shoot(frame, step, embeddings, tracker)
        revisions = self._book.add(
            step,
            shots,
            captured=frame.captured,
            frame_index=frame.index,
            frame_size=self._size,
        )
        if self._tracks is not None:
            self._tracks.write(step, frame_index=frame.index)
        self._counts.tracklets += len(step.confirmed)
        self._counts.people_now = len(step.boxes)
        self._counts.analysed(self._now_s(), detections=len(detections))
        return Analysed(detections, step, (*ended, *revisions))

    def idle(self, now_s: float) -> tuple[Tracklet, ...]:
        """No frame has come: whoever was not seen for long enough has gone.

        Args:
            now_s: monotonic seconds, on the clock of a live camera's capture times.
        """
        if self._tracker is None or not self._tracker.alive or self._last is None:
            return ()
        if now_s - self._last.captured.seconds < self._track_config.end_s:
            return ()
        self._counts.people_now = 0
        return self._told(self._tracker.expire(now_s))

    def finish(self) -> tuple[Tracklet, ...]:
        """The source has ended: the last state of every tracklet that still lives."""
        if self._tracker is None:
            return ()
        step = self._tracker.finish()
        self._tracker = None
        self._counts.people_now = 0
        return self._told(step)

    def _told(self, step: TrackStep) -> tuple[Tracklet, ...]:
        """What a step without a frame leaves to tell."""
        if self._last is None or self._size is None:
            return ()
        last = self._last
        if self._tracks is not None:
            self._tracks.write(step, frame_index=last.index)
        return tuple(
            self._book.add(
                step, [], captured=last.captured, frame_index=last.index, frame_size=self._size
            )
        )

    def _shoot(
        self, frame: Frame, step: TrackStep, embeddings: FrameEmbeddings, tracker: Tracker
    ) -> list[tuple[int, Shot]]:
        candidates = self._selector.choose(frame, step, embedded=embeddings.known)
        if not candidates:
            return []
        vectors = embeddings(np.stack([candidate.box for candidate in candidates]))
        made = np.flatnonzero(np.isfinite(vectors).all(axis=1))
        taken = [candidates[i] for i in made]
        vectors = vectors[made]
        self._selector.embedded(taken, frame.captured.seconds)
        main, *others = self._embedders
        spaces = {main.space_id: vectors}
        # A bridge to an old space lives on the same budget; what it does not get goes without.
        for other in others:
            granted = self._budget.take(len(taken), frame.captured.seconds)
            if granted:
                boxes = np.stack([candidate.box for candidate in taken[:granted]])
                spaces[other.space_id] = other.embed(crops_of(frame.image, boxes))
                self._counts.embeddings += granted
        shots = []
        for i, candidate in enumerate(taken):
            tracker.remember(candidate.tracklet, vectors[i])
            of_each = {space: rows[i] for space, rows in spaces.items() if i < len(rows)}
            shots.append((candidate.tracklet, _shot(frame, candidate, of_each)))
            if self._keep is not None:
                crop = crops_of(frame.image, candidate.box[None])[0]
                self._keep(self.camera, candidate.tracklet, crop)
        return shots

    def _embed_main(self, image: Image, boxes: Floats) -> Floats:
        started_s = self._now_s()
        rows = self._embedders[0].embed(crops_of(image, boxes))
        self._status.embed.add((self._now_s() - started_s) * 1e3)
        self._counts.embeddings += len(boxes)
        return rows


def crops_of(image: Image, boxes: Floats) -> list[Image]:
    """Cut boxes out of a picture.

    Args:
        image: (h, w, 3) uint8.
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels.
    Returns:
        n views (h_i, w_i, 3) of at least one pixel.
    """
    height, width = image.shape[:2]
    corners = np.empty((len(boxes), 4), np.int64)
    corners[:, 0] = np.clip(np.floor(boxes[:, 0]), 0, width - 1)
    corners[:, 1] = np.clip(np.floor(boxes[:, 1]), 0, height - 1)
    corners[:, 2] = np.clip(np.ceil(boxes[:, 2]), corners[:, 0] + 1, width)
    corners[:, 3] = np.clip(np.ceil(boxes[:, 3]), corners[:, 1] + 1, height)
    return [image[y1:y2, x1:x2] for x1, y1, x2, y2 in corners]


def _shot(frame: Frame, candidate: Candidate, embeddings: dict[str, Floats]) -> Shot:
    scale = np.array([frame.width, frame.height, frame.width, frame.height], np.float32)
    box: Floats = np.clip(candidate.box / scale, 0.0, 1.0).astype(np.float32)
    return Shot(
        captured=frame.captured,
        frame_index=frame.index,
        box_normalised=box,
        quality=candidate.quality,
        detector_score=candidate.detector_score,
        embeddings=embeddings,
    )
