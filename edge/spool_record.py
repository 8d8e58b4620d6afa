"""The bytes of one row: a serialised SightingRecord that proves itself.

Promise: a record says its key and carries the SHA-256 of its sighting, so that a row found anywhere
on a damaged disk can be told from rubbish without any table around it.

    0a LEN { 0a 20 writer_id(32 ASCII)  10 seq(varint) }     key           field 1
    12 20  sha256(32)                                        content_hash  field 2
    1a LEN sighting                                          sighting      field 3

That is protobuf's own form of reid.v1.SightingRecord, always in this order; it is sent as it
stands. Any thread may call.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from reid.limits import is_writer_id

# 0a LEN 0a 20 + 32 + 10 + at least one byte of seq, 12 20 + 32, 1a LEN
SHORTEST = 2 + 2 + 32 + 2 + 2 + 32 + 2


@dataclass(frozen=True, slots=True)
class RecordHead:
    """What a record says of itself.

    Attributes:
        writer_id: 32 hexadecimal digits.
        seq: from 1.
        content_hash: SHA-256 of the sighting, 32 bytes.
        payload: the serialised Sighting.
    """

    writer_id: str
    seq: int
    content_hash: bytes
    payload: bytes


def varint(value: int) -> bytes:
    """A non-negative integer in protobuf's variable-length form."""
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_length = lru_cache(maxsize=4096)(varint)  # sightings have few different lengths


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The integer at an offset, and the offset behind it.

    Raises:
        ValueError: it does not end within ten bytes or within the data.
    """
    value = shift = 0
    for offset in range(at, min(at + 10, len(data))):
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset + 1
        shift += 7
    raise ValueError("a varint without an end")


class RecordMaker:
    """Puts keys of one writer before sightings; what is the same in every record is made once.

    Args:
        writer_id: 32 hexadecimal digits.
    """

    def __init__(self, writer_id: str) -> None:
        key = b"\x0a\x20" + writer_id.encode("ascii") + b"\x10"
        # By the length of seq in bytes, 1..10: what stands before seq.
        self._before_seq = [b"\x0a" + varint(len(key) + n) + key for n in range(11)]

    def make(self, seq: int, payload: bytes, content_hash: bytes | None = None) -> bytes:
        """A record; see the module."""
        number = varint(seq)
        digest = content_hash or hashlib.sha256(payload).digest()
        size = _length(len(payload))
        return b"%b%b\x12\x20%b\x1a%b%b" % (
            self._before_seq[len(number)], number, digest, size, payload
        )  # fmt: skip


def make_record(
    writer_id: str, seq: int, payload: bytes, content_hash: bytes | None = None
) -> bytes:
    """Put key and hash before a serialised Sighting."""
    return RecordMaker(writer_id).make(seq, payload, content_hash)


def read_record(record: bytes) -> RecordHead:
    """Take a record apart and check its hash.

    Raises:
        ValueError: it is not a whole and unchanged record; the text says what is wrong.
    """
    if len(record) < SHORTEST or record[0] != 0x0A:
        raise ValueError(f"{len(record)} bytes that do not begin like a record")
    key_length, at = read_varint(record, 1)
    key = record[at : at + key_length]
    at += key_length
    if len(key) != key_length or key[:2] != b"\x0a\x20" or key[34:35] != b"\x10":
        raise ValueError("no key where it should stand")
    writer_id = key[2:34].decode("ascii", errors="replace")
    if not is_writer_id(writer_id):
        raise ValueError("the key's writer id is not 32 hexadecimal digits")
    seq, end = read_varint(key, 35)
    if end != len(key) or seq < 1:
        raise ValueError("the key's seq is damaged")
    if record[at : at + 2] != b"\x12\x20":
        raise ValueError("no hash where it should stand")
    content_hash = record[at + 2 : at + 34]
    at += 34
    if record[at : at + 1] != b"\x1a":
        raise ValueError("no sighting where it should stand")
    length, at = read_varint(record, at + 1)
    payload = record[at:]
    if len(payload) != length:
        raise ValueError(f"{len(payload)} bytes of sighting where {length} were written")
    if hashlib.sha256(payload).digest() != content_hash:
        raise ValueError("the sighting's bytes do not match their hash")
    return RecordHead(writer_id, seq, content_hash, payload)
