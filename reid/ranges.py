"""Sets of keys as ranges per writer: what Welcome, Ack, Skipped and receipts speak in.

Promise: ranges of one writer are sorted, disjoint and never adjacent; adding and asking cost a
binary search. Not safe for several threads at once: each owner keeps its own.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from reid.v1.sighting_pb2 import Key, KeyRange

_FEW = 8  # so many ranges are removed one by one


class RangeSet:
    """A set of positive integers as closed ranges."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int | None = None) -> None:
        """Add first..last (last defaults to first); an empty range changes nothing."""
        if last is None:
            last = first
        if last < first:
            return
        left = bisect_left(self._lasts, first - 1)
        right = bisect_right(self._firsts, last + 1)
        if left < right:
            first = min(first, self._firsts[left])
            last = max(last, self._lasts[right - 1])
        self._firsts[left:right] = [first]
        self._lasts[left:right] = [last]

    def remove(self, first: int, last: int | None = None) -> None:
        """Remove first..last (last defaults to first), whether present or not."""
        if last is None:
            last = first
        if last < first:
            return
        left = bisect_left(self._lasts, first)
        right = bisect_right(self._firsts, last)
        if left >= right:
            return
        kept: list[tuple[int, int]] = []
        if self._firsts[left] < first:
            kept.append((self._firsts[left], first - 1))
        if self._lasts[right - 1] > last:
            kept.append((last + 1, self._lasts[right - 1]))
        self._firsts[left:right] = [a for a, _ in kept]
        self._lasts[left:right] = [b for _, b in kept]

    def __contains__(self, value: int) -> bool:
        at = bisect_left(self._lasts, value)
        return at < len(self._lasts) and self._firsts[at] <= value

    def range_of(self, value: int) -> tuple[int, int]:
        """The range that holds a value. Raises KeyError where none does."""
        at = bisect_left(self._lasts, value)
        if at == len(self._lasts) or self._firsts[at] > value:
            raise KeyError(value)
        return self._firsts[at], self._lasts[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The ranges in order, as (first, last)."""
        return iter(list(zip(self._firsts, self._lasts, strict=True)))

    def __len__(self) -> int:
        """How many integers; at most `sys.maxsize`, which is all that Python lets this say."""
        count = sum(b - a + 1 for a, b in zip(self._firsts, self._lasts, strict=True))
        return min(count, sys.maxsize)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._firsts == other._firsts and self._lasts == other._lasts

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    def copy(self) -> RangeSet:
        """An independent copy."""
        twin = RangeSet()
        twin._firsts = list(self._firsts)
        twin._lasts = list(self._lasts)
        return twin

    def minus(self, other: RangeSet) -> RangeSet:
        """What is here and not in other."""
        if len(other._firsts) <= _FEW:
            rest = self.copy()
            for first, last in other:
                rest.remove(first, last)
            return rest
        # One pass: removing range by range would move the rest of the list for each.
        rest = RangeSet()
        firsts, lasts = other._firsts, other._lasts
        for start, end in zip(self._firsts, self._lasts, strict=True):
            at = bisect_left(lasts, start)
            while at < len(firsts) and firsts[at] <= end:
                if firsts[at] > start:
                    rest._firsts.append(start)
                    rest._lasts.append(firsts[at] - 1)
                start = lasts[at] + 1
                at += 1
            if start <= end:
                rest._firsts.append(start)
                rest._lasts.append(end)
        return rest

    def intersection(self, other: RangeSet) -> RangeSet:
        """What is in both."""
        few, many = (self, other) if len(self._firsts) <= len(other._firsts) else (other, self)
        both = RangeSet()
        for first, last in zip(few._firsts, few._lasts, strict=True):
            at = bisect_left(many._lasts, first)
            while at < len(many._firsts) and many._firsts[at] <= last:
                both._firsts.append(max(first, many._firsts[at]))
                both._lasts.append(min(last, many._lasts[at]))
                at += 1
        return both


class KeyRanges:
    """A set of keys: one `RangeSet` per writer."""

    def __init__(self, ranges: Iterable[KeyRange] = ()) -> None:
        self._writers: dict[str, RangeSet] = {}
        for entry in ranges:
            self.add_range(entry.writer_id, entry.first, entry.last)

    def add(self, writer_id: str, seq: int) -> None:
        """Add one key."""
        self.add_range(writer_id, seq, seq)

    def add_key(self, key: Key) -> None:
        """Add one key."""
        self.add_range(key.writer_id, key.seq, key.seq)

    def add_range(self, writer_id: str, first: int, last: int) -> None:
        """Add first..last of a writer; an empty range changes nothing."""
        if last >= first:
            self._writers.setdefault(writer_id, RangeSet()).add(first, last)

    def remove_range(self, writer_id: str, first: int, last: int) -> None:
        """Remove first..last of a writer."""
        ranges = self._writers.get(writer_id)
        if ranges is not None:
            ranges.remove(first, last)
            if not ranges:
                del self._writers[writer_id]

    def contains(self, writer_id: str, seq: int) -> bool:
        """Whether the key is in the set."""
        ranges = self._writers.get(writer_id)
        return ranges is not None and seq in ranges

    def of(self, writer_id: str) -> RangeSet:
        """The ranges of one writer (a copy; empty where there are none)."""
        ranges = self._writers.get(writer_id)
        return ranges.copy() if ranges is not None else RangeSet()

    def writers(self) -> list[str]:
        """Writers with at least one key, sorted."""
        return sorted(self._writers)

    def messages(self) -> list[KeyRange]:
        """The set as wire messages, in order of writer and seq."""
        return [
            KeyRange(writer_id=writer, first=first, last=last)
            for writer in self.writers()
            for first, last in self._writers[writer]
        ]

    def update(self, other: KeyRanges) -> None:
        """Add everything of another set."""
        for writer, ranges in other._writers.items():
            for first, last in ranges:
                self.add_range(writer, first, last)

    def minus(self, other: KeyRanges) -> KeyRanges:
        """What is here and not in other."""
        rest = KeyRanges()
        for writer, ranges in self._writers.items():
            left = ranges.minus(other.of(writer))
            if left:
                rest._writers[writer] = left
        return rest

    def __len__(self) -> int:
        """How many keys; at most `sys.maxsize`."""
        return min(sum(len(ranges) for ranges in self._writers.values()), sys.maxsize)

    def __bool__(self) -> bool:
        return bool(self._writers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyRanges):
            return NotImplemented
        return self._writers == other._writers

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"KeyRanges({self._writers})"
