"""Whole streams of any messages: what was taken is answered, and no other stream notices.

`make fuzz` tries the same, guided by coverage and for longer (tests/fuzz).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reid.v1 import ingest_pb2 as pb
from tests.fuzz.choices import Choices
from tests.fuzz.streams import (
    WRITERS,
    Site,
    made_stream,
    parsed_stream,
    sound_hello,
    sound_record,
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "ledger")
    yield site
    site.close()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(0, 2000))
def test_a_stream_of_any_messages_is_answered_or_ended(site: Site, seed: int, size: int) -> None:
    site.serve(made_stream(Choices(random.Random(seed).randbytes(size))))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_stream_of_damaged_messages_is_answered_or_ended(site: Site, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32))
    sound = made_stream(Choices(random.Random(seed).randbytes(600)))[1:]
    content = bytearray(b"\xfe\xfd".join(one.SerializeToString() for one in sound) or b"\0")
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    site.serve(parsed_stream(bytes(content)))


def test_a_hole_of_more_keys_than_python_counts_leaves_acks_alone(site: Site) -> None:
    """Its alarm is raised in a callback between those that hand out the acks of a commit."""
    hello, batch = sound_hello(), pb.StreamRequest()
    for writer in WRITERS[1:]:
        hello.hello.issued.add(writer_id=writer, first=1, last=(1 << 63) - 1)
    batch.batch.records.append(sound_record(5))

    site.serve([hello, batch])


def test_a_batch_and_an_answer_to_an_erase_are_taken(site: Site) -> None:
    """The streams above are of use only if a sound one gets through."""
    made = [made_stream(Choices(random.Random(seed).randbytes(600))) for seed in range(200)]
    kinds = [message.WhichOneof("message") for stream in made for message in stream]
    reasons = {
        one.reason for stream in made for message in stream for one in message.skipped.ranges
    }

    assert {"hello", "batch", "skipped", "heartbeat", None} == set(kinds)
    assert pb.SKIP_REASON_ERASED in reasons
    site.serve(made[0])
