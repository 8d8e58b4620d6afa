"""A matcher that is slow, or takes nothing, slows the sender and never the cameras."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from reid.v1 import ingest_pb2 as pb
from tests.conftest import skip_or_fail
from tests.faults.sightings import Walkers
from tests.integration.delivery_rig import DeliveringBox, ack_of, delivering, misbehaving
from tests.support import rtsp
from tests.support.processes import Box, free_port
from tests.support.rtsp import RtspServer
from tests.support.standins import write_film, write_models
from tests.support.waiting import eventually

KINDS = ("closes its window", "does not read", "does not ack")


class Slow:
    """A receiver that takes nothing, in one of three ways, until it is told to."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.willing = threading.Event()
        self._owed: list[pb.Batch] = []

    def answer(self, request: pb.StreamRequest, context: Any) -> Iterator[pb.StreamResponse]:
        if self.kind == "does not read":
            while context.is_active() and not self.willing.wait(0.05):
                pass
        if request.HasField("batch"):
            self._owed.append(request.batch)
        if self.willing.is_set():
            yield pb.StreamResponse(window=pb.Window(sightings=256))
            yield from map(ack_of, self._owed)
            self._owed.clear()
        elif self.kind == "closes its window":
            yield pb.StreamResponse(window=pb.Window(sightings=0))


@pytest.mark.parametrize("kind", KINDS)
def test_far_more_than_queue_and_window_hold_is_taken_without_a_wait(
    tmp_path: Path, kind: str
) -> None:
    slow = Slow(kind)
    queue = 64

    def put_without_patience(box: DeliveringBox, count: int) -> int:
        refused = 0
        walkers = iter(Walkers(box.spool.writer_id, seed=7))
        for number, new in enumerate(islice(walkers, count)):
            if number % queue == 0:  # never more than the queue holds, whatever the disk does
                assert box.spool.flush(20)
            refused += not box.spool.put(new, timeout_s=0.0)
        assert box.spool.flush(20)
        return refused

    with misbehaving(slow.answer) as (address, _):
        patient = {"dead_after_s": 60.0, "ack_timeout_s": 60.0}
        with delivering(tmp_path / "box", address, spool={"queue_rows": queue}, **patient) as box:
            eventually(lambda: box.uplink.status().connected, within_s=10)
            refused = put_without_patience(box, 3000)
            counters = box.spool.counters()
            sent = box.uplink.status().sightings_sent
            slow.willing.set()
            box.delivered(60)

    assert refused == counters.lost_before_spool == 0
    assert counters.committed == 3000
    assert counters.acked == 0
    assert sent <= 256, "the window holds the sender back"
    assert counters.backlog == 3000 > 256 + queue


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_live_camera_goes_on_at_its_rate_while_the_backlog_grows(
    tmp_path: Path, kind: str
) -> None:
    reason = rtsp.missing()
    if reason:
        skip_or_fail(reason)
    slow = Slow(kind)
    film = write_film(tmp_path / "film.mp4")
    models = write_models(tmp_path / "models")
    metrics = f"127.0.0.1:{free_port()}"

    def read() -> dict[str, float]:
        text = client.get("/metrics").text
        rows = re.findall(r'^edge_(\w+?)(?:_total)?(?:\{camera="gate"\})? ([0-9.e+]+)$', text, re.M)
        return {name: float(value) for name, value in rows}

    with (
        misbehaving(slow.answer) as (address, _),
        RtspServer({"/gate": film}) as camera,
        Box(
            tmp_path / "box", models, "--source", f"gate={camera.url('/gate')}", "--fps", "5",
            "--matcher", address, "--metrics", metrics,
        ) as box,
        httpx.Client(base_url=f"http://{metrics}", trust_env=False) as client,
    ):  # fmt: skip
        box.wait_for_log("connected")
        box.wait_for_log("camera 'gate': frames of")
        eventually(lambda: read()["backlog_sightings"] >= 1, within_s=60, state=box.text)
        before = read()
        eventually(
            lambda: (
                read()["frames_analysed"] >= before["frames_analysed"] + 30
                and read()["backlog_sightings"] >= before["backlog_sightings"] + 2
            ),
            within_s=90,
            state=read,
        )
        after = read()
        slow.willing.set()
        eventually(lambda: read()["sightings_acked"] >= after["backlog_sightings"], within_s=60)

    assert after["sightings_acked"] == 0
    assert after["frames_dropped"] == before["frames_dropped"]
    assert after["sightings_lost_before_spool"] == 0
    assert after["sightings_committed"] == after["backlog_sightings"]
