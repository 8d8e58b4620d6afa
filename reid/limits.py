"""The limits of the wire, and the check of a sighting against them: one truth for both ends.

Promise: `check_record` raises `InvalidSighting` that names the field, the value found and what is
allowed; it never changes what it checks. Any thread may call.
"""

from __future__ import annotations

import math
import re

from reid.codec import EmbeddingError, decode
from reid.v1.sighting_pb2 import Box, CaptureTime, Sighting, SightingRecord

MESSAGE_BYTES = 1 << 20
BATCH_SIGHTINGS = 64
SHOTS = 4
PATH_POINTS = 32
SEEN_WITH = 256
STRING_BYTES = 128
CAMERAS = 32
RANGES = 256
DIMENSION = 4096
HASH_BYTES = 32
UNIT_TOLERANCE = 1e-2
HEARTBEAT_S = 5.0
DEAD_AFTER_S = 20.0
WINDOW_SIGHTINGS = 1024

_WRITER_ID = re.compile(r"[0-9a-f]{32}")


class InvalidSighting(ValueError):
    """A sighting breaks the contract of proto/reid/v1.

    Attributes:
        field: path of the field, such as "shots[0].box".
        problem: what was found and what is allowed.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class UnknownSpace(InvalidSighting):
    """An embedding of a space that was not announced, or of another dimension."""


def is_writer_id(text: str) -> bool:
    """Whether this is 32 lower-case hexadecimal digits."""
    return _WRITER_ID.fullmatch(text) is not None


def _check_text(field: str, text: str, *, optional: bool = False) -> None:
    size = len(text.encode())
    if size > STRING_BYTES or (size == 0 and not optional):
        least = 0 if optional else 1
        raise InvalidSighting(field, f"{size} bytes; {least} to {STRING_BYTES} are allowed")


def _check_box(field: str, box: Box) -> None:
    # NaN fails each comparison, so the chain refuses it too.
    if not (0.0 <= box.x1 <= box.x2 <= 1.0 and 0.0 <= box.y1 <= box.y2 <= 1.0):
        found = f"({box.x1:g}, {box.y1:g}, {box.x2:g}, {box.y2:g})"
        raise InvalidSighting(field, f"{found}; corners are shares of the frame, 0..1, in order")


def _check_time(field: str, time: CaptureTime) -> None:
    if not (math.isfinite(time.uncertainty_ms) and time.uncertainty_ms >= 0):
        raise InvalidSighting(f"{field}.uncertainty_ms", f"{time.uncertainty_ms}; 0 or more")
    _check_text(f"{field}.boot_id", time.boot_id, optional=True)


def _check_share(field: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InvalidSighting(field, f"{value}; 0..1 is allowed")


def check_sighting(sighting: Sighting, spaces: dict[str, int]) -> None:
    """Check one sighting against the contract.

    Args:
        sighting: the message.
        spaces: space_id -> dimension, as announced in Hello.
    Raises:
        UnknownSpace: an embedding of another space or dimension.
        InvalidSighting: anything else that the contract does not allow.
    """
    for field in ("site", "edge_id", "camera", "tracklet_id"):
        _check_text(field, getattr(sighting, field))
    if sighting.revision < 1:
        raise InvalidSighting("revision", "0; revisions count from 1")
    if sighting.frame_width < 1 or sighting.frame_height < 1:
        size = f"{sighting.frame_width}x{sighting.frame_height}"
        raise InvalidSighting("frame_width, frame_height", f"{size}; both must be above 0")
    _check_time("first_seen", sighting.first_seen)
    _check_time("last_seen", sighting.last_seen)
    if len(sighting.shots) > SHOTS:
        raise InvalidSighting("shots", f"{len(sighting.shots)}; at most {SHOTS}")
    if len(sighting.path) > PATH_POINTS:
        raise InvalidSighting("path", f"{len(sighting.path)} points; at most {PATH_POINTS}")
    if len(sighting.seen_with) > SEEN_WITH:
        raise InvalidSighting("seen_with", f"{len(sighting.seen_with)}; at most {SEEN_WITH}")
    for other in sighting.seen_with:
        _check_text("seen_with", other)
    for i, point in enumerate(sighting.path):
        if point.offset_nanos < 0:
            raise InvalidSighting(f"path[{i}].offset_nanos", f"{point.offset_nanos}; 0 or more")
        _check_box(f"path[{i}].box", point.box)
    for i, entry in enumerate(sighting.statistics):
        _check_text(f"statistics[{i}].space_id", entry.space_id)
        if not -1.01 <= entry.similarity_mean <= 1.01 or not 0 <= entry.similarity_variance <= 4:
            raise InvalidSighting(
                f"statistics[{i}]",
                f"mean {entry.similarity_mean}, variance {entry.similarity_variance}; "
                "a mean is within -1..1, a variance 0 or more",
            )
    for i, shot in enumerate(sighting.shots):
        field = f"shots[{i}]"
        _check_time(f"{field}.captured", shot.captured)
        _check_box(f"{field}.box", shot.box)
        _check_share(f"{field}.quality", shot.quality)
        _check_share(f"{field}.detector_score", shot.detector_score)
        if not shot.embeddings:
            raise InvalidSighting(f"{field}.embeddings", "none; a shot has at least one")
        seen: set[str] = set()
        for j, embedding in enumerate(shot.embeddings):
            where = f"{field}.embeddings[{j}]"
            _check_text(f"{where}.space_id", embedding.space_id)
            _check_text(f"{where}.variant_id", embedding.variant_id)
            if embedding.space_id in seen:
                raise InvalidSighting(where, f"space {embedding.space_id!r} twice in one shot")
            seen.add(embedding.space_id)
            dimension = spaces.get(embedding.space_id)
            if dimension is None:
                raise UnknownSpace(where, f"space {embedding.space_id!r} was not announced")
            try:
                decode(embedding, dimension)
            except EmbeddingError as error:
                raise InvalidSighting(where, str(error)) from error


def check_record(record: SightingRecord, spaces: dict[str, int]) -> None:
    """Check a record: key, hash, and the sighting in it. Raises as `check_sighting`."""
    if not is_writer_id(record.key.writer_id):
        raise InvalidSighting("key.writer_id", "not 32 lower-case hexadecimal digits")
    if not 1 <= record.key.seq < 1 << 63:
        raise InvalidSighting("key.seq", f"{record.key.seq}; 1 to 2^63 - 1")
    if len(record.content_hash) != HASH_BYTES:
        raise InvalidSighting("content_hash", f"{len(record.content_hash)} bytes; {HASH_BYTES}")
    check_sighting(record.sighting, spaces)
