"""Which stream speaks for a box, and how fast it may speak."""

from __future__ import annotations

from matcher.streams import RateLimit, StreamBook

S = 1_000_000_000
BOX = ("site", "box")


def test_the_newest_stream_takes_over() -> None:
    book: StreamBook[str] = StreamBook()

    first = book.hello(BOX, "p", "one", now_ns=0)
    second = book.hello(BOX, "p", "two", now_ns=S)

    assert (first.ended, second.ended) == (None, "one")
    assert book.get(BOX) == "two"


def test_the_end_of_an_older_stream_does_not_end_the_newer() -> None:
    book: StreamBook[str] = StreamBook()
    book.hello(BOX, "p", "one", now_ns=0)
    book.hello(BOX, "p", "two", now_ns=S)

    book.closed(BOX, "one")

    assert book.get(BOX) == "two"


def test_a_flapping_link_is_no_clone() -> None:
    book: StreamBook[str] = StreamBook()

    answers = [book.hello(BOX, "p", str(n), now_ns=n * S) for n in range(30)]

    assert not any(answer.cloned for answer in answers)


def test_a_box_that_crashes_in_a_loop_is_no_clone() -> None:
    book: StreamBook[str] = StreamBook()

    answers = [book.hello(BOX, f"p{n}", str(n), now_ns=n * S) for n in range(30)]

    assert not any(answer.cloned for answer in answers)


def test_two_processes_in_turn_are_a_clone_until_one_is_gone() -> None:
    book: StreamBook[str] = StreamBook()

    answers = [book.hello(BOX, "ab"[n % 2], str(n), now_ns=n * S) for n in range(5)]
    refused = book.hello(BOX, "a", "again", now_ns=65 * S)
    alone = book.hello(BOX, "a", "alone", now_ns=400 * S)

    assert [answer.cloned for answer in answers] == [False] * 4 + [True]
    assert answers[4].ended == "3"
    assert refused.cloned
    assert not alone.cloned
    assert not book.is_cloned(BOX)


def test_slow_takeovers_are_no_clone() -> None:
    book: StreamBook[str] = StreamBook()

    answers = [book.hello(BOX, "ab"[n % 2], str(n), now_ns=n * 25 * S) for n in range(10)]

    assert not any(answer.cloned for answer in answers)


def test_a_minutes_worth_may_come_at_once_and_then_the_mean_holds() -> None:
    limit = RateLimit(100.0)

    burst = limit.take(6000, now_ns=0)
    more = limit.take(50, now_ns=0)
    later = limit.take(0, now_ns=S)

    assert (burst, more) == (0.0, 0.5)
    assert later == 0.0
    assert not limit.relaxed
    limit.take(0, now_ns=40 * S)
    assert limit.relaxed


def test_no_limit_never_waits() -> None:
    limit = RateLimit(0.0)

    assert limit.take(10**9, now_ns=0) == 0.0
    assert limit.relaxed


def test_what_is_refused_is_not_counted_so_that_a_flood_ends_with_it() -> None:
    limit = RateLimit(2.0)
    at_once = sum(limit.take_if_there(now_ns=1) for _ in range(1000))
    soon = sum(limit.take_if_there(now_ns=1 + 1_000_000_000) for _ in range(1000))

    assert (at_once, soon) == (120, 2)
    assert all(RateLimit(0).take_if_there(now_ns=1) for _ in range(10))
