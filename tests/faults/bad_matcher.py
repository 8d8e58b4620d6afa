"""A matcher with a planted bug: it acks at once and commits most of a second later.

Only for testing the oracle: kill -9 in between loses what was acked, and that must be seen.
"""

from __future__ import annotations

import asyncio
from typing import Any

from matcher import cli
from matcher.ingest import BoxStream, IngestService
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2

_LATE_S = 0.7


async def _ack_early(self: IngestService, stream: BoxStream, batch: ingest_pb2.Batch) -> None:
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


IngestService._batch = _ack_early  # type: ignore[method-assign]

if __name__ == "__main__":
    cli.main()
