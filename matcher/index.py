"""Nearest embeddings, exactly: inner products of unit vectors over one matrix.

Promise: `search` compares with every vector that is in, no approximation; rows of one owner are put
and removed together. Full: it grows by doubling; the owner of the index removes what leaves the
window of time. Any thread may call: one lock, held for one matrix product.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_FIRST_ROWS = 256


class VectorIndex:
    """Vectors of one space, each with an owner (a number that the caller gives)."""

    def __init__(self, dimension: int) -> None:
        """
        Args:
            dimension: length of the vectors.
        """
        self.dimension = dimension
        self._lock = threading.Lock()  # guards all below
        self._rows = np.zeros((_FIRST_ROWS, dimension), np.float32)
        self._owners = np.zeros(_FIRST_ROWS, np.int64)
        self._count = 0
        self._of: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return self._count

    def put(self, owner: int, vectors: Floats) -> None:
        """Replace the vectors of an owner.

        Args:
            vectors: (n, d) float32, rows of unit length.
        """
        with self._lock:
            self._remove(owner)
            self._grow(len(vectors))
            start = self._count
            self._rows[start : start + len(vectors)] = vectors
            self._owners[start : start + len(vectors)] = owner
            self._of[owner] = list(range(start, start + len(vectors)))
            self._count += len(vectors)

    def remove(self, owner: int) -> None:
        """Remove the vectors of an owner; nothing happens where there are none."""
        with self._lock:
            self._remove(owner)

    def search(
        self, queries: Floats, *, least: float = -2.0, only: Iterable[int] | None = None
    ) -> tuple[Ints, Floats]:
        """The best similarity of each owner to any of the queries, best first.

        Args:
            queries: (m, d) float32, rows of unit length, m >= 1.
            least: similarities below do not count.
            only: owners that count; None: all.
        Returns:
            owners (k,) and similarities (k,) in falling order, equal ones by owner.
        """
        with self._lock:
            rows = self._rows[: self._count]
            owners = self._owners[: self._count]
            if not self._count:
                return np.zeros(0, np.int64), np.zeros(0, np.float32)
            similarities = (queries @ rows.T).max(axis=0)
            enough = similarities >= least
            owners, similarities = owners[enough], similarities[enough]
        if only is not None:
            wanted = np.isin(owners, np.fromiter(only, np.int64))
            owners, similarities = owners[wanted], similarities[wanted]
        order = np.lexsort((owners, -similarities))
        owners, similarities = owners[order], similarities[order]
        _, first = np.unique(owners, return_index=True)
        first.sort()
        return owners[first], similarities[first]

    def _remove(self, owner: int) -> None:
        for row in sorted(self._of.pop(owner, ()), reverse=True):
            last = self._count - 1
            if row != last:
                self._rows[row] = self._rows[last]
                moved = int(self._owners[last])
                self._owners[row] = moved
                places = self._of[moved]
                places[places.index(last)] = row
            self._count = last

    def _grow(self, more: int) -> None:
        wanted = self._count + more
        if wanted <= len(self._rows):
            return
        size = len(self._rows)
        while size < wanted:
            size *= 2
        rows = np.zeros((size, self.dimension), np.float32)
        rows[: self._count] = self._rows[: self._count]
        owners = np.zeros(size, np.int64)
        owners[: self._count] = self._owners[: self._count]
        self._rows, self._owners = rows, owners
