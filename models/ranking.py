"""Ranks and average precisions of person re-identification, as the field counts them.

Promise: `score` follows Market-1501's protocol: for each query, gallery images of the same person
and the same camera are left out, and so are junk images (person -1); distractors (person 0) stay
and are never right. Average precision is the mean of the precisions at each right answer (no
interpolation). Queries without a right answer in the gallery are not counted in the means; their
number is told. Pure numpy on a distance matrix given in blocks, so memory stays bounded.
Source: Zheng et al., ICCV 2015, section 4; mINP: Ye et al., arXiv 2001.04193, equation 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.data.errors import NoAnswers

JUNK = -1
Metric = Literal["cosine", "euclidean"]
Features = NDArray[np.float32]
Labels = NDArray[np.int64]
BLOCK = 256


@dataclass(frozen=True)
class Scores:
    """Figures in %, rounded by nobody; `queries` counted, `unanswerable` not."""

    rank1: float
    rank5: float
    rank10: float
    map: float
    minp: float
    queries: int
    unanswerable: int

    def as_dict(self) -> dict[str, float]:
        """Names as in `edge-models evaluate --json`."""
        return asdict(self)


def distances(query: Features, gallery: Features, metric: Metric) -> Iterator[Features]:
    """Blocks of rows of the distance matrix, smaller is more alike.

    Args:
        query, gallery: (q, d) and (g, d). Cosine normalises them; Euclidean takes them as given.
    """
    if metric == "cosine":
        query, gallery = unit(query), unit(gallery)
        for start in range(0, len(query), BLOCK):
            yield 1.0 - query[start : start + BLOCK] @ gallery.T
        return
    squared = np.square(gallery).sum(1)
    for start in range(0, len(query), BLOCK):
        block = query[start : start + BLOCK]
        own = np.square(block).sum(1)
        yield np.sqrt(np.maximum(own[:, None] + squared[None] - 2 * block @ gallery.T, 0.0))


def unit(features: Features) -> Features:
    """Rows scaled to length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: Features = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled


def score(
    blocks: Iterator[Features],
    query_people: Labels,
    query_cameras: Labels,
    gallery_people: Labels,
    gallery_cameras: Labels,
) -> Scores:
    """Scores of a distance matrix that comes in blocks of consecutive query rows.

    Raises:
        NoAnswers: no query has a right answer in the gallery.
    """
    ranks, precisions, hardest = [], [], []
    row, unanswerable = 0, 0
    for block in blocks:
        order = np.argsort(block, axis=1, kind="stable")
        for ranking in order:
            person, camera = query_people[row], query_cameras[row]
            row += 1
            people = gallery_people[ranking]
            same = people == person
            kept = ~(same & (gallery_cameras[ranking] == camera)) & (people != JUNK)
            hits = np.flatnonzero(same[kept])
            if not len(hits):
                unanswerable += 1
                continue
            found = np.arange(1, len(hits) + 1)
            ranks.append(hits[0])
            precisions.append((found / (hits + 1)).mean())
            hardest.append(len(hits) / (hits[-1] + 1))
    if not ranks:
        raise NoAnswers(row)
    first = np.array(ranks)
    return Scores(
        rank1=100 * float((first < 1).mean()),
        rank5=100 * float((first < 5).mean()),
        rank10=100 * float((first < 10).mean()),
        map=100 * float(np.mean(precisions)),
        minp=100 * float(np.mean(hardest)),
        queries=len(ranks),
        unanswerable=unanswerable,
    )


def row_cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) cosine of corresponding rows of two (n, d)."""
    product = (one * other).sum(1)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: NDArray[np.float32] = (product / np.maximum(lengths, 1e-12)).astype(np.float32)
    return cosines
