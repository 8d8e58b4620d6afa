"""Durable sightings per second from a box's spool to the matcher's ledger, by mutual TLS.

    python -m benchmarks.bench_delivery [--rows 20000] [--rounds 5] [--shots 1]

Beside it, in the same run and with the same rows, two limits: bare SQLite commits (one table, WAL,
synchronous=FULL, one process, as many rows a transaction as the box's spool wrote on average in the
same round) and a bare gRPC stream (asyncio on both ends, mutual TLS, the same batches of 64 as
bytes, a small answer each, 16 in flight). "Ours" is everything: put → spool commit → stream →
validation → ledger commit → ack → spool commit of the ack, two processes, association running. Both
processes share the machine's cores. The three are measured one after the other in every round, and
the ratio is taken within each round, so that a slow disk meets both sides of it. Then latency: at a
steady load from the making of a sighting to its ack, and on a real box (benchmarks.capture_to_ack)
from the capture of the frame that triggers it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import psutil

from benchmarks import capture_to_ack
from edge.config import SpoolConfig, TlsConfig, UplinkConfig
from edge.delivery import NewSighting
from edge.spool import Spool
from edge.spool_record import make_record
from edge.uplink import Uplink
from edge.uplink_messages import BoxIdentity, batch_message
from matcher import certs
from reid.clock import SystemClock
from reid.tls import TlsFiles, channel_credentials
from reid.v1 import ingest_pb2 as pb
from tests.faults.oracle import Ledger
from tests.faults.sightings import DIMENSION, SPACE, VARIANT, Walkers
from tests.support import rtsp

BATCH = 64
IN_FLIGHT = 16


def bare_sqlite(folder: Path, rows: list[bytes], group: int) -> float:
    """Rows per second, committed `group` at a time."""
    folder.mkdir(parents=True)
    db = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE log (position INTEGER PRIMARY KEY, body BLOB NOT NULL)")
    began = time.perf_counter()
    for at in range(0, len(rows), group):
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT INTO log (body) VALUES (?)", [(row,) for row in rows[at : at + group]]
        )
        db.execute("COMMIT")
    spent = time.perf_counter() - began
    count = db.execute("SELECT count(*) FROM log").fetchone()[0]
    db.close()
    assert count == len(rows)
    return len(rows) / spent


def _serve_bare(pipe: Connection, files: TlsFiles) -> None:
    async def echo(requests: Any, context: Any) -> Any:
        async for message in requests:
            yield len(message).to_bytes(4, "little")

    async def main() -> None:
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(echo)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("bare.Bare", {"Stream": handler}),)
        )
        credentials = grpc.ssl_server_credentials(
            [(files.key.read_bytes(), files.cert.read_bytes())], files.ca.read_bytes(), True
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        pipe.send(port)
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        await server.stop(None)

    asyncio.run(main())


def bare_grpc(rows: list[bytes], server: TlsFiles, box: TlsFiles) -> float:
    """Rows per second over a stream that does nothing else."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_bare, args=(theirs, server), daemon=True)
    process.start()
    port = ours.recv()
    messages = [
        batch_message(rows[at : at + BATCH], pb.LANE_LIVE) for at in range(0, len(rows), BATCH)
    ]

    async def main() -> float:
        async with grpc.aio.secure_channel(
            f"localhost:{port}", channel_credentials(box)
        ) as channel:
            call: Any = channel.stream_stream("/bare.Bare/Stream")()  # type: ignore[call-arg]
            await call.write(b"warm")
            await call.read()
            room = asyncio.Semaphore(IN_FLIGHT)
            began = time.perf_counter()

            async def read() -> None:
                for message in messages:
                    assert int.from_bytes(await call.read(), "little") == len(message)
                    room.release()

            reader = asyncio.create_task(read())
            for message in messages:
                await room.acquire()
                await call.write(message)
            await reader
            spent = time.perf_counter() - began
            await call.done_writing()
            return spent

    spent = asyncio.run(main())
    ours.send("stop")
    process.join(10)
    return len(rows) / spent


