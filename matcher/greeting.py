"""Hello and Welcome: what is refused for good, and what is told.

Promise: a Hello that passes `hello_problem` and `binding_problem` is safe to act on. Decisions
only: no socket, no clock.
"""

from __future__ import annotations

from typing import Any

from matcher.config import LimitsConfig
from reid.limits import DIMENSION, STRING_BYTES, is_writer_id
from reid.peer import Peer
from reid.ranges import KeyRanges
from reid.v1 import ingest_pb2

MAX_WELCOME_RANGES = 4096  # as the contract says of Welcome.committed and Welcome.skipped
MAX_SPACES = 16


def hello_problem(hello: ingest_pb2.Hello, limits: LimitsConfig) -> str:
    """What is wrong with a Hello, in words; empty where nothing is."""
    for name in ("edge_id", "site"):
        size = len(getattr(hello, name).encode())
        if not 1 <= size <= STRING_BYTES:
            return f"{name}: {size} bytes; 1 to {STRING_BYTES} are allowed"
    if not is_writer_id(hello.writer_id):
        return "writer_id: not 32 lower-case hexadecimal digits"
    if len(hello.boot_id.encode()) > STRING_BYTES or len(hello.process_id.encode()) > STRING_BYTES:
        return f"boot_id, process_id: more than {STRING_BYTES} bytes"
    if len(hello.cameras) > limits.cameras:
        return f"{len(hello.cameras)} cameras; at most {limits.cameras} a box are taken"
    names = [camera.name for camera in hello.cameras]
    if len(set(names)) < len(names):
        return "cameras: a name stands twice"
    if any(not 1 <= len(name.encode()) <= STRING_BYTES for name in names):
        return f"cameras: a name is empty or over {STRING_BYTES} bytes"
    if len(hello.spaces) > MAX_SPACES:
        return f"{len(hello.spaces)} spaces; at most {MAX_SPACES}"
    for space in hello.spaces:
        if not 1 <= space.dimension <= DIMENSION:
            return f"space {space.space_id!r}: dimension {space.dimension}; 1 to {DIMENSION}"
        if not 1 <= len(space.space_id.encode()) <= STRING_BYTES:
            return f"spaces: an id is empty or over {STRING_BYTES} bytes"
    for one in [*hello.held, *hello.issued]:
        if one.last >= one.first and (not is_writer_id(one.writer_id) or one.last >= 1 << 63):
            return "held, issued: a range that no key can lie in"
    return ""


def binding_problem(hello: ingest_pb2.Hello, peer: Peer | None) -> str:
    """Whether the certificate allows this Hello; empty where it does or the line is plain."""
    if peer is None:
        return ""
    if not peer.is_box:
        return f"certificate {peer.name!r} is not a box's; edge-match certs box makes one"
    if (peer.site, peer.edge_id) != (hello.site, hello.edge_id):
        return (
            f"the certificate is of box {peer.edge_id!r} at site {peer.site!r}, Hello says "
            f"{hello.edge_id!r} at {hello.site!r}; set --site and --edge-id, or make a "
            "certificate for that name"
        )
    return ""


def joined(
    committed: KeyRanges, skipped: KeyRanges, held: KeyRanges
) -> tuple[KeyRanges, KeyRanges]:
    """Both lists of Welcome in few enough ranges, without leaving a key out if that can be.

    A cap that drops every second row leaves as many ranges as rows. A list that has too many is
    joined over keys of the other, which the box needs no answer for: `committed` over skipped keys
    that the box does not hold, `skipped` over committed ones (a commit beats a Skipped).

    Args:
        committed, skipped: what the ledger knows; disjoint.
        held: what the box holds; more than that is harmless.
    """
    fewer, wider = committed, skipped
    if len(committed.messages()) > MAX_WELCOME_RANGES:
        fewer = skipped.minus(held)
        fewer.update(committed)
    if len(skipped.messages()) > MAX_WELCOME_RANGES:
        wider = KeyRanges(skipped.messages())
        wider.update(committed)
    return fewer, wider


def largest(keys: KeyRanges) -> list[Any]:
    """The ranges of a set, at most MAX_WELCOME_RANGES, the smallest left out."""
    messages = keys.messages()
    if len(messages) <= MAX_WELCOME_RANGES:
        return messages
    messages.sort(key=lambda one: one.first - one.last)
    return messages[:MAX_WELCOME_RANGES]


def hole_text(hole: KeyRanges) -> str:
    """An alarm for people about keys that are neither here nor on the box."""
    first = hole.messages()[0]
    return (
        f"{len(hole)} sightings were issued by the box, are not in this ledger, and the box no "
        f"longer holds them (first: {first.writer_id[:8]}…/{first.first}); was the ledger restored "
        "from an old backup?"
    )
