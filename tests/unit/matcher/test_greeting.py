"""What Welcome lists: few enough ranges, and no key left out that could be named."""

from __future__ import annotations

from matcher.greeting import MAX_WELCOME_RANGES, joined, largest
from reid.ranges import KeyRanges

WRITER = "ab" * 16
ROWS = 3 * MAX_WELCOME_RANGES


def keys(*seqs: int) -> KeyRanges:
    ranges = KeyRanges()
    for seq in seqs:
        ranges.add(WRITER, seq)
    return ranges


def test_few_ranges_are_listed_as_they_are() -> None:
    committed, skipped = joined(keys(1, 3, 5), keys(2, 6), keys(2))

    assert (committed, skipped) == (keys(1, 3, 5), keys(2, 6))


def test_a_cap_that_dropped_every_second_row_does_not_hide_what_the_ledger_has() -> None:
    odd, even = keys(*range(1, ROWS, 2)), keys(*range(2, ROWS, 2))

    committed, skipped = joined(odd, even, KeyRanges())

    for told in (committed, skipped):
        listed = KeyRanges(largest(told))
        assert not odd.minus(listed)
        assert not even.minus(listed)


def test_a_row_that_the_box_holds_is_never_called_committed_when_it_is_only_skipped() -> None:
    odd, even = keys(*range(1, ROWS, 2)), keys(*range(2, ROWS, 2))

    committed, _ = joined(odd, even, held=keys(10, 11, 12))

    assert not committed.contains(WRITER, 10)
    assert not committed.contains(WRITER, 12)
    assert committed.contains(WRITER, 11)


def test_a_key_that_nobody_has_is_in_neither_list() -> None:
    odd, even = keys(*range(1, ROWS, 2)), keys(*range(2, ROWS, 2))
    odd.remove_range(WRITER, 501, 501)

    committed, skipped = joined(odd, even, KeyRanges())

    assert not committed.contains(WRITER, 501)
    assert not skipped.contains(WRITER, 501)
