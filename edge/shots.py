"""skeleton"""
from __future__ import annotations
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from edge.config import ShotConfig
from edge.types import Floats, Frame, Image, Shot, TrackStep


class CropBudget:
    """Crops per second that the whole box may embed: a token bucket shared by all cameras.

    Time is the caller's (seconds, monotonic); one inference thread uses it.
    """

    def __init__(self, *, per_s: float, burst_s: float = 1.0) -> None: ...

    def take(self, count: int, now_s: float) -> int:
        """How many of `count` crops may be embedded now (0..count)."""
        raise NotImplementedError


class FrameEmbeddings:
    """Embeddings of boxes of one frame, each made once: tracker and shots ask the same object.

    Args:
        image: the frame.
        embed: (image, boxes (n, 4) px) -> (n, d) unit rows.
        budget, now_s: what may be spent.
    """

    def __init__(
        self, *, image: Image, embed: Callable[[Image, Floats], Floats], budget: CropBudget,
        now_s: float,
    ) -> None: ...

    def __call__(self, boxes: Floats) -> Floats:
        """(n, d) unit rows; rows of NaN where the budget refuses. (The tracker's `appearance`.)"""
        raise NotImplementedError

    def known(self, box: Floats) -> bool:
        """Whether this very box was embedded in this frame already: it costs nothing more."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Candidate:
    """A crop worth an embedding now: tracklet number, box (4,) px, quality 0..1, score 0..1."""

    tracklet: int
    box: Floats
    quality: float
    detector_score: float


class ShotSelector:
    """Which crops of one camera are worth an embedding."""

    def __init__(self, *, config: ShotConfig) -> None: ...

    def choose(
        self, frame: Frame, step: TrackStep, *, embedded: Callable[[Floats], bool] | None = None
    ) -> list[Candidate]:
        """Best first. `embedded(box)`: the box has an embedding already (costs nothing)."""
        raise NotImplementedError

    def embedded(self, candidates: Sequence[Candidate], now_s: float) -> None:
        """Tell which candidates were really embedded (the budget may have refused some)."""
        raise NotImplementedError
