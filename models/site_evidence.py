"""What a matcher knows of a site without a picture or a label: vectors, cameras, times, tracklets.

Promise: an `Evidence` holds the newest revision of every tracklet, once, with the shots of one
space; vectors that cannot be used are left out and counted. It is read from what `edge-match
export` writes (JSON lines or Parquet), from a ledger, or made of arrays. Memory: 4 bytes times
dimension for every shot (10⁵ shots of 512: 200 MB).

Certain pairs are those that need no judgement: two shots of one tracklet show one person; two
tracklets seen at once by one camera show two.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from reid.codec import EmbeddingError, decode
from reid.limits import STRING_BYTES
from reid.v1.sighting_pb2 import Embedding, Sighting

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_UNIT_TOLERANCE = 1e-2  # as the wire's
_MOST_SECONDS = 1e10  # from 1970: the year 2286; what the wire can say ends before
_ROWS = 512  # of a Parquet file at a time


class EvidenceError(Exception):
    """Sightings from which nothing can be learned; the text says what was found, and the cure."""


@dataclass(frozen=True)
class Evidence:
    """n vectors of t tracklets.

    Attributes:
        space_id, site: of all of them.
        cameras: names, EDGE/CAMERA; cameras are numbered by them.
        vectors: (n, d) float32, rows of unit length.
        tracklet: (n,) number of each vector's tracklet, 0..t-1; every tracklet has one at least.
        camera: (t,) camera of each tracklet.
        first, last: (t,) seconds since any one moment, the same for all cameras; nan: unknown.
        together: (m, 2) tracklets that were seen at once by one camera.
        left_out: vectors that were not finite or not of unit length.
    """

    space_id: str
    site: str
    cameras: tuple[str, ...]
    vectors: Floats
    tracklet: Ints
    camera: Ints
    first: NDArray[np.float64]
    last: NDArray[np.float64]
    together: Ints
    left_out: int = 0

    @property
    def tracklets(self) -> int:
        """t."""
        return len(self.camera)

    @property
    def camera_of_vector(self) -> Ints:
        """(n,) camera of each vector."""
        found: Ints = self.camera[self.tracklet]
        return found

    def part(self, kept: NDArray[np.bool_]) -> Evidence:
        """The evidence of some tracklets, (t,) mask, numbered anew."""
        number = np.cumsum(kept) - 1
        rows = kept[self.tracklet]
        both = kept[self.together].all(axis=1) if len(self.together) else np.zeros(0, np.bool_)
        return Evidence(
            space_id=self.space_id,
            site=self.site,
            cameras=self.cameras,
            vectors=self.vectors[rows],
            tracklet=number[self.tracklet[rows]],
            camera=self.camera[kept],
            first=self.first[kept],
            last=self.last[kept],
            together=number[self.together[both]].reshape(-1, 2),
            left_out=self.left_out,
        )


def seen_together(camera: Ints, first: NDArray[np.float64], last: NDArray[np.float64]) -> Ints:
    """(m, 2) pairs of tracklets of one camera whose times overlap, each once; nan overlaps none."""
    pairs: list[tuple[int, int]] = []
    for number in np.unique(camera):
        members = np.flatnonzero((camera == number) & np.isfinite(first) & np.isfinite(last))
        members = members[np.argsort(first[members], kind="stable")]
        open_: list[int] = []
        for one in members.tolist():
            open_ = [other for other in open_ if last[other] >= first[one]]
            pairs.extend((other, one) for other in open_)
            open_.append(one)
    return np.array(pairs, np.int64).reshape(-1, 2)


def read_evidence(path: Path, *, space_id: str | None = None, site: str | None = None) -> Evidence:
    """The evidence in a file of `edge-match export`.

    Args:
        path: .jsonl, .ndjson or .parquet of `edge-match export`, or a matcher's ledger.db, which is
            only read, also while it serves.
        space_id, site: which to take; may be left out where the file holds only one.
    Raises:
        EvidenceError: the file cannot be read, or holds several spaces or sites.
    """
    return from_records(_records(path), where=str(path), space_id=space_id, site=site)


def from_records(
    records: Iterable[Mapping[str, Any]],
    *,
    where: str,
    space_id: str | None = None,
    site: str | None = None,
) -> Evidence:
    """The evidence in records as `edge-match export` gives them.

    Raises:
        EvidenceError: one that is no sighting, no usable vector, or several spaces or sites and
            none was chosen.
    """
    newest: dict[tuple[str, str], _Newest] = {}
    for position, record in enumerate(records, 1):
        try:
            key = (_name(record, "site"), _name(record, "tracklet_id"))
            revision = int(record["revision"])
            if key in newest and newest[key].revision >= revision:
                continue
            newest[key] = _read(record, revision)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise EvidenceError(
                f"{where}: sighting {position} is none ({type(error).__name__}: {error}); make the "
                "file with edge-match export"
            ) from error
    if not newest:
        raise EvidenceError(f"{where}: holds no sightings; gather some first")
    site = _only(site, sorted({of for of, _ in newest}), "site", "--site", where)
    of_site = [newest[key] for key in sorted(newest) if key[0] == site]
    left_out = sum(one.damaged for one in of_site)
    spaces = sorted({space for one in of_site for space in one.vectors})
    if not spaces:
        raise EvidenceError(
            f"{where}: the {len(of_site)} sightings of {site!r} hold no vectors ({left_out} "
            "damaged ones left out); an export holds them unless made with --no-embeddings"
        )
    space_id = _only(space_id, spaces, "space", "--space", where)
    chosen = [(one, one.vectors[space_id]) for one in of_site if space_id in one.vectors]
    sizes = sorted({vectors.shape[1] for _, vectors in chosen})
    if len(sizes) > 1:
        raise EvidenceError(
            f"{where}: vectors of space {space_id!r} have {' and '.join(map(str, sizes))} numbers; "
            "one space has one length, so take the sightings of one embedder alone"
        )
    cameras = tuple(sorted({one.place for one, _ in chosen}))
    number = {name: index for index, name in enumerate(cameras)}
    ids = {one.tracklet_id: index for index, (one, _) in enumerate(chosen)}
    pairs = {
        (min(index, ids[other]), max(index, ids[other]))
        for index, (one, _) in enumerate(chosen)
        for other in one.seen_with
        if other in ids and ids[other] != index
    }
    return Evidence(
        space_id=space_id,
        site=site,
        cameras=cameras,
        vectors=np.concatenate([vectors for _, vectors in chosen]),
        tracklet=np.repeat(np.arange(len(chosen)), [len(vectors) for _, vectors in chosen]),
        camera=np.array([number[one.place] for one, _ in chosen], np.int64),
        first=np.array([one.first for one, _ in chosen]),
        last=np.array([one.last for one, _ in chosen]),
        together=np.array(sorted(pairs), np.int64).reshape(-1, 2),
        left_out=left_out,
    )


_KEPT = (
    "edge_id", "camera", "tracklet_id", "seen_with",
    "first_seen_unix_nanos", "last_seen_unix_nanos",
)  # fmt: skip


@dataclass(frozen=True)
class _Newest:
    """The newest revision of a tracklet: what is kept of it, and its vectors by space."""

    revision: int
    tracklet_id: str
    place: str
    seen_with: tuple[str, ...]
    first: float
    last: float
    vectors: dict[str, Floats]
    damaged: int


def _read(record: Mapping[str, Any], revision: int) -> _Newest:
    """Raises KeyError, TypeError, ValueError or OverflowError where it is no sighting."""
    vectors, damaged = _vectors(record)
    return _Newest(
        revision=revision,
        tracklet_id=str(record["tracklet_id"]),
        # EDGE/CAMERA: two boxes of a site may name their cameras alike
        place=f"{_name(record, 'edge_id')}/{_name(record, 'camera')}",
        seen_with=tuple(str(other) for other in record["seen_with"] or ()),
        first=_seconds(record["first_seen_unix_nanos"]),
        last=_seconds(record["last_seen_unix_nanos"]),
        vectors=vectors,
        damaged=damaged,
    )


def _vectors(record: Mapping[str, Any]) -> tuple[dict[str, Floats], int]:
    """Unit vectors of a record's shots by space, and how many were left out as damaged."""
    found: dict[str, list[Floats]] = {}
    damaged = 0
    for shot in record["shots"] or ():
        for one in shot["embeddings"] or ():
            vector = np.asarray(one["vector"], np.float32)
            length = float(np.linalg.norm(vector))
            if (
                vector.ndim == 1
                and vector.size
                and np.isfinite(length)
                and abs(length - 1) <= _UNIT_TOLERANCE
            ):
                found.setdefault(_name(one, "space_id"), []).append(vector / np.float32(length))
            else:
                damaged += 1
    return {space: np.stack(vectors) for space, vectors in found.items()}, damaged


