"""Association keeps in memory what lives, however long the log is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import matcher.associate.engine
from matcher.associate.engine import Engine
from matcher.associate.identities import IdentityStore
from matcher.associate.prior import PriorAssociator
from matcher.clocks import ClockEstimate
from matcher.log import Entry
from matcher.schema import EntryKind
from tests.integration.matcher_rig import record

HOUR_NS = 3_600_000_000_000
LIFE_NS = 2 * HOUR_NS
PER_HOUR = 40
WRITER = "e" * 32
BEGAN_NS = 1_760_000_000_000_000_000


def entry(number: int) -> Entry:
    """A person who comes once, is seen in one camera and goes; every fourth without a picture."""
    at_ns = BEGAN_NS + number * HOUR_NS // PER_HOUR
    made = record(
        WRITER, number, person=None if number % 4 == 0 else number, base_ns=at_ns, final=True
    )
    return Entry(
        number, EntryKind.SIGHTING, "site", "box", WRITER, number, made.content_hash,
        at_ns, at_ns, made.sighting.SerializeToString(),
    )  # fmt: skip


def starts(first: int, last: int) -> Iterator[Entry]:
    """What two boxes leave in the log that start again and again: clocks, and ends of writers."""
    for start in range(first, last + 1):
        at_ns = BEGAN_NS + start * HOUR_NS
        for number, box in enumerate(("box", "other")):
            position = 4 * start + 2 * number
            clock = ClockEstimate(f"{start:032x}", 1, at_ns, 0.0, 1000).as_dict()
            ended = {"writer_id": f"{start:032x}"}
            for more, (kind, body) in enumerate(
                ((EntryKind.CLOCK, clock), (EntryKind.WRITER_ENDED, ended))
            ):
                yield Entry(
                    position + more, kind, "site", box, "", 0, b"", at_ns, at_ns,
                    json.dumps(body).encode(),
                )  # fmt: skip


def empty_engine() -> Engine:
    associator = PriorAssociator(
        thresholds={}, default_threshold=0.8, window_ns=LIFE_NS, uncertain_ns=10**9
    )
    return Engine(
        associator=associator, salt="", identity_life_ns=LIFE_NS, load_tracklet=lambda _: None
    )


def test_a_box_that_starts_again_and_again_leaves_a_bounded_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither memory nor identities.db grows, and a restart in between changes nothing."""
    monkeypatch.setattr(matcher.associate.engine, "BOOTS_KEPT", 8)
    monkeypatch.setattr(matcher.associate.engine, "WRITERS_KEPT", 12)
    path = tmp_path / "identities.db"
    engine = empty_engine()
    store = IdentityStore(path, generation="g")
    for entry in starts(1, 60):
        engine.apply(entry)
        if entry.position % 7 == 0:
            store.save(engine.live.take_changes(), engine.calibration, entry.position)
        if entry.position == 7 * 20:
            store.close()
            store = IdentityStore(path, generation="g")
            engine = empty_engine()
            for boot, estimate in store.load_clocks():
                engine.clocks.put(boot, estimate)
            for writer in store.load_ended_writers():
                engine.ended_writers.put(writer, True)
    on_disk = (len(store.load_clocks()), len(store.load_ended_writers()))
    store.close()
    replayed = empty_engine()
    for entry in starts(1, 60):
        replayed.apply(entry)

    assert on_disk == (2 * 8, 2 * 12)
    assert len(engine.clocks) == 2 * 8
    assert len(engine.ended_writers) == 2 * 12
    assert ("site", "box", f"{60:032x}") in engine.clocks
    assert ("site", "box", f"{1:032x}") not in engine.ended_writers
    assert dict(engine.clocks) == dict(replayed.clocks)
    assert dict(engine.ended_writers) == dict(replayed.ended_writers)


def test_the_live_window_stays_within_the_life_of_identities() -> None:
    engine = empty_engine()
    tracklets, identities, indexed = [], [], []

    for number in range(1, 24 * PER_HOUR + 1):
        engine.apply(entry(number))
        if number % PER_HOUR == 0:
            engine.live.take_changes()  # as the worker does after each group
            tracklets.append(len(engine.live.tracklets))
            identities.append(len(engine.live.identities))
            indexed.append(sum(len(index) for index in engine.live.indexes.values()))

    most = 2 * PER_HOUR + 1
    assert min(tracklets) > 0
    assert max(tracklets[3:]) <= most
    assert max(identities[3:]) <= most
    assert max(indexed[3:]) <= most
    assert len(engine.live._by_number) == tracklets[-1]
