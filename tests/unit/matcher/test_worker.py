"""The association thread: a fault ends it, and the entry it failed at does not stop the next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from matcher.associate.engine import Engine
from matcher.associate.prior import PriorAssociator
from matcher.associate.worker import AssociationWorker
from matcher.ledger import Ledger
from matcher.log import Entry
from reid.clock import SystemClock
from reid.v1.sighting_pb2 import Sighting
from tests.integration.matcher_rig import record

WRITER = "c" * 32


def filled(data_dir: Path, count: int) -> tuple[str, str]:
    """A ledger with sightings; its generation and salt."""

    async def fill() -> tuple[str, str]:
        ledger = Ledger(data_dir=data_dir, clock=SystemClock())
        ledger.open(asyncio.get_running_loop())
        rows = [
            (WRITER, seq, b"h" * 32, f"{WRITER}/{seq}", seq,
             record(WRITER, seq, person=seq).sighting.SerializeToString())
            for seq in range(1, count + 1)
        ]  # fmt: skip
        await ledger.run(
            lambda store: store.append("site", "box", rows, now_ns=10**18, expired_before_ns=0)
        )
        ledger.close()
        return ledger.generation, ledger.identity_salt

    return asyncio.run(fill())


def worker(data_dir: Path, generation: str, salt: str) -> AssociationWorker:
    return AssociationWorker(
        data_dir=data_dir,
        associator=PriorAssociator(
            thresholds={}, default_threshold=0.8, window_ns=10**15, uncertain_ns=10**9
        ),
        generation=generation,
        salt=salt,
        identity_life_ns=10**15,
        busy=lambda: False,
    )


def test_an_entry_that_fails_ends_the_thread_once_and_is_then_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation, salt = filled(tmp_path, 10)
    real = Engine.apply

    def failing(self: Engine, entry: Entry) -> None:
        if Sighting.FromString(entry.body).tracklet_id.endswith("/7"):
            raise RuntimeError("a planted fault")
        real(self, entry)

    monkeypatch.setattr(Engine, "apply", failing)
    first = worker(tmp_path, generation, salt)
    first.start()
    reached = first.wait_for(10, 10)
    first.stop()
    second = worker(tmp_path, generation, salt)
    second.start()

    caught_up = second.wait_for(10, 10)
    second.stop()

    assert not reached
    assert first.fault is not None
    assert "position 7" in str(first.fault)
    assert caught_up
    assert second.fault is None
    assert second.left_out == {7}


def test_a_ledger_of_another_generation_makes_the_identities_anew(tmp_path: Path) -> None:
    generation, salt = filled(tmp_path, 5)
    first = worker(tmp_path, generation, salt)
    first.start()
    assert first.wait_for(5, 10)
    first.stop()

    second = worker(tmp_path, "another", salt)
    second.start()
    anew = second.wait_for(5, 10)
    second.stop()
    second.stop()

    assert anew
    assert second.fault is None
