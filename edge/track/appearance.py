"""What the tracker knows of how people look, and how much a likeness is worth.

Promise: evidence on one scale whatever the embedder: 0 says nothing, +1/2 a typical likeness of a
person with himself, -1/2 a typical likeness of strangers. The scale is learned while tracking:
people in one frame are certain strangers, a person followed without doubt is certainly himself
(field practice: D-MMD, arXiv:2007.13890). Until there are enough pairs the first scale holds.
Fails: never; a row of NaN (refused by the crop budget) is evidence 0 and teaches nothing.
Threads: one owner (the camera's tracker).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge.types import Floats

Appearance = Callable[[Floats], Floats]
Rows = npt.NDArray[np.intp]

GALLERY = 10  # embeddings kept of one tracklet: ten seconds at one a second
# Likeness (best cosine within a gallery) of one person and of strangers, before anything was
# learned: about what OSNet x0.25 gives for crops of one camera.
FIRST_SAME, FIRST_OTHER = 0.83, 0.57
FIRST_WEIGHT = 50.0  # the first scale counts as so many pairs
MOST_WEIGHT = 2000.0  # older pairs fade: light and clothing change over a day
LEAST_GAP = 0.1  # an embedder that tells nobody apart must not turn noise into evidence


class Gallery:
    """The latest embeddings of one tracklet."""

    def __init__(self) -> None:
        self._rows: Floats = np.zeros((0, 0), np.float32)  # a ring of GALLERY rows
        self._count = 0  # of all that were ever added
        self.updated_s = -np.inf

    def __len__(self) -> int:
        return min(self._count, GALLERY)

    def add(self, embedding: Floats, now_s: float) -> None:
        """Take in one unit embedding (d,); a row of NaN is left out, another d starts afresh."""
        if not np.isfinite(embedding[0]):
            return
        if self._rows.shape[1] != len(embedding):
            self._rows, self._count = np.zeros((GALLERY, len(embedding)), np.float32), 0
        self._rows[self._count % GALLERY] = embedding
        self._count += 1
        self.updated_s = now_s

    def likeness(self, embeddings: Floats) -> Floats:
        """(n, d) -> (n,) best cosine with any of the gallery; NaN where there is none of this d."""
        if not self._count or self._rows.shape[1] != embeddings.shape[1]:
            return np.full(len(embeddings), np.nan, np.float32)
        return np.asarray((embeddings @ self._rows[: len(self)].T).max(axis=1))


class LikenessScale:
    """Turns likeness into evidence."""

    def __init__(self) -> None:
        self._same, self._other = FIRST_SAME, FIRST_OTHER
        self._same_weight = self._other_weight = FIRST_WEIGHT

    def learn(self, *, same: bool, likeness: Floats) -> None:
        """Take in likenesses (n,) of a person with himself, or of certain strangers."""
        known = likeness[np.isfinite(likeness)]
        if not len(known):
            return
        if same:
            self._same_weight = min(self._same_weight + len(known), MOST_WEIGHT)
            self._same += float((known - self._same).sum()) / self._same_weight
        else:
            self._other_weight = min(self._other_weight + len(known), MOST_WEIGHT)
            self._other += float((known - self._other).sum()) / self._other_weight

    def evidence(self, likeness: Floats) -> Floats:
        """(…) likeness -> (…) evidence in -1..+1; 0 where the likeness is NaN."""
        middle = (self._same + self._other) / 2
        gap = max(self._same - self._other, LEAST_GAP)
        found: Floats = np.minimum(np.maximum((likeness - middle) / gap, -1.0), 1.0)
        return np.where(np.isfinite(found), found, np.float32(0.0))


class AskedEmbeddings:
    """The embeddings of one frame's detections, each asked for once."""

    def __init__(self, boxes: Floats, appearance: Appearance | None) -> None:
        self._boxes = boxes
        self._appearance = appearance
        self._known: dict[int, Floats] = {}

    @property
    def possible(self) -> bool:
        return self._appearance is not None

    def __contains__(self, column: object) -> bool:
        """Whether this detection has an embedding (a refused one has not)."""
        row = self._known.get(column) if isinstance(column, int) else None
        return row is not None and bool(np.isfinite(row[0]))

    def __call__(self, columns: Rows) -> Floats:
        """(k,) indices of detections -> (k, d) unit rows, NaN where refused (d = 1 if all)."""
        missing = [int(j) for j in columns if int(j) not in self._known]
        if missing and self._appearance is not None:
            fresh = self._appearance(self._boxes[missing])
            self._known.update(zip(missing, fresh, strict=True))
        rows = [self._known[int(j)] for j in columns]
        size = max(len(row) for row in rows)
        return np.stack(
            [row if len(row) == size else np.full(size, np.nan, np.float32) for row in rows]
        )
