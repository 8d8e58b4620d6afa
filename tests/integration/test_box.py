"""`edge-run` as a process, with a real matcher process: files in, sightings in the ledger."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from reid.v1.query_pb2 import ReadSightingsRequest, ReadSightingsResponse
from reid.v1.query_pb2_grpc import QueryServiceStub
from tests.support.pictures import find_pictures
from tests.support.processes import Box, MatcherProcess, free_port, run_box
from tests.support.standins import write_film, write_models
from tests.support.tap import Tap
from tests.support.waiting import eventually

SUMMARY_KEYS = {
    *("cameras", "sightings", "bytes", "latency_ms", "models"),
    *("peak_rss_mb", "cpu_s", "wall_s", "exit_reason"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.fixture
def matcher(tmp_path: Path) -> Iterator[MatcherProcess]:
    with MatcherProcess(tmp_path / "ledger") as process:
        yield process


def ledger(address: str) -> list[ReadSightingsResponse]:
    with grpc.insecure_channel(address) as channel:
        return list(QueryServiceStub(channel).ReadSightings(ReadSightingsRequest(), timeout=20))


def keys(rows: list[ReadSightingsResponse]) -> list[tuple[str, int]]:
    return [(row.record.key.writer_id, row.record.key.seq) for row in rows]


def test_every_sighting_of_a_file_stands_once_in_the_ledger(
    tmp_path: Path, models: Path, film: Path, matcher: MatcherProcess
) -> None:
    done = run_box(
        tmp_path / "box", models, "--source", f"hall={film}", "--matcher", matcher.address
    )

    rows = ledger(matcher.address)
    assert done.code == 0, done.stderr
    assert done.summary["sightings"]["committed"] == done.summary["sightings"]["acked"] > 0
    assert len(rows) == done.summary["sightings"]["committed"]
    assert len(set(keys(rows))) == len(rows)
    finals = {r.record.sighting.tracklet_id for r in rows if r.record.sighting.final}
    assert finals == {r.record.sighting.tracklet_id for r in rows}
    assert done.summary["cameras"]["hall"]["tracklets"] == len(finals) == 2
    assert any(r.record.sighting.shots for r in rows)


def test_the_summary_tells_what_went_where(
    tmp_path: Path, models: Path, film: Path, matcher: MatcherProcess
) -> None:
    done = run_box(
        tmp_path / "box", models, "--source", f"hall={film}", "--matcher", matcher.address
    )

    summary = done.summary
    assert set(summary) >= SUMMARY_KEYS
    assert summary["cameras"]["hall"]["frames_in"] == 60
    assert summary["cameras"]["hall"]["frames_analysed"] == 60
    assert summary["bytes"]["video_in"] >= film.stat().st_size * 0.9
    assert summary["models"]["embedder"]["space_id"] == "colours/1"
    assert summary["latency_ms"]["capture_to_ack"]["p50"] > 0
    assert summary["exit_reason"] == "all sources were read"


def test_embedded_needs_nothing_else_and_leaves_no_process_behind(
    tmp_path: Path, models: Path, film: Path
) -> None:
    done = run_box(tmp_path / "box", models, "--source", f"hall={film}", "--embedded")

    log = (tmp_path / "box" / "matcher" / "matcher.log").read_text()
    assert done.code == 0, done.stderr
    assert done.summary["sightings"]["waiting"] == 0
    address = json.loads(next(line for line in log.splitlines() if "listening" in line))["address"]
    host, _, port = address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 2).close()


def test_a_box_whose_matcher_is_down_spools_and_delivers_when_it_is_up(
    tmp_path: Path, models: Path, film: Path
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    first = run_box(tmp_path / "box", models, "--source", f"hall={film}", "--matcher", address)

    with MatcherProcess(tmp_path / "ledger", listen=address):
        second = run_box(tmp_path / "box", models, "--source", f"hall={film}", "--matcher", address)
        rows = ledger(address)

    assert (first.code, second.code) == (0, 0)
    assert first.summary["sightings"]["acked"] == 0
    waited = first.summary["sightings"]["waiting"]
    assert waited == first.summary["sightings"]["committed"] > 0
    assert "wait in the spool" in first.summary["exit_reason"]
    assert len(rows) == len(set(keys(rows))) == waited + second.summary["sightings"]["committed"]
    assert len({writer for writer, _ in keys(rows)}) == 2


def test_sigterm_drains_and_exits_0(tmp_path: Path, models: Path, matcher: MatcherProcess) -> None:
    with Box(
        tmp_path / "box",
        models,
        *("--source", "street=synth://street?cameras=1&people=2&seed=1&width=320&height=240"),
        *("--matcher", matcher.address),
    ) as box:
        box.wait_for_log("frames of 320x240")
        box.process.send_signal(signal.SIGTERM)
        done = box.finish(within_s=15)

    assert done.code == 0, done.stderr
    assert done.summary["exit_reason"].startswith("told to stop")
    assert done.summary["sightings"]["waiting"] == 0


def _pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal waits to be taken; two that wait at once would be one."""
    status = Path(f"/proc/{pid}/status").read_text()
    waiting = re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in waiting)


