"""Health, readiness, metrics; logs without secrets."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from reid.logs import configure, mask, problem
from reid.web import WebError, WebServer, bind, parse_address, status_routes


def test_health_readiness_and_metrics_answer_and_the_thread_is_gone_after_stop() -> None:
    registry = CollectorRegistry()
    Counter("frames", "Frames read.", registry=registry).inc(3)
    state = {"ready": False, "degraded": ["matcher: refused"]}
    routes = status_routes(registry, alive=lambda: True, readiness=lambda: state)
    server = WebServer("127.0.0.1:0", routes, what="status")

    server.start()
    base = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=base, trust_env=False) as client:
        health = client.get("/healthz")
        ready = client.get("/readyz")
        metrics = client.get("/metrics")
    server.stop()
    server.stop()

    assert (health.status_code, ready.status_code) == (200, 503)
    assert ready.json()["degraded"] == ["matcher: refused"]
    assert "frames_total 3.0" in metrics.text
    assert not server.alive


def test_a_port_in_use_is_said_with_the_address_and_the_cure() -> None:
    holder = bind("127.0.0.1:0", what="first")
    address = f"127.0.0.1:{holder.getsockname()[1]}"

    with pytest.raises(WebError, match=rf"metrics: cannot listen on {address}.*choose another"):
        WebServer(address, [], what="metrics").start()

    holder.close()


@pytest.mark.parametrize("address", ["9464", "localhost", "host:port", "host:70000"])
def test_an_address_that_is_not_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(WebError, match="HOST:PORT"):
        parse_address(address, what="metrics")


def test_credentials_never_reach_a_log_line() -> None:
    stream = io.StringIO()
    configure("json", stream=stream)

    structlog.get_logger().warning("no frame", url="rtsp://user:secret@10.0.0.7/main")
    logging.getLogger("av").error("cannot open %s", "rtsp://user:secret@10.0.0.7/main")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    configure("text")

    assert len(lines) == 2
    assert "secret" not in stream.getvalue()
    assert lines[0]["url"] == "rtsp://***@10.0.0.7/main"
    assert lines[0]["level"] == "warning"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://cam/video?user=a&password=b&x=1", "http://cam/video?user=***&password=***&x=1"),
        ("camera 'http://c/v?usr=a&psw=b': off", "camera 'http://c/v?usr=***&psw=***': off"),
        ('"rtsp://a:p@ss@h/main", gone', '"rtsp://***@h/main", gone'),
        ("rtsp://a:b'c@h/main: refused", "rtsp://***@h/main: refused"),
        ("rtsps://a:b@h:1/p and rtsp://c:d@e", "rtsps://***@h:1/p and rtsp://***@e"),
        ("no secret here", "no secret here"),
    ],
)
def test_secrets_in_urls_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_a_log_that_cannot_be_written_stops_nobody_and_is_said_until_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("text")
    log = structlog.get_logger("edge")
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        log.error("the disk is full")
        during = problem()
        monkeypatch.setattr(sys, "stderr", (tmp_path / "log").open("w"))
    log.info("it has room again")
    sys.stderr.close()

    assert during == "log lines cannot be written: No space left on device"
    assert problem() == ""
    assert "it has room again" in (tmp_path / "log").read_text()
