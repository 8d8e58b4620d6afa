"""What the box sends, as bytes: batches are put together from stored records, never parsed again.

Promise: `batch_message` yields exactly the bytes that protobuf would for the same StreamRequest.
Any thread may call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from edge.delivery import Held, SpoolCounters
from reid import limits
from reid.clock import Clock
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2 as pb
from reid.v1.sighting_pb2 import KeyRange

WIRE_VERSION = 1
HELLO_RANGES = 4096
WELCOME_RANGES = 4096  # a list of Welcome that is as long may have been cut
SKIPPED_RANGES = 256


@dataclass(frozen=True, slots=True)
class BoxIdentity:
    """Who we are, as Hello tells it.

    Attributes:
        edge_id, site: 1..128 bytes.
        software: name and version, for people.
        cameras: name -> (width, height), zeros where unknown.
        spaces: space_id -> (dimension, variants) of the running embedders.
    """

    edge_id: str
    site: str
    software: str
    cameras: dict[str, tuple[int, int]]
    spaces: dict[str, tuple[int, tuple[str, ...]]]


@lru_cache(maxsize=4096)  # records have few different lengths
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def batch_message(records: Sequence[bytes], lane: pb.Lane) -> bytes:
    """StreamRequest{batch{records, lane}} from serialised SightingRecords.

    Batch is field 2 of StreamRequest, records field 1 and lane field 2 of Batch.
    """
    parts: list[bytes] = []
    for record in records:
        parts.append(b"\x0a" + _varint(len(record)))
        parts.append(record)
    if lane:
        parts.append(b"\x10" + _varint(int(lane)))
    size = sum(map(len, parts))
    return b"".join((b"\x12", _varint(size), *parts))


def hello(
    identity: BoxIdentity, held: Held, *, clock: Clock, process_id: str, accept_ledger: bool
) -> pb.StreamRequest:
    """The first message of a stream."""
    spaces = {
        space: (dimension, set(variants)) for space, (dimension, variants) in held.spaces.items()
    }
    for space, (dimension, variants) in identity.spaces.items():
        spaces.setdefault(space, (dimension, set()))[1].update(variants)
    return pb.StreamRequest(
        hello=pb.Hello(
            edge_id=identity.edge_id,
            site=identity.site,
            writer_id=held.writer_id,
            boot_id=clock.boot_id,
            software=identity.software,
            wire_version=WIRE_VERSION,
            cameras=[
                pb.Camera(name=name, width=width, height=height)
                for name, (width, height) in list(identity.cameras.items())[: limits.CAMERAS]
            ],
            spaces=[
                pb.Space(space_id=space, dimension=dimension, variant_ids=sorted(variants))
                for space, (dimension, variants) in sorted(spaces.items())
            ],
            held=coarse(held.held, HELLO_RANGES),
            issued=_issued(held),
            last_ledger_id=held.last_ledger_id,
            accept_ledger=accept_ledger,
            process_id=process_id,
        )
    )


def _issued(held: Held) -> list[KeyRange]:
    """Where there are more than fit, first of writers that have something to tell; those with rows
    are named by `held`. What a Welcome lists is settled, so the next Hello names others."""
    issued = held.issued.messages()
    if len(issued) > HELLO_RANGES:
        issued.sort(key=lambda one: one.writer_id not in held.unsettled)
    return issued[:HELLO_RANGES]


def coarse(keys: KeyRanges, most: int) -> list[KeyRange]:
    """At most so many ranges that contain all keys: the smallest holes are closed first."""
    ranges = keys.messages()
    surplus = len(ranges) - most
    if surplus <= 0:
        return ranges
    holes = sorted(
        (after.first - before.last, i)
        for i, (before, after) in enumerate(pairwise(ranges))
        if before.writer_id == after.writer_id
    )
    closed = {i for _, i in holes[:surplus]}
    joined: list[KeyRange] = []
    for i, entry in enumerate(ranges):
        if i and i - 1 in closed:
            joined[-1].last = entry.last
        else:
            joined.append(KeyRange(writer_id=entry.writer_id, first=entry.first, last=entry.last))
    return joined[-most:]


def skipped_messages(ranges: Sequence[pb.SkippedRange]) -> list[pb.StreamRequest]:
    """Skipped ranges, as many messages as they need."""
    return [
        pb.StreamRequest(skipped=pb.Skipped(ranges=ranges[at : at + SKIPPED_RANGES]))
        for at in range(0, len(ranges), SKIPPED_RANGES)
    ]


def heartbeat(
    clock: Clock, counters: SpoolCounters, *, reply_to: int, reply_received: int
) -> pb.StreamRequest:
    """A heartbeat.

    Args:
        reply_to, reply_received: our monotonic clock when the last answered heartbeat was sent and
            when its answer came; 0: none yet.
    """
    return pb.StreamRequest(
        heartbeat=pb.Heartbeat(
            boot_id=clock.boot_id,
            backlog_sightings=counters.backlog,
            spool_bytes=counters.bytes,
            lag_s=counters.lag_s,
            lost_before_spool=counters.lost_before_spool,
            skipped_by_cap=counters.skipped.get("cap", 0),
            skipped_unreadable=counters.skipped.get("unreadable", 0),
            reply_to_monotonic_nanos=reply_to,
            reply_received_monotonic_nanos=reply_received,
            monotonic_nanos=clock.monotonic_nanos(),
            unix_nanos=clock.unix_nanos(),
        )
    )
