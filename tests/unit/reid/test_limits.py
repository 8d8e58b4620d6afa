"""The check of a record against the contract, one row per rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reid.codec import encode
from reid.limits import InvalidSighting, UnknownSpace, check_record
from reid.v1.sighting_pb2 import Box, CaptureTime, Key, Sighting, SightingRecord

SPACES = {"space/1": 8}


def good_record() -> SightingRecord:
    embedding = encode(np.arange(1, 9, dtype=np.float32), space_id="space/1", variant_id="float32")
    sighting = Sighting(
        site="home",
        edge_id="box-1",
        camera="gate",
        tracklet_id="0" * 32 + "/1",
        revision=1,
        first_seen=CaptureTime(unix_nanos=1),
        last_seen=CaptureTime(unix_nanos=2),
        frame_width=640,
        frame_height=480,
    )
    shot = sighting.shots.add(quality=0.5, detector_score=0.9)
    shot.box.CopyFrom(Box(x1=0.1, y1=0.1, x2=0.2, y2=0.4))
    shot.embeddings.append(embedding)
    sighting.path.add(offset_nanos=0, box=Box(x1=0, y1=0, x2=1, y2=1))
    return SightingRecord(
        key=Key(writer_id="0" * 32, seq=1), content_hash=bytes(32), sighting=sighting
    )


def test_a_good_record_passes() -> None:
    assert check_record(good_record(), SPACES) is None


def test_a_sighting_without_shots_passes() -> None:
    record = good_record()
    record.sighting.ClearField("shots")

    assert check_record(record, SPACES) is None


def test_an_implausible_time_passes() -> None:
    record = good_record()
    record.sighting.first_seen.unix_nanos = -5

    assert check_record(record, SPACES) is None


Spoil = Callable[[SightingRecord], object]
RULES: list[tuple[str, Spoil]] = [
    ("key.writer_id", lambda r: setattr(r.key, "writer_id", "A" * 32)),
    ("key.writer_id", lambda r: setattr(r.key, "writer_id", "")),
    ("key.seq", lambda r: setattr(r.key, "seq", 0)),
    ("key.seq", lambda r: setattr(r.key, "seq", 1 << 63)),
    ("content_hash", lambda r: setattr(r, "content_hash", b"short")),
    ("site", lambda r: setattr(r.sighting, "site", "")),
    ("camera", lambda r: setattr(r.sighting, "camera", "x" * 129)),
    ("revision", lambda r: setattr(r.sighting, "revision", 0)),
    ("frame_width", lambda r: setattr(r.sighting, "frame_width", 0)),
    ("first_seen.uncertainty_ms", lambda r: setattr(r.sighting.first_seen, "uncertainty_ms", -1)),
    ("last_seen.boot_id", lambda r: setattr(r.sighting.last_seen, "boot_id", "x" * 129)),
    ("shots", lambda r: r.sighting.shots.extend([r.sighting.shots[0]] * 4)),
    ("path", lambda r: r.sighting.path.extend([r.sighting.path[0]] * 32)),
    ("seen_with", lambda r: r.sighting.seen_with.extend(["t"] * 257)),
    ("seen_with", lambda r: r.sighting.seen_with.append("")),
    ("path[0].offset_nanos", lambda r: setattr(r.sighting.path[0], "offset_nanos", -1)),
    ("path[0].box", lambda r: setattr(r.sighting.path[0].box, "x2", 1.5)),
    ("shots[0].box", lambda r: setattr(r.sighting.shots[0].box, "x1", float("nan"))),
    ("shots[0].box", lambda r: setattr(r.sighting.shots[0].box, "y1", 0.9)),
    ("shots[0].quality", lambda r: setattr(r.sighting.shots[0], "quality", float("nan"))),
    ("shots[0].detector_score", lambda r: setattr(r.sighting.shots[0], "detector_score", 1.1)),
    ("shots[0].embeddings", lambda r: r.sighting.shots[0].ClearField("embeddings")),
    (
        "shots[0].embeddings[1]",
        lambda r: r.sighting.shots[0].embeddings.append(r.sighting.shots[0].embeddings[0]),
    ),
    (
        "shots[0].embeddings[0]",
        lambda r: setattr(r.sighting.shots[0].embeddings[0], "values", b"\0" * 4),
    ),
    (
        "shots[0].embeddings[0].variant_id",
        lambda r: setattr(r.sighting.shots[0].embeddings[0], "variant_id", ""),
    ),
    (
        "statistics[0]",
        lambda r: r.sighting.statistics.add(space_id="space/1", similarity_mean=2.0),
    ),
]


@pytest.mark.parametrize(("field", "spoil"), RULES)
def test_a_record_that_breaks_a_rule_is_refused_with_the_field(field: str, spoil: Spoil) -> None:
    record = good_record()
    spoil(record)

    with pytest.raises(InvalidSighting) as caught:
        check_record(record, SPACES)

    assert caught.value.field.startswith(field)


def test_a_space_that_was_not_announced_has_an_error_of_its_own() -> None:
    with pytest.raises(UnknownSpace, match="'space/1' was not announced"):
        check_record(good_record(), {"other/1": 8})
