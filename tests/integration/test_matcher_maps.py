"""A site's map beside a running matcher: fitted from its ledger, applied, refused, taken back."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from matcher.client import MatcherClient
from models.cli import app
from models.site_evidence import Evidence
from reid.codec import encode
from reid.site_map import Gain, SiteMap, read_map, write_map
from reid.site_map import encode as encode_map
from reid.site_maps import SiteMaps
from reid.v1 import ingest_pb2, query_pb2
from reid.v1.query_pb2 import SightingFilter
from reid.v1.sighting_pb2 import TIME_SOURCE_ARRIVAL, Key, Sighting, SightingRecord
from tests.integration.matcher_rig import Box, Serving
from tests.integration.test_matcher_cli import edge_match
from tests.support.processes import MatcherProcess, free_port
from tests.support.waiting import eventually
from tests.unit.models.drawn_site import CAMERAS, SIZE, SPACE, drawn_site

SITE = "drawn"
DERIVED = f"{SPACE}/{SITE}/1"
WITHIN_S = 30.0


def sightings(evidence: Evidence, writer: str, rows: np.ndarray[Any, Any]) -> list[SightingRecord]:
    """Final sightings of some tracklets of a drawn site, two hours ago."""
    begin = time.time_ns() - 2 * 3600 * 10**9
    beside: dict[int, list[int]] = {}
    for one, other in evidence.together.tolist():
        beside.setdefault(one, []).append(other)
    found = []
    for number in rows.tolist():
        edge_id, _, camera = evidence.cameras[evidence.camera[number]].partition("/")
        sighting = Sighting(
            site=SITE, edge_id=edge_id, camera=camera, tracklet_id=f"{writer}/{number}",
            revision=1, final=True, frame_width=640, frame_height=480,
            seen_with=[f"{writer}/{other}" for other in beside.get(number, [])],
        )  # fmt: skip
        for field, seconds in (
            (sighting.first_seen, evidence.first[number]),
            (sighting.last_seen, evidence.last[number]),
        ):
            field.unix_nanos = begin + round(seconds * 1e9)
            field.monotonic_nanos = 10**12 + round(seconds * 1e9)
            field.boot_id = "boot"
            field.source = TIME_SOURCE_ARRIVAL
        for vector in evidence.vectors[evidence.tracklet == number]:
            shot = sighting.shots.add(quality=0.8, detector_score=0.9)
            shot.captured.CopyFrom(sighting.last_seen)
            shot.box.x2, shot.box.y2 = 0.2, 0.5
            shot.embeddings.append(encode(vector, space_id=SPACE, variant_id="float32"))
        content = sighting.SerializeToString()
        key = Key(writer_id=writer, seq=number + 1)
        found.append(
            SightingRecord(
                key=key, content_hash=hashlib.sha256(content).digest(), sighting=sighting
            )
        )
    return found


def send(address: str, writer: str, records: list[SightingRecord]) -> None:
    with Box(
        address,
        writer_id=writer,
        site=SITE,
        spaces=[ingest_pb2.Space(space_id=SPACE, dimension=SIZE)],
        cameras=[ingest_pb2.Camera(name=name.partition("/")[2]) for name in CAMERAS],
    ) as box:
        box.welcome()
        box.batch(*records)
        box.acked(len(records))


def readyz(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def in_force(port: int) -> dict[str, str]:
    found: dict[str, str] = readyz(port)["maps"]
    return found


def right_hits(client: MatcherClient, writer: str, person: np.ndarray[Any, Any]) -> float:
    """Share of the five best hits in the hall that show the person searched for."""
    right = []
    for number in range(0, 60, 3):
        hits = client.search(
            query_pb2.SearchSightingsRequest(
                tracklet_id=f"{writer}/{number}",
                filter=SightingFilter(cameras=["hall"]),
                limit=5,
            )
        )
        found = [int(hit.tracklet.tracklet_id.rpartition("/")[2]) for hit in hits]
        right += [person[one] == person[number] for one in found]
    return float(np.mean(right))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[MatcherProcess, int, Path]]:
    """A matcher that follows a folder of maps, its web port, and the folder."""
    port, maps = free_port(), tmp_path / "maps"
    maps.mkdir()
    with MatcherProcess(
        tmp_path / "data", "--maps", str(maps), "--metrics", f"127.0.0.1:{port}"
    ) as matcher:
        yield matcher, port, maps


def wait_for_maps(port: int, wanted: dict[str, str]) -> None:
    eventually(lambda: in_force(port) == wanted, within_s=WITHIN_S, state=lambda: readyz(port))


def test_a_map_fitted_from_the_ledger_is_applied_and_taken_back(
    running: tuple[MatcherProcess, int, Path],
) -> None:
    matcher, port, maps = running
    evidence, person = drawn_site(people=40, visits=7)
    writer = secrets.token_hex(16)
    before = evidence.tracklets - 120  # the last visit comes when the map is in force
    send(matcher.address, writer, sightings(evidence, writer, np.arange(before)))
    with MatcherClient(matcher.address) as client:
        eventually(
            lambda: len(list(client.tracklets(SightingFilter()))) == before, within_s=WITHIN_S
        )
        direct = right_hits(client, writer, person)

        done = CliRunner().invoke(
            app,
            ["adapt", "--embeddings", str(matcher.data_dir / "ledger.db"), "--maps", str(maps),
             "--steps", "30"],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        wait_for_maps(port, {SITE: DERIVED})
        adapted = right_hits(client, writer, person)
        send(
            matcher.address,
            writer,
            sightings(evidence, writer, np.arange(before, evidence.tracklets)),
        )
        eventually(
            lambda: len(list(client.tracklets(SightingFilter()))) == evidence.tracklets,
            within_s=WITHIN_S,
        )
        calibrated = {pair.space_id for pair in client.calibration(SITE).pairs}
        threshold = client.calibration(SITE, DERIVED).prior_threshold

        assert adapted > direct + 0.2
        assert f'space_id="{DERIVED}"' in metrics(port)
        assert calibrated == {SPACE, DERIVED}
        card = SiteMaps(maps / SITE).card(1)
        assert threshold == pytest.approx(card.threshold(0.8))

        back = edge_match("maps", "rollback", SITE, "--maps", maps)
        wait_for_maps(port, {})

        assert back.returncode == 0, back.stderr
        assert "no map from now on" in back.stdout
        assert right_hits(client, writer, person) == pytest.approx(direct, abs=0.1)
        assert "site_map{" not in metrics(port)


def fitted(tmp_path: Path, *, site: str = SITE) -> Path:
    """A folder with a map of a drawn site that helps; made by hand from its statistics."""
    from models.adapt_embeddings import AdaptRecipe
    from models.site_adapt import adapt_site

    evidence, _ = drawn_site(people=40, visits=6, noise=0.7)
    adapt_site(evidence, tmp_path / "maps", recipe=AdaptRecipe(rounds=0))
    if site != SITE:
        (tmp_path / "maps" / SITE).rename(tmp_path / "maps" / site)
    return tmp_path / "maps"


def identities(data_dir: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(data_dir / "identities.db")) as db:
        return [
            *db.execute("SELECT tracklet_id, identity_id, similarity FROM tracklets ORDER BY 1"),
            *db.execute("SELECT position, message FROM events ORDER BY 1"),
            *db.execute("SELECT site, space_id, camera_a, camera_b, positive, negative "
                        "FROM calibration ORDER BY 1, 2, 3, 4"),
            *db.execute("SELECT site, body FROM site_maps"),
        ]  # fmt: skip


def test_reading_the_log_again_decides_the_same_also_without_the_folder_of_maps(
    tmp_path: Path,
) -> None:
    maps, data_dir = fitted(tmp_path), tmp_path / "data"
    evidence, _ = drawn_site(people=10)
    writer = secrets.token_hex(16)
    records = sightings(evidence, writer, np.arange(30))
    with Serving(data_dir, maps=maps) as serving:
        send(serving.address, writer, records[:15])
        eventually(lambda: SITE in serving.server.association.maps, within_s=WITHIN_S)
        send(serving.address, writer, records[15:])
        serving.caught_up()
    decided = identities(data_dir)
    for file in data_dir.glob("identities.db*"):
        file.unlink()
    maps.rename(tmp_path / "elsewhere")

    with Serving(data_dir, maps=maps) as serving:
        serving.caught_up()
        eventually(
            lambda: "no such folder" in str(serving.server.readiness()["degraded"]),
            within_s=WITHIN_S,
            state=serving.server.readiness,
        )
        still = dict(serving.server.association.maps)

    assert still.keys() == {SITE}
    assert identities(data_dir) == decided


def test_a_restart_goes_on_with_the_map_in_force_and_without_maps_takes_it_out(
    tmp_path: Path,
) -> None:
    maps, data_dir = fitted(tmp_path), tmp_path / "data"
    with Serving(data_dir, maps=maps) as serving:
        eventually(lambda: SITE in serving.server.association.maps, within_s=WITHIN_S)
    with Serving(data_dir, maps=maps) as serving:
        serving.caught_up()
        after_restart = serving.server.readiness()["maps"]
        entries = serving.call(serving.server.ledger.run(lambda store: store.last_position()))

    with Serving(data_dir) as serving:
        eventually(lambda: not serving.server.association.maps, within_s=WITHIN_S)

    assert after_restart == {SITE: DERIVED}
    assert entries == 1


def test_a_map_that_does_not_help_or_is_damaged_is_refused_and_the_one_in_force_stays(
    tmp_path: Path,
) -> None:
    maps = fitted(tmp_path)
    of_site = SiteMaps(maps / SITE)
    good, card = of_site.read(1)
    assert card.held_back_before is not None
    worse = card.held_back_before.model_copy(update={"error": 0.4})
    with Serving(tmp_path / "data", maps=maps) as serving:
        eventually(lambda: SITE in serving.server.association.maps, within_s=WITHIN_S)

        def problem() -> str:
            return str(serving.server.readiness()["degraded"])

        of_site.publish(
            2,
            good,
            card.model_copy(
                update={
                    "space_id": f"{SPACE}/{SITE}/2",
                    "held_back_after": worse,
                    "pairs_gain": Gain(value=-0.3, low=-0.35, high=-0.25),
                }
            ),
        )
        eventually(lambda: "does not help" in problem(), within_s=WITHIN_S, state=problem)
        of_site.publish(3, good, card.model_copy(update={"space_id": f"{SPACE}/{SITE}/3"}))
        (maps / SITE / "3.npz").write_bytes(b"torn")
        eventually(lambda: "3.npz" in problem(), within_s=WITHIN_S, state=problem)
        stays = serving.server.readiness()["maps"]
        of_site.publish(4, good, card.model_copy(update={"space_id": f"{SPACE}/{SITE}/4"}))
        eventually(
            lambda: serving.server.readiness()["maps"] == {SITE: f"{SPACE}/{SITE}/4"},
            within_s=WITHIN_S,
            state=serving.server.readiness,
        )

        assert stays == {SITE: DERIVED}
        assert serving.server.readiness()["ready"]
        assert problem() == "[]"


def test_maps_are_listed_and_chosen_by_number(tmp_path: Path) -> None:
    maps = fitted(tmp_path)
    site_map, card = read_map(maps / SITE / "1.npz")
    other = SiteMap(site_map.cameras, site_map.mean, site_map.scale, site_map.weight * 2)
    content = encode_map(other)
    write_map(
        other,
        card.model_copy(
            update={
                "space_id": f"{SPACE}/{SITE}/2",
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
            }
        ),
        maps / SITE / "2.npz",
    )

    chosen = edge_match("maps", "use", SITE, "2", "--maps", maps)
    listed = edge_match("maps", "list", "--json", "--maps", maps)
    table = edge_match("maps", "list", "--maps", maps)
    missing = edge_match("maps", "use", SITE, "9", "--maps", maps)
    unknown = edge_match("maps", "rollback", "nowhere", "--maps", maps)

    assert chosen.returncode == 0, chosen.stderr
    rows = json.loads(listed.stdout)["maps"]
    assert [(row["number"], row["asked_for"]) for row in rows] == [(1, False), (2, True)]
    assert SITE in table.stdout
    assert missing.returncode == 2 and "9.toml" in missing.stderr
    assert unknown.returncode == 2 and f"there are of: {SITE}" in unknown.stderr
