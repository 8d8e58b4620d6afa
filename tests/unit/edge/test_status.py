"""Counters and their views: summary, metrics, readiness, live table."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys

import pytest
from prometheus_client import generate_latest
from rich.console import Console

from edge import live
from edge.live import LiveView, draw, human_bytes, plain_line
from edge.status import (
    BoxStatus,
    DeliverySnapshot,
    Snapshot,
    readiness,
    registry_for,
    summary_dict,
)
from edge.summary import print_summary

# Additive changes only: what stands here never goes.
SUMMARY_KEYS = {
    "cameras": {
        *("frames_in", "frames_analysed", "frames_dropped", "corrupt", "reconnects"),
        *("detections", "tracklets", "embeddings", "seconds"),
    },
    "sightings": {"committed", "acked", "superseded", "skipped"},
    "bytes": {"video_in", "wire_out", "ratio"},
    "latency_ms": {"detect", "embed", "capture_to_spool", "capture_to_ack"},
}


def running_box() -> BoxStatus:
    status = BoxStatus(["gate"])
    counts = status.counts["gate"]
    for i in range(5):
        counts.analysed(100.0 + i * 0.1, detections=2)
    counts.tracklets, counts.embeddings, counts.people_now = 3, 7, 2
    status.read_camera = lambda name: {
        "state": "online",
        "error": None,
        "frames_in": 6,
        "frames_dropped": 1,
        "bytes_video_in": 2_000_000,
        "last_frame_age_s": 0.05,
    }
    status.read_delivery = lambda: DeliverySnapshot(
        committed=4,
        acked=3,
        waiting=1,
        skipped={"CAP": 2},
        told={"CAP": 1},
        connected=True,
        address="127.0.0.1:7443",
        wire_out=10_000,
    )
    for milliseconds in range(1, 101):
        status.detect.add(float(milliseconds))
    return status


def test_the_summary_holds_every_promised_key() -> None:
    summary = summary_dict(running_box().snapshot(), "done")

    for section in ("sightings", "bytes", "latency_ms"):
        assert SUMMARY_KEYS[section] <= set(summary[section])
    assert set(summary["cameras"]["gate"]) >= SUMMARY_KEYS["cameras"]
    assert {"models", "peak_rss_mb", "cpu_s", "wall_s", "exit_reason"} <= set(summary)


def test_the_summary_tells_what_was_counted() -> None:
    summary = summary_dict(running_box().snapshot(), "done")

    assert summary["cameras"]["gate"]["frames_analysed"] == 5
    assert summary["cameras"]["gate"]["detections"] == 10
    assert summary["cameras"]["gate"]["seconds"] == pytest.approx(0.4)
    assert summary["bytes"] == {"video_in": 2_000_000, "wire_out": 10_000, "ratio": 200.0}
    assert summary["latency_ms"]["detect"]["p50"] == pytest.approx(50.5)
    assert summary["latency_ms"]["embed"] is None
    assert summary["sightings"]["skipped"] == {"CAP": 2}
    assert summary["sightings"]["told"] == {"CAP": 1}


def test_the_json_summary_is_the_last_line_of_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(running_box().snapshot(), "json", "all sources were read")

    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1])["exit_reason"] == "all sources were read"


def test_the_text_summary_compares_bytes_sent_with_bytes_of_video(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_summary(running_box().snapshot(), "text", "done")

    assert "10 kB sent for 2 MB of video: 200 times less" in capsys.readouterr().out


def test_the_text_summary_tells_what_was_dropped_and_what_of_it_the_matcher_knows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_summary(running_box().snapshot(), "text", "done")

    dropped = "dropped since the spool exists (CAP): 2; the matcher knows of 1"
    assert dropped in capsys.readouterr().out


def test_metrics_carry_the_camera_and_the_reason_of_every_drop() -> None:
    text = generate_latest(registry_for(running_box())).decode()

    assert 'edge_frames_analysed_total{camera="gate"} 5.0' in text
    assert 'edge_frames_dropped_total{camera="gate"} 1.0' in text
    assert 'edge_sightings_skipped_total{reason="CAP"} 2.0' in text
    assert 'edge_sightings_told{reason="CAP"} 1.0' in text
    assert "edge_matcher_connected 1.0" in text
    assert 'edge_latency_milliseconds{percentile="p50",step="detect"} 50.5' in text


def test_metrics_tell_how_much_waits_in_sightings_bytes_and_seconds() -> None:
    status = BoxStatus(["gate"])
    status.read_delivery = lambda: DeliverySnapshot(waiting=7, waiting_bytes=9100, lag_s=12.5)

    text = generate_latest(registry_for(status)).decode()

    assert "edge_backlog_sightings 7.0" in text
    assert "edge_backlog_bytes 9100.0" in text
    assert "edge_backlog_lag_seconds 12.5" in text


def test_a_box_is_ready_when_cameras_give_frames_and_the_matcher_takes_sightings() -> None:
    state = readiness(running_box().snapshot())

    assert state["ready"] is True
    assert state["degraded"] == []


def test_a_lost_camera_makes_the_box_unready_and_says_why() -> None:
    status = running_box()
    status.read_camera = lambda name: {"state": "offline", "error": "no frame for 12 s"}

    state = readiness(status.snapshot())

    assert state["ready"] is False
    assert state["degraded"] == ["camera gate: offline: no frame for 12 s"]


def test_a_refusing_matcher_makes_the_box_unready_and_says_why() -> None:
    status = running_box()
    status.read_delivery = lambda: DeliverySnapshot(
        address="center:7443", problem="certificate expired"
    )

    state = readiness(status.snapshot())

    assert state["ready"] is False
    assert state["degraded"] == ["matcher center:7443: certificate expired"]


def test_a_degraded_part_is_said_until_it_is_cleared() -> None:
    status = running_box()

    status.warn("tls", "plain text beyond loopback (--insecure)")
    before = readiness(status.snapshot())
    status.warn("tls", None)
    after = readiness(status.snapshot())

    assert before["degraded"] == ["plain text beyond loopback (--insecure)"]
    assert before["ready"] is True
    assert after["degraded"] == []


def test_sightings_lost_before_the_spool_are_said() -> None:
    status = running_box()
    status.read_delivery = lambda: DeliverySnapshot(connected=True, lost_before_spool=3)

    assert "3 sightings were lost before the spool" in readiness(status.snapshot())["degraded"]


def test_the_live_table_shows_rates_people_and_bytes() -> None:
    console = Console(file=io.StringIO(), width=140)

    console.print(draw(running_box().snapshot(), None))

    text = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in ("gate", "online", "people", "2 MB", "3 sightings acked", "200 times less"):
        assert expected in text


def test_the_plain_line_says_why_there_is_no_connection() -> None:
    status = running_box()
    status.read_delivery = lambda: DeliverySnapshot(address="c:1", problem="nobody answers")

    assert "no connection to c:1" in plain_line(status.snapshot())
    assert "(nobody answers)" in plain_line(status.snapshot())


class _Gone(io.StringIO):
    """A terminal that was closed."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_that_was_closed_ends_the_drawing_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(live, "PLAIN_EVERY_S", 0.0)
    console = Console(file=_Gone(terminal=terminal), force_terminal=terminal)
    drawn: list[Snapshot] = []

    def snapshot() -> Snapshot:
        drawn.append(running_box().snapshot())
        return drawn[-1]

    with LiveView(console=console, snapshot=snapshot) as view:
        view.redraw()
        view.redraw()

    assert drawn, "it was tried, and nothing was raised"


def test_the_peak_of_memory_is_this_programs_own_and_not_its_parents() -> None:
    ballast = bytearray(300 << 20)
    ballast[::4096] = b"x" * len(ballast[::4096])

    done = subprocess.run(
        [sys.executable, "-c", "from edge.status import peak_rss_mb; print(peak_rss_mb())"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert 5 < float(done.stdout) < 250
    del ballast


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (5.6e9, "5.6 GB")]
)
def test_bytes_are_shown_with_a_unit(count: float, text: str) -> None:
    assert human_bytes(count) == text
