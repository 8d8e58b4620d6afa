"""Which stream speaks for a box: the newest; and when two processes fight over one name.

Promise: a new Hello of an edge takes over from its older stream. Two processes of one edge id that
take over from each other more than three times a minute are a cloned box: both are refused until
only one of them has asked for a while. Decisions only: no thread, no socket, no clock of its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")

CLONE_TAKEOVERS = 3  # a restarting box takes over once; a flapping link keeps its process id
CLONE_WINDOW_NS = 60_000_000_000
CLONE_MEMORY_NS = 180_000_000_000  # refused boxes ask every 60 s: silence of three is an end


@dataclass(slots=True)
class _Box(Generic[S]):
    stream: S | None = None
    process_id: str = ""
    takeovers: deque[tuple[int, str, str]] = field(default_factory=deque)  # when, from, to
    cloned: bool = False
    asked: dict[str, int] = field(default_factory=dict)  # process_id -> last Hello


@dataclass(frozen=True, slots=True)
class Admission(Generic[S]):
    """What to do with a Hello.

    Attributes:
        cloned: refuse it, and the stream in `ended` as well.
        ended: the stream that must go; None where there is none.
    """

    cloned: bool
    ended: S | None


class StreamBook(Generic[S]):
    """The streams that are open, one per (site, edge_id)."""

    def __init__(self) -> None:
        self._boxes: dict[tuple[str, str], _Box[S]] = {}

    def hello(
        self, box: tuple[str, str], process_id: str, stream: S, *, now_ns: int
    ) -> Admission[S]:
        """A Hello came: who goes, who stays.

        Args:
            now_ns: monotonic.
        """
        entry = self._boxes.setdefault(box, _Box())
        entry.asked[process_id] = now_ns
        for other, when in list(entry.asked.items()):
            if now_ns - when > CLONE_MEMORY_NS:
                del entry.asked[other]
        if entry.cloned:
            if len(entry.asked) > 1:
                return Admission(cloned=True, ended=None)
            entry.cloned = False
            entry.takeovers.clear()
        ended = entry.stream
        if entry.process_id and entry.process_id != process_id:
            entry.takeovers.append((now_ns, entry.process_id, process_id))
        while entry.takeovers and now_ns - entry.takeovers[0][0] > CLONE_WINDOW_NS:
            entry.takeovers.popleft()
        # A box that crashes in a loop has a new process id each time; a clone's two come back.
        pair = {process_id, entry.process_id}
        fights = sum(1 for _, old, new in entry.takeovers if {old, new} == pair)
        if len(pair) == 2 and fights > CLONE_TAKEOVERS:
            entry.cloned = True
            entry.stream = None
            return Admission(cloned=True, ended=ended)
        entry.stream = stream
        entry.process_id = process_id
        return Admission(cloned=False, ended=ended)

    def closed(self, box: tuple[str, str], stream: S) -> None:
        """A stream ended; a newer one of the same box stays."""
        entry = self._boxes.get(box)
        if entry is not None and entry.stream is stream:
            entry.stream = None

    def get(self, box: tuple[str, str]) -> S | None:
        """The open stream of a box."""
        entry = self._boxes.get(box)
        return None if entry is None else entry.stream

    def all(self) -> list[S]:
        """Every open stream."""
        return [entry.stream for entry in self._boxes.values() if entry.stream is not None]

    def is_cloned(self, box: tuple[str, str]) -> bool:
        """Whether two processes fight over this name."""
        entry = self._boxes.get(box)
        return entry is not None and entry.cloned


class RateLimit:
    """Sightings per second over a minute: a bucket that holds a minute's worth."""

    def __init__(self, per_second: float) -> None:
        """
        Args:
            per_second: 0: no limit.
        """
        self._rate = per_second
        self._room = per_second * 60.0
        self._at_ns: int | None = None

    def take(self, count: float, *, now_ns: int) -> float:
        """Count sightings; seconds to wait before more are read (0 where there is room).

        Args:
            now_ns: monotonic.
        """
        if self._rate <= 0:
            return 0.0
        self._refill(now_ns)
        self._room -= count
        return -self._room / self._rate if self._room < 0 else 0.0

    def take_if_there(self, *, now_ns: int) -> bool:
        """Take one where there is room; where there is none nothing is counted.

        Args:
            now_ns: monotonic.
        """
        self._refill(now_ns)
        there = self._rate <= 0 or self._room >= 1.0
        self._room -= there
        return there

    def _refill(self, now_ns: int) -> None:
        if self._at_ns is not None:
            passed = max(0, now_ns - self._at_ns) / 1e9
            self._room = min(self._rate * 60.0, self._room + passed * self._rate)
        self._at_ns = now_ns

    @property
    def relaxed(self) -> bool:
        """Whether half of the minute's worth is free again, as of the last `take`."""
        return self._rate <= 0 or self._room >= self._rate * 30.0
