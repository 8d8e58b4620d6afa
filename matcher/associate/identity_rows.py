"""The tables of identities.db, and their rows as objects, for the writer and for every reader.

Nothing here writes. Threads: a connection, and what reads through it, belongs to one thread.
"""

from __future__ import annotations

import json
import sqlite3

import numpy as np

from matcher.associate.calibrate import Calibration, Pair, Running
from matcher.associate.model import State, Tracklet, Vectors
from matcher.derived import MapInForce, map_in
from reid.v1.sighting_pb2 import CaptureTime

VERSION = "3"  # another one: the file is made again

TABLES = (
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """CREATE TABLE tracklets(
        number INTEGER PRIMARY KEY, tracklet_id TEXT NOT NULL UNIQUE, site TEXT NOT NULL,
        edge_id TEXT NOT NULL, camera TEXT NOT NULL, revision INTEGER NOT NULL,
        state INTEGER NOT NULL, first_seen BLOB NOT NULL, last_seen BLOB NOT NULL,
        first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, uncertainty_ns INTEGER NOT NULL,
        plausible INTEGER NOT NULL, seen_with TEXT NOT NULL, inside TEXT NOT NULL,
        identity_id TEXT NOT NULL, probability REAL NOT NULL, similarity REAL NOT NULL,
        pinned INTEGER NOT NULL, committed_ns INTEGER NOT NULL, seen_ns INTEGER NOT NULL,
        position INTEGER NOT NULL, shots INTEGER NOT NULL)""",
    "CREATE INDEX tracklets_identity ON tracklets(identity_id) WHERE identity_id <> ''",
    "CREATE INDEX tracklets_last ON tracklets(last_ns, number)",
    "CREATE INDEX tracklets_seen ON tracklets(seen_ns)",
    """CREATE TABLE vectors(
        number INTEGER NOT NULL, space_id TEXT NOT NULL, dimension INTEGER NOT NULL,
        shots BLOB NOT NULL, qualities BLOB NOT NULL, PRIMARY KEY(number, space_id))
        WITHOUT ROWID""",
    """CREATE TABLE identities(
        identity_id TEXT PRIMARY KEY, site TEXT NOT NULL, first_ns INTEGER NOT NULL,
        last_ns INTEGER NOT NULL, committed_ns INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX identities_last ON identities(last_ns, identity_id)",
    """CREATE TABLE events(
        position INTEGER PRIMARY KEY, site TEXT NOT NULL, tracklet_id TEXT NOT NULL,
        decided_ns INTEGER NOT NULL, message BLOB NOT NULL)""",
    """CREATE TABLE clocks(
        number INTEGER PRIMARY KEY, site TEXT NOT NULL, edge_id TEXT NOT NULL,
        boot_id TEXT NOT NULL, estimate TEXT NOT NULL, UNIQUE(site, edge_id, boot_id))""",
    "CREATE INDEX events_tracklet ON events(tracklet_id) WHERE tracklet_id <> ''",
    """CREATE TABLE ended_writers(
        number INTEGER PRIMARY KEY, site TEXT NOT NULL, edge_id TEXT NOT NULL,
        writer_id TEXT NOT NULL, UNIQUE(site, edge_id, writer_id))""",
    "CREATE TABLE retention(site TEXT PRIMARY KEY, life_ns INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE site_maps(
        site TEXT PRIMARY KEY, position INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE calibration(
        site TEXT NOT NULL, space_id TEXT NOT NULL, camera_a TEXT NOT NULL,
        camera_b TEXT NOT NULL, positive TEXT NOT NULL, negative TEXT NOT NULL,
        PRIMARY KEY(site, space_id, camera_a, camera_b)) WITHOUT ROWID""",
)
# The index tracklets_identity holds rows that have one; SQLite takes it only where that is said.
OF_IDENTITY = "identity_id = ? AND identity_id <> ''"
TRACKLET_COLUMNS = (
    "number, tracklet_id, site, edge_id, camera, revision, state, first_seen, last_seen, first_ns, "
    "last_ns, uncertainty_ns, plausible, seen_with, inside, identity_id, probability, similarity, "
    "pinned, committed_ns, seen_ns, position, shots"
)


def tracklet_from(row: tuple) -> Tracklet:  # type: ignore[type-arg]
    """A tracklet from a row of TRACKLET_COLUMNS, without vectors."""
    return Tracklet(
        tracklet_id=row[1],
        number=row[0],
        site=row[2],
        edge_id=row[3],
        camera=row[4],
        revision=row[5],
        state=State(row[6]),
        first_seen=CaptureTime.FromString(row[7]),
        last_seen=CaptureTime.FromString(row[8]),
        first_ns=row[9],
        last_ns=row[10],
        uncertainty_ns=row[11],
        plausible=bool(row[12]),
        seen_with=set(json.loads(row[13])),
        inside={
            space: (int(pairs), float(mean), float(variance))
            for space, (pairs, mean, variance) in json.loads(row[14]).items()
        },
        identity_id=row[15],
        probability=row[16],
        similarity=row[17],
        pinned=bool(row[18]),
        committed_ns=row[19],
        seen_ns=row[20],
        position=row[21],
        shot_count=row[22],
    )


def load_vectors(db: sqlite3.Connection, number: int) -> dict[str, Vectors]:
    """The vectors of one tracklet by space."""
    found = {}
    for space_id, dimension, shots, qualities in db.execute(
        "SELECT space_id, dimension, shots, qualities FROM vectors WHERE number = ?", (number,)
    ):
        found[space_id] = Vectors.of(
            np.frombuffer(shots, "<f4").reshape(-1, dimension).astype(np.float32),
            np.frombuffer(qualities, "<f4").astype(np.float32),
        )
    return found


class SiteMapReader:
    """The sites' maps in force, read again only where one changed. Not thread-safe."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._read: dict[str, tuple[int, MapInForce]] = {}

    @property
    def maps(self) -> dict[str, MapInForce]:
        """By site."""
        found: dict[str, tuple[int, MapInForce]] = {}
        for site, position in self._db.execute("SELECT site, position FROM site_maps").fetchall():
            known = self._read.get(site)
            if known is None or known[0] != position:
                row = self._db.execute(
                    "SELECT position, body FROM site_maps WHERE site = ?", (site,)
                ).fetchone()
                read = None if row is None else map_in(row[1])
                if read is None:
                    continue  # taken out of force in between
                known = (int(row[0]), read)
            found[site] = known
        self._read = found
        return {site: one for site, (_, one) in found.items()}


def load_calibration(db: sqlite3.Connection) -> Calibration:
    """The running similarities."""
    calibration = Calibration()
    for site, space_id, camera_a, camera_b, positive, negative in db.execute(
        "SELECT site, space_id, camera_a, camera_b, positive, negative FROM calibration"
    ):
        pair: Pair = (site, space_id, camera_a, camera_b)
        calibration.positives[pair] = Running(**json.loads(positive))
        calibration.negatives[pair] = Running(**json.loads(negative))
    return calibration
