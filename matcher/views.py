"""Reading identities.db and the ledger's receipts for people and programs.

Promise: reads only; every call is one short read, so writers are never held up for long; pages are
cut by keys, so a page does not shift when rows come in. One object per thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from matcher.associate.calibrate import Calibration
from matcher.associate.identity_rows import (
    OF_IDENTITY,
    TRACKLET_COLUMNS,
    SiteMapReader,
    load_calibration,
    load_vectors,
    tracklet_from,
)
from matcher.associate.model import Tracklet, Vectors
from matcher.derived import DerivedSpaces
from matcher.schema import IDENTITIES_FILE, LEDGER_FILE, connect
from matcher.writers import FORGOTTEN
from reid.ranges import RangeSet
from reid.v1.query_pb2 import Identity, SightingFilter

Floats = npt.NDArray[np.float32]
SCAN = 2000  # vectors compared at a time: 4 MB at 512 numbers


@dataclass(frozen=True, slots=True)
class Scope:
    """Which sites a caller may see. None: all."""

    sites: frozenset[str] | None = None


class Views:
    """Read-only views; opens its connections at the first use."""

    def __init__(self, *, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._connections: dict[str, sqlite3.Connection] = {}
        self._maps: SiteMapReader | None = None

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._maps = None

    def interrupt(self) -> None:
        """End the read that runs, from any thread: it raises."""
        for connection in list(self._connections.values()):
            connection.interrupt()

    def _identities(self) -> sqlite3.Connection:
        return self._connection(IDENTITIES_FILE)

    def _connection(self, name: str) -> sqlite3.Connection:
        found = self._connections.get(name)
        if found is None:
            found = self._connections[name] = connect(self._data_dir / name, read_only=True)
        return found

    # --- tracklets --------------------------------------------------------------------------------

    def tracklets(
        self, wanted: SightingFilter, scope: Scope, *, limit: int, after: tuple[int, int] | None
    ) -> list[Tracklet]:
        """Tracklets that pass a filter, newest first, without vectors.

        Args:
            after: (last_ns, number) of the last row of the page before.
        """
        where, values = _conditions(wanted, scope)
        if after is not None:
            where.append("(last_ns, number) < (?, ?)")
            values += after
        rows = self._identities().execute(
            f"SELECT {TRACKLET_COLUMNS} FROM tracklets {_where(where)} "
            "ORDER BY last_ns DESC, number DESC LIMIT ?",
            (*values, limit),
        )
        return [tracklet_from(row) for row in rows.fetchall()]

    def vectors_of(self, tracklet_id: str) -> tuple[Tracklet, dict[str, Vectors]] | None:
        """A tracklet and its vectors; None where it is not known."""
        db = self._identities()
        row = db.execute(
            f"SELECT {TRACKLET_COLUMNS} FROM tracklets WHERE tracklet_id = ?", (tracklet_id,)
        ).fetchone()
        return None if row is None else (tracklet_from(row), load_vectors(db, row[0]))

    def nearest(
        self,
        queries: dict[str, Floats],
        wanted: SightingFilter,
        scope: Scope,
        *,
        limit: int,
        least: float,
        origin: tuple[str, str] | None = None,
    ) -> list[tuple[Tracklet, float]]:
        """The tracklets nearest to any of the query vectors, exactly, nearest first.

        Args:
            queries: space_id -> (m, d) float32, rows of unit length.
            least: similarities below do not count; 0: no bound.
            origin: site and EDGE/CAMERA that the queries were seen by, where they are known.

        Rows of a site whose map is in force for a space are compared in its derived space; a query
        that is not of one of the site's cameras gets what they all have in common.
        """
        best: dict[int, float] = {}
        for number, similarity in self._similarities(queries, wanted, scope, origin):
            if (least == 0.0 or similarity >= least) and similarity > best.get(number, -2.0):
                best[number] = similarity
        order = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:limit]
        found = []
        for number, similarity in order:
            row = (
                self._identities()
                .execute(f"SELECT {TRACKLET_COLUMNS} FROM tracklets WHERE number = ?", (number,))
                .fetchone()
            )
            if row is not None:
                found.append((tracklet_from(row), similarity))
        return found

    def _similarities(
        self,
        queries: dict[str, Floats],
        wanted: SightingFilter,
        scope: Scope,
        origin: tuple[str, str] | None,
    ) -> Iterator[tuple[int, float]]:
        """(Tracklet.number, similarity) of every tracklet of the queries' spaces."""
        derived = self._derived()
        for space_id, vectors in queries.items():
            plain = _conditions(wanted, scope)
            for site, one in derived.maps.items():
                if one.card.parent != space_id:
                    continue
                plain[0].append("tracklets.site <> ?")
                plain[1].append(site)
                camera = origin[1] if origin is not None and origin[0] == site else ""
                mapped = derived.derive(site, space_id, vectors, [camera] * len(vectors))[1]
                where, values = _conditions(wanted, scope)
                where.append("tracklets.site = ?")
                for numbers, cameras, rows in self._scan(
                    space_id, vectors.shape[1], where, [*values, site]
                ):
                    yield from _best(
                        numbers, derived.derive(site, space_id, rows, cameras)[1] @ mapped.T
                    )
            for numbers, _, rows in self._scan(space_id, vectors.shape[1], *plain):
                yield from _best(numbers, rows @ vectors.T)

    def _derived(self) -> DerivedSpaces:
        if self._maps is None:
            self._maps = SiteMapReader(self._identities())
        derived = DerivedSpaces()
        for site, found in self._maps.maps.items():
            derived.put(site, found)
        return derived

    def _scan(
        self, space_id: str, dimension: int, where: list[str], values: list[object]
    ) -> Iterator[tuple[list[int], list[str], Floats]]:
        """Some shots at a time: each one's Tracklet.number, its EDGE/CAMERA, and (n, d) vectors."""
        conditions = [*where, "space_id = ?", "dimension = ?", "vectors.number > ?"]
        last = 0
        while True:
            rows = (
                self._identities()
                .execute(
                    "SELECT vectors.number, vectors.shots, edge_id || '/' || camera FROM vectors "
                    f"JOIN tracklets ON tracklets.number = vectors.number {_where(conditions)} "
                    "ORDER BY vectors.number LIMIT ?",
                    (*values, space_id, dimension, last, SCAN),
                )
                .fetchall()
            )
            if not rows:
                return
            last = rows[-1][0]
            counts = [len(shots) // (4 * dimension) for _, shots, _ in rows]
            matrix = np.frombuffer(b"".join(shots for _, shots, _ in rows), "<f4")
            numbers = [
                row[0] for row, count in zip(rows, counts, strict=True) for _ in range(count)
            ]
            cameras = [
                row[2] for row, count in zip(rows, counts, strict=True) for _ in range(count)
            ]
            yield numbers, cameras, matrix.reshape(-1, dimension).astype(np.float32, copy=False)

    # --- identities -------------------------------------------------------------------------------

    def identity(self, identity_id: str, scope: Scope) -> Identity | None:
        """One identity with its tracklets in order of time; None where it is not known."""
        row = (
            self._identities()
            .execute(
                "SELECT identity_id, site, first_ns, last_ns FROM identities WHERE identity_id = ?",
                (identity_id,),
            )
            .fetchone()
        )
        if row is None or (scope.sites is not None and row[1] not in scope.sites):
            return None
        return self._identity(row)

    def identities(
        self, wanted: SightingFilter, scope: Scope, *, limit: int, after: tuple[int, str] | None
    ) -> list[Identity]:
        """Identities with a tracklet that passes a filter, last seen first."""
        inner, values = _conditions(wanted, scope)
        inner += ["tracklets.identity_id = identities.identity_id", "tracklets.identity_id <> ''"]
        outer = [f"EXISTS (SELECT 1 FROM tracklets {_where(inner)})"]
        if after is not None:
            outer.append("(last_ns, identity_id) < (?, ?)")
            values += after
        rows = self._identities().execute(
            f"SELECT identity_id, site, first_ns, last_ns FROM identities {_where(outer)} "
            "ORDER BY last_ns DESC, identity_id DESC LIMIT ?",
            (*values, limit),
        )
        return [self._identity(row) for row in rows.fetchall()]

    def _identity(self, row: Sequence[object]) -> Identity:
        members = self._identities().execute(
            f"SELECT {TRACKLET_COLUMNS} FROM tracklets WHERE {OF_IDENTITY} "
            "ORDER BY first_ns, number",
            (row[0],),
        )
        tracklets = [tracklet_from(member) for member in members.fetchall()]
        return Identity(
            identity_id=str(row[0]),
            site=str(row[1]),
            first_seen_unix_nanos=int(row[2]),  # type: ignore[call-overload]
            last_seen_unix_nanos=int(row[3]),  # type: ignore[call-overload]
            tracklets=[one.summary() for one in tracklets],
            cameras=len({(one.edge_id, one.camera) for one in tracklets}),
        )

    def events(self, after: int, site: str, scope: Scope, *, limit: int) -> list[tuple[int, bytes]]:
        """Events after a position: (position, serialised WatchResponse)."""
        where, values = ["position > ?"], [after]
        texts = _sites(where, site, scope)
        rows = self._identities().execute(
            f"SELECT position, message FROM events {_where(where)} ORDER BY position LIMIT ?",
            (*values, *texts, limit),
        )
        return rows.fetchall()

    def last_event(self) -> int:
        """Position of the last event; 0 where there is none."""
        row = self._identities().execute("SELECT max(position) FROM events").fetchone()
        return int(row[0] or 0)

    def calibration(self) -> Calibration:
        """The running similarities of all sites."""
        return load_calibration(self._identities())

    # --- boxes ------------------------------------------------------------------------------------

    def edge_counts(self) -> dict[tuple[str, str], tuple[int, dict[int, int]]]:
        """Per (site, edge_id): keys receipted; keys skipped and not receipted, by reason."""
        db = self._connection(LEDGER_FILE)
        owners = {
            number: (site, edge_id)
            for number, site, edge_id in db.execute("SELECT id, site, edge_id FROM writers")
        }
        receipts: dict[int, RangeSet] = {}
        for number, first, last in db.execute("SELECT writer, first, last FROM receipts"):
            receipts.setdefault(number, RangeSet()).add(first, last)
        counts: dict[tuple[str, str], tuple[int, dict[int, int]]] = {}
        for number, ranges in receipts.items():
            committed, skipped = counts.get(owners[number], (0, {}))
            counts[owners[number]] = (committed + len(ranges), skipped)
        for number, reason, first, last in db.execute(
            "SELECT writer, reason, first, last FROM skipped WHERE reason <> ?", (FORGOTTEN,)
        ):
            committed, skipped = counts.setdefault(owners[number], (0, {}))
            missing = RangeSet([(first, last)]).minus(receipts.get(number, RangeSet()))
            skipped[reason] = skipped.get(reason, 0) + len(missing)
        return counts


def _best(numbers: list[int], similarities: Floats) -> Iterator[tuple[int, float]]:
    """The best similarity of each number; equal numbers stand together."""
    found, starts = np.unique(np.asarray(numbers, np.int64), return_index=True)
    values = np.maximum.reduceat(similarities.max(axis=1), starts)
    yield from zip(found.tolist(), values.tolist(), strict=True)


def _conditions(wanted: SightingFilter, scope: Scope) -> tuple[list[str], list[object]]:
    where: list[str] = []
    values: list[object] = []
    texts = _sites(where, wanted.site, scope, column="tracklets.site")
    values += texts
    if wanted.cameras:
        places = ",".join("?" * len(wanted.cameras))
        where.append(f"(camera IN ({places}) OR edge_id || '/' || camera IN ({places}))")
        values += [*wanted.cameras, *wanted.cameras]
    if wanted.from_unix_nanos:
        where.append("tracklets.last_ns >= ?")
        values.append(wanted.from_unix_nanos)
    if wanted.to_unix_nanos:
        where.append("tracklets.first_ns < ?")
        values.append(wanted.to_unix_nanos)
    return where, values


def _sites(where: list[str], site: str, scope: Scope, column: str = "site") -> list[str]:
    texts: list[str] = []
    if site:
        where.append(f"{column} = ?")
        texts.append(site)
    if scope.sites is not None:
        where.append(f"{column} IN ({','.join('?' * len(scope.sites))})")
        texts += sorted(scope.sites)
    return texts


def _where(conditions: list[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