def _name(record: Mapping[str, Any], field: str) -> str:
    """A name as the wire has them: a map's card and folder are named by it."""
    name = record[field]
    if not isinstance(name, str) or not 0 < len(name.encode()) <= STRING_BYTES:
        raise ValueError(f"{field} is {name!r:.40}, text of 1 to {STRING_BYTES} bytes expected")
    return name


def _seconds(nanos: float | None) -> float:
    """Seconds; nan where unknown, or where no calendar has such a day."""
    seconds = nanos / 1e9 if nanos else float("nan")
    return seconds if abs(seconds) < _MOST_SECONDS else float("nan")


def _only(wanted: str | None, found: list[str], what: str, flag: str, where: str) -> str:
    if wanted is not None:
        if wanted not in found:
            raise EvidenceError(f"{where}: no {what} {wanted!r}; it holds {', '.join(found)}")
        return wanted
    if len(found) > 1:
        raise EvidenceError(f"{where}: holds {what}s {', '.join(found)}; choose one with {flag}")
    return found[0]


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            yield from _parquet(path)
        elif path.suffix.lower() == ".db":
            yield from _ledger(path)
        elif path.suffix.lower() in (".jsonl", ".ndjson"):
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        record = json.loads(line)
                    except (ValueError, RecursionError) as error:  # not JSON, or not even text
                        raise EvidenceError(
                            f"{path}, line {number}: {error}; make the file with edge-match export"
                        ) from error
                    yield record
        else:
            raise EvidenceError(
                f"{path}: neither .parquet, .jsonl nor a ledger.db; make one with edge-match export"
            )
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise EvidenceError(
            f"{path}: Parquet needs pyarrow (pip install 'edge-reid[matcher]'); or export .jsonl"
        ) from error
    columns = ["site", "revision", "shots", *_KEPT]
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise EvidenceError(f"{path}: no export of edge-match ({error})") from error


