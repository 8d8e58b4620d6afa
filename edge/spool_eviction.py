"""Which rows give way when the spool is full.

Promise: a decision without disk, clock or thread. Order: acked rows (the ledger has them), oldest
first; then revisions that a newer one in the spool replaces; then the oldest row of the camera that
holds most bytes, again and again, so that one busy camera cannot push out a quiet one; at last,
where nothing else is left, the oldest dead letters. Rows in flight are never offered to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum


class Evicted(Enum):
    """Why a row was chosen."""

    ACKED = "acked"
    SUPERSEDED = "superseded"
    OLDEST = "oldest"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may go.

    Attributes:
        row: its number.
        camera: its camera's number.
        bytes: what it holds.
    """

    row: int
    camera: int
    bytes: int


def plan_eviction(
    target_bytes: int,
    *,
    acked: Iterable[Candidate],
    superseded: Iterable[Candidate],
    by_camera: Mapping[int, Iterator[Candidate]],
    camera_bytes: Mapping[int, int],
    dead: Iterable[Candidate],
) -> list[tuple[Candidate, Evicted]]:
    """Choose rows that together hold at least target_bytes, or all there are.

    Args:
        target_bytes: how much must go.
        acked, superseded, dead: candidates, oldest first; none may be in flight.
        by_camera: camera -> its waiting candidates, oldest first; superseded ones may be among
        them. camera_bytes: camera -> bytes of all its waiting rows.
    """
    plan: list[tuple[Candidate, Evicted]] = []
    chosen: set[int] = set()
    freed = 0

    def take(candidate: Candidate, why: Evicted) -> None:
        nonlocal freed
        if candidate.row not in chosen:
            chosen.add(candidate.row)
            plan.append((candidate, why))
            freed += candidate.bytes

    for candidate in acked:
        if freed >= target_bytes:
            return plan
        take(candidate, Evicted.ACKED)
    left = dict(camera_bytes)
    for candidate in superseded:
        if freed >= target_bytes:
            return plan
        take(candidate, Evicted.SUPERSEDED)
        left[candidate.camera] = left.get(candidate.camera, 0) - candidate.bytes
    rows = dict(by_camera)
    while freed < target_bytes and rows:
        # Ties go to the lower number, so that the choice can be repeated.
        largest = max(rows, key=lambda camera: (left.get(camera, 0), -camera))
        oldest = next(rows[largest], None)
        if oldest is None:
            del rows[largest]
        elif oldest.row not in chosen:
            take(oldest, Evicted.OLDEST)
            left[largest] = left.get(largest, 0) - oldest.bytes
    for candidate in dead:
        if freed >= target_bytes:
            break
        take(candidate, Evicted.DEAD)
    return plan