def test_sigterm_while_the_box_ends_lets_it_end_however_often_it_comes(
    tmp_path: Path, models: Path, film: Path
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with Box(tmp_path / "box", models, "--source", f"a={film}", "--matcher", nobody) as box:
        box.wait_for_log("ending")  # it waits shutdown_s for the matcher
        for _ in range(2):
            box.process.send_signal(signal.SIGTERM)
            eventually(lambda: not _pending(box.process.pid, signal.SIGTERM), within_s=10)
        done = box.finish(within_s=30)

    assert done.code == 0
    assert done.summary["sightings"]["waiting"] == done.summary["sightings"]["committed"] > 0


def test_a_box_whose_words_nobody_takes_delivers_and_ends_with_0(
    tmp_path: Path, models: Path, film: Path, matcher: MatcherProcess
) -> None:
    command = [sys.executable, "-m", "edge.cli", "--source", f"a={film}"]
    command += ["--matcher", matcher.address, "--metrics", "off", "--models-dir", str(models)]
    command += ["--data-dir", str(tmp_path / "box")]
    with Path("/dev/full").open("wb") as full:
        code = subprocess.run(command, stdout=full, stderr=full, timeout=100).returncode

    assert code == 0
    assert ledger(matcher.address)


def test_health_metrics_and_readiness_answer_while_the_box_runs(
    tmp_path: Path, models: Path, matcher: MatcherProcess
) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    with Box(
        tmp_path / "box",
        models,
        *("--source", "street=synth://street?cameras=1&people=2&seed=1&width=320&height=240"),
        *("--matcher", matcher.address, "--metrics", metrics),
    ) as box:
        box.wait_for_log("frames of 320x240")
        with httpx.Client(base_url=f"http://{metrics}", trust_env=False) as client:
            states: list[Any] = []

            def ready() -> bool:
                states.append(client.get("/readyz").json())
                return bool(states[-1]["ready"])

            eventually(ready, within_s=20, state=lambda: states[-1:])
            health = client.get("/healthz").status_code
            text = client.get("/metrics").text
        box.process.send_signal(signal.SIGINT)
        done = box.finish(within_s=15)

    assert health == 200
    assert 'edge_camera_online{camera="street"} 1.0' in text
    assert done.code == 0


def test_no_picture_is_among_the_bytes_of_a_run(
    tmp_path: Path, models: Path, film: Path, matcher: MatcherProcess
) -> None:
    with Tap(matcher.address) as tap:
        done = run_box(
            tmp_path / "box", models, "--source", f"hall={film}", "--matcher", tap.address
        )

    sent = tap.sent
    assert done.summary["sightings"]["acked"] > 0
    assert len(sent) >= done.summary["bytes"]["wire_out"] > 1000
    assert find_pictures(sent) == []
    # 4 shots of 64 half-precision numbers, 32 points of path, and names
    assert len(sent) / done.summary["sightings"]["committed"] < 4_000


def test_a_source_that_is_no_video_ends_with_4_and_says_so(tmp_path: Path, models: Path) -> None:
    nothing = tmp_path / "notes.txt"
    nothing.write_text("no video\n" * 100)

    done = run_box(tmp_path / "box", models, "--source", f"hall={nothing}")

    assert done.code == 4
    assert "notes.txt" in done.stderr


def test_a_missing_file_ends_with_4(tmp_path: Path, models: Path) -> None:
    done = run_box(tmp_path / "box", models, "--source", f"hall={tmp_path / 'gone.mp4'}")

    assert done.code == 4
    assert "gone.mp4" in done.stderr


def test_one_bad_file_does_not_stop_the_other(
    tmp_path: Path, models: Path, film: Path, matcher: MatcherProcess
) -> None:
    done = run_box(
        tmp_path / "box",
        models,
        *("--source", f"hall={film}", "--source", f"gone={tmp_path / 'gone.mp4'}"),
        *("--matcher", matcher.address),
    )

    assert done.code == 0, done.stderr
    assert done.summary["cameras"]["hall"]["frames_analysed"] == 60
    assert done.summary["cameras"]["gone"]["frames_in"] == 0


def test_a_matcher_without_a_port_ends_with_2(tmp_path: Path, models: Path, film: Path) -> None:
    done = run_box(tmp_path / "box", models, "--source", f"hall={film}", "--matcher", "nonsense")

    assert done.code == 2
    assert "'nonsense' is not HOST:PORT" in done.stderr


def test_a_preview_beyond_loopback_ends_with_2(tmp_path: Path, models: Path, film: Path) -> None:
    done = run_box(tmp_path / "box", models, "--source", f"hall={film}", "--preview", "0.0.0.0:0")

    assert done.code == 2
    assert "pictures in plain HTTP" in done.stderr


def test_a_bad_start_time_names_its_flag(tmp_path: Path, models: Path, film: Path) -> None:
    done = run_box(
        tmp_path / "box", models, "--source", f"hall={film}", "--start-time", "yesterday"
    )

    assert done.code == 2
    assert "--start-time 'yesterday'" in done.stderr


def test_no_camera_at_all_ends_with_2(tmp_path: Path, models: Path) -> None:
    done = run_box(tmp_path / "box", models)

    assert done.code == 2
    assert "no camera given" in done.stderr


def test_an_address_nothing_can_be_made_of_ends_with_2(tmp_path: Path, models: Path) -> None:
    done = run_box(tmp_path / "box", models, "--source", "hall=synth://street?cameras=2&camera=9")

    checked = run_box(
        tmp_path / "box",
        models,
        *("--source", "hall=synth://street?cameras=2&camera=9", "--check"),
        summary=False,
    )

    assert (done.code, checked.code) == (2, 2)
    assert "camera 'hall': " in done.stderr
    assert "1..2" in done.stderr
    assert "1..2" in checked.stdout


def test_an_unknown_key_names_file_line_and_nearest_key(tmp_path: Path, models: Path) -> None:
    file = tmp_path / "box.toml"
    file.write_text('[[sources]]\nname = "a"\nurl = "a.mp4"\n\n[track]\nend = 3.0\n')

    done = run_box(tmp_path / "box", models, "--config", str(file))

    assert done.code == 2
    assert f"{file}:6: unknown key 'end' in section [track]; did you mean 'end_s'?" in done.stderr


def test_a_port_in_use_ends_with_2(tmp_path: Path, models: Path, film: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        done = run_box(tmp_path / "box", models, "--source", f"hall={film}", "--metrics", address)

    assert done.code == 2
    assert f"cannot listen on {address}" in done.stderr


def test_a_matcher_beyond_loopback_without_tls_ends_with_2(
    tmp_path: Path, models: Path, film: Path
) -> None:
    done = run_box(
        tmp_path / "box", models, "--source", f"hall={film}", "--matcher", "192.0.2.1:7443"
    )

    assert done.code == 2
    assert "192.0.2.1:7443" in done.stderr
    assert "--insecure" in done.stderr


def test_another_edge_id_on_an_old_data_folder_ends_with_2(
    tmp_path: Path, models: Path, film: Path
) -> None:
    arguments = ("--source", f"hall={film}", "--matcher", f"127.0.0.1:{free_port()}")
    run_box(tmp_path / "box", models, *arguments, "--edge-id", "first")

    other = run_box(tmp_path / "box", models, *arguments, "--edge-id", "second")
    renamed = run_box(tmp_path / "box", models, *arguments, "--edge-id", "second", "--new-edge-id")

    assert other.code == 2
    assert "belongs to edge 'first', not 'second'" in other.stderr
    assert renamed.code == 0


def test_a_data_folder_is_for_us_alone_and_one_that_cannot_be_made_ends_with_6(
    tmp_path: Path, models: Path, film: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    arguments = ("--source", f"hall={film}", "--matcher", f"127.0.0.1:{free_port()}")

    run_box(tmp_path / "box", models, *arguments)
    refused = run_box(in_the_way / "box", models, *arguments)
    checked = run_box(in_the_way / "box", models, *arguments, "--check", summary=False)

    assert (tmp_path / "box").stat().st_mode & 0o077 == 0
    assert (refused.code, checked.code) == (6, 6)
    assert str(in_the_way) in refused.stderr


def test_two_boxes_on_one_data_folder_end_with_6(tmp_path: Path, models: Path, film: Path) -> None:
    with Box(
        tmp_path / "box",
        models,
        *("--source", "street=synth://street?cameras=1&people=1&seed=1&width=320&height=240"),
        *("--matcher", f"127.0.0.1:{free_port()}"),
    ) as box:
        box.wait_for_log("started")
        before = (tmp_path / "box" / "edge-id").read_text()
        second = run_box(
            tmp_path / "box",
            models,
            *("--source", f"hall={film}", "--edge-id", "other", "--new-edge-id"),
        )

    assert second.code == 6
    assert "another edge-run uses this data folder" in second.stderr
    assert (tmp_path / "box" / "edge-id").read_text() == before != "other\n"


def test_a_model_that_is_none_ends_with_3(tmp_path: Path, models: Path, film: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"this is no model")

    done = run_box(tmp_path / "box", models, "--source", f"hall={film}", "--detector", str(bad))

    assert done.code == 3
    assert "bad.onnx" in done.stderr


def test_commercial_use_is_required_when_asked_for(
    tmp_path: Path, film: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_models(tmp_path_factory.mktemp("research"))
    card = folder / "colours.toml"
    card.write_text(card.read_text().replace("commercial_use = true", "commercial_use = false"))

    done = run_box(
        tmp_path / "box",
        folder,
        *("--source", f"hall={film}", "--embedder", "colours", "--require-commercial"),
    )

    assert done.code == 3
    assert "commercial" in done.stderr


def test_a_matcher_that_refuses_us_ends_a_file_run_with_5_and_keeps_the_rows(
    tmp_path: Path, models: Path, film: Path, matcher: MatcherProcess
) -> None:
    first = ("--source", f"hall={film}", "--matcher", matcher.address)
    run_box(tmp_path / "box", models, *first)

    with MatcherProcess(tmp_path / "other-ledger") as other:
        refused = run_box(
            tmp_path / "box", models, "--source", f"hall={film}", "--matcher", other.address
        )
        accepted = run_box(
            tmp_path / "box",
            models,
            *("--source", f"hall={film}", "--matcher", other.address, "--accept-ledger"),
        )

    assert refused.code == 5, (refused.stderr, refused.summary)
    assert refused.summary["sightings"]["waiting"] > 0
    assert "--accept-ledger" in refused.stderr
    assert accepted.code == 0


def test_tracks_are_written_in_motchallenge_format(
    tmp_path: Path, models: Path, film: Path
) -> None:
    tracks = tmp_path / "tracks.txt"

    run_box(
        tmp_path / "box",
        models,
        *("--source", f"hall={film}", "--tracks", str(tracks)),
        *("--matcher", f"127.0.0.1:{free_port()}"),
    )

    rows = [line.split(",") for line in tracks.read_text().splitlines()]
    assert {len(row) for row in rows} == {10}
    assert {row[1] for row in rows} == {"1", "2"}
    assert len(rows) > 100


def test_check_says_what_it_found(tmp_path: Path, models: Path, film: Path) -> None:
    done = run_box(tmp_path / "box", models, "--source", f"hall={film}", "--check", summary=False)

    assert done.code == 0, done.stderr
    assert "camera hall: 416x312" in done.stdout
    assert "2 people in this frame" in done.stdout
    assert "does not answer" in done.stdout


def test_print_config_shows_where_values_come_from_and_hides_passwords(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge.cli", "--rtsp", "rtsp://me:secret@cam/1", "--print-config"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "EDGE_SITE": "north"},
    )

    assert done.returncode == 0
    assert "secret" not in done.stdout
    assert "environment EDGE_SITE" in done.stdout
    assert "rtsp://***@cam/1" in done.stdout
    assert "--rtsp @FILE" in done.stderr


def test_a_thread_that_dies_takes_the_process_down_with_70(
    tmp_path: Path, models: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge import app
    from edge.config import Config, SourceConfig, StatusConfig, UplinkConfig
    from edge.pipeline import CameraPipeline

    def broken(self: CameraPipeline, frame: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(CameraPipeline, "process", broken)
    config = Config(
        sources=(SourceConfig(name="hall", url=str(film)),),
        data_dir=tmp_path / "box",
        models_dir=models,
        uplink=UplinkConfig(matchers=(f"127.0.0.1:{free_port()}",)),
        status=StatusConfig(metrics=None, preview=None),
    )

    assert app.run(config) == 70