def _ledger(path: Path) -> Iterator[Mapping[str, Any]]:
    """Sightings of a matcher's ledger: table `log`, kind 1, body a serialised Sighting."""
    if not path.is_file():
        raise EvidenceError(f"{path}: does not exist")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as ledger:
            for (body,) in ledger.execute("SELECT body FROM log WHERE kind = 1 ORDER BY position"):
                yield _of_sighting(Sighting.FromString(body))
    except (sqlite3.Error, DecodeError, TypeError) as error:
        raise EvidenceError(
            f"{path}: no ledger that can be read ({error}); use edge-match export"
        ) from error


def _of_sighting(sighting: Sighting) -> dict[str, Any]:
    return {
        "site": sighting.site,
        "edge_id": sighting.edge_id,
        "camera": sighting.camera,
        "tracklet_id": sighting.tracklet_id,
        "revision": sighting.revision,
        "seen_with": list(sighting.seen_with),
        "first_seen_unix_nanos": sighting.first_seen.unix_nanos,
        "last_seen_unix_nanos": sighting.last_seen.unix_nanos,
        "shots": [
            {
                "embeddings": [
                    {"space_id": one.space_id, "vector": _decoded(one)} for one in shot.embeddings
                ]
            }
            for shot in sighting.shots
        ],
    }


def _decoded(embedding: Embedding) -> Floats:
    """The vector; an empty one where it is damaged, which is then counted as left out."""
    try:
        return decode(embedding)
    except EmbeddingError:
        return np.zeros(0, np.float32)
