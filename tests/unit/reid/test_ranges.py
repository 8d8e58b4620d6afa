"""Sets of keys as ranges."""

from __future__ import annotations

import sys
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from reid.ranges import KeyRanges, RangeSet
from reid.v1.sighting_pb2 import KeyRange

A = "a" * 32
B = "b" * 32

spans = st.tuples(st.integers(1, 60), st.integers(0, 12)).map(lambda p: (p[0], p[0] + p[1]))
steps = st.lists(st.tuples(st.booleans(), spans), max_size=30)


@given(steps)
def test_a_range_set_holds_what_a_plain_set_holds_after_any_adds_and_removes(
    actions: list[tuple[bool, tuple[int, int]]],
) -> None:
    ranges = RangeSet()
    model: set[int] = set()

    for adding, (first, last) in actions:
        if adding:
            ranges.add(first, last)
            model |= set(range(first, last + 1))
        else:
            ranges.remove(first, last)
            model -= set(range(first, last + 1))

    assert {v for first, last in ranges for v in range(first, last + 1)} == model
    assert len(ranges) == len(model)
    assert all((v in ranges) == (v in model) for v in range(0, 75))
    gaps = [b[0] - a[1] for a, b in zip(list(ranges), list(ranges)[1:], strict=False)]
    assert all(gap > 1 for gap in gaps), "ranges are neither adjacent nor overlapping"


@given(st.lists(spans), st.lists(spans))
def test_minus_and_intersection_agree_with_plain_sets(
    left: list[tuple[int, int]], right: list[tuple[int, int]]
) -> None:
    def plain(spans: list[tuple[int, int]]) -> set[int]:
        return {v for first, last in spans for v in range(first, last + 1)}

    a, b = RangeSet(left), RangeSet(right)

    assert a.minus(b) == RangeSet((v, v) for v in plain(left) - plain(right))
    assert a.intersection(b) == RangeSet((v, v) for v in plain(left) & plain(right))


def test_minus_and_intersection_of_very_many_ranges_agree_with_plain_sets() -> None:
    random = Random(7)
    for many, few in ((300, 3), (300, 300), (3, 300)):
        sets = [
            {at + n for at in random.choices(range(1, 3000), k=count) for n in range(4)}
            for count in (many, few)
        ]
        left, right = (RangeSet((n, n) for n in one) for one in sets)

        assert set(_numbers(left.minus(right))) == sets[0] - sets[1]
        assert set(_numbers(left.intersection(right))) == sets[0] & sets[1]
        # Sorted, disjoint and never adjacent: as if the numbers had been added one by one.
        assert left.minus(right) == RangeSet((n, n) for n in sets[0] - sets[1])
        assert left.intersection(right) == RangeSet((n, n) for n in sets[0] & sets[1])


def _numbers(ranges: RangeSet) -> list[int]:
    return [n for first, last in ranges for n in range(first, last + 1)]


def test_an_empty_range_changes_nothing() -> None:
    ranges = RangeSet([(3, 5)])

    ranges.add(9, 8)
    ranges.remove(9, 8)

    assert list(ranges) == [(3, 5)]


def test_more_keys_than_python_can_count_are_counted_as_the_most_it_can() -> None:
    """Whoever sends ranges may name any keys; counting them must not raise."""
    ranges = RangeSet([(0, (1 << 64) - 1)])
    keys = KeyRanges()
    for writer in ("a", "b"):
        keys.add_range(writer, 1, (1 << 63) - 1)

    assert len(ranges) == len(keys) == sys.maxsize


def test_keys_of_different_writers_are_kept_apart() -> None:
    keys = KeyRanges([KeyRange(writer_id=A, first=1, last=3)])

    keys.add(B, 2)
    keys.remove_range(A, 2, 2)

    assert keys.contains(A, 1)
    assert not keys.contains(A, 2)
    assert keys.contains(B, 2)
    assert [(m.writer_id, m.first, m.last) for m in keys.messages()] == [
        (A, 1, 1),
        (A, 3, 3),
        (B, 2, 2),
    ]
    assert len(keys) == 3


def test_a_writer_without_keys_is_forgotten() -> None:
    keys = KeyRanges([KeyRange(writer_id=A, first=1, last=3)])

    keys.remove_range(A, 1, 3)

    assert keys.writers() == []
    assert not keys


def test_minus_leaves_the_keys_that_only_the_left_side_has() -> None:
    held = KeyRanges(
        [KeyRange(writer_id=A, first=1, last=9), KeyRange(writer_id=B, first=4, last=4)]
    )
    committed = KeyRanges([KeyRange(writer_id=A, first=2, last=5)])

    missing = held.minus(committed)

    assert list(missing.of(A)) == [(1, 1), (6, 9)]
    assert list(missing.of(B)) == [(4, 4)]
