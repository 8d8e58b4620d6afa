"""The check of a batch before anything is stored: quick for good records, exact for the others.

Promise: a record is taken only if `reid.limits.check_record` takes it; what that refuses comes back
as a Reject with its text. The quick way looks at the same values, all embeddings of a batch in one
array, and sends whatever it is not sure of to `check_record`. Not safe for several threads: each
stream has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from matcher.clocks import ClockEstimate
from matcher.records import Row
from matcher.times import age_from_ns
from reid.limits import (
    PATH_POINTS,
    SEEN_WITH,
    SHOTS,
    STRING_BYTES,
    InvalidSighting,
    UnknownSpace,
    check_record,
    is_writer_id,
)
from reid.v1.ingest_pb2 import (
    REJECT_REASON_FOREIGN,
    REJECT_REASON_INVALID,
    REJECT_REASON_UNKNOWN_SPACE,
    Batch,
    Reject,
)
from reid.v1.sighting_pb2 import (
    EMBEDDING_ENCODING_FLOAT16,
    EMBEDDING_ENCODING_FLOAT32,
    EmbeddingEncoding,
    Sighting,
    SightingRecord,
)

_MAX_SEQ = 1 << 63
_INFINITY = float("inf")
_TYPES = {EMBEDDING_ENCODING_FLOAT16: "<f2", EMBEDDING_ENCODING_FLOAT32: "<f4"}
_SURE_TOLERANCE = 0.009  # inside this a unit length is sure; check_record knows the exact bound
_KNOWN_STRINGS = 4096  # strings remembered as checked: cameras, spaces, boot ids, tracklets


@dataclass(slots=True)
class Checked:
    """What came out of a batch: rows for the ledger, and what is refused for good."""

    rows: list[Row] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


class BatchCheck:
    """Checks the batches of one stream."""

    def __init__(
        self,
        *,
        site: str,
        edge_id: str,
        spaces: dict[str, int],
        boot_id: str,
        estimate: Callable[[str], ClockEstimate | None],
    ) -> None:
        """
        Args:
            site, edge_id, boot_id: of the stream's Hello.
            spaces: space_id -> dimension, as announced.
            estimate: what is known of a boot's clock.
        """
        self._boot_id = boot_id
        self._estimate = estimate
        self._site = site
        self._edge_id = edge_id
        self._spaces = spaces
        self._strings: set[str] = set()
        self._writer_ids: set[str] = set()

    def check(self, batch: Batch, *, now_ns: int) -> Checked:
        """Check every record by itself.

        Args:
            now_ns: the commit's UTC; the age of a sighting whose times are implausible.
        """
        result = Checked()
        doubtful: list[SightingRecord] = []
        # (dimension, encoding) -> values joined, and the record each belongs to
        vectors: dict[tuple[int, EmbeddingEncoding], tuple[list[bytes], list[int]]] = {}
        candidates: list[SightingRecord | None] = []
        for record in batch.records:
            if self._looks_good(record, len(candidates), vectors):
                candidates.append(record)
            else:
                doubtful.append(record)
                candidates.append(None)
        for (dimension, encoding), (values, owners) in vectors.items():
            for owner in _not_unit(values, owners, dimension, _TYPES[encoding]):
                suspect = candidates[owner]
                if suspect is not None:
                    doubtful.append(suspect)
                    candidates[owner] = None
        for good in candidates:
            if good is not None:
                result.rows.append(self._row(good, now_ns))
        for record in doubtful:
            reject = self._judge(record)
            if reject is None:
                result.rows.append(self._row(record, now_ns))
            else:
                result.rejects.append(reject)
        return result

    def _judge(self, record: SightingRecord) -> Reject | None:
        sighting = record.sighting
        try:
            check_record(record, self._spaces)
        except UnknownSpace as error:
            return Reject(key=record.key, reason=REJECT_REASON_UNKNOWN_SPACE, message=str(error))
        except InvalidSighting as error:
            return Reject(key=record.key, reason=REJECT_REASON_INVALID, message=str(error))
        if (sighting.site, sighting.edge_id) != (self._site, self._edge_id):
            return Reject(
                key=record.key,
                reason=REJECT_REASON_FOREIGN,
                message=f"made by {sighting.site}/{sighting.edge_id}, sent by "
                f"{self._site}/{self._edge_id}; a box sends only its own sightings",
            )
        return None

    def _looks_good(
        self,
        record: SightingRecord,
        index: int,
        vectors: dict[tuple[int, EmbeddingEncoding], tuple[list[bytes], list[int]]],
    ) -> bool:
        """Whether all but the vectors is surely good; the vectors are collected."""
        key = record.key
        sighting = record.sighting
        first, last = sighting.first_seen, sighting.last_seen
        shots, path, seen_with = sighting.shots, sighting.path, sighting.seen_with
        good_string = self._good_string
        if not (
            self._good_writer(key.writer_id)
            and 1 <= key.seq < _MAX_SEQ
            and len(record.content_hash) == 32
            and sighting.site == self._site
            and sighting.edge_id == self._edge_id
            and good_string(sighting.camera)
            and good_string(sighting.tracklet_id)
            and sighting.revision
            and sighting.frame_width
            and sighting.frame_height
            and 0.0 <= first.uncertainty_ms < _INFINITY
            and 0.0 <= last.uncertainty_ms < _INFINITY
            and (not first.boot_id or good_string(first.boot_id))
            and (not last.boot_id or good_string(last.boot_id))
            and len(shots) <= SHOTS
            and len(path) <= PATH_POINTS
            and len(seen_with) <= SEEN_WITH
        ):
            return False
        for other in seen_with:
            if not good_string(other):
                return False
        for point in path:
            box = point.box
            if not (
                point.offset_nanos >= 0
                and 0.0 <= box.x1 <= box.x2 <= 1.0
                and 0.0 <= box.y1 <= box.y2 <= 1.0
            ):
                return False
        for entry in sighting.statistics:
            if not (
                good_string(entry.space_id)
                and -1.0 <= entry.similarity_mean <= 1.0
                and 0.0 <= entry.similarity_variance <= 4.0
            ):
                return False
        for shot in shots:
            box, captured, embeddings = shot.box, shot.captured, shot.embeddings
            if not (
                0.0 <= box.x1 <= box.x2 <= 1.0
                and 0.0 <= box.y1 <= box.y2 <= 1.0
                and 0.0 <= captured.uncertainty_ms < _INFINITY
                and (not captured.boot_id or good_string(captured.boot_id))
                and 0.0 <= shot.quality <= 1.0
                and 0.0 <= shot.detector_score <= 1.0
                and embeddings
            ):
                return False
            for embedding in embeddings:
                space_id, values, encoding = (
                    embedding.space_id,
                    embedding.values,
                    embedding.encoding,
                )
                dimension = self._spaces.get(space_id)
                form = _TYPES.get(encoding)
                if (
                    dimension is None
                    or form is None
                    or len(values) != dimension * int(form[2])
                    or not good_string(embedding.variant_id)
                ):
                    return False
                collected = vectors.get((dimension, encoding))
                if collected is None:
                    collected = vectors[(dimension, encoding)] = ([], [])
                collected[0].append(values)
                collected[1].append(index)
            if len(embeddings) > 1 and len({one.space_id for one in embeddings}) < len(embeddings):
                return False
        return True

    def _row(self, record: SightingRecord, now_ns: int) -> Row:
        sighting: Sighting = record.sighting
        last_seen = sighting.last_seen
        boot_id = last_seen.boot_id
        if not boot_id:
            # Empty means the Hello's boot: said here, since the log outlives the stream.
            boot_id = last_seen.boot_id = self._boot_id
        if not sighting.first_seen.boot_id:
            sighting.first_seen.boot_id = self._boot_id
        key = record.key
        return (
            key.writer_id,
            key.seq,
            record.content_hash,
            sighting.tracklet_id,
            age_from_ns(last_seen, self._estimate(boot_id), now_ns),
            sighting.SerializeToString(),
        )

    def _good_string(self, text: str) -> bool:
        if text in self._strings:
            return True
        if not text or len(text.encode()) > STRING_BYTES:
            return False
        if len(self._strings) >= _KNOWN_STRINGS:
            self._strings.clear()
        self._strings.add(text)
        return True

    def _good_writer(self, writer_id: str) -> bool:
        if writer_id in self._writer_ids:
            return True
        if not is_writer_id(writer_id):
            return False
        if len(self._writer_ids) >= _KNOWN_STRINGS:
            self._writer_ids.clear()
        self._writer_ids.add(writer_id)
        return True


def _not_unit(values: list[bytes], owners: list[int], dimension: int, form: str) -> list[int]:
    """Owners of vectors that are not surely finite and of unit length."""
    matrix = np.frombuffer(b"".join(values), form).reshape(-1, dimension).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
        bad = ~(np.abs(lengths - 1.0) <= _SURE_TOLERANCE)  # NaN is bad too
    return [owners[at] for at in np.flatnonzero(bad)] if bad.any() else []
