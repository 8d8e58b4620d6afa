"""SIGHUP: cameras come, go and change, caps and certificates too, while the others run on."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from edge.config import SpoolConfig
from edge.spool import Spool
from matcher import certs
from reid import peer
from reid.clock import SystemClock
from reid.tls import TlsFiles, load
from tests.faults.sightings import Walkers
from tests.integration.matcher_rig import Serving
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


@contextmanager
def starting(folder: Path, models: Path) -> Iterator[Box]:
    """A box with one camera that opens its models; nothing has started yet."""
    settings(folder / "box.toml", {"only": f"{SCENE}&camera=1"})
    with running(folder / "box.toml", models, f"127.0.0.1:{free_port()}") as (box, _):
        box.wait_for_log("by the tests")
        yield box


def test_a_reload_asked_for_while_the_box_still_starts_is_done_and_does_not_end_it(
    tmp_path: Path, models: Path
) -> None:
    with starting(tmp_path, models) as box:
        box.process.send_signal(signal.SIGHUP)
        box.wait_for_log("reloaded")
        box.process.send_signal(signal.SIGTERM)
        done = box.finish(within_s=20)

    assert done.code == 0, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_box_that_is_told_to_stop_while_it_starts_ends_well(
    number: signal.Signals, tmp_path: Path, models: Path
) -> None:
    with starting(tmp_path, models) as box:
        box.process.send_signal(number)
        done = box.finish(within_s=20)

    assert done.code == 0, done.stderr


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


def metric(client: httpx.Client, name: str) -> float:
    """One figure of /metrics; 0 where it is not there."""
    found = re.search(rf"^{re.escape(name)} ([0-9.e+]+)$", client.get("/metrics").text, re.M)
    return float(found.group(1)) if found else 0.0


def test_a_lower_cap_drops_and_tells_while_the_camera_runs_on(tmp_path: Path, models: Path) -> None:
    spool = Spool(
        config=SpoolConfig(ballast_bytes=0), data_dir=tmp_path / "box", clock=SystemClock()
    )
    spool.open()
    for new in islice(Walkers(spool.writer_id, seed=5), 3000):
        assert spool.put(new, timeout_s=10)
    assert spool.stop(20)
    file = tmp_path / "box.toml"
    cameras = {"stays": f"{SCENE}&camera=1"}
    settings(file, cameras, extra="[spool]\nmax_bytes = 100_000_000\nballast_bytes = 0\n")
    with running(file, models, f"127.0.0.1:{free_port()}") as (box, client):
        box.wait_for_log("camera 'stays': frames of")
        held = metric(client, "edge_backlog_sightings")
        size = metric(client, "edge_spool_bytes")
        lower = "site = 'x'\n[spool]\nmax_bytes = 2_000_000\nballast_bytes = 1_000_000\n"
        settings(file, cameras, extra=lower)
        box.process.send_signal(signal.SIGHUP)
        box.wait_for_log("reloaded")
        before = analysed(client)["stays"]
        eventually(
            lambda: metric(client, "edge_spool_bytes") <= 2_000_000,
            within_s=60,
            state=lambda: client.get("/metrics").text,
        )
        eventually(lambda: analysed(client)["stays"] > before, within_s=30)
        dropped = metric(client, 'edge_sightings_skipped_total{reason="cap"}')
        left = metric(client, "edge_backlog_sightings")
        committed = metric(client, "edge_sightings_committed_total")
        online = box.text().count("camera 'stays': frames of")

    assert "at the next start only settings=['site', 'spool.ballast_bytes']" in " ".join(
        box.text().split()
    )
    assert held >= 3000
    assert size > 3_000_000
    assert 0 < left < held
    assert dropped >= held - left
    assert dropped + left <= 3000 + committed
    assert online == 1


@pytest.fixture
def serials(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Serial numbers of the certificates that the matcher's connections showed, in order."""
    seen: list[int] = []

    def look(auth_context: Any) -> peer.Peer | None:
        pem = auth_context["x509_pem_cert"][0]
        seen.append(x509.load_pem_x509_certificate(pem).serial_number)
        return peer.peer_from_context(auth_context)

    monkeypatch.setattr("matcher.admission.peer_from_context", look)
    return seen


