"""From committed sightings to identities, and what people may do with them, over real gRPC."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import sqlite3
import threading
import time
from pathlib import Path

import grpc
import pytest

from matcher import page, report
from matcher.associate.engine import Engine
from matcher.backup import backup
from matcher.client import LocalSource, MatcherClient, Refused
from matcher.errors import ServerFault
from matcher.export import export, form_of
from reid.codec import decode, encode
from reid.v1 import ingest_pb2, query_pb2
from reid.v1.query_pb2 import SightingFilter
from reid.v1.sighting_pb2 import TIME_SOURCE_FILE, KeyRange, SightingRecord
from tests.integration.matcher_rig import SPACE, Box, Serving, direction, record
from tests.support.waiting import eventually

SETTINGS = {"association": {"default_threshold": 0.8}}


def deliver(serving: Serving, *records: SightingRecord, **hello: object) -> None:
    """Send records of one box, and wait until association has read them."""
    key = records[0].key.writer_id
    edge_id = records[0].sighting.edge_id
    with Box(serving.address, writer_id=key, edge_id=edge_id, **hello) as box:  # type: ignore[arg-type]
        box.welcome()
        box.batch(*records)
        box.acked(len({one.key.seq for one in records}))
    serving.caught_up()


def groups(client: MatcherClient | LocalSource) -> set[frozenset[str]]:
    """Identities as sets of tracklet numbers."""
    return {
        frozenset(one.tracklet_id.rpartition("/")[2] for one in identity.tracklets)
        for identity in client.identities(SightingFilter())
    }


def vectors_on_disk(one: SightingRecord) -> tuple[bytes, bytes]:
    """Parts of its vector as the ledger and as identities.db keep them."""
    embedding = one.sighting.shots[0].embeddings[0]
    return embedding.values[8:40], decode(embedding).astype("<f4").tobytes()[16:80]


def on_disk(folder: Path, parts: tuple[bytes, bytes]) -> list[str]:
    """Files that hold any of these bytes."""
    return [
        path.name for path in folder.iterdir() if any(part in path.read_bytes() for part in parts)
    ]


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


def test_watch_tells_each_event_once_and_resumes_from_a_position(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        came: list[query_pb2.WatchResponse] = []
        done = threading.Event()

        def follow() -> None:
            with MatcherClient(serving.address) as follower:
                for event in follower.watch():
                    came.append(event)
                    if len(came) == 3:
                        done.set()
                        return

        thread = threading.Thread(target=follow)
        thread.start()
        deliver(
            serving,
            record(writer, 1, person=1, camera="door"),
            record(writer, 2, person=2, camera="door", first_s=30, last_s=31),
            record(writer, 3, person=1, camera="yard", first_s=9, last_s=10),
        )
        assert done.wait(20)
        thread.join()
        resumed = next(iter(client.watch(after_position=came[1].position)))

    assert [event.kind for event in came] == [
        query_pb2.IDENTITY_EVENT_KIND_CREATED,
        query_pb2.IDENTITY_EVENT_KIND_CREATED,
        query_pb2.IDENTITY_EVENT_KIND_JOINED,
    ]
    assert came[2].similarity > 0.99
    assert resumed == came[2]


def test_the_log_is_read_from_a_position_with_its_embeddings(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    sent = [record(writer, seq, person=seq) for seq in range(1, 251)]
    with Serving(tmp_path) as serving, MatcherClient(serving.address) as client:
        deliver(serving, *sent)

        everything = list(client.read())
        rest = list(client.read(after_position=everything[-3].position))

    assert [one.record for one in everything] == sent
    assert [one.record.key.seq for one in rest] == [249, 250]


def test_search_finds_the_nearest_by_vector_and_by_tracklet(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            *[record(writer, seq, person=seq, camera=f"c{seq % 2}") for seq in range(1, 60)],
            record(writer, 60, person=7, camera="c1", noise=0.3),
        )
        vector = encode(direction(7), space_id=SPACE, variant_id="float32")

        by_vector = client.search(query_pb2.SearchSightingsRequest(embedding=vector, limit=3))
        by_tracklet = client.search(
            query_pb2.SearchSightingsRequest(
                tracklet_id=f"{writer}/7",
                min_similarity=0.9,
                filter=SightingFilter(cameras=["box/c1"]),
            )
        )
        with pytest.raises(Refused, match="unit length"):
            client.search(
                query_pb2.SearchSightingsRequest(
                    embedding=type(vector)(space_id=SPACE, encoding=1, values=b"\0\x3c" * 32)
                )
            )
        with pytest.raises(Refused, match="no tracklet"):
            client.search(query_pb2.SearchSightingsRequest(tracklet_id="nobody"))

    numbers = [hit.tracklet.tracklet_id.rpartition("/")[2] for hit in by_vector]
    assert numbers[:2] == ["7", "60"]
    assert by_vector[0].similarity == pytest.approx(1.0, abs=1e-3)
    assert by_vector[1].similarity > by_vector[2].similarity
    assert {hit.tracklet.tracklet_id.rpartition("/")[2] for hit in by_tracklet} == {"7", "60"}


def test_lists_come_in_pages_newest_first(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            *[record(writer, seq, first_s=-seq, last_s=-seq + 0.5) for seq in range(1, 31)],
        )
        stub = client._query
        page_one = stub.ListSightings(query_pb2.ListSightingsRequest(page_size=12))
        page_two = stub.ListSightings(
            query_pb2.ListSightingsRequest(page_size=12, page_token=page_one.next_page_token)
        )
        with pytest.raises(grpc.RpcError, match="page_token"):
            stub.ListSightings(query_pb2.ListSightingsRequest(page_token="garbage"))

    order = [
        one.tracklet_id.rpartition("/")[2] for one in [*page_one.tracklets, *page_two.tracklets]
    ]
    assert order == [str(seq) for seq in range(1, 25)]


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


def test_forget_deletes_everywhere_and_for_ever(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    data, copy = tmp_path / "data", tmp_path / "copy.db"
    sent = [
        record(writer, 1, person=1, camera="door"),
        record(writer, 2, person=2, camera="door", first_s=30, last_s=31),
        record(writer, 3, person=1, camera="yard", first_s=9, last_s=10),
    ]
    secrets_of_one = vectors_on_disk(sent[0])
    with Serving(data, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(serving, *sent)
        backup(data, copy)
        (target,) = [one for one in client.identities(SightingFilter()) if len(one.tracklets) == 2]
        with Box(serving.address, writer_id=writer) as box:
            box.welcome()

            answer = client.forget(target.identity_id)
            erase = box.read().erase

            box.batch(*sent, record(writer, 4, person=1, camera="yard", tracklet=3, revision=2))
            again = [box.read() for _ in range(2)]
        serving.caught_up()
        left = [one.record.key.seq for one in client.read()]
        eventually(lambda: not on_disk(data, secrets_of_one), within_s=10)

    assert (answer.sightings, answer.keys) == (2, 2)
    assert [(r.first, r.last) for r in erase.ranges] == [(1, 1), (3, 3)]
    kinds = sorted(message.WhichOneof("message") or "" for message in again)
    assert kinds == ["ack", "erase"]
    assert left == [2]
    # A restored backup forgets again, and a box that resends does not bring anything back.
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (data / name).unlink(missing_ok=True)
    copy.rename(data / "ledger.db")
    held = [KeyRange(writer_id=writer, first=1, last=4)]
    with Serving(data, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        with Box(serving.address, writer_id=writer, held=held) as box:
            welcome = box.welcome()
            assert box.read().HasField("erase")
            box.batch(record(writer, 4, person=1, camera="yard", tracklet=3, revision=2))
            kinds = sorted(str(box.read().WhichOneof("message")) for _ in range(2))
        serving.caught_up()

        assert kinds == ["ack", "erase"]
        assert [(r.first, r.last) for r in welcome.committed] == [(1, 3)]
        assert [one.record.key.seq for one in client.read()] == [2]
        assert groups(client) == {frozenset({"2"})}


def test_a_ledger_restored_from_a_backup_is_refilled_under_new_positions(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    data, copy = tmp_path / "data", tmp_path / "copy.db"
    sent = [record(writer, seq, person=seq) for seq in range(1, 21)]
    with Serving(data, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        ledger_id = serving.server.ledger.ledger_id
        deliver(serving, *sent[:10])
        assert backup(data, copy) >= 10
        deliver(serving, *sent[10:])
        highest = max(one.position for one in client.read())
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (data / name).unlink(missing_ok=True)
    copy.rename(data / "ledger.db")

    everything = [KeyRange(writer_id=writer, first=1, last=20)]
    with Serving(data, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        with Box(
            serving.address,
            writer_id=writer,
            held=everything,
            issued=everything,
            last_ledger_id=ledger_id,
        ) as box:
            welcome = box.welcome()
            box.batch(*sent[10:])
            box.acked(10)
        serving.caught_up()
        log = list(client.read())
        known = groups(client)

    assert [(r.first, r.last) for r in welcome.committed] == [(1, 10)]
    assert [one.record.key.seq for one in log] == list(range(1, 21))
    assert min(one.position for one in log[10:]) > highest
    assert len(known) == 20


def test_retention_really_deletes_and_receipts_stay(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    old = record(writer, 1, person=1, base_ns=time.time_ns() - 3_000_000_000)
    settings = {**SETTINGS, "retention": {"sweep_s": 0.2}}
    with Serving(tmp_path, **settings) as serving, MatcherClient(serving.address) as client:
        deliver(serving, old, record(writer, 2, person=2, last_s=3600))
        assert len(list(client.read())) == 2

        client.set_retention("site", ledger_s=2.0)
        gone = vectors_on_disk(old)
        assert on_disk(tmp_path, gone)
        eventually(lambda: not on_disk(tmp_path, gone), within_s=20)
        with Box(serving.address, writer_id=writer) as box:
            box.welcome()
            box.batch(old)
            box.acked(1)

        assert [one.record.key.seq for one in client.read()] == [2]
        assert [one.tracklet_id for one in client.tracklets(SightingFilter())] == [f"{writer}/2"]


def test_ages_and_positions_that_no_clock_or_file_can_hold_stop_nobody(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    settings = {**SETTINGS, "retention": {"sweep_s": 0.05}}
    with Serving(tmp_path, **settings) as serving, MatcherClient(serving.address) as client:
        deliver(serving, record(writer, 1, person=1))
        for age in (math.inf, math.nan, 1e12, -1.0):
            with pytest.raises(Refused, match="at most"):
                client.set_retention("site", ledger_s=age)
        assert list(client.read(after_position=2**64 - 1)) == []
        assert len(list(client.read())) == 1


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


def test_the_ledger_is_exported_as_parquet_and_json_lines(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    writer = secrets.token_hex(16)
    with Serving(tmp_path / "data") as serving, MatcherClient(serving.address) as client:
        deliver(serving, *[record(writer, seq, person=seq) for seq in range(1, 6)])
        parquet, lines = tmp_path / "out.parquet", tmp_path / "out.jsonl"

        count = export(client.read(), parquet, form=form_of(parquet), embeddings=True)
        export(client.read(), lines, form=form_of(lines), embeddings=False)

    table = pq.read_table(parquet).to_pylist()
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert count == 5
    assert [row["seq"] for row in table] == [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    vector = table[2]["shots"][0]["embeddings"][0]["vector"]
    assert vector == pytest.approx(direction(3).tolist(), abs=1e-3)
    assert rows[2]["shots"][0]["embeddings"] == []


def test_who_and_report_read_the_files_of_a_matcher_that_has_ended(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving:
        deliver(
            serving,
            record(writer, 1, person=1, camera="<door>"),
            record(writer, 2, person=1, camera="yard", first_s=9, last_s=10),
            record(writer, 3, camera="yard"),
        )

    source = LocalSource(tmp_path)
    try:
        found = report.who(source)
        edges = source.edges()
    finally:
        source.close()
    html = page.page(found, edges, made_ns=time.time_ns())

    assert [person.cameras for person in found.people] == [["<door>", "yard"]]
    assert len(found.unassigned) == 1
    assert (edges[0].edge_id, edges[0].committed) == ("box", 3)
    assert "&lt;door&gt;" in html
    assert "<door>" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_health_and_reflection_answer(tmp_path: Path) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with Serving(tmp_path) as serving, grpc.insecure_channel(serving.address) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="reid.v1.IngestService"), timeout=10
        )
        answer = next(
            reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10
            )
        )

    assert status.status == health_pb2.HealthCheckResponse.SERVING
    names = {one.name for one in answer.list_services_response.service}
    assert {"reid.v1.IngestService", "reid.v1.QueryService", "reid.v1.AdminService"} <= names


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
