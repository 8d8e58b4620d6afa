"""Who is near whom: k nearest neighbours, and the Jaccard distance over reciprocal ones, sparse.

Promise: memory grows with rows times neighbours, never with the square of the rows: a block of
`BLOCK` rows of the similarity matrix stands at a time (10⁵ rows: about 100 MB). Deterministic.
Source: Zhong, Zheng, Cao, Li, CVPR 2017, arXiv:1701.08398, equations 3 to 10; used for clustering
as in Fan et al., arXiv:1705.10444, and its successors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.cluster import DBSCAN

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
BLOCK = 256
# (rows of the block, their similarities to all, changed in place): what else is known of pairs
Adjust = Callable[[Ints, Floats], None]
_EXPAND_SHARE = 2 / 3  # equation 5: how much of a neighbour's set must be shared to take it in
_NEAREST = 1e-6  # twins; scipy's maximum would drop a zero, and with it the nearest of all pairs
FARTHEST = 0.8  # distances of the graph above this are left out: no threshold lies there


@dataclass(frozen=True)
class Clustering:
    """How rows are clustered without labels.

    Attributes:
        eps, least: of `clusters`.
        k1, k2: of `jaccard_graph`.
        fewest: clusters; fewer teach nothing.
        largest_share: of all rows in one cluster; beyond it the clusters have run together.
    """

    eps: float = 0.55
    least: int = 4
    k1: int = 20
    k2: int = 6
    fewest: int = 2
    largest_share: float = 0.2


class Collapsed(Exception):
    """The rows fall into too few clusters, or nearly all into one.

    Attributes: rows, clusters, largest.
    """

    def __init__(self, rows: int, clusters: int, largest: int, how: Clustering) -> None:
        self.rows, self.clusters, self.largest = rows, clusters, largest
        super().__init__(
            f"{rows} of them fall into {clusters} clusters, the largest of {largest}; at least "
            f"{how.fewest} are needed, and none above {how.largest_share:.0%} of all: the clusters "
            "collapsed"
        )


def nearest(unit: Floats, count: int, *, adjust: Adjust | None = None) -> tuple[Ints, Floats]:
    """The nearest rows of each row by cosine, itself first.

    Args:
        unit: (n, d), rows of unit length.
        count: how many, oneself included; at most n.
        adjust: adds to the similarities what is known besides the vectors.
    Returns:
        indices (n, count) and similarities (n, count), falling along a row.
    """
    total = len(unit)
    count = min(count, total)
    indices = np.empty((total, count), np.int64)
    values = np.empty((total, count), np.float32)
    for start in range(0, total, BLOCK):
        rows = np.arange(start, min(start + BLOCK, total))
        block = unit[rows] @ unit.T
        if adjust is not None:
            adjust(rows, block)
        block[np.arange(len(rows)), rows] = np.inf  # rounding must not put a twin before oneself
        some = np.argpartition(-block, count - 1, axis=1)[:, :count]
        held = np.take_along_axis(block, some, 1)
        order = np.argsort(-held, axis=1, kind="stable")
        indices[rows] = np.take_along_axis(some, order, 1)
        values[rows] = np.take_along_axis(held, order, 1)
    return indices, values


def jaccard_graph(
    unit: Floats, *, k1: int = 20, k2: int = 6, adjust: Adjust | None = None
) -> csr_matrix:
    """Jaccard distances of k-reciprocal neighbour sets: (n, n) sparse, symmetric, diagonal 0.

    Pairs that are not stored are farther than `FARTHEST`.

    Args:
        unit: (n, d), rows of unit length.
        k1, k2: neighbours of the reciprocal sets and of the local expansion (the paper's 20, 6).
        adjust: as in `nearest`.
    """
    total = len(unit)
    near, _ = nearest(unit, min(k1, total - 1) + 1, adjust=adjust)
    full = _reciprocal(near)
    half = _reciprocal(near[:, : max(round(k1 / 2), 1) + 1])
    shared = (full @ half.T).tocsr().multiply(full).tocoo()
    sizes = np.asarray(half.sum(1)).ravel()
    taken = shared.data > _EXPAND_SHARE * sizes[shared.col]
    joined = csr_matrix(
        (np.ones(int(taken.sum()), np.float32), (shared.row[taken], shared.col[taken])),
        shape=(total, total),
    )
    sets = (full + joined @ half).tocoo()
    weights = np.exp(-_distances(unit, sets.row, sets.col)) * (sets.data > 0)
    encoded = csr_matrix((weights.astype(np.float32), (sets.row, sets.col)), shape=(total, total))
    encoded = _rows_to_one(encoded)
    k2 = min(k2, near.shape[1])
    if k2 > 1:
        rows = np.repeat(np.arange(total), k2)
        mean = csr_matrix(
            (np.full(len(rows), 1 / k2, np.float32), (rows, near[:, :k2].ravel())),
            shape=(total, total),
        )
        encoded = (mean @ encoded).tocsr()
    return _jaccard(encoded)


def clusters(graph: csr_matrix, *, eps: float, least: int) -> Ints:
    """DBSCAN on a distance graph: (n,) cluster from 0, -1 where a row belongs to none.

    Args:
        eps: largest distance of neighbours, below `FARTHEST`.
        least: rows within eps, oneself included, that make a core.
    """
    found = DBSCAN(eps=eps, min_samples=least, metric="precomputed").fit_predict(graph)
    return np.asarray(found, np.int64)


def cluster(unit: Floats, how: Clustering, *, adjust: Adjust | None = None) -> Ints:
    """(n,) cluster of each row from 0, -1 for none.

    Args:
        unit: (n, d), rows of unit length.
        adjust: as in `nearest`.
    Raises:
        Collapsed: fewer than `how.fewest` clusters, or one that holds too much.
    """
    graph = jaccard_graph(unit, k1=how.k1, k2=how.k2, adjust=adjust)
    labels = clusters(graph, eps=how.eps, least=how.least)
    sizes = np.bincount(labels[labels >= 0])
    largest = int(sizes.max(initial=0))
    if len(sizes) < how.fewest or largest > max(how.largest_share * len(labels), 2 * how.k1):
        raise Collapsed(len(labels), len(sizes), largest, how)
    return labels


def _reciprocal(near: Ints) -> csr_matrix:
    total, count = near.shape
    forward = csr_matrix(
        (
            np.ones(near.size, np.float32),
            near.ravel(),
            np.arange(0, near.size + 1, count),
        ),
        shape=(total, total),
    )
    both = forward.multiply(forward.T).tocsr()
    both.sort_indices()
    return both


def _distances(unit: Floats, rows: NDArray[np.int32], columns: NDArray[np.int32]) -> Floats:
    """Squared Euclidean distances of single pairs, in pieces."""
    out = np.empty(len(rows), np.float32)
    step = 65536
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        out[part] = 2 - 2 * np.einsum("ij,ij->i", unit[rows[part]], unit[columns[part]])
    return np.maximum(out, 0.0)


def _rows_to_one(matrix: csr_matrix) -> csr_matrix:
    sums = np.asarray(matrix.sum(1)).ravel()
    matrix.data /= np.repeat(np.maximum(sums, 1e-12), np.diff(matrix.indptr)).astype(np.float32)
    return matrix


def _jaccard(encoded: csr_matrix) -> csr_matrix:
    """Equation 10 between all rows that share a neighbour (rows sum to 1)."""
    total = encoded.shape[0]
    by_column = encoded.tocsc()
    counts = np.diff(by_column.indptr)
    columns, values, starts = [], [], [0]
    for row in range(total):
        own = slice(encoded.indptr[row], encoded.indptr[row + 1])
        there, mine = encoded.indices[own], encoded.data[own]
        lengths = counts[there]
        # positions of all entries of the columns that this row has a part in
        first = np.repeat(by_column.indptr[there] - np.cumsum(lengths) + lengths, lengths)
        at = first + np.arange(len(first))
        smaller = np.bincount(
            by_column.indices[at],
            np.minimum(np.repeat(mine, lengths), by_column.data[at]),
            minlength=total,
        )
        found = np.flatnonzero(smaller)
        distance = 1 - smaller[found] / (2 - smaller[found])
        kept = distance < FARTHEST
        columns.append(found[kept])
        values.append(np.maximum(distance[kept], _NEAREST).astype(np.float32))
        starts.append(starts[-1] + int(kept.sum()))
    graph = csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.array(starts)), shape=(total, total)
    )
    graph = graph.maximum(graph.T).tocsr()
    graph.setdiag(0.0)
    return graph
