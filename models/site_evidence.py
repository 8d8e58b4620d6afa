"""What a matcher knows of a site without a picture or a label: vectors, cameras, times, tracklets.

Promise: an `Evidence` holds the newest revision of every tracklet, once, with the shots of one
space; what cannot be used is counted, never guessed. It is read from what `edge-match export`
writes (JSON lines or Parquet), or made of arrays. Memory: 4 bytes times dimension for every shot
(10⁵ shots of 512: 200 MB).

Certain pairs are those that need no judgement: two shots of one tracklet show one person; two
tracklets seen at once by one camera show two.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_UNIT_TOLERANCE = 1e-2  # as the wire's
_ROWS = 512  # of a Parquet file at a time


class EvidenceError(Exception):
    """Sightings from which nothing can be learned; the text says what was found, and the cure."""


@dataclass(frozen=True)
class Evidence:
    """n vectors of t tracklets.

    Attributes:
        space_id, site: of all of them.
        cameras: names; cameras are numbered by them.
        vectors: (n, d) float32, rows of unit length.
        tracklet: (n,) number of each vector's tracklet, 0..t-1; every tracklet has one at least.
        camera: (t,) camera of each tracklet.
        first, last: (t,) seconds since any one moment, the same for all cameras; nan: unknown.
        together: (m, 2) tracklets that were seen at once by one camera.
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
        path: .jsonl, .ndjson or .parquet.
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
        EvidenceError: no usable vector, or several spaces or sites and none was chosen.
    """
    newest: dict[tuple[str, str], tuple[int, Mapping[str, Any], dict[str, Floats]]] = {}
    spaces: Counter[str] = Counter()
    for record in records:
        key = (str(record["site"]), str(record["tracklet_id"]))
        revision = int(record["revision"])
        if key in newest and newest[key][0] >= revision:
            continue
        vectors = _vectors(record)
        kept = {name: record[name] for name in _KEPT}
        newest[key] = (revision, kept, vectors)
        spaces.update(vectors.keys())
    sites = sorted({of for of, _ in newest})
    site = _only(site, sites, "site", "--site", where)
    space_id = _only(space_id, sorted(spaces), "space", "--space", where)
    chosen = [
        (record, vectors[space_id])
        for (of, _), (_, record, vectors) in sorted(newest.items(), key=lambda item: item[0])
        if of == site and space_id in vectors
    ]
    if not chosen:
        raise EvidenceError(f"{where}: no vector of space {space_id!r} at site {site!r}")
    cameras = tuple(sorted({str(record["camera"]) for record, _ in chosen}))
    number = {name: index for index, name in enumerate(cameras)}
    ids = {str(record["tracklet_id"]): index for index, (record, _) in enumerate(chosen)}
    pairs = {
        (min(index, ids[other]), max(index, ids[other]))
        for index, (record, _) in enumerate(chosen)
        for other in record["seen_with"]
        if other in ids and ids[other] != index
    }
    return Evidence(
        space_id=space_id,
        site=site,
        cameras=cameras,
        vectors=np.concatenate([vectors for _, vectors in chosen]),
        tracklet=np.repeat(np.arange(len(chosen)), [len(vectors) for _, vectors in chosen]),
        camera=np.array([number[str(record["camera"])] for record, _ in chosen], np.int64),
        first=np.array([_seconds(record["first_seen_unix_nanos"]) for record, _ in chosen]),
        last=np.array([_seconds(record["last_seen_unix_nanos"]) for record, _ in chosen]),
        together=np.array(sorted(pairs), np.int64).reshape(-1, 2),
    )


_KEPT = (
    "camera", "tracklet_id", "seen_with", "first_seen_unix_nanos", "last_seen_unix_nanos",
)  # fmt: skip


def _vectors(record: Mapping[str, Any]) -> dict[str, Floats]:
    """Unit vectors of a record's shots by space; a damaged vector is left out."""
    found: dict[str, list[Floats]] = {}
    for shot in record["shots"] or ():
        for one in shot["embeddings"] or ():
            vector = np.asarray(one["vector"], np.float32)
            length = float(np.linalg.norm(vector))
            if vector.size and np.isfinite(length) and abs(length - 1) <= _UNIT_TOLERANCE:
                found.setdefault(str(one["space_id"]), []).append(vector / np.float32(length))
    return {space: np.stack(vectors) for space, vectors in found.items()}


def _seconds(nanos: int | None) -> float:
    return nanos / 1e9 if nanos else float("nan")


def _only(wanted: str | None, found: list[str], what: str, flag: str, where: str) -> str:
    if wanted is not None:
        if wanted not in found:
            raise EvidenceError(f"{where}: no {what} {wanted!r}; it holds {', '.join(found)}")
        return wanted
    if not found:
        raise EvidenceError(
            f"{where}: holds no vectors; export them with edge-match export --embeddings"
        )
    if len(found) > 1:
        raise EvidenceError(f"{where}: holds {what}s {', '.join(found)}; choose one with {flag}")
    return found[0]


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            yield from _parquet(path)
        elif path.suffix.lower() in (".jsonl", ".ndjson"):
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        yield json.loads(line)
                    except json.JSONDecodeError as error:
                        raise EvidenceError(f"{path}, line {number}: {error}") from error
        else:
            raise EvidenceError(
                f"{path}: neither .parquet nor .jsonl; make one with edge-match export"
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
