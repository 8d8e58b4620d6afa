"""Re-ranking by k-reciprocal neighbours.

Promise: distances as in Zhong, Zheng, Cao, Li, "Re-ranking Person Re-identification with
k-reciprocal Encoding", CVPR 2017 (arXiv 1701.08398), on unit vectors; neighbour lists and weights
are sparse, so memory grows with the number of images, not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from models.ranking import BLOCK, Features


def rerank(
    query: Features, gallery: Features, *, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> Iterator[Features]:
    """Blocks of rows of the re-ranked distance matrix (queries, gallery).

    Args:
        query, gallery: (q, d) and (g, d), unit rows.
        k1, k2: neighbours for the reciprocal sets and for the local expansion; section 4 of the
            paper uses 20 and 6.
        weight: λ of equation 12, the share of the original distance.
    """
    everyone = np.concatenate([query, gallery])
    k1 = min(k1, len(everyone) - 1)
    k2 = min(k2, k1 + 1)
    nearest, spans = _nearest(everyone, k1 + 1)
    encoded = _encode(everyone, nearest, spans, k1)
    if k2 > 1:
        rows = np.repeat(np.arange(len(everyone)), k2)
        mean = csr_matrix(
            (np.full(len(rows), 1 / k2, np.float32), (rows, nearest[:, :k2].ravel())),
            shape=(len(everyone), len(everyone)),
        )
        encoded = (mean @ encoded).tocsr()
    by_feature = encoded[len(query) :].tocsc()
    for start in range(0, len(query), BLOCK):
        stop = min(start + BLOCK, len(query))
        original = 2 - 2 * query[start:stop] @ gallery.T
        original /= spans[start:stop, None]  # the paper's code scales each query's row so
        jaccard = np.empty_like(original)
        for row in range(start, stop):
            jaccard[row - start] = _jaccard(encoded, by_feature, row, len(gallery))
        yield ((1 - weight) * jaccard + weight * original).astype(np.float32)


def _nearest(everyone: Features, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices (n, count) of the nearest, itself first, and each row's largest distance (n,)."""
    nearest = np.empty((len(everyone), count), np.int64)
    spans = np.empty(len(everyone), np.float32)
    for start in range(0, len(everyone), BLOCK):
        block = 2 - 2 * everyone[start : start + BLOCK] @ everyone.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -1  # rounding must not put a twin before oneself
        spans[start : start + BLOCK] = np.maximum(block.max(1), 1e-12)
        some = np.argpartition(block, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(block, some, 1), axis=1, kind="stable")
        nearest[start : start + BLOCK] = np.take_along_axis(some, order, 1)
    return nearest, spans


def _encode(
    everyone: Features, nearest: NDArray[np.int64], spans: NDArray[np.float32], k1: int
) -> csr_matrix:
    """Equation 7: rows weigh the expanded k-reciprocal neighbours (equations 3 and 5)."""
    half = round(k1 / 2)
    full_sets = [_reciprocal(nearest, row, k1) for row in range(len(everyone))]
    half_sets = [_reciprocal(nearest, row, half) for row in range(len(everyone))]
    columns, values, starts = [], [], [0]
    for row, own in enumerate(full_sets):
        expanded = own
        for candidate in own:
            other = half_sets[candidate]
            if len(np.intersect1d(other, own, assume_unique=True)) > 2 / 3 * len(other):
                expanded = np.union1d(expanded, other)
        distance = (2 - 2 * everyone[expanded] @ everyone[row]) / spans[row]
        weights = np.exp(-distance)
        columns.append(expanded)
        values.append((weights / weights.sum()).astype(np.float32))
        starts.append(starts[-1] + len(expanded))
    return csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.array(starts)),
        shape=(len(everyone), len(everyone)),
    )


def _reciprocal(nearest: NDArray[np.int64], row: int, k: int) -> NDArray[np.int64]:
    forward = nearest[row, : k + 1]
    back = nearest[forward, : k + 1]
    return np.unique(forward[(back == row).any(1)])


def _jaccard(encoded: csr_matrix, by_feature: csr_matrix, row: int, size: int) -> Features:
    """Equation 10 for one query against the whole gallery."""
    smaller = np.zeros(size, np.float32)
    begin, end = encoded.indptr[row], encoded.indptr[row + 1]
    for column, value in zip(encoded.indices[begin:end], encoded.data[begin:end], strict=True):
        some = slice(by_feature.indptr[column], by_feature.indptr[column + 1])
        smaller[by_feature.indices[some]] += np.minimum(value, by_feature.data[some])
    return 1 - smaller / (2 - smaller)
