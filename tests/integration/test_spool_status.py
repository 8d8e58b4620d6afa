"""`edge-run --spool-status`, real processes: what a person sees, dead letters sent again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from edge.config import SpoolConfig
from edge.spool import Spool
from reid.clock import SystemClock
from reid.v1 import ingest_pb2 as pb
from tests.integration.delivery_rig import ack_of, misbehaving
from tests.support.processes import Box, Finished, run_box
from tests.support.standins import write_film, write_models
from tests.support.waiting import eventually
from tests.unit.edge.spool_support import new_sighting


class Receiver:
    """Takes every sighting; while it is picky, every second one is refused for good."""

    def __init__(self) -> None:
        self.picky = True
        self.taken: list[tuple[str, int]] = []
        self.refused: list[tuple[str, int]] = []

    def answer(
        self, request: pb.StreamRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.StreamResponse]:
        for record in request.batch.records:
            key = (record.key.writer_id, record.key.seq)
            if self.picky and record.key.seq % 2 == 0:
                self.refused.append(key)
                yield pb.StreamResponse(
                    reject=pb.Reject(
                        key=record.key, reason=pb.REJECT_REASON_INVALID, message="box: outside"
                    )
                )
            else:
                self.taken.append(key)
                yield ack_of(pb.Batch(records=[record]))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4")


def status(data_dir: Path, models: Path, *arguments: str) -> Finished:
    """What `edge-run --spool-status` says."""
    return run_box(data_dir, models, "--spool-status", *arguments, summary=False)


def as_json(data_dir: Path, models: Path, *arguments: str) -> dict[str, Any]:
    """The same as an object."""
    done = status(data_dir, models, "--summary", "json", *arguments)
    assert done.code == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_dead_letters_are_shown_and_sent_again_at_the_next_start(
    tmp_path: Path, models: Path, film: Path
) -> None:
    receiver = Receiver()
    data = tmp_path / "box"
    with misbehaving(receiver.answer) as (address, _):
        first = run_box(data, models, "--rtsp", str(film), "--matcher", address)
        dead = sorted(set(receiver.refused))
        seen = as_json(data, models)
        words = status(data, models)
        receiver.picky = False
        queued = status(data, models, "--resend")
        waiting = as_json(data, models)
        second = run_box(data, models, "--rtsp", str(film), "--matcher", address)
        after = as_json(data, models)

    assert first.code == second.code == 0, (first.stderr, second.stderr)
    assert len(dead) >= 2
    assert sorted((one["writer_id"], one["seq"]) for one in seen["dead_letters"]) == dead
    assert {one["reason"] for one in seen["dead_letters"]} == {"INVALID"}
    assert {one["camera"] for one in seen["dead_letters"]} == {"film"}
    assert (seen["dead"], seen["running"], seen["resend"]) == (len(dead), False, None)
    assert words.code == 0
    assert f"{len(dead)} dead letters (send them again with" in words.stdout
    assert words.stdout.count("box: outside") == len(dead)
    assert "no box runs on it" in words.stdout
    assert f"{len(dead)} dead letters will be sent again at the next start" in queued.stdout
    assert "no dead letters" in queued.stdout
    assert (waiting["dead"], waiting["waiting"]) == (0, len(dead))
    assert set(dead) <= set(receiver.taken)
    assert (after["dead"], after["waiting"]) == (0, 0)


def test_beside_a_running_box_dead_letters_are_sent_again_at_once(
    tmp_path: Path, models: Path, film: Path
) -> None:
    receiver = Receiver()
    data = tmp_path / "box"
    scene = "empty=synth://street?cameras=1&people=0&seed=1&width=320&height=240"
    with misbehaving(receiver.answer) as (address, _):
        assert run_box(data, models, "--rtsp", str(film), "--matcher", address).code == 0
        dead = set(receiver.refused)
        receiver.picky = False
        with Box(data, models, "--source", scene, "--matcher", address) as box:
            box.wait_for_log("connected")
            before = set(receiver.taken)
            told = status(data, models, "--resend")
            eventually(
                lambda: dead <= set(receiver.taken), within_s=20, state=lambda: receiver.taken
            )
            eventually(lambda: as_json(data, models)["dead"] == 0, within_s=20, state=box.text)
            report = as_json(data, models)

    assert dead
    assert not dead & before
    assert told.code == 0
    assert "the running box sends its dead letters again" in told.stdout
    assert "in use by a running box" in told.stdout
    assert report["running"]


def test_a_folder_without_a_spool_ends_with_6_and_says_what_to_give(
    tmp_path: Path, models: Path
) -> None:
    for more in ((), ("--resend",)):
        done = status(tmp_path / "nothing", models, *more)

        assert done.code == 6
        assert "give the box's --data-dir" in done.stderr
        assert done.stdout == ""


def test_the_keys_that_rows_are_sealed_with_are_named_and_a_missing_one_ends_with_6(
    tmp_path: Path, models: Path, film: Path
) -> None:
    keys, file, data = tmp_path / "keys", tmp_path / "box.toml", tmp_path / "box"
    file.write_text(f'[spool]\nkey_file = "{keys}"\nballast_bytes = 0\n')
    for text in ("11" * 32, "22" * 32 + "\n" + "11" * 32):
        keys.write_text(text)
        config = SpoolConfig(key_file=keys, ballast_bytes=0)
        spool = Spool(config=config, data_dir=data, clock=SystemClock())
        spool.open()
        for number in range(1, 4):
            assert spool.put(new_sighting(number), timeout_s=5)
        assert spool.stop(10)
    ids = [hashlib.sha256(bytes.fromhex(key * 32)).hexdigest()[:16] for key in ("11", "22")]

    words = status(data, models)
    keys.write_text("22" * 32)
    arguments = ("--config", str(file), "--rtsp", str(film), "--matcher", "127.0.0.1:1")
    refused = run_box(data, models, *arguments)
    left = as_json(data, models)

    for name in ids:
        assert f"3 rows are sealed with key {name}" in words.stdout
    assert refused.code == 6
    assert f"3 rows are sealed with key {ids[0]}" in refused.stderr
    assert "add the older key" in refused.stderr
    assert left["waiting"] == 6
    assert left["sealed_with"] == dict.fromkeys(ids, 3)
