"""SIGHUP at the matcher: limits for open streams and for new ones; a mistake changes nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from reid.v1 import ingest_pb2
from tests.integration.matcher_rig import Box, record
from tests.support.processes import MatcherProcess, free_port
from tests.support.waiting import eventually


@contextmanager
def serving(folder: Path, settings: str) -> Iterator[tuple[MatcherProcess, Path, httpx.Client]]:
    """A matcher process with a settings file, and a client of its pages."""
    file = folder / "matcher.toml"
    file.write_text(settings)
    metrics = f"127.0.0.1:{free_port()}"
    arguments = ("--config", str(file), "--metrics", metrics)
    with (
        MatcherProcess(folder / "data", *arguments) as matcher,
        httpx.Client(base_url=f"http://{metrics}", trust_env=False) as client,
    ):
        yield matcher, file, client


def hang_up(matcher: MatcherProcess, until: str) -> None:
    """SIGHUP, and wait for what the log says of it."""
    log = matcher.data_dir / "log.txt"
    before = log.read_text().count(until)
    assert matcher.process is not None
    matcher.process.send_signal(signal.SIGHUP)
    eventually(lambda: log.read_text().count(until) > before, within_s=20, state=log.read_text)


def test_new_limits_hold_for_open_streams_and_for_new_ones(tmp_path: Path) -> None:
    with serving(tmp_path, "[limits]\nwindow_sightings = 64\n") as (matcher, file, _):
        with Box(matcher.address) as box:
            first = box.welcome()
            file.write_text(
                "[limits]\nwindow_sightings = 128\ncameras = 1\nsightings_per_s = 50\n"
                "[retention]\nledger_s = 60\n"
            )
            hang_up(matcher, "limits reloaded")
            told = box.read()
            box.batch(record(box.writer_id, 1))
            acked = box.acked(1)
        with Box(matcher.address, edge_id="new") as box:
            second = box.welcome()
        two = [ingest_pb2.Camera(name="one"), ingest_pb2.Camera(name="two")]
        with Box(matcher.address, edge_id="wide", cameras=two) as box:
            box.status()
            refused = box.call.details()
        said = (matcher.data_dir / "log.txt").read_text()

    assert (first.window_sightings, first.limits.sightings_per_second) == (64, 2000)
    assert told.window.sightings == 128
    assert len(acked) == 1
    assert (second.window_sightings, second.limits.sightings_per_second) == (128, 50)
    assert "2 cameras; at most 1" in refused
    assert "at the next start only" in said
    assert "retention" in said


def test_a_slower_rate_slows_a_box_that_is_connected(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "[limits]\nsightings_per_s = 0\n") as (matcher, file, _),
        Box(matcher.address) as box,
    ):
        box.welcome()
        box.batch(*[record(box.writer_id, seq) for seq in range(1, 1001)])
        box.acked(1000)
        file.write_text("[limits]\nsightings_per_s = 16\n")
        hang_up(matcher, "limits reloaded")
        box.batch(*[record(box.writer_id, seq) for seq in range(1001, 2001)])
        while not (message := box.read()).HasField("window"):
            assert message.HasField("ack")

    assert message.window.sightings == 32, "two seconds' worth"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("[limits]\nsightings_per_s = 3\n", "heartbeats would wait"),
        ("[limits]\nwindow = 3\n", "did you mean 'window_sightings'"),
        ("[limits\n", "not TOML"),
    ],
)
def test_a_mistake_changes_nothing_and_is_said(tmp_path: Path, settings: str, why: str) -> None:
    with serving(tmp_path, "[limits]\nwindow_sightings = 64\n") as (matcher, file, client):
        file.write_text(settings)
        hang_up(matcher, "reload refused")
        state = client.get("/readyz").json()
        with Box(matcher.address) as box:
            window = box.welcome().window_sightings
        file.write_text("[limits]\nwindow_sightings = 256\n")
        hang_up(matcher, "limits reloaded")
        mended = client.get("/readyz").json()
        assert matcher.stop() == 0

    assert state["ready"]
    assert any(why in text and str(file) in text for text in state["degraded"])
    assert window == 64
    assert mended["degraded"] == []
