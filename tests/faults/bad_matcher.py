"""A matcher with a planted bug; FAULTS_PLANT names it. Only for testing the oracle.

early-ack: it acks at once and commits most of a second later: kill -9 in between loses what was
acked. false-hole: it raises the alarm of a hole for keys that it has.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from matcher import cli
from matcher.admission import Admission
from matcher.box_stream import BoxStream
from matcher.intake import Intake
from matcher.records import KnownKeys
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2

_LATE_S = 0.7
_known = Admission.known


async def _ack_early(self: Intake, stream: BoxStream, batch: ingest_pb2.Batch) -> None:
    now = self._clock.unix_nanos()
    checked = stream.check.check(batch, now_ns=now)
    keys = KeyRanges()
    for record in batch.records:
        keys.add_key(record.key)
    site, edge_id = stream.box
    stream.submitted(len(checked.rows))
    stream.settled(len(checked.rows), keys)

    def job(store: Any) -> Any:
        return store.append(site, edge_id, checked.rows, now_ns=now, expired_before_ns=0)

    asyncio.get_running_loop().call_later(
        _LATE_S,
        lambda: self._ledger.submit(job, lambda _r, _e: None, rows=len(checked.rows)),
    )


async def _cry_hole(
    self: Admission, stream: BoxStream, hello: ingest_pb2.Hello
) -> KnownKeys | None:
    known = await _known(self, stream, hello)
    if known is not None:
        stream.hole = KeyRanges(known.committed.messages())
    return known


match os.environ["FAULTS_PLANT"]:
    case "early-ack":
        Intake.batch = _ack_early  # type: ignore[method-assign]
    case "false-hole":
        Admission.known = _cry_hole  # type: ignore[method-assign]
    case unknown:
        raise SystemExit(f"unknown bug {unknown!r}")

if __name__ == "__main__":
    cli.main()
