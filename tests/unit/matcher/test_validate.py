"""The quick check of a batch takes exactly what the contract's own check takes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.validate import BatchCheck
from reid.limits import InvalidSighting, check_record
from reid.v1.ingest_pb2 import (
    REJECT_REASON_FOREIGN,
    REJECT_REASON_INVALID,
    REJECT_REASON_UNKNOWN_SPACE,
    Batch,
)
from reid.v1.sighting_pb2 import SightingRecord
from tests.integration.matcher_rig import DIMENSION, SPACE, record

WRITER = "0123456789abcdef" * 2
NOW = 1_790_000_000_000_000_000


def good() -> SightingRecord:
    one = record(WRITER, 1, person=1, base_ns=NOW - 10**9, count=3, seen_with=[f"{WRITER}/9"])
    point = one.sighting.path.add(offset_nanos=5)
    point.box.x2 = point.box.y2 = 1.0
    return one


def checker() -> BatchCheck:
    return BatchCheck(
        site="site",
        edge_id="box",
        spaces={SPACE: DIMENSION},
        boot_id="boot",
        estimate=lambda _boot: None,
    )


Change = Callable[[SightingRecord], None]
CHANGES: list[tuple[str, Change]] = [
    ("as it is", lambda r: None),
    ("writer id in capitals", lambda r: setattr(r.key, "writer_id", WRITER.upper())),
    ("seq 0", lambda r: setattr(r.key, "seq", 0)),
    ("seq 2^63", lambda r: setattr(r.key, "seq", 1 << 63)),
    ("short hash", lambda r: setattr(r, "content_hash", b"x" * 31)),
    ("no camera", lambda r: setattr(r.sighting, "camera", "")),
    ("camera of 129 bytes", lambda r: setattr(r.sighting, "camera", "ä" * 65)),
    ("camera of 128 bytes", lambda r: setattr(r.sighting, "camera", "ä" * 64)),
    ("no tracklet", lambda r: setattr(r.sighting, "tracklet_id", "")),
    ("revision 0", lambda r: setattr(r.sighting, "revision", 0)),
    ("no frame", lambda r: setattr(r.sighting, "frame_width", 0)),
    ("uncertainty NaN", lambda r: setattr(r.sighting.first_seen, "uncertainty_ms", math.nan)),
    ("uncertainty below 0", lambda r: setattr(r.sighting.last_seen, "uncertainty_ms", -1)),
    ("uncertainty infinite", lambda r: setattr(r.sighting.last_seen, "uncertainty_ms", math.inf)),
    ("boot id too long", lambda r: setattr(r.sighting.last_seen, "boot_id", "b" * 129)),
    ("five shots", lambda r: r.sighting.shots.extend([r.sighting.shots[0]] * 4)),
    ("33 points", lambda r: r.sighting.path.extend([r.sighting.path[0]] * 32)),
    ("257 seen", lambda r: r.sighting.seen_with.extend(["x"] * 256)),
    ("empty seen_with", lambda r: r.sighting.seen_with.append("")),
    ("path before the start", lambda r: setattr(r.sighting.path[0], "offset_nanos", -1)),
    ("path box beyond", lambda r: setattr(r.sighting.path[0].box, "x2", 1.0001)),
    ("box turned round", lambda r: setattr(r.sighting.shots[0].box, "y1", 0.9)),
    ("box NaN", lambda r: setattr(r.sighting.shots[0].box, "x1", math.nan)),
    ("quality 1.1", lambda r: setattr(r.sighting.shots[0], "quality", 1.1)),
    ("score NaN", lambda r: setattr(r.sighting.shots[0], "detector_score", math.nan)),
    ("shot without vector", lambda r: r.sighting.shots[0].ClearField("embeddings")),
    ("space twice", lambda r: r.sighting.shots[0].embeddings.append(
        r.sighting.shots[0].embeddings[0])),
    ("unknown space", lambda r: setattr(r.sighting.shots[0].embeddings[0], "space_id", "y")),
    ("no variant", lambda r: setattr(r.sighting.shots[0].embeddings[0], "variant_id", "")),
    ("no encoding", lambda r: setattr(r.sighting.shots[0].embeddings[0], "encoding", 0)),
    ("vector too short", lambda r: setattr(r.sighting.shots[0].embeddings[0], "values", b"xy")),
    ("vector of zeros", lambda r: setattr(
        r.sighting.shots[0].embeddings[0], "values", bytes(2 * DIMENSION))),
    ("vector NaN", lambda r: setattr(
        r.sighting.shots[0].embeddings[0], "values", b"\x00\x7e" * DIMENSION)),
    ("vector infinite", lambda r: setattr(
        r.sighting.shots[0].embeddings[0], "values", b"\x00\x7c" * DIMENSION)),
    ("variance below 0", lambda r: setattr(
        r.sighting.statistics[0], "similarity_variance", -0.1)),
    ("mean above 1", lambda r: setattr(r.sighting.statistics[0], "similarity_mean", 1.5)),
    ("time of 1970", lambda r: setattr(r.sighting.last_seen, "unix_nanos", 5)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=[name for name, _ in CHANGES])
def test_the_quick_check_agrees_with_the_contracts_own(name: str, change: Change) -> None:
    one = good()
    change(one)
    try:
        check_record(one, {SPACE: DIMENSION})
        refused = ""
    except InvalidSighting as error:
        refused = str(error)

    checked = checker().check(Batch(records=[good(), one, good()]), now_ns=NOW)

    assert len(checked.rows) == (2 if refused else 3)
    assert [reject.message for reject in checked.rejects] == ([refused] if refused else [])
    if refused:
        wanted = REJECT_REASON_UNKNOWN_SPACE if "announced" in refused else REJECT_REASON_INVALID
        assert checked.rejects[0].reason in (wanted, REJECT_REASON_INVALID)


def test_most_changes_are_refused() -> None:
    assert sum(1 for name, _ in CHANGES) > 30


def test_another_boxs_sighting_is_foreign() -> None:
    one = record(WRITER, 1, edge_id="neighbour")

    checked = checker().check(Batch(records=[one]), now_ns=NOW)

    assert [reject.reason for reject in checked.rejects] == [REJECT_REASON_FOREIGN]


def test_an_int8_vector_and_a_float32_vector_are_taken() -> None:
    from reid.codec import encode
    from tests.integration.matcher_rig import direction

    records = []
    for encoding in ("int8", "float32"):
        one = good()
        vector = encode(direction(1), space_id=SPACE, variant_id="v", encoding=encoding)  # type: ignore[arg-type]
        one.sighting.shots[0].embeddings[0].CopyFrom(vector)
        records.append(one)

    assert len(checker().check(Batch(records=records), now_ns=NOW).rows) == 2


def test_an_empty_boot_id_becomes_that_of_the_hello() -> None:
    from reid.v1.sighting_pb2 import Sighting

    one = good()
    one.sighting.first_seen.boot_id = one.sighting.last_seen.boot_id = ""

    (row,) = checker().check(Batch(records=[one]), now_ns=NOW).rows

    stored = Sighting.FromString(row[5])
    assert (stored.first_seen.boot_id, stored.last_seen.boot_id) == ("boot", "boot")


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_whatever_bytes_parse_as_a_batch_are_checked_without_a_fault(data: st.DataObject) -> None:
    """Each record of a mutated batch is taken if the contract's own check takes it."""
    content = bytearray(Batch(records=[good(), good()]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 4))]
            case _:
                content[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        if not content:
            return
    try:
        batch = Batch.FromString(bytes(content))
    except DecodeError:
        return

    checked = checker().check(batch, now_ns=NOW)

    assert len(checked.rows) + len(checked.rejects) == len(batch.records)
    for record_ in batch.records:
        taken = any(row[:2] == (record_.key.writer_id, record_.key.seq) for row in checked.rows)
        try:
            check_record(record_, {SPACE: DIMENSION})
        except InvalidSighting:
            continue
        mine = (record_.sighting.site, record_.sighting.edge_id) == ("site", "box")
        assert taken or not mine
