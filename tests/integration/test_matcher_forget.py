"""What is deleted is gone from the disk for ever, and a restored backup is put right."""

from __future__ import annotations

import math
import secrets
import time
from pathlib import Path

import pytest

from matcher.backup import backup
from matcher.client import MatcherClient, Refused
from reid.codec import decode
from reid.v1.query_pb2 import SightingFilter
from reid.v1.sighting_pb2 import KeyRange, SightingRecord
from tests.integration.matcher_rig import SETTINGS, Box, Serving, deliver, groups, record
from tests.support.waiting import eventually


def vectors_on_disk(one: SightingRecord) -> tuple[bytes, bytes]:
    """Parts of its vector as the ledger and as identities.db keep them."""
    embedding = one.sighting.shots[0].embeddings[0]
    return embedding.values[8:40], decode(embedding).astype("<f4").tobytes()[16:80]


def on_disk(folder: Path, parts: tuple[bytes, bytes]) -> list[str]:
    """Files that hold any of these bytes."""
    return [
        path.name for path in folder.iterdir() if any(part in path.read_bytes() for part in parts)
    ]


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
