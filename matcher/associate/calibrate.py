"""What similarities look like inside one person and between two, per site, space and camera pair.

Promise: running means and variances (Welford 1962) of pairs that are certain without labels:
negatives are tracklets seen in the same frames, positives are the shots of one tracklet (the box
sends their count, mean and variance). Positives of one camera are easier than across cameras: a
later association refines them. No thread, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Running:
    """Count, mean and sum of squared deviations."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Add one value."""
        self.merge(Running(1, value, 0.0))

    def merge(self, other: Running) -> None:
        """Add another set (Chan, Golub, LeVeque 1979, equation 2.1)."""
        total = self.count + other.count
        if not other.count:
            return
        difference = other.mean - self.mean
        self.squares += other.squares + difference * difference * self.count * other.count / total
        self.mean += difference * other.count / total
        self.count = total

    def remove(self, other: Running) -> None:
        """Take out what was merged before: a tracklet's statistics grow with its revisions."""
        total = self.count - other.count
        if total <= 0:
            self.count, self.mean, self.squares = 0, 0.0, 0.0
            return
        mean = (self.mean * self.count - other.mean * other.count) / total
        difference = other.mean - mean
        self.squares = max(
            0.0,
            self.squares
            - other.squares
            - difference * difference * total * other.count / self.count,
        )
        self.mean, self.count = mean, total

    @property
    def deviation(self) -> float:
        """Standard deviation; 0 for fewer than two."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0


Pair = tuple[str, str, str, str]  # site, space_id, camera_a, camera_b (cameras sorted)


class Calibration:
    """Positives and negatives by pair."""

    def __init__(self) -> None:
        self.positives: dict[Pair, Running] = {}
        self.negatives: dict[Pair, Running] = {}
        self.dirty: set[Pair] = set()

    def positive(
        self, site: str, space_id: str, camera: str, new: Running, old: Running | None
    ) -> None:
        """The similarities inside one tracklet; `old` is what it said before."""
        pair = (site, space_id, camera, camera)
        running = self.positives.setdefault(pair, Running())
        if old is not None:
            running.remove(old)
        running.merge(new)
        self.dirty.add(pair)

    def negative(self, site: str, space_id: str, one: str, two: str, similarity: float) -> None:
        """Two tracklets that are certainly two people."""
        first, second = sorted((one, two))
        pair = (site, space_id, first, second)
        self.negatives.setdefault(pair, Running()).add(similarity)
        self.dirty.add(pair)

    def pairs(self, site: str, space_id: str = "") -> Iterator[tuple[Pair, Running, Running]]:
        """Of a site: each pair, and the whole site with empty camera names."""
        whole: dict[str, tuple[Running, Running]] = {}
        for pair in sorted({*self.positives, *self.negatives}):
            if pair[0] != site or (space_id and pair[1] != space_id):
                continue
            positive = self.positives.get(pair, Running())
            negative = self.negatives.get(pair, Running())
            both = whole.setdefault(pair[1], (Running(), Running()))
            both[0].merge(positive)
            both[1].merge(negative)
            yield pair, positive, negative
        for space, (positive, negative) in sorted(whole.items()):
            yield (site, space, "", ""), positive, negative
