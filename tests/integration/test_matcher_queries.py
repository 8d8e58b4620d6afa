"""What people ask a matcher, over real gRPC: events, the log, search, pages, files, health."""

from __future__ import annotations

import json
import secrets
import threading
import time
from pathlib import Path

import grpc
import pytest

from matcher import page, report
from matcher.client import LocalSource, MatcherClient, Refused
from matcher.export import export, form_of
from reid.codec import encode
from reid.v1 import query_pb2
from reid.v1.query_pb2 import SightingFilter
from tests.integration.matcher_rig import SETTINGS, SPACE, Serving, deliver, direction, record


def test_watch_tells_each_event_once_and_resumes_from_a_position(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        came: list[query_pb2.WatchResponse] = []
        done = threading.Event()

        def follow() -> None:
            with MatcherClient(serving.address) as follower:
                for event in follower.watch():
                    came.append(event)
                    if len(came) == 3:
                        done.set()
                        return

        thread = threading.Thread(target=follow)
        thread.start()
        deliver(
            serving,
            record(writer, 1, person=1, camera="door"),
            record(writer, 2, person=2, camera="door", first_s=30, last_s=31),
            record(writer, 3, person=1, camera="yard", first_s=9, last_s=10),
        )
        assert done.wait(20)
        thread.join()
        resumed = next(iter(client.watch(after_position=came[1].position)))

    assert [event.kind for event in came] == [
        query_pb2.IDENTITY_EVENT_KIND_CREATED,
        query_pb2.IDENTITY_EVENT_KIND_CREATED,
        query_pb2.IDENTITY_EVENT_KIND_JOINED,
    ]
    assert came[2].similarity > 0.99
    assert resumed == came[2]


def test_the_log_is_read_from_a_position_with_its_embeddings(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    sent = [record(writer, seq, person=seq) for seq in range(1, 251)]
    with Serving(tmp_path) as serving, MatcherClient(serving.address) as client:
        deliver(serving, *sent)

        everything = list(client.read())
        rest = list(client.read(after_position=everything[-3].position))

    assert [one.record for one in everything] == sent
    assert [one.record.key.seq for one in rest] == [249, 250]


def test_search_finds_the_nearest_by_vector_and_by_tracklet(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            *[record(writer, seq, person=seq, camera=f"c{seq % 2}") for seq in range(1, 60)],
            record(writer, 60, person=7, camera="c1", noise=0.3),
        )
        vector = encode(direction(7), space_id=SPACE, variant_id="float32")

        by_vector = client.search(query_pb2.SearchSightingsRequest(embedding=vector, limit=3))
        by_tracklet = client.search(
            query_pb2.SearchSightingsRequest(
                tracklet_id=f"{writer}/7",
                min_similarity=0.9,
                filter=SightingFilter(cameras=["box/c1"]),
            )
        )
        with pytest.raises(Refused, match="unit length"):
            client.search(
                query_pb2.SearchSightingsRequest(
                    embedding=type(vector)(space_id=SPACE, encoding=1, values=b"\0\x3c" * 32)
                )
            )
        with pytest.raises(Refused, match="no tracklet"):
            client.search(query_pb2.SearchSightingsRequest(tracklet_id="nobody"))

    numbers = [hit.tracklet.tracklet_id.rpartition("/")[2] for hit in by_vector]
    assert numbers[:2] == ["7", "60"]
    assert by_vector[0].similarity == pytest.approx(1.0, abs=1e-3)
    assert by_vector[1].similarity > by_vector[2].similarity
    assert {hit.tracklet.tracklet_id.rpartition("/")[2] for hit in by_tracklet} == {"7", "60"}


def test_lists_come_in_pages_newest_first(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path) as serving, MatcherClient(serving.address) as client:
        deliver(
            serving,
            *[record(writer, seq, first_s=-seq, last_s=-seq + 0.5) for seq in range(1, 31)],
        )
        stub = client._query
        page_one = stub.ListSightings(query_pb2.ListSightingsRequest(page_size=12))
        page_two = stub.ListSightings(
            query_pb2.ListSightingsRequest(page_size=12, page_token=page_one.next_page_token)
        )
        with pytest.raises(grpc.RpcError, match="page_token"):
            stub.ListSightings(query_pb2.ListSightingsRequest(page_token="garbage"))

    order = [
        one.tracklet_id.rpartition("/")[2] for one in [*page_one.tracklets, *page_two.tracklets]
    ]
    assert order == [str(seq) for seq in range(1, 25)]


def test_the_ledger_is_exported_as_parquet_and_json_lines(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    writer = secrets.token_hex(16)
    with Serving(tmp_path / "data") as serving, MatcherClient(serving.address) as client:
        deliver(serving, *[record(writer, seq, person=seq) for seq in range(1, 6)])
        parquet, lines = tmp_path / "out.parquet", tmp_path / "out.jsonl"

        count = export(client.read(), parquet, form=form_of(parquet), embeddings=True)
        export(client.read(), lines, form=form_of(lines), embeddings=False)

    table = pq.read_table(parquet).to_pylist()
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert count == 5
    assert [row["seq"] for row in table] == [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    vector = table[2]["shots"][0]["embeddings"][0]["vector"]
    assert vector == pytest.approx(direction(3).tolist(), abs=1e-3)
    assert rows[2]["shots"][0]["embeddings"] == []


def test_who_and_report_read_the_files_of_a_matcher_that_has_ended(tmp_path: Path) -> None:
    writer = secrets.token_hex(16)
    with Serving(tmp_path, **SETTINGS) as serving:
        deliver(
            serving,
            record(writer, 1, person=1, camera="<door>"),
            record(writer, 2, person=1, camera="yard", first_s=9, last_s=10),
            record(writer, 3, camera="yard"),
        )

    source = LocalSource(tmp_path)
    try:
        found = report.who(source)
        edges = source.edges()
    finally:
        source.close()
    html = page.page(found, edges, made_ns=time.time_ns())

    assert [person.cameras for person in found.people] == [["<door>", "yard"]]
    assert len(found.unassigned) == 1
    assert (edges[0].edge_id, edges[0].committed) == ("box", 3)
    assert "&lt;door&gt;" in html
    assert "<door>" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_health_and_reflection_answer(tmp_path: Path) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with Serving(tmp_path) as serving, grpc.insecure_channel(serving.address) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="reid.v1.IngestService"), timeout=10
        )
        answer = next(
            reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10
            )
        )

    assert status.status == health_pb2.HealthCheckResponse.SERVING
    names = {one.name for one in answer.list_services_response.service}
    assert {"reid.v1.IngestService", "reid.v1.QueryService", "reid.v1.AdminService"} <= names
