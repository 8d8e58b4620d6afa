"""From a tracklet to the message that travels, and who the box is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.identity import EdgeIdMismatch, InvalidEdgeId, load_edge_id
from edge.sighting import SightingBuilder, sighting_from_tracklet
from edge.types import CaptureTime, PathPoint, Shot, TimeSource, Tracklet
from reid.codec import decode
from reid.limits import check_sighting
from reid.v1.sighting_pb2 import TIME_SOURCE_SENDER_REPORT, Sighting

WRITER = "ab" * 16
WHO = {"site": "site", "edge_id": "edge", "writer_id": WRITER, "boot_id": "boot"}


def unit(seed: int, size: int = 16) -> np.ndarray:  # type: ignore[type-arg]
    vector = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    return vector / np.linalg.norm(vector)


def at(second: int) -> CaptureTime:
    return CaptureTime(10**18 + second * 10**9, second * 10**9, TimeSource.SENDER_REPORT, 5.0)


def tracklet(*, final: bool = False, shots: int = 2) -> Tracklet:
    box = np.array([0.1, -1e-7, 0.4, 1.0000001], np.float32)
    return Tracklet(
        camera="gate",
        number=7,
        first_seen=at(100),
        last_seen=at(104),
        shots=tuple(
            Shot(at(101 + n), n, box, 0.5, 0.9, {"a/1": unit(n), "b/1": unit(n + 9, 8)})
            for n in range(shots)
        ),
        path=(PathPoint(at(100), box), PathPoint(at(104), box)),
        embedding_count=5,
        similarity_mean=0.9,
        similarity_variance=0.01,
        seen_with=(3, 9),
        frame_width=640,
        frame_height=480,
        final=final,
    )


def describe(given: Tracklet, **how: object) -> Sighting:
    return sighting_from_tracklet(
        given, **WHO, revision=1, variants={"a/1": "f32", "b/1": "i8"}, **how
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["float16", "float32", "int8"])
def test_a_sighting_satisfies_the_contract_in_every_encoding(encoding: str) -> None:
    message = describe(tracklet(), encoding=encoding)

    check_sighting(message, {"a/1": 16, "b/1": 8})
    assert message.tracklet_id == f"{WRITER}/7"
    assert list(message.seen_with) == [f"{WRITER}/3", f"{WRITER}/9"]
    assert message.first_seen.source == TIME_SOURCE_SENDER_REPORT
    assert [p.offset_nanos for p in message.path] == [0, 4 * 10**9]
    assert decode(message.shots[1].embeddings[0]) @ unit(1) > 0.999


def test_a_tracklet_without_shots_tells_only_that_somebody_was_there() -> None:
    message = describe(replace(tracklet(shots=0), embedding_count=0))

    check_sighting(message, {})
    assert not message.shots
    assert not message.statistics


def test_statistics_belong_to_the_main_space() -> None:
    (entry,) = describe(tracklet()).statistics

    assert (entry.space_id, entry.count) == ("a/1", 5)


def test_revisions_count_up_and_a_final_one_ends_the_count() -> None:
    builder = SightingBuilder(**WHO, encoding="float16", variants={"a/1": "f32", "b/1": "i8"})

    made = [builder.build(tracklet(final=final)) for final in (False, False, True)]

    assert [(new.revision, new.final, new.tracklet) for new in made] == [
        (1, False, 7), (2, False, 7), (3, True, 7)
    ]  # fmt: skip
    assert builder.build(tracklet()).revision == 1
    assert [(s.space_id, s.dimension, s.variant_id) for s in made[0].spaces] == [
        ("a/1", 16, "f32"), ("b/1", 8, "i8")
    ]  # fmt: skip
    assert Sighting.FromString(made[2].payload).final


def test_the_first_edge_id_stays_and_another_is_refused(tmp_path: Path) -> None:
    first = load_edge_id(tmp_path / "data", "gate-3")

    again = load_edge_id(tmp_path / "data", None)
    with pytest.raises(EdgeIdMismatch) as error:
        load_edge_id(tmp_path / "data", "gate-4")
    renamed = load_edge_id(tmp_path / "data", "gate-4", new_edge_id=True)

    assert (first, again, renamed) == ("gate-3", "gate-3", "gate-4")
    assert "--new-edge-id" in str(error.value)
    assert load_edge_id(tmp_path / "data", "gate-4") == "gate-4"


def test_without_a_wish_the_hosts_name_is_taken(tmp_path: Path) -> None:
    assert load_edge_id(tmp_path, None) == load_edge_id(tmp_path, None) != ""


@pytest.mark.parametrize("wish", ["two words", "tab\t", "x" * 129])
def test_an_id_that_the_wire_does_not_allow_is_refused(tmp_path: Path, wish: str) -> None:
    with pytest.raises(InvalidEdgeId):
        load_edge_id(tmp_path, wish)
