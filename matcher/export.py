"""The ledger as files for other programs: Parquet or JSON lines.

Promise: every sighting after a position once, in order, with its embeddings unless told not to; the
file appears under its name only when it is whole. Memory is bounded by one group of rows.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from matcher.report import iso
from reid.codec import decode
from reid.v1.query_pb2 import ReadSightingsResponse

GROUP = 1000  # rows of one Parquet row group: some 20 MB with four shots of 512 numbers
Form = Literal["parquet", "jsonl"]


class ExportError(Exception):
    """The file cannot be written; the text says why and what to do."""


def form_of(path: Path) -> Form:
    """The form that a file's name asks for.

    Raises:
        ExportError: neither .parquet nor .jsonl.
    """
    match path.suffix.lower():
        case ".parquet":
            return "parquet"
        case ".jsonl" | ".ndjson":
            return "jsonl"
    raise ExportError(f"{path}: end the name in .parquet or .jsonl")


def export(
    records: Iterable[ReadSightingsResponse], path: Path, *, form: Form, embeddings: bool
) -> int:
    """Write records to a file; how many.

    Raises:
        ExportError: the file cannot be written, or pyarrow is missing.
    """
    part = path.with_name(path.name + ".part")
    try:
        if form == "jsonl":
            count = _jsonl(records, part, embeddings)
        else:
            count = _parquet(records, part, embeddings)
        part.rename(path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):  # whatever ended it, half a file is not left behind
            part.unlink(missing_ok=True)
    return count


def row_of(record: ReadSightingsResponse, *, embeddings: bool) -> dict[str, Any]:
    """One record as plain values; times in nanoseconds since 1970, boxes as shares of the frame."""
    sighting = record.record.sighting
    return {
        "position": record.position,
        "committed_unix_nanos": record.committed_unix_nanos,
        "writer_id": record.record.key.writer_id,
        "seq": record.record.key.seq,
        "site": sighting.site,
        "edge_id": sighting.edge_id,
        "camera": sighting.camera,
        "tracklet_id": sighting.tracklet_id,
        "revision": sighting.revision,
        "final": sighting.final,
        "first_seen_unix_nanos": sighting.first_seen.unix_nanos,
        "last_seen_unix_nanos": sighting.last_seen.unix_nanos,
        "time_uncertainty_ms": sighting.last_seen.uncertainty_ms,
        "seen_with": list(sighting.seen_with),
        "path": [
            {
                "offset_nanos": point.offset_nanos,
                "box": [point.box.x1, point.box.y1, point.box.x2, point.box.y2],
            }
            for point in sighting.path
        ],
        "shots": [
            {
                "captured_unix_nanos": shot.captured.unix_nanos,
                "box": [shot.box.x1, shot.box.y1, shot.box.x2, shot.box.y2],
                "quality": shot.quality,
                "detector_score": shot.detector_score,
                "embeddings": [
                    {
                        "space_id": one.space_id,
                        "variant_id": one.variant_id,
                        "vector": decode(one).tolist(),
                    }
                    for one in (shot.embeddings if embeddings else ())
                ],
            }
            for shot in sighting.shots
        ],
    }


def _jsonl(records: Iterable[ReadSightingsResponse], path: Path, embeddings: bool) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            row = row_of(record, embeddings=embeddings)
            row["first_seen"] = iso(row["first_seen_unix_nanos"])
            row["last_seen"] = iso(row["last_seen_unix_nanos"])
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
            count += 1
    return count


def _parquet(records: Iterable[ReadSightingsResponse], path: Path, embeddings: bool) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ExportError(
            "Parquet needs pyarrow: pip install 'edge-reid[matcher]', or export to .jsonl"
        ) from error
    box = pa.list_(pa.float32(), 4)
    embedding = pa.struct(
        [("space_id", pa.string()), ("variant_id", pa.string()), ("vector", pa.list_(pa.float32()))]
    )
    shot = pa.struct(
        [
            ("captured_unix_nanos", pa.int64()),
            ("box", box),
            ("quality", pa.float32()),
            ("detector_score", pa.float32()),
            ("embeddings", pa.list_(embedding)),
        ]
    )
    point = pa.struct([("offset_nanos", pa.int64()), ("box", box)])
    schema = pa.schema(
        [
            ("position", pa.uint64()),
            ("committed_unix_nanos", pa.int64()),
            ("writer_id", pa.string()),
            ("seq", pa.uint64()),
            ("site", pa.string()),
            ("edge_id", pa.string()),
            ("camera", pa.string()),
            ("tracklet_id", pa.string()),
            ("revision", pa.uint32()),
            ("final", pa.bool_()),
            ("first_seen_unix_nanos", pa.int64()),
            ("last_seen_unix_nanos", pa.int64()),
            ("time_uncertainty_ms", pa.float32()),
            ("seen_with", pa.list_(pa.string())),
            ("path", pa.list_(point)),
            ("shots", pa.list_(shot)),
        ]
    )
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(records):
            rows = [row_of(record, embeddings=embeddings) for record in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _groups(
    records: Iterable[ReadSightingsResponse],
) -> Iterator[list[ReadSightingsResponse]]:
    group: list[ReadSightingsResponse] = []
    for record in records:
        group.append(record)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group
