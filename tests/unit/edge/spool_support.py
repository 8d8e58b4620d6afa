"""What the spool's tests share: new sightings, open spools, waiting with a deadline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge.config import SpoolConfig
from edge.delivery import NewSighting, SpaceUse
from edge.spool import Spool
from reid.clock import Clock, ManualClock
from reid.ranges import KeyRanges
from reid.v1.sighting_pb2 import Sighting

SPACE = SpaceUse("space/1", 4, "float32")
LEDGER = "ab" * 16
NONE = KeyRanges()


def new_sighting(
    number: int, *, camera: str = "gate", revision: int = 1, final: bool = True, size: int = 300
) -> NewSighting:
    """A sighting of tracklet `number`; its payload is a real message of about `size` bytes."""
    message = Sighting(
        site="site", edge_id="edge", camera=camera, tracklet_id=f"{'0' * 32}/{number}",
        revision=revision, final=final, frame_width=640, frame_height=480,
    )  # fmt: skip
    shot = message.shots.add(quality=0.5, detector_score=0.5)
    values = number.to_bytes(8, "little") * (size // 8)
    shot.embeddings.add(space_id="space/1", variant_id="float32", encoding=2, values=values)
    return NewSighting(
        message.SerializeToString(), camera, number, revision, final, (SPACE,), time.monotonic_ns()
    )


@contextlib.contextmanager
def open_spool(
    folder: Path, *, clock: Clock | None = None, kill: bool = False, **settings: Any
) -> Iterator[Spool]:
    """An open spool with short groups."""
    config = SpoolConfig(**{"group_s": 0.005, "ballast_bytes": 0, **settings})
    spool = Spool(config=config, data_dir=folder, clock=clock or ManualClock())
    spool.open()
    try:
        yield spool
    finally:
        assert spool.stop(20)


def fill(spool: Spool, count: int, *, first: int = 1, **how: Any) -> None:
    """Put and commit so many sightings."""
    for number in range(first, first + count):
        assert spool.put(new_sighting(number, **how), timeout_s=5)
    assert spool.flush(20), spool.counters()


def keys(writer_id: str, first: int, last: int) -> KeyRanges:
    """One range."""
    ranges = KeyRanges()
    ranges.add_range(writer_id, first, last)
    return ranges


def take_all(spool: Spool, *, after: int = 0) -> list[int]:
    """Every waiting row, taken into flight."""
    rows: list[int] = []
    while batch := spool.take(after=after, upto=None, max_rows=64, max_bytes=1 << 20):
        rows.extend(row.row for row in batch)
    return rows


def eventually(
    condition: Callable[[], bool], what: Callable[[], object], within_s: float = 10
) -> None:
    """Wait until the condition holds; on the deadline, fail with the last state."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what()}"
        time.sleep(0.01)
