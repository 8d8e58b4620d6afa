"""From committed sightings to identities, merged and split by people too, over real gRPC."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from pathlib import Path

import pytest

from matcher import report
from matcher.associate.engine import Engine
from matcher.client import MatcherClient, Refused
from matcher.errors import ServerFault
from reid.v1 import ingest_pb2, query_pb2
from reid.v1.query_pb2 import SightingFilter
from reid.v1.sighting_pb2 import TIME_SOURCE_FILE, KeyRange
from tests.integration.matcher_rig import (
    SETTINGS,
    SPACE,
    Box,
    Serving,
    deliver,
    direction,
    groups,
    record,
)


def test_one_person_in_two_cameras_is_one_identity(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            record(writer, 1, person=1, camera="door", first_s=0, last_s=5),
            record(writer, 2, person=2, camera="door", first_s=1, last_s=6),
            record(writer, 3, person=1, camera="yard", first_s=20, last_s=25, noise=0.2),
        )

        found = report.who(client)

        assert groups(client) == {frozenset({"1", "3"}), frozenset({"2"})}
        assert {tuple(person.cameras) for person in found.people} == {("door", "yard"), ("door",)}
        assert "2 people in 2 cameras, 1 of them in more than one" in report.title(found)


def test_two_seen_together_are_never_one_identity(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            record(writer, 1, person=1, camera="door", first_s=0, last_s=5),
            record(
                writer,
                2,
                person=1,
                camera="yard",
                first_s=100,
                last_s=105,
                seen_with=[f"{writer}/1"],
            ),
            record(writer, 3, person=1, camera="door", first_s=3, last_s=9),
        )

        together = groups(client)

        assert not any({"1", "2"} <= one or {"1", "3"} <= one for one in together)


def test_what_a_later_revision_shows_takes_a_tracklet_out_again(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            record(writer, 1, person=1, camera="door", first_s=0, last_s=5),
            record(writer, 2, person=1, camera="yard", first_s=10, last_s=12, tracklet=2),
            record(
                writer,
                3,
                person=1,
                camera="yard",
                first_s=10,
                last_s=14,
                tracklet=2,
                revision=2,
                seen_with=[f"{writer}/1"],
            ),
        )

        assert groups(client) == {frozenset({"1"}), frozenset({"2"})}


def test_a_lone_tracklet_that_shows_itself_better_finds_its_identity(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            record(writer, 1, person=1, camera="door", first_s=0, last_s=5),
            record(writer, 2, person=9, camera="yard", first_s=10, last_s=12, tracklet=2),
            record(
                writer, 3, person=1, camera="yard", first_s=10, last_s=14, tracklet=2, revision=2
            ),
        )

        assert groups(client) == {frozenset({"1", "2"})}


def test_the_better_of_two_at_once_gets_the_identity(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            record(writer, 1, person=1, camera="door", first_s=0, last_s=5),
            record(writer, 2, person=1, camera="yard", first_s=20, last_s=25, noise=0.45),
            record(writer, 3, person=1, camera="yard", first_s=21, last_s=26),
        )

        assert groups(client) == {frozenset({"1", "3"}), frozenset({"2"})}


def test_the_highest_revision_counts_in_whatever_order_they_come(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            record(writer, 1, tracklet=1, revision=3, final=True, last_s=9),
            record(writer, 2, tracklet=1, revision=2, last_s=5),
            record(writer, 3, tracklet=1, revision=1, last_s=1),
        )

        (only,) = client.tracklets(SightingFilter())

        assert only.revision == 3
        assert only.state == query_pb2.TRACKLET_STATE_ENDED


def test_tracklets_of_a_process_that_died_end_as_interrupted(tmp_path: Path) -> None:
    old, new = secrets.token_hex(16), secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(serving, record(old, 1), record(old, 2, final=True))
        held = [KeyRange(writer_id=old, first=1, last=3)]
        with Box(serving.address, writer_id=new, process_id="next", held=held, issued=held) as box:
            box.welcome()
            serving.caught_up()
            before = {one.tracklet_id: one.state for one in client.tracklets(SightingFilter())}
            box.batch(record(old, 3, tracklet=1, revision=2))
            box.acked(1)
            box.batch(record(new, 1))
            box.acked(1)
            serving.caught_up()
        after = {one.tracklet_id: one.state for one in client.tracklets(SightingFilter())}

    assert before[f"{old}/1"] == query_pb2.TRACKLET_STATE_LIVE
    assert after[f"{old}/1"] == query_pb2.TRACKLET_STATE_INTERRUPTED
    assert after[f"{old}/2"] == query_pb2.TRACKLET_STATE_ENDED
    assert after[f"{new}/1"] == query_pb2.TRACKLET_STATE_LIVE


def test_reading_the_log_again_from_zero_gives_the_same(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        for start in range(0, 300, 50):
            deliver(serving, *[
                record(writer, seq, person=seq % 12, camera=f"c{seq % 3}", first_s=seq * 2,
                       last_s=seq * 2 + 3, noise=0.3, count=4,
                       seen_with=[f"{writer}/{seq - 1}"] if seq % 5 == 0 else [])
                for seq in range(start + 1, start + 51)
            ])  # fmt: skip
        some = next(iter(client.identities(SightingFilter())))
        client.split(some.identity_id, [some.tracklets[0].tracklet_id])
        serving.caught_up()
        first = _beliefs(tmp_path)
    for name in ("identities.db", "identities.db-wal", "identities.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)

    with Serving(tmp_path, **SETTINGS) as serving:
        serving.caught_up()
        second = _beliefs(tmp_path)

    assert len(first["tracklets"]) == 300
    assert len(first["events"]) >= 300
    assert first == second


def _beliefs(data_dir: Path) -> dict[str, list[object]]:
    connection = sqlite3.connect(f"file:{data_dir / 'identities.db'}?mode=ro", uri=True)
    try:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("tracklets", "identities", "events", "calibration", "vectors")
        }
    finally:
        connection.close()


def test_a_restart_goes_on_where_association_stood(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving:
        deliver(serving, record(writer, 1, person=1, camera="door"))

    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(serving, record(writer, 2, person=1, camera="yard", first_s=9, last_s=10))

        assert groups(client) == {frozenset({"1", "2"})}


def test_merge_and_split_are_kept_against_the_vectors(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            record(writer, 1, person=1, camera="door"),
            record(writer, 2, person=2, camera="door", first_s=30, last_s=31),
            record(writer, 3, person=1, camera="yard", first_s=9, last_s=10),
        )
        by_size = sorted(client.identities(SightingFilter()), key=lambda one: len(one.tracklets))
        lone, pair = by_size

        new = client.split(pair.identity_id, [f"{writer}/3"])
        client.merge(lone.identity_id, new)
        deliver(
            serving,
            record(
                writer, 4, person=1, camera="yard", first_s=9, last_s=12, tracklet=3, revision=2
            ),
        )

        assert groups(client) == {frozenset({"1"}), frozenset({"2", "3"})}
        with pytest.raises(Refused, match="not all"):
            client.split(pair.identity_id, [f"{writer}/1"])
        with pytest.raises(Refused, match="no identity"):
            client.merge(pair.identity_id, new)


def test_calibration_shows_what_is_certain_without_labels(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            record(writer, 1, person=1, camera="door", count=5),
            record(writer, 2, person=2, camera="door", seen_with=[f"{writer}/1"], count=4),
        )

        answer = client.calibration("site", SPACE)

    (pair, whole) = answer.pairs
    assert (pair.camera_a, pair.camera_b) == ("box/door", "box/door")
    assert pair.positive_pairs == 10 + 6
    assert pair.positive_mean == pytest.approx(0.9)
    assert pair.negative_pairs == 1
    assert pair.negative_mean == pytest.approx(float(direction(1) @ direction(2)), abs=1e-2)
    assert (whole.camera_a, whole.positive_pairs) == ("", 16)
    assert answer.prior_threshold == pytest.approx(0.8)


def test_a_wrong_clock_is_corrected_by_heartbeats_before_people_are_joined(
    tmp_path: Path,
) -> None:
    """Two boxes; one's UTC is a week behind. By its boot's clock it saw the person just now."""
    week = 7 * 86_400_000_000_000
    one, two = secrets.token_hex(16), secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(serving, record(one, 1, person=1, camera="door"))
        behind = record(
            two,
            1,
            person=1,
            camera="yard",
            edge_id="late",
            first_s=10,
            last_s=11,
            base_ns=time.time_ns() - week,
        )
        with Box(serving.address, writer_id=two, edge_id="late") as box:
            box.welcome()
            now = 12_000_000_000  # the box's monotonic clock, as in the record
            box.send(
                heartbeat=ingest_pb2.Heartbeat(
                    boot_id="boot", monotonic_nanos=now, unix_nanos=time.time_ns() - week
                )
            )
            assert box.read().HasField("heartbeat_reply")
            box.batch(behind)
            box.acked(1)
        serving.caught_up()

        (identity,) = client.identities(SightingFilter())
        edges = {edge.edge_id: edge for edge in client.edges()}

    assert len(identity.tracklets) == 2
    assert edges["late"].clock_offset_ms == pytest.approx(-week / 1e6, abs=2000)
    span_s = (identity.last_seen_unix_nanos - identity.first_seen_unix_nanos) / 1e9
    assert span_s < 60


def test_old_recordings_are_kept_and_their_people_joined(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    years_ago = 1_240_000_000_000_000_000
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            record(writer, 1, person=1, camera="a", base_ns=years_ago, source=TIME_SOURCE_FILE),
            record(
                writer,
                2,
                person=1,
                camera="b",
                base_ns=years_ago,
                first_s=9,
                last_s=10,
                source=TIME_SOURCE_FILE,
            ),
        )

        assert groups(client) == {frozenset({"1", "2"})}


def test_a_fault_of_association_ends_the_server_and_loses_no_ack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_self: Engine, _entry: object) -> None:
        raise RuntimeError("a planted fault")

    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, Box(serving.address, writer_id=writer) as box:
        box.welcome()
        monkeypatch.setattr(Engine, "apply", failing)

        box.batch(record(writer, 1))
        acked = box.acked(1)
        with pytest.raises(ServerFault, match="association failed at position 1"):
            serving.call(asyncio.wait_for(serving.server.run(), 20))
    monkeypatch.undo()

    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        serving.caught_up()
        left = list(client.read())
        degraded = serving.server.readiness()

    assert len(acked) == len(left) == 1
    assert "left out 1 entries" in str(degraded["degraded"])
    assert degraded["ready"]
