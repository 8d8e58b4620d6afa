"""How long things are kept, per site, and who deletes them.

Promise: what is older than its site's age is deleted from ledger and identities, overwritten on
disk (secure_delete) and cut from the WAL, in small steps between commits. Event loop only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from matcher.config import LONGEST_S
from matcher.errors import MatcherError
from matcher.ledger import Ledger
from matcher.schema import EntryKind
from matcher.store import LedgerStore
from reid.clock import Clock

STEP_ROWS = 2000  # deleted in one transaction: some 20 ms that acks wait
_log = structlog.get_logger("retention")


@dataclass(frozen=True, slots=True)
class Ages:
    """How long a site's things are kept, seconds."""

    ledger_s: float
    identity_s: float


class RetentionBook:
    """The ages in force; "" names the setting of sites without one of their own."""

    def __init__(self, default: Ages) -> None:
        self._ages = {"": default}

    def load(self, connection: sqlite3.Connection) -> None:
        """Read what was set by people."""
        for site, ledger_s, identity_s in connection.execute(
            "SELECT site, ledger_s, identity_s FROM retention"
        ):
            self._ages[site] = Ages(ledger_s, identity_s)

    def of(self, site: str) -> Ages:
        """The ages of a site."""
        return self._ages.get(site) or self._ages[""]

    def set(self, site: str, ages: Ages) -> None:
        """Set a site's ages."""
        self._ages[site] = ages

    def ledger_ns(self, site: str) -> int:
        """Age at which a site's sightings are deleted, nanoseconds."""
        return round(min(self.of(site).ledger_s, LONGEST_S) * 1e9)


class RetentionSweep:
    """Deletes what is too old."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        book: RetentionBook,
        delete_tracklets: Callable[[str, int], None],
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._book = book
        self._delete_tracklets = delete_tracklets
        self._clock = clock
        self._end = -1
        self.deleted = 0

    async def sweep(self) -> int:
        """Delete once; how many entries went. Lets time pass in the log where nothing else came."""
        deleted = 0
        now = self._clock.unix_nanos()
        try:
            sites = await self._ledger.run(lambda store: store.sites())
            for site in sites:
                deleted += await self._site(site, now - self._book.ledger_ns(site))
            if deleted:
                await self._ledger.run(self._ledger.checkpoint, deletes=True)
                _log.info("deleted what is too old", entries=deleted)
            self._end = await self._ledger.run(self._tick)
        except MatcherError as error:
            _log.warning("retention could not delete; it tries again", error=error)
        self.deleted += deleted
        return deleted

    async def _site(self, site: str, before_ns: int) -> int:
        deleted = 0
        while True:
            gone = await self._ledger.run(
                lambda store: store.delete_older(site, before_ns, limit=STEP_ROWS), deletes=True
            )
            deleted += gone
            if gone < STEP_ROWS:
                break
        self._delete_tracklets(site, before_ns)
        return deleted

    def _tick(self, store: LedgerStore) -> int:
        end = store.last_position()
        if end and end == self._end:
            return store.note(EntryKind.TICK, "", "", {}, self._clock.unix_nanos())
        return end
