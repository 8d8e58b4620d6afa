"""Spool and uplink against a real matcher: outages, restarts, dead streams, ledgers, keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from edge.spool_errors import SpoolKeyError
from edge.spool_status import spool_report
from reid.ranges import KeyRanges
from tests.faults.proxy import Behaviour, FaultProxy
from tests.integration.delivery_rig import DeliveringBox, delivering, ledger
from tests.integration.matcher_rig import Serving
from tests.support.processes import free_port
from tests.support.waiting import eventually
from tests.unit.edge.spool_support import new_sighting


def test_a_box_delivers_what_it_captured_before_its_matcher_was_up(tmp_path: Path) -> None:
    port = free_port()
    with delivering(tmp_path / "box", f"127.0.0.1:{port}") as box:
        box.capture(100)
        eventually(lambda: bool(box.uplink.status().last_error), within_s=10)

        with Serving(tmp_path / "matcher", listen=(f"127.0.0.1:{port}",)):
            box.delivered()

    assert len(ledger(tmp_path / "matcher").rows) == 100


def test_unacked_sightings_are_sent_again_after_a_restart_and_stand_once(tmp_path: Path) -> None:
    with delivering(tmp_path / "box", "127.0.0.1:1") as box:
        box.capture(150)
        old = box.spool.writer_id
    with (
        Serving(tmp_path / "matcher") as matcher,
        delivering(tmp_path / "box", matcher.address) as box,
    ):
        box.capture(50)
        box.delivered()

    found = ledger(tmp_path / "matcher")
    assert {key for key in found.rows if key[0] == old} == {(old, n) for n in range(1, 151)}
    assert len(found.rows) == 200
    assert max(found.contents.values()) == 1


def test_a_rolling_restart_of_the_matcher_loses_nothing(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    addresses = (f"127.0.0.1:{first}", f"127.0.0.1:{second}")
    with delivering(tmp_path / "box", *addresses) as box:
        for port in (first, second, first):
            with Serving(tmp_path / "matcher", listen=(f"127.0.0.1:{port}",)):
                eventually(lambda: box.uplink.status().connected, within_s=20)
                box.capture(80)
        with Serving(tmp_path / "matcher", listen=(addresses[1],)):
            box.delivered()

        assert box.spool.counters().holes == 0
    assert len(ledger(tmp_path / "matcher").rows) == 240


def test_a_half_open_stream_is_found_dead_and_replaced(tmp_path: Path) -> None:
    proxy = FaultProxy()
    proxy.start()
    try:
        with Serving(tmp_path / "matcher") as matcher:
            proxy.target = ("127.0.0.1", int(matcher.address.rpartition(":")[2]))
            with delivering(tmp_path / "box", proxy.address) as box:
                box.capture(10)
                box.delivered()
                proxy.set(Behaviour(half_open=True))
                box.capture(10)
                eventually(lambda: "DEAD" in box.uplink.status().last_error, within_s=10)
                proxy.set(Behaviour())

                box.delivered()
    finally:
        proxy.stop()
    assert len(ledger(tmp_path / "matcher").rows) == 20


def test_a_ledger_that_forgot_is_refilled_from_acked_rows(tmp_path: Path) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    with delivering(tmp_path / "box", address) as box:
        with Serving(tmp_path / "matcher", listen=(address,)):
            box.capture(30)
            box.delivered()
        backup = (tmp_path / "matcher" / "ledger.db").read_bytes()
        with Serving(tmp_path / "matcher", listen=(address,)):
            box.capture(40)
            box.delivered()
        for ending in ("", "-wal", "-shm"):
            (tmp_path / "matcher" / f"ledger.db{ending}").unlink(missing_ok=True)
        (tmp_path / "matcher" / "ledger.db").write_bytes(backup)

        with Serving(tmp_path / "matcher", listen=(address,)):
            eventually(lambda: box.spool.counters().refilled == 40, within_s=20)
            box.delivered()

        assert box.spool.counters().holes == 0
    assert len(ledger(tmp_path / "matcher").rows) == 70


def test_another_ledger_is_refused_until_accepted_and_then_refilled(tmp_path: Path) -> None:
    with Serving(tmp_path / "one") as matcher, delivering(tmp_path / "box", matcher.address) as box:
        box.capture(20)
        box.delivered()
    with Serving(tmp_path / "two") as matcher:
        with delivering(tmp_path / "box", matcher.address) as box:
            eventually(lambda: bool(box.uplink.status().refused), within_s=10)
            box.capture(5)
            drained = box.uplink.drain(5)
            refused = box.uplink.status().refused
        with delivering(tmp_path / "box", matcher.address, accept_ledger=True) as box:
            box.delivered()

    assert not drained
    assert "--accept-ledger" in refused
    assert len(ledger(tmp_path / "two").rows) == 25


def test_what_the_server_forgets_is_erased_on_the_box(tmp_path: Path) -> None:
    with (
        Serving(tmp_path / "matcher") as matcher,
        delivering(tmp_path / "box", matcher.address) as box,
    ):
        box.capture(10)
        box.delivered()
        keys = KeyRanges()
        keys.add_range(box.spool.writer_id, 3, 5)

        async def erase() -> int:
            return matcher.server._ingest.erase("site-1", {"edge-1": keys})  # type: ignore[union-attr]

        assert matcher.call(erase()) > 0

        eventually(lambda: len(box.spool.held().held) == 7, within_s=10)
        assert box.spool.waiting(after=0, upto=None) == 0


def test_a_sighting_above_the_contracts_limit_is_counted_as_lost_and_said(tmp_path: Path) -> None:
    with (
        structlog.testing.capture_logs() as logs,
        Serving(tmp_path / "matcher") as matcher,
        delivering(tmp_path / "box", matcher.address) as box,
    ):
        taken = box.spool.put(new_sighting(1, camera="gate", size=2 << 20))
        box.capture(5)
        box.delivered()
        counters = box.spool.counters()

    (said,) = [line for line in logs if "larger than any message" in line["event"]]
    assert not taken
    assert (counters.lost_before_spool, counters.acked) == (1, 5)
    assert said["camera"] == "gate"
    assert said["bytes"] > 2 << 20


def test_a_sealed_backlog_is_delivered_after_a_new_key_came_first_and_the_old_one_can_go(
    tmp_path: Path,
) -> None:
    folder, keys = tmp_path / "box", tmp_path / "keys"
    old, new = "11" * 32, "22" * 32

    def sealed_with() -> list[int]:
        return sorted(spool_report(folder).sealed_with.values())

    keys.write_text(old)
    with delivering(folder, "127.0.0.1:1", spool={"key_file": keys}) as box:
        box.capture(30)
    before = sealed_with()
    keys.write_text(f"{new}\n{old}\n")
    with Serving(tmp_path / "matcher") as matcher:
        with delivering(folder, matcher.address, spool={"key_file": keys}) as box:
            box.capture(20)
            box.delivered()
        both = sealed_with()
        keys.write_text(new)
        # What is acked is kept for a refill, and cannot be read without its key either.
        with pytest.raises(SpoolKeyError, match="30 rows are sealed"):
            DeliveringBox(folder, matcher.address, spool={"key_file": keys})
        keys.write_text(f"{new}\n{old}\n")
        short = {"key_file": keys, "acked_keep_s": 0.001}
        with delivering(folder, matcher.address, spool=short) as box:
            eventually(lambda: len(box.spool.held().held) == 0, within_s=20)
        keys.write_text(new)
        with delivering(folder, matcher.address, spool={"key_file": keys}) as box:
            box.capture(10)
            box.delivered()

    assert (before, both) == ([30], [20, 30])
    assert sealed_with() == [10]
    found = ledger(tmp_path / "matcher")
    assert len(found.rows) == 60
    assert max(found.contents.values()) == 1
