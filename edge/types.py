"""What the stages of the box hand each other: frames, detections, tracklets, shots.

Promise: plain immutable data, checked once at construction; no stage imports another stage, all
import this. Images are (height, width, 3) uint8 in BGR order. Boxes are (x1, y1, x2, y2) in
pixels of the frame they were found in, unless a name says `normalised` (then 0..1 of the frame).
Durations are seconds, instants on the wire are nanoseconds since 1970-01-01T00:00:00Z.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class TimeSource(enum.Enum):
    """Where a capture time comes from, best first."""

    SENDER_REPORT = "sender_report"  # RTCP sender report of the camera (packet side data `prft`)
    ARRIVAL = "arrival"  # arrival at the box minus the learned minimum delay
    FILE = "file"  # the file's own time plus the frame's offset in it
    GIVEN = "given"  # --start-time plus the frame's offset


@dataclass(frozen=True, slots=True)
class CaptureTime:
    """When a frame was exposed.

    Attributes:
        unix_nanos: UTC of the exposure, ns since 1970.
        monotonic_nanos: the box's monotonic clock (CLOCK_MONOTONIC), ns; for files a synthetic
            clock that advances with the file's own timestamps, so order and durations hold.
        source: where `unix_nanos` comes from.
        uncertainty_ms: half-width of the interval it is known to, milliseconds, >= 0.
    """

    unix_nanos: int
    monotonic_nanos: int
    source: TimeSource
    uncertainty_ms: float

    @property
    def seconds(self) -> float:
        """The monotonic instant in seconds: what trackers and gates compute durations from."""
        return self.monotonic_nanos * 1e-9


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture of one camera.

    Attributes:
        camera: the camera's name.
        index: counts every frame read from this source since its start, 0-based.
        image: (h, w, 3) uint8, BGR.
        captured: when it was exposed.
        corrupt: the decoder flagged or concealed errors; counted, tracked, never embedded.
    """

    camera: str
    index: int
    image: Image
    captured: CaptureTime
    corrupt: bool = False

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(
                f"frame of camera {self.camera!r}: expected (h, w, 3) uint8, "
                f"got {self.image.shape} {self.image.dtype}"
            )

    @property
    def width(self) -> int:
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        return int(self.image.shape[0])


@dataclass(frozen=True, slots=True)
class Detections:
    """People found in one frame, n >= 0, strongest first.

    Attributes:
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels, clipped to the frame.
        scores: (n,) float32 in 0..1.
    """

    boxes: Floats
    scores: Floats

    def __post_init__(self) -> None:
        if self.boxes.shape != (len(self.scores), 4):
            raise ValueError(
                f"detections: expected boxes ({len(self.scores)}, 4), got {self.boxes.shape}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def none() -> Detections:
        """No detection, with the right shapes."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class TrackedBox:
    """Where one tracklet is in one frame.

    Attributes:
        tracklet: the tracklet's number, unique inside the process, over all cameras.
        box: (4,) float32, x1 y1 x2 y2 in pixels, smoothed by the motion model and clipped.
        score: the matched detection's score; 0.0 where the box is predicted only.
        detected: True where a detection was matched in this very frame.
        detection: (4,) float32, that detection's own box, which crops are cut from; None where
            the box is predicted or interpolated.
    """

    tracklet: int
    box: Floats
    score: float
    detected: bool
    detection: Floats | None = None


@dataclass(frozen=True, slots=True)
class EarlierBox:
    """Where a tracklet was in an earlier frame, told late: before it was confirmed.

    Attributes:
        box: number, place and score.
        captured: when that frame was exposed.
        frame_index: index of that frame in its camera.
    """

    box: TrackedBox
    captured: CaptureTime
    frame_index: int


@dataclass(frozen=True, slots=True)
class TrackStep:
    """What the tracker says after one frame.

    Attributes:
        boxes: confirmed tracklets seen in this frame (also those this frame confirmed).
        confirmed: numbers of tracklets confirmed by this frame.
        ended: numbers of tracklets that ended at this frame.
        earlier: boxes of earlier frames that only now got their tracklet's number, oldest
            first: the hits before a confirmation or before a relink.
        relinked: numbers of lost tracklets that appearance found again in this frame. The
            newcomer had no number yet, so nothing that was told has to be folded.
    """

    boxes: tuple[TrackedBox, ...]
    confirmed: tuple[int, ...] = ()
    ended: tuple[int, ...] = ()
    earlier: tuple[EarlierBox, ...] = ()
    relinked: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One crop of one tracklet that was worth an embedding.

    Attributes:
        captured: when the frame was exposed.
        frame_index: index of that frame in its camera.
        box_normalised: (4,) float32, x1 y1 x2 y2 in 0..1 of the frame.
        quality: 0..1, higher is better (size, sharpness, visibility, detector score).
        detector_score: 0..1.
        embeddings: space_id -> (d,) float32 of unit length, one for each running embedder.
    """

    captured: CaptureTime
    frame_index: int
    box_normalised: Floats
    quality: float
    detector_score: float
    embeddings: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class PathPoint:
    """Where a tracklet was at one instant, for the sighting's path.

    Attributes:
        captured: when.
        box_normalised: (4,) float32, x1 y1 x2 y2 in 0..1 of the frame.
    """

    captured: CaptureTime
    box_normalised: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Tracklet:
    """One person in one camera without a break, as known at one revision.

    Attributes:
        camera: the camera's name.
        number: unique inside the process, over all cameras (the wire id is `writer_id/number`).
        first_seen, last_seen: capture times of the first and last detection.
        shots: best first, at most 4.
        path: at most 32 points, evenly thinned, first and last always kept.
        embedding_count: how many embeddings were made of this tracklet so far.
        similarity_mean, similarity_variance: mean and variance of the cosine similarities
            between pairs of its embeddings (count < 2: both 0).
        seen_with: numbers of tracklets of the same camera seen in a same frame.
        frame_width, frame_height: pixels.
        final: the tracklet has ended.
    """

    camera: str
    number: int
    first_seen: CaptureTime
    last_seen: CaptureTime
    shots: tuple[Shot, ...]
    path: tuple[PathPoint, ...]
    embedding_count: int
    similarity_mean: float
    similarity_variance: float
    seen_with: tuple[int, ...]
    frame_width: int
    frame_height: int
    final: bool = False
