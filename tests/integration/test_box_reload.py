"""SIGHUP: cameras come, go and change while the others run on undisturbed."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.processes import Box, MatcherProcess, free_port
from tests.support.standins import write_models
from tests.support.waiting import eventually

SCENE = "synth://street?cameras=2&people=2&seed=1&width=320&height=240"


def settings(path: Path, cameras: dict[str, str], extra: str = "") -> None:
    # rendering begins late on a busy machine
    rows = [
        f'[[sources]]\nname = "{name}"\nurl = "{url}"\nopen_timeout_s = 60\n'
        for name, url in cameras.items()
    ]
    path.write_text(extra + "\n".join(rows))


@contextmanager
def running(file: Path, models: Path, matcher: str) -> Iterator[tuple[Box, httpx.Client]]:
    """A box with these settings, and a client of its pages; its data lies beside the file."""
    metrics = f"127.0.0.1:{free_port()}"
    arguments = ("--config", str(file), "--matcher", matcher, "--metrics", metrics)
    with (
        Box(file.parent / "box", models, *arguments) as box,
        httpx.Client(base_url=f"http://{metrics}", trust_env=False) as client,
    ):
        yield box, client


def analysed(client: httpx.Client) -> dict[str, float]:
    text = client.get("/metrics").text
    found = re.findall(r'edge_frames_analysed_total\{camera="([^"]+)"\} ([0-9.e+]+)', text)
    return {name: float(value) for name, value in found}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


def test_cameras_come_and_go_and_the_others_run_on(tmp_path: Path, models: Path) -> None:
    file = tmp_path / "box.toml"
    settings(file, {"stays": f"{SCENE}&camera=1", "goes": f"{SCENE}&camera=2"})
    with (
        MatcherProcess(tmp_path / "ledger") as matcher,
        running(file, models, matcher.address) as (box, client),
    ):
        box.wait_for_log("camera 'goes': frames of")
        box.wait_for_log("camera 'stays': frames of")
        eventually(lambda: analysed(client).get("stays", 0) > 5, within_s=30)
        settings(file, {"stays": f"{SCENE}&camera=1", "comes": f"{SCENE}&camera=2"})
        box.process.send_signal(signal.SIGHUP)
        box.wait_for_log("reloaded")
        before = analysed(client)
        eventually(
            lambda: analysed(client).get("comes", 0) > 2,
            within_s=30,
            state=lambda: (analysed(client), box.text()),
        )
        after = analysed(client)
        online = box.text().count("camera 'stays': frames of")
        box.process.send_signal(signal.SIGTERM)
        done = box.finish(within_s=20)

    assert set(after) == {"stays", "comes"}
    assert after["stays"] > before["stays"] > 5, "its counters and its source run on"
    assert online == 1
    assert done.code == 0, done.stderr
    assert done.summary["sightings"]["waiting"] == 0


def test_a_reload_with_a_mistake_changes_nothing_and_is_said(tmp_path: Path, models: Path) -> None:
    file = tmp_path / "box.toml"
    settings(file, {"stays": f"{SCENE}&camera=1"})
    with running(file, models, f"127.0.0.1:{free_port()}") as (box, client):
        box.wait_for_log("camera 'stays': frames of")
        settings(file, {"stays": f"{SCENE}&camera=1"}, extra="sitee = 'x'\n")
        box.process.send_signal(signal.SIGHUP)
        box.wait_for_log("reload refused")
        degraded = client.get("/readyz").json()["degraded"]
        settings(file, {"stays": f"{SCENE}&camera=1"})
        box.process.send_signal(signal.SIGHUP)
        box.wait_for_log("reloaded")
        mended = client.get("/readyz").json()["degraded"]

    assert any("unknown key 'sitee'" in text and "box.toml:1" in text for text in degraded)
    assert not any("sitee" in text for text in mended)


def test_the_only_camera_may_change_and_a_wrong_address_changes_nothing(
    tmp_path: Path, models: Path
) -> None:
    file = tmp_path / "box.toml"
    settings(file, {"only": f"{SCENE}&camera=1"})
    with running(file, models, f"127.0.0.1:{free_port()}") as (box, client):
        box.wait_for_log("camera 'only': frames of")
        settings(file, {"only": "ftp://10.0.0.7/main"})
        box.process.send_signal(signal.SIGHUP)
        box.wait_for_log("reload refused")
        before = analysed(client)["only"]
        eventually(
            lambda: analysed(client)["only"] > before,
            within_s=30,
            state=lambda: (analysed(client), box.text()),
        )
        settings(file, {"only": f"{SCENE}&camera=2"})
        box.process.send_signal(signal.SIGHUP)
        box.wait_for_log("reloaded")
        eventually(
            lambda: box.text().count("camera 'only': frames of") == 2,
            within_s=60,
            state=lambda: (box.process.poll(), box.text()),
        )
        box.process.send_signal(signal.SIGTERM)
        done = box.finish(within_s=20)

    assert done.code == 0, done.stderr
    assert done.summary["exit_reason"].startswith("told to stop")
