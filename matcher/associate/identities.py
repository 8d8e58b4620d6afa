"""identities.db: what association made of the log, with the position it has reached.

Promise: one transaction holds the changes of a group of entries and the position after them, so a
restart goes on exactly there. The file is a belief, not a truth: it is made again from the ledger
when it is missing, older than its tables, or of another ledger (a restored backup).
Threads: the writer belongs to the association thread; each reader has a connection of its own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from matcher.associate.calibrate import Calibration, Running
from matcher.associate.identity_rows import (
    OF_IDENTITY,
    TABLES,
    TRACKLET_COLUMNS,
    VERSION,
    SiteMapReader,
    load_calibration,
    load_vectors,
    tracklet_from,
)
from matcher.associate.live import Changes
from matcher.associate.model import Identity, Tracklet
from matcher.clocks import ClockEstimate
from matcher.derived import MapInForce
from matcher.schema import close, connect, get_meta, set_meta, truncate_wal


class IdentityStore:
    """The writer's side of identities.db."""

    def __init__(self, path: Path, *, generation: str) -> None:
        """Open it, or make it anew where it is missing or of another ledger.

        Args:
            generation: of the ledger; changes when a backup is restored.
        Raises:
            LedgerUnusable: it cannot be opened.
        """
        self._path = path
        if not self._fits(generation):
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        new = not path.exists()
        self._db = connect(path)
        # A lost transaction is made again from the ledger, the same; FULL would only cost time.
        self._db.execute("PRAGMA synchronous=NORMAL")
        if new:
            path.chmod(0o600)
            self._db.execute("BEGIN IMMEDIATE")
            for statement in TABLES:
                self._db.execute(statement)
            set_meta(self._db, "generation", generation)
            set_meta(self._db, "version", VERSION)
            self._db.execute("COMMIT")

    def _fits(self, generation: str) -> bool:
        if not self._path.exists():
            return True
        try:
            db = connect(self._path, read_only=True)
        except Exception as error:
            from matcher.errors import LedgerUnusable

            if isinstance(error, LedgerUnusable):
                return False
            raise
        try:
            return get_meta(db, "generation") == generation and get_meta(db, "version") == VERSION
        except sqlite3.Error:
            return False
        finally:
            db.close()

    @property
    def position(self) -> int:
        """Position in the log that the tables stand at."""
        return int(get_meta(self._db, "position") or 0)

    @property
    def log_time_ns(self) -> int:
        """Latest commit time that was read."""
        return int(get_meta(self._db, "log_time_ns") or 0)

    @property
    def expired_ns(self) -> int:
        """The log's time when ends of life were last looked for."""
        return int(get_meta(self._db, "expired_ns") or 0)

    def left_out(self) -> frozenset[int]:
        """Positions of entries that association failed at."""
        return frozenset(json.loads(get_meta(self._db, "left_out") or "[]"))

    def next_number(self) -> int:
        """First free number of a tracklet; numbers of deleted rows are not given again."""
        highest = self._db.execute("SELECT max(number) FROM tracklets").fetchone()[0] or 0
        return max(int(highest), int(get_meta(self._db, "number") or 0)) + 1

    def load_identities(self, live_since: dict[str, int], since_ns: int) -> list[Identity]:
        """Identities whose life is not over."""
        found = []
        for row in self._db.execute(
            "SELECT identity_id, site, first_ns, last_ns, committed_ns FROM identities"
        ):
            if row[4] >= live_since.get(row[1], since_ns):
                found.append(Identity(row[0], row[1], {}, row[2], row[3], row[4]))
        for identity in found:
            for (tracklet_id,) in self._db.execute(
                f"SELECT tracklet_id FROM tracklets WHERE {OF_IDENTITY} ORDER BY number",
                (identity.identity_id,),
            ):
                identity.members[tracklet_id] = None
        return found

    def load_tracklets(self, identities: Iterable[Identity], since_ns: int) -> Iterator[Tracklet]:
        """Tracklets of these identities, and those without one committed since."""
        select = f"SELECT {TRACKLET_COLUMNS} FROM tracklets WHERE "
        for identity in identities:
            for row in self._db.execute(
                f"{select} {OF_IDENTITY}", (identity.identity_id,)
            ).fetchall():
                yield self._with_vectors(tracklet_from(row))
        for row in self._db.execute(
            f"{select} identity_id = '' AND committed_ns >= ?", (since_ns,)
        ).fetchall():
            yield self._with_vectors(tracklet_from(row))

    def load_tracklet(self, tracklet_id: str) -> Tracklet | None:
        """One tracklet, live or not."""
        row = self._db.execute(
            f"SELECT {TRACKLET_COLUMNS} FROM tracklets WHERE tracklet_id = ?", (tracklet_id,)
        ).fetchone()
        return None if row is None else self._with_vectors(tracklet_from(row))

    def _with_vectors(self, tracklet: Tracklet) -> Tracklet:
        tracklet.stored = load_vectors(self._db, tracklet.number)
        return tracklet

    def load_clocks(self) -> list[tuple[tuple[str, str, str], ClockEstimate]]:
        """Clocks of boots by (site, edge_id, boot_id), those put last at the end."""
        return [
            ((site, edge_id, boot_id), ClockEstimate.from_dict(json.loads(estimate)))
            for site, edge_id, boot_id, estimate in self._db.execute(
                "SELECT site, edge_id, boot_id, estimate FROM clocks ORDER BY number"
            )
        ]

    def load_ended_writers(self) -> list[tuple[str, str, str]]:
        """(site, edge_id, writer_id) of which nothing more will come, the last ended at the end."""
        return self._db.execute(
            "SELECT site, edge_id, writer_id FROM ended_writers ORDER BY number"
        ).fetchall()

    def load_retention(self) -> dict[str, int]:
        """Life of identities by site, nanoseconds."""
        return dict(self._db.execute("SELECT site, life_ns FROM retention").fetchall())

    def load_maps(self) -> dict[str, MapInForce]:
        """The sites' maps in force."""
        return SiteMapReader(self._db).maps

    def load_calibration(self) -> Calibration:
        """The running similarities."""
        return load_calibration(self._db)

    def save(self, changes: Changes, calibration: Calibration, position: int) -> None:
        """Make changes and position durable, in one transaction."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            for tracklet_id in sorted(changes.gone_tracklets):
                db.execute(
                    "DELETE FROM vectors WHERE number IN (SELECT number FROM tracklets "
                    "WHERE tracklet_id = ?)",
                    (tracklet_id,),
                )
                db.execute("DELETE FROM tracklets WHERE tracklet_id = ?", (tracklet_id,))
                # What was told about it goes too; that an identity was forgotten stays.
                db.execute(
                    "DELETE FROM events WHERE tracklet_id = ? AND tracklet_id <> ''",
                    (tracklet_id,),
                )
            highest = 0
            for tracklet in changes.tracklets.values():
                self._save_tracklet(tracklet)
                highest = max(highest, tracklet.number)
            db.executemany(
                "DELETE FROM identities WHERE identity_id = ?",
                [(one,) for one in sorted(changes.gone_identities)],
            )
            db.executemany(
                "INSERT OR REPLACE INTO identities VALUES(?, ?, ?, ?, ?)",
                [
                    (one.identity_id, one.site, one.first_ns, one.last_ns, one.committed_ns)
                    for one in changes.identities.values()
                ],
            )
            db.executemany(
                "INSERT OR REPLACE INTO events VALUES(?, ?, ?, ?, ?)",
                [
                    (
                        message.position,
                        site,
                        message.tracklet.tracklet_id,
                        message.decided_unix_nanos,
                        message.SerializeToString(),
                    )
                    for site, message in changes.events
                ],
            )
            self._save_recent(changes)
            db.executemany(
                "INSERT OR REPLACE INTO retention VALUES(?, ?)", list(changes.retention.items())
            )
            for site, body in changes.maps.items():
                db.execute("DELETE FROM site_maps WHERE site = ?", (site,))
                if body is not None:
                    db.execute("INSERT INTO site_maps VALUES(?, ?, ?)", (site, position, body))
            self._save_calibration(calibration)
            if highest > int(get_meta(db, "number") or 0):
                set_meta(db, "number", str(highest))
            set_meta(db, "position", str(position))
            set_meta(db, "log_time_ns", str(changes.log_time_ns))
            set_meta(db, "expired_ns", str(changes.expired_ns))
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _save_recent(self, changes: Changes) -> None:
        """What is replaced gets a new number, the highest: the order of putting."""
        self._db.executemany(
            "DELETE FROM clocks WHERE site = ? AND edge_id = ? AND boot_id = ?",
            list(changes.clocks),
        )
        self._db.executemany(
            "INSERT INTO clocks(site, edge_id, boot_id, estimate) VALUES(?, ?, ?, ?)",
            [
                (*name, json.dumps(estimate.as_dict()))
                for name, estimate in changes.clocks.items()
                if estimate is not None
            ],
        )
        self._db.executemany(
            "DELETE FROM ended_writers WHERE site = ? AND edge_id = ? AND writer_id = ?",
            list(changes.ended_writers),
        )
        self._db.executemany(
            "INSERT INTO ended_writers(site, edge_id, writer_id) VALUES(?, ?, ?)",
            [name for name, kept in changes.ended_writers.items() if kept],
        )

    def _save_tracklet(self, tracklet: Tracklet) -> None:
        inside = {space: list(values) for space, values in sorted(tracklet.inside.items())}
        self._db.execute(
            f"INSERT OR REPLACE INTO tracklets({TRACKLET_COLUMNS}) VALUES({','.join('?' * 23)})",
            (
                tracklet.number,
                tracklet.tracklet_id,
                tracklet.site,
                tracklet.edge_id,
                tracklet.camera,
                tracklet.revision,
                int(tracklet.state),
                tracklet.first_seen.SerializeToString(),
                tracklet.last_seen.SerializeToString(),
                tracklet.first_ns,
                tracklet.last_ns,
                tracklet.uncertainty_ns,
                int(tracklet.plausible),
                json.dumps(sorted(tracklet.seen_with)),
                json.dumps(inside),
                tracklet.identity_id,
                tracklet.probability,
                tracklet.similarity,
                int(tracklet.pinned),
                tracklet.committed_ns,
                tracklet.seen_ns,
                tracklet.position,
                tracklet.shot_count,
            ),
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO vectors VALUES(?, ?, ?, ?, ?)",
            [
                (
                    tracklet.number,
                    space_id,
                    vectors.shots.shape[1],
                    vectors.shots.astype("<f4").tobytes(),
                    vectors.qualities.astype("<f4").tobytes(),
                )
                for space_id, vectors in sorted(tracklet.stored.items())
            ],
        )

    def _save_calibration(self, calibration: Calibration) -> None:
        for pair in sorted(calibration.dirty):
            positive = calibration.positives.get(pair, Running())
            negative = calibration.negatives.get(pair, Running())
            self._db.execute(
                "INSERT OR REPLACE INTO calibration VALUES(?, ?, ?, ?, ?, ?)",
                (*pair, json.dumps(asdict(positive)), json.dumps(asdict(negative))),
            )
        calibration.dirty.clear()

    def delete_older(self, site: str, before_ns: int) -> int:
        """Delete tracklets of a site last seen before an instant, what was told about them, and
        identities left empty; how many tracklets went."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            old = [
                row[0]
                for row in db.execute(
                    "SELECT number FROM tracklets WHERE seen_ns < ? AND site = ?", (before_ns, site)
                )
            ]
            db.executemany("DELETE FROM vectors WHERE number = ?", [(one,) for one in old])
            db.executemany("DELETE FROM tracklets WHERE number = ?", [(one,) for one in old])
            db.execute("DELETE FROM events WHERE decided_ns < ? AND site = ?", (before_ns, site))
            db.execute(
                "DELETE FROM identities WHERE site = ? AND committed_ns < ? AND NOT EXISTS "
                "(SELECT 1 FROM tracklets WHERE tracklets.identity_id = identities.identity_id "
                "AND tracklets.identity_id <> '')",
                (site, before_ns),
            )
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return len(old)

    def checkpoint(self) -> bool:
        """Bring the WAL home and cut it, so that what was deleted leaves the disk; False where a
        reader of another program held it."""
        return truncate_wal(self._db, wait_s=0.2)

    def close(self) -> None:
        """Close it; a large WAL stays for the next start."""
        close(self._db, within_s=1.0)


def leave_out(path: Path, position: int) -> None:
    """Note that association failed at an entry: the next start leaves it out."""
    db = connect(path)
    try:
        known = set(json.loads(get_meta(db, "left_out") or "[]"))
        set_meta(db, "left_out", json.dumps(sorted({*known, position})))
    finally:
        db.close()