def _tls(files: TlsFiles, more: str = "") -> str:
    rows = [f'{name} = "{getattr(files, name)}"\n' for name in ("ca", "cert", "key")]
    return f"site = 'site'\nedge_id = 'box'\n[uplink]\n{more}[uplink.tls]\n" + "".join(rows)


def _authority(folder: Path) -> tuple[dict[str, Path], TlsFiles]:
    certs.init(folder)
    server = certs.server(folder, hosts=["localhost"])
    return (
        {"ca": server.ca, "cert": server.cert, "key": server.key},
        certs.box(folder, edge_id="box", site="site"),
    )


def test_other_certificate_files_are_taken_at_a_reload_and_the_camera_runs_on(
    tmp_path: Path, models: Path, serials: list[int]
) -> None:
    server, old = _authority(tmp_path / "ca")
    kept = TlsFiles(*(tmp_path / path.name for path in old.paths()))
    for source, target in zip(old.paths(), kept.paths(), strict=True):
        target.write_bytes(source.read_bytes())
    new = certs.box(tmp_path / "ca", edge_id="box", site="site", renew=True)
    file = tmp_path / "box.toml"
    cameras = {"stays": f"{SCENE}&camera=1"}
    settings(file, cameras, extra=_tls(kept))
    with Serving(tmp_path / "ledger", tls=server) as matcher:
        address = matcher.address.replace("127.0.0.1", "localhost")
        with running(file, models, address) as (box, client):
            box.wait_for_log("camera 'stays': frames of")
            eventually(lambda: bool(serials), within_s=30, state=box.text)
            first = serials[-1]
            settings(file, cameras, extra=_tls(new))
            box.process.send_signal(signal.SIGHUP)
            eventually(lambda: serials[-1] != first, within_s=30, state=box.text)
            second = serials[-1]
            before = analysed(client)["stays"]
            eventually(lambda: analysed(client)["stays"] > before, within_s=30)
            box.process.send_signal(signal.SIGTERM)
            done = box.finish(within_s=20)

    assert first == load(kept).leaf.serial_number
    assert second == load(new).leaf.serial_number
    assert done.stderr.count("camera 'stays': frames of") == 1
    assert done.summary["sightings"]["waiting"] == 0


def test_certificates_renewed_in_place_are_taken_on_both_ends_without_restart_or_signal(
    tmp_path: Path, models: Path, serials: list[int]
) -> None:
    server, ours = _authority(tmp_path / "ca")
    file = tmp_path / "box.toml"
    settings(file, {"stays": f"{SCENE}&camera=1"}, extra=_tls(ours, "stream_age_s = 1\n"))
    with Serving(tmp_path / "ledger", tls=server) as matcher:
        address = matcher.address.replace("127.0.0.1", "localhost")
        old = load(ours).leaf.serial_number
        old_server = load(TlsFiles(**server)).leaf.serial_number
        with running(file, models, address) as (box, _):
            eventually(lambda: bool(serials), within_s=60, state=box.text)
            certs.server(tmp_path / "ca", hosts=["localhost"], renew=True)
            certs.box(tmp_path / "ca", edge_id="box", site="site", renew=True)
            new = load(ours).leaf.serial_number
            eventually(lambda: serials[-1] == new, within_s=30, state=lambda: serials)
            served = matcher.server._listener._certificates.bundle  # type: ignore[union-attr]
            box.process.send_signal(signal.SIGTERM)
            done = box.finish(within_s=20)

    assert serials[0] == old != new
    assert served.leaf.serial_number == load(TlsFiles(**server)).leaf.serial_number != old_server
    assert done.summary["sightings"]["waiting"] == 0
    assert done.code == 0, done.stderr
