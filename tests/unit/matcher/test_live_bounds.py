"""Association keeps in memory what lives, however long the log is."""

from __future__ import annotations

from matcher.associate.engine import Engine
from matcher.associate.prior import PriorAssociator
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


def test_the_live_window_stays_within_the_life_of_identities() -> None:
    engine = Engine(
        associator=PriorAssociator(
            thresholds={}, default_threshold=0.8, window_ns=LIFE_NS, uncertain_ns=10**9
        ),
        salt="salt",
        identity_life_ns=LIFE_NS,
        load_tracklet=lambda _: None,
    )
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