class Matcher:
    """A real `edge-match serve` with mutual TLS and no rate limit."""

    def __init__(self, folder: Path, files: TlsFiles) -> None:
        self.data = folder / "matcher"
        ready = folder / "ready.json"
        environment = dict(os.environ, EDGE_MATCH_LIMITS__SIGHTINGS_PER_S="0")
        self._log = (folder / "matcher.log").open("wb")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "matcher.cli", "serve", "--listen", "127.0.0.1:0",
                "--data-dir", str(self.data), "--metrics", "", "--ready-file", str(ready),
                "--tls-ca", str(files.ca), "--tls-cert", str(files.cert),
                "--tls-key", str(files.key),
            ],
            env=environment, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert self.process.poll() is None, (folder / "matcher.log").read_text()
            assert time.monotonic() < deadline, "the matcher did not start"
            time.sleep(0.02)
        port = json.loads(ready.read_text())["address"].rpartition(":")[2]
        self.address = f"localhost:{port}"

    def cpu_s(self) -> float:
        """Processor time so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        """Drain and end."""
        self.process.terminate()
        self.process.wait(60)
        self._log.close()


class DeliveringBox:
    """A real spool and uplink in this process."""

    def __init__(self, folder: Path, address: str, files: TlsFiles) -> None:
        clock = SystemClock()
        self.spool = Spool(config=SpoolConfig(), data_dir=folder / "box", clock=clock)
        self.spool.open()
        self.uplink = Uplink(
            config=UplinkConfig(
                matchers=(address,), tls=TlsConfig(ca=files.ca, cert=files.cert, key=files.key)
            ),
            outbox=self.spool,
            identity=lambda: BoxIdentity(
                "edge-1", "site-1", "bench/1", {}, {SPACE: (DIMENSION, (VARIANT,))}
            ),
            clock=clock,
        )
        self.uplink.start()
        deadline = time.monotonic() + 30
        while not self.uplink.status().connected:
            assert time.monotonic() < deadline, self.uplink.status()
            time.sleep(0.01)

    def close(self) -> None:
        """End both."""
        assert self.uplink.stop(10)
        assert self.spool.stop(10)


def ours(
    folder: Path, count: int, shots: int, server: TlsFiles, files: TlsFiles
) -> tuple[float, float, float, float]:
    """(rows per second, box CPU µs per row, matcher CPU µs per row, rows per spool commit)."""
    folder.mkdir(parents=True)
    matcher = Matcher(folder, server)
    box = DeliveringBox(folder, matcher.address, files)
    rows = list(islice(iter(Walkers(box.spool.writer_id, seed=1, shots=shots)), count))
    rows = [replace(row, triggered_monotonic_nanos=0) for row in rows]
    engine = box.spool._opened().engine
    append, groups = engine.append, [0]

    def counted(group: Sequence[NewSighting], changes: Any) -> None:
        groups[0] += bool(group)
        append(group, changes)

    engine.append = counted  # type: ignore[method-assign]
    cpu_box, cpu_matcher = time.process_time(), matcher.cpu_s()
    began = time.perf_counter()
    for row in rows:
        assert box.spool.put(row, timeout_s=30)
    assert box.spool.flush(60)
    assert box.uplink.drain(120), box.uplink.status()
    spent = time.perf_counter() - began
    cpu_box, cpu_matcher = time.process_time() - cpu_box, matcher.cpu_s() - cpu_matcher
    box.close()
    matcher.stop()
    assert len(Ledger.read(matcher.data / "ledger.db").rows) == count, "not all rows arrived"
    return count / spent, cpu_box / count * 1e6, cpu_matcher / count * 1e6, count / groups[0]


def latency(
    folder: Path, rate: float, seconds: float, shots: int, server: TlsFiles, files: TlsFiles
) -> dict[str, dict[str, float]]:
    """Percentiles in ms at a steady load, from the making of a sighting to spool and ack."""
    folder.mkdir(parents=True)
    matcher = Matcher(folder, server)
    box = DeliveringBox(folder, matcher.address, files)
    walkers = iter(Walkers(box.spool.writer_id, seed=2, shots=shots))
    began = time.monotonic()
    for n in range(round(rate * seconds)):
        wait = began + n / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        assert box.spool.put(next(walkers))
    assert box.spool.flush(10)
    assert box.uplink.drain(30)
    found = box.spool.latencies_ms()
    box.close()
    matcher.stop()
    return {name.replace("capture", "making"): _percentiles(v) for name, v in found.items()}


def _percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {
        "p50": round(cuts[49], 1),
        "p95": round(cuts[94], 1),
        "p99": round(cuts[98], 1),
        "max": round(max(values), 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shots", type=int, default=1, help="embeddings per sighting, 1..4")
    parser.add_argument("--rate", type=float, default=20.0, help="sightings/s of the normal load")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long that load lasts")
    parser.add_argument("--folder", type=Path, help="on which disk; default the temporary folder")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="delivery-", dir=options.folder))
    certs.init(folder / "ca")
    server = certs.server(folder / "ca", hosts=["localhost"])
    files = certs.box(folder / "ca", edge_id="edge-1", site="site-1")
    made: list[NewSighting] = list(
        islice(iter(Walkers("ab" * 16, shots=options.shots)), options.rows)
    )
    records = [make_record("ab" * 16, n + 1, new.payload) for n, new in enumerate(made)]
    size = statistics.mean(len(record) for record in records)
    sqlite_rates, grpc_rates, our_rates, ratios = [], [], [], []
    box_cpu, matcher_cpu, groups = [], [], []
    for number in range(options.rounds):
        rate, box_us, matcher_us, group = ours(
            folder / f"ours-{number}", options.rows, options.shots, server, files
        )
        sqlite_rates.append(bare_sqlite(folder / f"sqlite-{number}", records, round(group)))
        grpc_rates.append(bare_grpc(records, server, files))
        our_rates.append(rate)
        ratios.append(rate / min(sqlite_rates[-1], grpc_rates[-1]))
        box_cpu.append(box_us)
        matcher_cpu.append(matcher_us)
        groups.append(group)
    delays = latency(
        folder / "latency", options.rate, options.seconds, options.shots, server, files
    )
    lacks = rtsp.missing()
    camera: dict[str, Any] = {}
    if lacks is None:
        camera = capture_to_ack.measure(
            folder / "camera", seconds=options.seconds, cameras=1, server=server, box=files
        )
    shutil.rmtree(folder)
    ratio = statistics.median(ratios)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
          f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}, grpcio "
          f"{grpc.__version__}")  # fmt: skip
    print(f"{options.rows} rows of {size:.0f} bytes, {options.rounds} rounds, mutual TLS")
    print(f"{'':<28}{'median':>10}{'lowest':>10}{'highest':>10}  rows/s")
    for name, rates in (
        (f"bare SQLite, {statistics.median(groups):.0f} a commit", sqlite_rates),
        ("bare gRPC, 64 a message", grpc_rates),
        ("spool to ledger and back", our_rates),
    ):
        print(f"{name:<28}{statistics.median(rates):>10.0f}{min(rates):>10.0f}{max(rates):>10.0f}")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"ratio to the lower limit, within a round: median {ratio:.2f}, {spread}")
    print(
        f"CPU per sighting: box {statistics.median(box_cpu):.0f} us, "
        f"matcher {statistics.median(matcher_cpu):.0f} us (with association)"
    )
    for name, cuts in delays.items():
        print(f"{name} at {options.rate:g}/s, ms: {cuts}")
    print("a real box with one camera, ms:" if lacks is None else f"a real box: {lacks}")
    for name in () if lacks is not None else ("capture_to_spool", "capture_to_ack"):
        print(f"{name} at {camera['sightings_per_s']:g}/s: {camera[name]}")
    print(
        json.dumps(
            {
                "rows": options.rows,
                "row_bytes": round(size),
                "rounds": options.rounds,
                "rows_per_commit": round(statistics.median(groups), 1),
                "sqlite_rows_per_s": round(statistics.median(sqlite_rates)),
                "grpc_rows_per_s": round(statistics.median(grpc_rates)),
                "ours_rows_per_s": round(statistics.median(our_rates)),
                "ratio": round(ratio, 3),
                "ratio_lowest": round(min(ratios), 3),
                "ratio_highest": round(max(ratios), 3),
                "box_cpu_us": round(statistics.median(box_cpu), 1),
                "matcher_cpu_us": round(statistics.median(matcher_cpu), 1),
                "latency_ms": delays,
                "camera": camera,
            }
        )
    )


if __name__ == "__main__":
    main()
