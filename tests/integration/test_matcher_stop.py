"""SIGTERM ends the server in time, whatever holds it up, and everything taken is committed."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from matcher.schema import DataLock
from reid.v1 import ingest_pb2_grpc
from tests.integration.matcher_rig import WAIT_S, Box, record, rows
from tests.support.processes import MatcherProcess
from tests.support.waiting import eventually

SHUTDOWN_S = 4.0
ENDS_WITHIN_S = 10.0  # what is promised at the default; here there is slack for a busy machine
SIGHTINGS = 4096


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MATCH_SHUTDOWN_S", str(SHUTDOWN_S))


@contextlib.contextmanager
def connection_without_hello(server: MatcherProcess) -> Iterator[None]:
    """A client that opens a stream and says nothing."""
    nothing: queue.Queue[Any] = queue.Queue()
    with grpc.insecure_channel(server.address) as channel:
        grpc.channel_ready_future(channel).result(WAIT_S)
        stub: Any = ingest_pb2_grpc.IngestServiceStub(channel)  # type: ignore[no-untyped-call]
        call = stub.Stream(iter(nothing.get, None))
        yield
        nothing.put(None)
        call.cancel()


_STOPPED_CLIENT = """
import signal, sys, grpc
from reid.v1 import query_pb2, query_pb2_grpc
from tests.integration.matcher_rig import Box, record
box = Box(sys.argv[1], edge_id="stopped")
box.welcome()
box.batch(*[record(box.writer_id, seq, edge_id="stopped") for seq in range(1, 2049)])
channel = grpc.insecure_channel(sys.argv[1])
reader = query_pb2_grpc.QueryServiceStub(channel)
for _ in reader.ReadSightings(query_pb2.ReadSightingsRequest(follow=True)):
    break
watch = reader.Watch(query_pb2.WatchRequest())
print("in the middle", flush=True)
signal.pause()  # stopped and killed from outside
"""


@contextlib.contextmanager
def stopped_client(server: MatcherProcess) -> Iterator[None]:
    """A process with a box's stream and two readers', stopped in the middle of them."""
    client = subprocess.Popen(
        [sys.executable, "-c", _STOPPED_CLIENT, server.address], stdout=subprocess.PIPE
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == b"in the middle\n"
        client.send_signal(signal.SIGSTOP)
        yield
    finally:
        client.kill()
        client.communicate()


@contextlib.contextmanager
def reader_in_a_transaction(server: MatcherProcess) -> Iterator[None]:
    """Another program that reads both databases and does not let go: no checkpoint gets past it."""
    with contextlib.ExitStack() as stack:
        for name in ("ledger.db", "identities.db"):
            reader = sqlite3.connect(
                f"file:{server.data_dir / name}?mode=ro", uri=True, isolation_level=None
            )
            stack.callback(reader.close)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM meta").fetchone()
        yield


@contextlib.contextmanager
def nothing_else(server: MatcherProcess) -> Iterator[None]:
    """Only association, which is far behind."""
    yield


@pytest.mark.parametrize(
    "hindrance",
    [nothing_else, connection_without_hello, stopped_client, reader_in_a_transaction],
)
def test_sigterm_ends_it_in_time_with_everything_acked_in_the_ledger(
    tmp_path: Path, hindrance: Callable[[MatcherProcess], Any]
) -> None:
    server = MatcherProcess(tmp_path)
    server.start()
    process = server.process
    assert process is not None
    try:
        with hindrance(server), Box(server.address) as box:
            box.welcome()
            # All of one person: association compares each with all before, and falls behind.
            box.batch(*[record(box.writer_id, seq, person=1) for seq in range(1, SIGHTINGS + 1)])
            box.acked(SIGHTINGS)

            process.send_signal(signal.SIGTERM)
            code = process.wait(ENDS_WITHIN_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()

    stored = [seq for writer, seq in rows(tmp_path) if writer == box.writer_id]
    assert code == 0
    assert stored == list(range(1, SIGHTINGS + 1))
    said = (tmp_path / "log.txt").read_text()
    assert "Traceback" not in said
    assert "[error" not in said


def test_sigterm_ends_it_while_it_waits_for_its_predecessor(tmp_path: Path) -> None:
    lock = DataLock(tmp_path)
    with (tmp_path / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "matcher.cli", "serve", "--listen", "127.0.0.1:0"),
                *("--data-dir", str(tmp_path), "--metrics", ""),
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "EDGE_MATCH_LOCK_WAIT_S": "600"},
        )
    try:
        eventually(
            lambda: "another edge-match" in (tmp_path / "log.txt").read_text(), within_s=WAIT_S
        )

        server.send_signal(signal.SIGTERM)

        assert server.wait(ENDS_WITHIN_S) == 0
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
        lock.release()
