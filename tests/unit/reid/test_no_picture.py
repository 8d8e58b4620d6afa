"""The contract has no room for a picture, and the finder of pictures finds planted ones."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from reid.v1 import admin_pb2, ingest_pb2, query_pb2, sighting_pb2
from tests.support.pictures import find_pictures

# Embedding values are checked against their space's length, hashes against 32 bytes.
ALLOWED = {"reid.v1.Embedding.values", "reid.v1.SightingRecord.content_hash"}


def messages() -> list[Descriptor]:
    found: list[Descriptor] = []

    def walk(descriptor: Descriptor) -> None:
        found.append(descriptor)
        for nested in descriptor.nested_types:
            walk(nested)

    for module in (admin_pb2, ingest_pb2, query_pb2, sighting_pb2):
        for descriptor in module.DESCRIPTOR.message_types_by_name.values():
            walk(descriptor)
    return found


def test_the_only_bytes_fields_of_the_contract_are_embedding_values_and_hashes() -> None:
    fields = {
        field.full_name
        for message in messages()
        for field in message.fields
        if field.type == FieldDescriptor.TYPE_BYTES
    }

    assert len(messages()) > 40
    assert fields == ALLOWED


def test_no_message_takes_any_or_nested_packed_messages() -> None:
    kinds = {
        field.message_type.full_name
        for message in messages()
        for field in message.fields
        if field.message_type is not None
    }

    assert not [kind for kind in kinds if not kind.startswith("reid.v1.")]


def scene(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return cv2.resize(rng.integers(0, 255, (9, 12, 3), np.uint8), (width, height))


def key_frame(codec: str, width: int, height: int) -> bytes:
    context = av.CodecContext.create(codec, "w")
    context.width, context.height = width, height
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, 10)
    frame = av.VideoFrame.from_ndarray(scene(width, height), format="bgr24")
    packets = context.encode(frame.reformat(format="yuv420p")) + context.encode(None)
    return b"".join(bytes(packet) for packet in packets)


NOISE = np.random.default_rng(11).integers(0, 255, 200_000, np.uint8).tobytes()
HALVES = np.random.default_rng(12).normal(0, 0.04, 100_000).astype("<f2").tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_a_planted_still_picture_is_found(suffix: str) -> None:
    picture = cv2.imencode(suffix, scene(32, 48))[1].tobytes()

    found = find_pictures(HALVES[:5001] + picture + HALVES[:3000])

    assert (5001, 32, 48) in {(p.offset, p.width, p.height) for p in found}


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_planted_key_frame_is_found(codec: str) -> None:
    found = find_pictures(HALVES[:4001] + key_frame(codec, 64, 96) + HALVES[:3000])

    assert (64, 96) in {(p.width, p.height) for p in found}


def test_a_picture_of_less_than_16_pixels_does_not_count() -> None:
    picture = cv2.imencode(".png", scene(15, 40))[1].tobytes()

    assert find_pictures(HALVES[:1000] + picture) == []


@pytest.mark.parametrize("data", [NOISE, HALVES])
def test_nothing_is_found_in_noise_or_in_embeddings(data: bytes) -> None:
    assert find_pictures(data) == []
