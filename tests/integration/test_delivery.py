"""Spool and uplink against a real matcher: outages, restarts, refusals, poison, dead streams."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from edge.config import SpoolConfig, TlsConfig, UplinkConfig
from edge.spool import Spool
from edge.spool_errors import SpoolKeyError
from edge.spool_record import read_record
from edge.spool_status import spool_report
from edge.uplink import Uplink
from edge.uplink_call import Ended, StreamCall, StreamStats
from edge.uplink_messages import BoxIdentity
from matcher import certs
from reid.clock import SystemClock
from reid.ranges import KeyRanges
from reid.tls import TlsFiles
from reid.v1 import ingest_pb2 as pb
from reid.v1 import ingest_pb2_grpc
from tests.faults.oracle import Ledger
from tests.faults.proxy import Behaviour, FaultProxy
from tests.faults.sightings import Walkers
from tests.integration.matcher_rig import Serving
from tests.integration.test_matcher_security import Folder, expired_copy, make
from tests.support.dns import NameServer
from tests.support.processes import free_port
from tests.support.waiting import eventually
from tests.unit.edge.spool_support import new_sighting

FAST: dict[str, Any] = {
    "heartbeat_s": 0.2, "dead_after_s": 1.0, "connect_timeout_s": 3.0, "ack_timeout_s": 5.0,
    "retry_min_s": 0.05, "retry_max_s": 0.2, "refused_retry_s": 0.3,
}  # fmt: skip


class DeliveringBox:
    """A real spool and a real uplink, and made-up sightings."""

    def __init__(
        self,
        folder: Path,
        *matchers: str,
        spool: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.spool = Spool(
            config=SpoolConfig(ballast_bytes=0, group_s=0.005, **(spool or {})),
            data_dir=folder,
            clock=SystemClock(),
        )
        self.spool.open()
        self.uplink = Uplink(
            config=UplinkConfig(matchers=matchers, **{**FAST, **settings}),
            outbox=self.spool,
            identity=lambda: BoxIdentity("edge-1", "site-1", "test/1", {}, {}),
            clock=SystemClock(),
            seed=1,
        )
        self.uplink.start()
        self._walkers = iter(Walkers(self.spool.writer_id, seed=3))

    def capture(self, count: int) -> None:
        """So many sightings, committed in the spool."""
        for new in islice(self._walkers, count):
            assert self.spool.put(new, timeout_s=5)
        assert self.spool.flush(20)

    def delivered(self, within_s: float = 30) -> None:
        """Wait until nothing waits."""
        eventually(
            lambda: self.spool.counters().backlog == 0,
            within_s=within_s,
            state=lambda: (self.uplink.status(), self.spool.counters()),
        )

    def close(self) -> None:
        assert self.uplink.stop(10)
        assert self.spool.stop(10)


@contextlib.contextmanager
def delivering(folder: Path, *matchers: str, **settings: Any) -> Iterator[DeliveringBox]:
    """One such box, closed at the end."""
    box = DeliveringBox(folder, *matchers, **settings)
    try:
        yield box
    finally:
        box.close()


def ledger(folder: Path) -> Ledger:
    return Ledger.read(folder / "ledger.db")


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


class Misbehaving(ingest_pb2_grpc.IngestServiceServicer):
    """A server that does one thing wrong; the rest of the wire as it should be."""

    def __init__(
        self,
        wrong: Callable[[pb.StreamRequest, Any], Iterator[pb.StreamResponse]],
        limits: pb.Limits | None = None,
    ) -> None:
        self._wrong = wrong
        self._limits = limits
        self.streams = 0
        self.lock = threading.Lock()

    def Stream(self, requests: Any, context: Any) -> Iterator[pb.StreamResponse]:  # noqa: N802
        with self.lock:
            self.streams += 1
        next(requests)
        welcome = pb.Welcome(ledger_id="cd" * 16, window_sightings=256, limits=self._limits)
        yield pb.StreamResponse(welcome=welcome)
        for request in requests:
            if request.HasField("heartbeat"):
                reply = pb.HeartbeatReply(sent_unix_nanos=request.heartbeat.unix_nanos)
                yield pb.StreamResponse(heartbeat_reply=reply)
            yield from self._wrong(request, context)


@contextlib.contextmanager
def misbehaving(
    wrong: Callable[[pb.StreamRequest, Any], Iterator[pb.StreamResponse]],
    limits: pb.Limits | None = None,
    listen: str = "127.0.0.1:0",
) -> Iterator[tuple[str, Misbehaving]]:
    service = Misbehaving(wrong, limits)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    host = listen.rpartition(":")[0]
    port = server.add_insecure_port(listen)
    server.start()
    try:
        yield f"{host}:{port}", service
    finally:
        server.stop(None).wait(10)


def ack_of(batch: pb.Batch) -> pb.StreamResponse:
    keys = KeyRanges()
    for record in batch.records:
        keys.add_key(record.key)
    return pb.StreamResponse(ack=pb.Ack(ranges=keys.messages()))


def test_one_poisonous_sighting_becomes_a_dead_letter_and_the_others_arrive(tmp_path: Path) -> None:
    taken: set[int] = set()

    def choke(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        if request.HasField("batch"):
            if any(record.key.seq == 7 for record in request.batch.records):
                context.abort(grpc.StatusCode.INTERNAL, "cannot digest this")
            taken.update(record.key.seq for record in request.batch.records)
            yield ack_of(request.batch)

    with (
        misbehaving(choke) as (address, _),
        delivering(tmp_path / "box", address, retry_max_s=0.05) as box,
    ):
        box.capture(20)
        box.delivered(60)

        assert box.spool.counters().dead_letters == 1
    assert taken == set(range(1, 21)) - {7}


def test_a_server_that_never_acks_does_not_hold_the_rows_for_ever(tmp_path: Path) -> None:
    def swallow(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        yield from ()

    with (
        misbehaving(swallow) as (address, service),
        delivering(tmp_path / "box", address, ack_timeout_s=0.5) as box,
    ):
        box.capture(5)

        eventually(lambda: "without an ack" in box.uplink.status().last_error, within_s=20)
        eventually(lambda: service.streams >= 4, within_s=20)

        assert box.spool.counters().backlog == 5


def test_a_sighting_above_the_receivers_limit_is_a_dead_letter_at_once_and_the_others_arrive(
    tmp_path: Path,
) -> None:
    taken: set[int] = set()
    sizes: list[int] = []

    def modest(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        sizes.append(request.ByteSize())
        if request.HasField("batch"):
            taken.update(record.key.seq for record in request.batch.records)
            yield ack_of(request.batch)

    limits = pb.Limits(message_bytes=4096)
    with misbehaving(modest, limits=limits) as (address, service):
        with delivering(tmp_path / "box", address) as box:
            for number in range(1, 31):
                new = new_sighting(number, size=9000 if number == 7 else 900)
                assert box.spool.put(new, timeout_s=5)
            assert box.spool.flush(20)
            box.delivered()
            streams = service.streams
        dead = spool_report(tmp_path / "box").dead_letters

    assert taken == set(range(1, 31)) - {7}
    assert max(sizes) <= 4096
    assert streams <= 2, "no stream had to end for it"
    assert [(one.seq, one.reason) for one in dead] == [(7, "TOO_LARGE")]
    assert "at most 4096" in dead[0].message


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


def test_a_rejected_sighting_is_a_dead_letter_and_the_stream_goes_on(tmp_path: Path) -> None:
    def picky(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        for record in request.batch.records:
            if record.key.seq % 4 == 0:
                reject = pb.Reject(
                    key=record.key, reason=pb.REJECT_REASON_INVALID, message="box: outside"
                )
                yield pb.StreamResponse(reject=reject)
            else:
                yield ack_of(pb.Batch(records=[record]))

    with misbehaving(picky) as (address, service), delivering(tmp_path / "box", address) as box:
        box.capture(12)
        box.delivered()

        assert box.spool.counters().dead_letters == 3
        assert box.spool.counters().acked == 9
        assert service.streams <= 2  # one, and one more to announce the space


def test_a_healthy_stream_is_renewed_with_age_and_takes_the_names_new_address(
    tmp_path: Path,
) -> None:
    """gRPC's own resolver asks a name server of ours; both addresses work all the time."""
    taken: dict[str, list[int]] = {"old": [], "new": []}

    def keep(where: str) -> Callable[[pb.StreamRequest, Any], Iterator[pb.StreamResponse]]:
        def answer(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
            if request.HasField("batch"):
                taken[where] += [record.key.seq for record in request.batch.records]
                yield ack_of(request.batch)

        return answer

    with (
        misbehaving(keep("old"), listen="127.0.0.2:0") as (address, old),
        misbehaving(keep("new"), listen=f"127.0.0.3:{address.rpartition(':')[2]}") as (_, new),
        NameServer("127.0.0.2") as names,
    ):
        port = address.rpartition(":")[2]
        name = f"dns://127.0.0.1:{names.port}/matcher.example:{port}"
        plain = TlsConfig(insecure=True)
        with delivering(tmp_path / "box", name, tls=plain, stream_age_s=0.3) as box:
            box.capture(10)
            box.delivered()
            eventually(lambda: old.streams >= 4, within_s=20)
            asked, unused = names.asked, new.streams
            names.address = "127.0.0.3"
            eventually(lambda: new.streams >= 2, within_s=20)
            last = old.streams
            box.capture(10)
            box.delivered()
            eventually(lambda: new.streams >= 4, within_s=20)
            error = box.uplink.status().last_error

        assert asked >= 3, "each channel asks afresh"
        assert unused == 0
        assert old.streams == last
    assert set(taken["old"]) == set(range(1, 11))
    assert set(taken["new"]) == set(range(1, 21)), "its Welcome listed nothing: all came again"
    assert error == "", "no stream ended by a fault"


def test_window_zero_pauses_and_a_later_window_goes_on(tmp_path: Path) -> None:
    opened = threading.Event()

    def narrow(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        if request.HasField("batch"):
            yield ack_of(request.batch)
            if not opened.is_set():
                yield pb.StreamResponse(window=pb.Window(sightings=0))
        elif opened.is_set():
            yield pb.StreamResponse(window=pb.Window(sightings=64))

    with misbehaving(narrow) as (address, _), delivering(tmp_path / "box", address) as box:
        box.capture(300)
        eventually(lambda: box.uplink.status().window == 0, within_s=10)
        eventually(lambda: box.uplink.status().in_flight == 0, within_s=10)
        box.capture(50)
        paused = box.spool.counters().backlog
        opened.set()

        box.delivered()

    assert paused >= 50


def test_what_was_dropped_here_was_told_there_key_by_key(tmp_path: Path) -> None:
    heard = KeyRanges()

    def closed(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        for entry in request.skipped.ranges:
            assert entry.reason == pb.SKIP_REASON_CAP
            heard.add_range(entry.range.writer_id, entry.range.first, entry.range.last)
        yield pb.StreamResponse(window=pb.Window(sightings=0))

    def agrees() -> bool:
        dropped = box.spool.counters().skipped.get("cap", 0)
        return dropped == box.uplink.status().told_skipped.get("cap") == len(heard)

    small = {"max_bytes": 3 << 20}
    with misbehaving(closed) as (address, service):
        with delivering(tmp_path / "box", "127.0.0.1:1", spool=small) as box:
            box.capture(3000)
            before = box.spool.counters().skipped["cap"]
            unknown = box.uplink.status().told_skipped
        with delivering(tmp_path / "box", address, spool=small) as box:
            eventually(agrees, within_s=20, state=lambda: (box.uplink.status(), len(heard)))
            box.capture(500)
            eventually(agrees, within_s=20, state=lambda: (box.uplink.status(), len(heard)))
            after, streams = len(heard), service.streams
            # This matcher's Welcome lists nothing: all is told again, and counted once.
            box.uplink.reload(box.uplink._config)
            eventually(lambda: service.streams > streams, within_s=20)
            eventually(agrees, within_s=20, state=lambda: (box.uplink.status(), len(heard)))

    assert unknown == {}
    assert after > before > 0


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "FAILED_PRECONDITION", "UNIMPLEMENTED"])
def test_a_refusal_is_said_keeps_the_rows_and_is_tried_again(tmp_path: Path, code: str) -> None:
    class Refusing(ingest_pb2_grpc.IngestServiceServicer):
        asked = 0

        def Stream(self, requests: Any, context: Any) -> Any:  # noqa: N802
            Refusing.asked += 1
            context.abort(grpc.StatusCode[code], "not you")

    server = grpc.server(futures.ThreadPoolExecutor(4))
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(Refusing(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with delivering(tmp_path / "box", f"127.0.0.1:{port}") as box:
            box.capture(5)
            eventually(lambda: Refusing.asked >= 2, within_s=20)

            assert box.uplink.status().refused == f"{code}: not you"
            assert not box.uplink.drain(5)
            assert box.spool.counters().backlog == 5
    finally:
        server.stop(None).wait(10)


def test_the_reason_of_a_refusal_survives_a_write_that_crosses_it() -> None:
    """grpc.aio put INTERNAL over one refusal in four (grpc/grpc#36066)."""

    class Refusing(ingest_pb2_grpc.IngestServiceServicer):
        def Stream(self, requests: Any, context: Any) -> Any:  # noqa: N802
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not you")

    async def refusal(address: str) -> str:
        async with grpc.aio.insecure_channel(address) as channel:
            call = StreamCall(channel, stats=StreamStats())
            try:
                await call.write(b"")
                message = await anext(call.responses())
            except Ended as ended:
                return ended.end.reason
            return f"not refused: {message}"

    async def refusals(address: str, n: int) -> set[str]:
        return {await refusal(address) for _ in range(n)}

    server = grpc.server(futures.ThreadPoolExecutor(4))
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(Refusing(), server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        reasons = asyncio.run(refusals(address, 60))
    finally:
        server.stop(None).wait(10)

    assert reasons == {"UNAUTHENTICATED: not you"}


def test_records_travel_as_they_stand_in_the_spool(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def keep(request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        if request.HasField("batch"):
            seen.extend(record.SerializeToString() for record in request.batch.records)
            yield ack_of(request.batch)

    with misbehaving(keep) as (address, _), delivering(tmp_path / "box", address) as box:
        box.capture(20)
        box.delivered()

    heads = [read_record(record) for record in seen]
    assert sorted({head.seq for head in heads}) == list(range(1, 21))


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


def test_mutual_tls_delivers_and_a_foreign_certificate_is_named(tmp_path: Path) -> None:
    authority = tmp_path / "ca"
    certs.init(authority)
    server = certs.server(authority, hosts=["localhost"])
    good = certs.box(authority, edge_id="edge-1", site="site-1")
    stranger = tmp_path / "other"
    certs.init(stranger)
    foreign = certs.box(stranger, edge_id="edge-1", site="site-1")
    tls = {"ca": server.ca, "cert": server.cert, "key": server.key}
    with Serving(tmp_path / "matcher", tls=tls) as matcher:
        address = matcher.address.replace("127.0.0.1", "localhost")
        with delivering(tmp_path / "box", address, tls=_files(foreign)) as box:
            box.capture(10)
            eventually(lambda: bool(box.uplink.status().last_error), within_s=20)
            why = box.uplink.status().last_error
            kept = box.spool.counters().backlog
        with delivering(tmp_path / "box", address, tls=_files(good)) as box:
            box.delivered()

    assert kept == 10
    assert "certificate" in why.lower()
    assert len(ledger(tmp_path / "matcher").rows) == 10


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("theirs is foreign", "the server's certificate was not signed by the CA in"),
        ("ours is foreign", "(signed by CN=CA theirs"),
        ("ours has expired", "expired at"),
        ("none", "the server there wants certificates"),
    ],
)
def test_a_box_says_which_certificate_is_refused_and_why(
    tmp_path: Path, case: str, why: str
) -> None:
    ours, theirs = make(tmp_path / "ours"), make(tmp_path / "theirs")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.box.ca.read_bytes() + theirs.box.ca.read_bytes())
    files: TlsConfig = TlsConfig()
    if case == "theirs is foreign":
        files = _files(theirs.box)
    elif case == "ours is foreign":
        files = _files(TlsFiles(both, theirs.box.cert, theirs.box.key))
    elif case == "ours has expired":
        old = TlsFiles(ours.box.ca, tmp_path / "old.pem", tmp_path / "old-key.pem")
        expired_copy(ours, old)
        files = _files(old)
    with Serving(tmp_path / "matcher", tls=ours.tls) as matcher:
        address = matcher.address.replace("127.0.0.1", "localhost")
        with delivering(tmp_path / "box", address, tls=files) as box:
            box.capture(3)
            eventually(
                lambda: why in box.uplink.status().last_error,
                within_s=20,
                state=lambda: box.uplink.status().last_error,
            )
            kept = box.spool.counters().backlog

    assert kept == 3


def test_the_ca_is_changed_on_both_ends_while_everything_runs(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", box="edge-1"), make(tmp_path / "new", box="edge-1")
    cas = [one.box.ca.read_bytes() for one in (old, new)]
    server, client = (
        TlsFiles(*(tmp_path / f"{end}-{name}.pem" for name in ("ca", "cert", "key")))
        for end in ("server", "client")
    )

    def place(folder: Folder) -> None:
        for files, made in ((server, folder.server), (client, folder.box)):
            files.cert.write_bytes(made.cert.read_bytes())
            files.key.write_bytes(made.key.read_bytes())

    def trust(*authorities: bytes) -> None:
        for files in (server, client):
            files.ca.write_bytes(b"".join(authorities))

    def reached() -> None:
        """A stream that began after the last change delivers."""
        before = box.uplink.status().streams
        eventually(lambda: box.uplink.status().streams >= before + 2, within_s=20)
        box.capture(5)
        box.delivered()

    trust(cas[0])
    place(old)
    tls = {"ca": server.ca, "cert": server.cert, "key": server.key}
    with Serving(tmp_path / "matcher", tls=tls) as matcher:
        address = matcher.address.replace("127.0.0.1", "localhost")
        with delivering(tmp_path / "box", address, tls=_files(client), stream_age_s=0.2) as box:
            reached()
            trust(*cas)
            reached()
            place(new)
            reached()
            trust(cas[1])
            reached()
        late = TlsFiles(client.ca, old.box.cert, old.box.key)
        late.ca.write_bytes(b"".join(cas))
        with delivering(tmp_path / "late", address, tls=_files(late)) as shut_out:
            eventually(
                lambda: (
                    "refused our certificate" in shut_out.uplink.status().last_error
                    or "not in" in shut_out.uplink.status().last_error
                ),
                within_s=20,
                state=lambda: shut_out.uplink.status().last_error,
            )
            why = shut_out.uplink.status().last_error

    assert "(signed by CN=CA old" in why
    assert len(ledger(tmp_path / "matcher").rows) == 20


def _files(files: TlsFiles) -> TlsConfig:
    return TlsConfig(ca=files.ca, cert=files.cert, key=files.key)
