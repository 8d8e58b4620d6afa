"""Random bytes and random actions: readers that never crash, a spool that obeys a simple model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.config import SpoolConfig
from edge.spool import Spool
from edge.spool_marks import read_marks
from edge.spool_record import make_record, read_record
from edge.spool_recovery import find_records
from edge.spool_seal import Sealer
from reid.clock import ManualClock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from tests.unit.edge.spool_support import LEDGER, new_sighting

RECORD = make_record("ab" * 16, 12345, b"payload of a sighting" * 4)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400))
def test_rubbish_is_never_taken_for_a_record(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_record(data)


@settings(max_examples=500, deadline=None)
@given(at=st.integers(0, len(RECORD) - 1), flip=st.integers(1, 255))
def test_a_changed_byte_is_always_noticed(at: int, flip: int) -> None:
    changed = bytearray(RECORD)
    changed[at] ^= flip

    try:
        head = read_record(bytes(changed))
    except ValueError:
        return
    # Only the key is outside the hash; the spool compares it with the row's own.
    assert (head.writer_id, head.seq) != ("ab" * 16, 12345)
    assert head.payload == read_record(RECORD).payload


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=20_000), wal=st.binary(max_size=5_000))
def test_any_file_can_be_searched_for_rows(data: bytes, wal: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.sqlite"
        path.write_bytes(b"SQLite format 3\0\x08\x00" + data)
        path.with_name("spool.sqlite-wal").write_bytes(b"\x37\x7f\x06\x82" + wal)

        assert list(find_records(path, Sealer((bytes(32),)))) == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_marks_file_can_be_read(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.marks"
        path.write_bytes(data)

        assert all(seq >= 0 for seq in read_marks(path).values())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_sealed_rows_come_back_and_changed_ones_do_not(record: bytes) -> None:
    old, new = Sealer((b"1" * 32,)), Sealer((b"2" * 32, b"1" * 32))
    stored = old.seal(record)

    assert new.open(stored) == record
    for at in (0, 9, len(stored) - 1):
        changed = bytearray(stored)
        changed[at] ^= 1
        with pytest.raises(ValueError):
            new.open(bytes(changed))


class SpoolModel(RuleBasedStateMachine):
    """A spool beside a dictionary: key -> state."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.states: dict[tuple[str, int], str] = {}
        self.number = 0
        self._open()

    def _open(self) -> None:
        self.spool = Spool(
            config=SpoolConfig(ballast_bytes=0, group_s=0.001),
            data_dir=Path(self._folder.name),
            clock=self.clock,
        )
        self.spool.open()
        self.flying: dict[int, tuple[str, int]] = {}

    def teardown(self) -> None:
        self.spool.stop()
        self._folder.cleanup()

    @rule(count=st.integers(1, 5))
    def put(self, count: int) -> None:
        before = self.spool.held().issued.of(self.spool.writer_id)
        for _ in range(count):
            self.number += 1
            assert self.spool.put(new_sighting(self.number), timeout_s=5)
        assert self.spool.flush(10)
        for seq in range(len(before) + 1, len(before) + count + 1):
            self.states[self.spool.writer_id, seq] = "waiting"

    @rule(most=st.integers(1, 6))
    def take(self, most: int) -> None:
        for row in self.spool.take(after=0, upto=None, max_rows=most, max_bytes=1 << 20):
            head = read_record(row.record)
            key = (head.writer_id, head.seq)
            assert self.states[key] == "waiting"
            assert key not in self.flying.values()
            self.flying[row.row] = key

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.flying)))
        key = self.flying.pop(row)
        keys = KeyRanges()
        keys.add(*key)
        assert self.spool.ack(keys) == [row]
        self.states[key] = "acked"

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.flying)))
        key = self.flying.pop(row)
        assert self.spool.reject(*key, pb.REJECT_REASON_INVALID, "no") == row
        self.states[key] = "dead"

    @rule()
    def release(self) -> None:
        self.spool.release(list(self.flying))
        self.flying.clear()

    @rule(data=st.data())
    def welcome(self, data: st.DataObject) -> None:
        self.release()
        known = sorted(self.states)
        has = data.draw(st.sets(st.sampled_from(known), max_size=20)) if known else set()
        committed = KeyRanges()
        for key in has:
            committed.add(*key)
        self.spool.welcome(LEDGER, committed, KeyRanges())
        for key, state in self.states.items():
            if state == "gone":
                continue
            if key in has:
                self.states[key] = "acked"
            elif state == "acked":
                self.states[key] = "waiting"

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.states)))
        keys = KeyRanges()
        keys.add(*key)
        self.spool.erase(keys)
        self.states[key] = "gone"
        self.flying = {row: k for row, k in self.flying.items() if k != key}

    @rule()
    def restart(self) -> None:
        assert self.spool.stop()
        self._open()

    @invariant()
    def every_key_is_where_the_model_says(self) -> None:
        held = self.spool.held().held
        for (writer, seq), state in self.states.items():
            assert held.contains(writer, seq) == (state != "gone")
        counters = self.spool.counters()
        states = list(self.states.values())
        assert counters.backlog == states.count("waiting")
        assert counters.dead_letters == states.count("dead")


TestSpoolModel = SpoolModel.TestCase
TestSpoolModel.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
