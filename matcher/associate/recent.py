"""Things of a box that each of its starts makes anew: the newest of each box are kept.

Promise: bounded by the number of boxes, and the same in every replay of the log: what goes depends
on the order of the entries alone. Called from the association thread only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

V = TypeVar("V")
Name = tuple[str, str, str]


class RecentByBox(Mapping[Name, V], Generic[V]):
    """(site, edge_id, name) -> value; of each box the `kept` that were put last."""

    def __init__(self, *, kept: int) -> None:
        """
        Args:
            kept: most of one box.
        """
        self._kept = kept
        self._boxes: dict[tuple[str, str], OrderedDict[str, V]] = {}

    def put(self, name: Name, value: V) -> list[Name]:
        """Keep a value as the newest of its box; what had to go for it."""
        site, edge_id, own = name
        box = self._boxes.setdefault((site, edge_id), OrderedDict())
        box[own] = value
        box.move_to_end(own)
        gone = []
        while len(box) > self._kept:
            gone.append((site, edge_id, box.popitem(last=False)[0]))
        return gone

    def __getitem__(self, name: Name) -> V:
        return self._boxes[name[0], name[1]][name[2]]

    def __iter__(self) -> Iterator[Name]:
        return ((*box, own) for box, owns in self._boxes.items() for own in owns)

    def __len__(self) -> int:
        return sum(map(len, self._boxes.values()))
