"""What is known of each box besides its sightings: when it was heard, its backlog, its alarms.

Promise: `record` gives what a person should see; what must outlive a restart is written to the
ledger by the owner from `dirty`. Called from the event loop only.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass, field

MAX_ALARMS = 16


@dataclass(slots=True)
class EdgeState:
    """One box, as far as it must outlive a restart of the server.

    Attributes:
        last_heard_ns: UTC of its last message.
        rejected: sightings refused for good.
        conflicts: keys that came with another content.
        lost_before_spool, backlog, lag_s, spool_bytes: as in its last heartbeat.
        lost_earlier: lost_before_spool of its earlier processes.
        alarms: kind -> text for people.
    """

    site: str
    edge_id: str
    software: str = ""
    cameras: list[str] = field(default_factory=list)
    process_id: str = ""
    first_heard_ns: int = 0
    last_heard_ns: int = 0
    rejected: int = 0
    conflicts: int = 0
    expired: int = 0
    lost_before_spool: int = 0
    lost_earlier: int = 0
    backlog: int = 0
    lag_s: float = 0.0
    spool_bytes: int = 0
    clock_offset_ms: float = 0.0
    clock_uncertainty_ms: float = 0.0
    alarms: dict[str, str] = field(default_factory=dict)

    def alarm(self, kind: str, text: str) -> None:
        """Raise or renew an alarm."""
        self.alarms[kind] = text
        while len(self.alarms) > MAX_ALARMS:
            del self.alarms[next(iter(self.alarms))]


class EdgeBook:
    """All boxes that ever said Hello."""

    def __init__(self) -> None:
        self._edges: dict[tuple[str, str], EdgeState] = {}
        self._dirty: set[tuple[str, str]] = set()

    def load(self, connection: sqlite3.Connection) -> None:
        """Read what was written before."""
        for site, edge_id, state in connection.execute("SELECT site, edge_id, state FROM edges"):
            known = {name: value for name, value in json.loads(state).items() if name in _FIELDS}
            known.update(site=site, edge_id=edge_id)
            self._edges[(site, edge_id)] = EdgeState(**known)

    def get(self, site: str, edge_id: str) -> EdgeState:
        """The state of a box, made where it is new; the caller is about to change it."""
        box = (site, edge_id)
        self._dirty.add(box)
        known = self._edges.get(box)
        if known is None:
            known = self._edges[box] = EdgeState(site, edge_id)
        return known

    def all(self) -> list[EdgeState]:
        """In order of site and edge_id."""
        return [self._edges[box] for box in sorted(self._edges)]

    def take_dirty(self) -> list[tuple[str, str, str]]:
        """What changed since the last call, as rows of the table edges."""
        rows = [
            (*box, json.dumps(asdict(self._edges[box]), sort_keys=True))
            for box in sorted(self._dirty)
        ]
        self._dirty.clear()
        return rows


_FIELDS = frozenset(EdgeState.__dataclass_fields__)
