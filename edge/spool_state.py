"""What an open spool knows in memory, shared by who changes it and who sends from it.

Promise: nothing here waits for the disk. The sets of rows are changed only after the transaction
that makes the change true has committed, except acks and dead letters (see edge.spool_word).
Threads: all attributes under `lock`, which is held for memory work only; `running_nanos` from any.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict

from edge.spool_rows import RowIndex, Writer
from edge.spool_untold import Untold
from reid.clock import Clock
from reid.ranges import KeyRanges

# Live rows are sent from memory; what does not fit here is read back from the file.
CACHE_BYTES = 4 << 20
_TRACKED_LATENCIES = 4096


class SpoolState:
    """See the module.

    Args:
        clock: monotonic for ages.
        writer_id: this process's writer.

    Attributes:
        writer: this process's writer; `last_seq` grows after each commit.
        index: writers and the states of their rows.
        untold: what the matcher has yet to hear of skipped keys.
        counts: name -> count since the process began.
        skipped: name of a SkipReason -> keys since the spool exists.
        waiting_bytes: bytes of rows without an ack.
        spaces: space_id -> (dimension, variants).
        ledger_id: of the last Welcome; empty before the first.
        suspect: keys that nothing here explains, until a Welcome does.
        triggered: row -> monotonic time of the frame that caused it; the last 4096.
    """

    def __init__(self, *, clock: Clock, writer_id: str) -> None:
        self._clock = clock
        self.lock = threading.Lock()
        self.writer = Writer(writer_id, 1, 0)
        self.index = RowIndex()
        self.untold = Untold()
        self.counts: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.waiting_bytes = 0
        self.spaces: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.ledger_id = ""
        self.suspect = KeyRanges()
        self.triggered: OrderedDict[int, int] = OrderedDict()
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._cache_bytes = 0
        self._running_base = 0
        self._opened_nanos = 0

    def opened(self, running_nanos: int) -> None:
        """The spool is open, and spools of this folder were open for so long before."""
        self._running_base = running_nanos
        self._opened_nanos = self._clock.monotonic_nanos()

    def running_nanos(self) -> int:
        """How long spools of this folder have been open, all processes together. Ages are measured
        by it, so that no step of UTC can age a row."""
        return self._running_base + self._clock.monotonic_nanos() - self._opened_nanos

    def cache(self, row: int, record: bytes, triggered_nanos: int) -> None:
        """Keep a row's record for sending, and when its frame was captured (0: unknown)."""
        self._cache[row] = record
        self._cache_bytes += len(record)
        while self._cache_bytes > CACHE_BYTES:
            _, oldest = self._cache.popitem(last=False)
            self._cache_bytes -= len(oldest)
        if triggered_nanos:
            self.triggered[row] = triggered_nanos
            if len(self.triggered) > _TRACKED_LATENCIES:
                self.triggered.popitem(last=False)

    def uncache(self, row: int) -> bytes | None:
        """Take a row's record out of memory; None: it must be read."""
        record = self._cache.pop(row, None)
        if record is not None:
            self._cache_bytes -= len(record)
        return record
