"""Embeddings on the wire."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from reid.codec import EmbeddingError, EncodingName, decode, encode
from reid.v1.sighting_pb2 import EMBEDDING_ENCODING_FLOAT32, Embedding

# Worst change of a cosine similarity over the seeded vectors below; float16 has 11 bits, int8 7.
WORST = {"float32": 1e-6, "float16": 5e-4, "int8": 2e-2}


@pytest.mark.parametrize("encoding", get_args(EncodingName))
def test_similarities_survive_the_wire(encoding: EncodingName) -> None:
    rng = np.random.default_rng(7)
    vectors = np.abs(rng.normal(size=(40, 512))).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    back = np.stack(
        [
            decode(encode(v, space_id="s", variant_id="v", encoding=encoding), dimension=512)
            for v in vectors
        ]
    )

    assert np.abs(back @ back.T - unit @ unit.T).max() < WORST[encoding]
    assert np.allclose(np.linalg.norm(back, axis=1), 1.0, atol=1e-6)


def test_the_bytes_of_a_float16_embedding_are_fixed() -> None:
    message = encode(np.array([3.0, 4.0], np.float32), space_id="s", variant_id="v")

    assert message.values.hex() == "cd38663a"


def test_a_vector_is_brought_to_unit_length_before_it_is_encoded() -> None:
    message = encode(np.array([0.0, 10.0], np.float32), space_id="s", variant_id="v")

    assert decode(message).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("vector", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_a_vector_without_direction_is_refused_before_it_is_sent(vector: list[float]) -> None:
    with pytest.raises(EmbeddingError, match="no direction"):
        encode(np.array(vector, np.float32), space_id="s", variant_id="v")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([np.nan, 1.0], "<f4"), "length nan"),
        (np.array([2.0, 0.0], "<f4"), "length 2"),
        (np.array([3e38, 3e38], "<f4"), "length inf"),
        (np.array([0.0, 0.0], "<f4"), "length 0"),
        (np.array([1.0], "<f4"), "4 bytes"),
        (np.array([], "<f4"), "0 bytes"),
    ],
)
def test_bad_numbers_are_refused_with_the_reason(values: np.ndarray, reason: str) -> None:
    message = Embedding(
        space_id="s",
        variant_id="v",
        encoding=EMBEDDING_ENCODING_FLOAT32,
        values=values.tobytes(),
    )

    with pytest.raises(EmbeddingError, match=reason):
        decode(message, dimension=2)


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(EmbeddingError, match="encoding 0"):
        decode(Embedding(space_id="s", variant_id="v", values=b"\0\0\0\0"))


def test_an_int8_embedding_needs_a_scale() -> None:
    message = encode(np.ones(4, np.float32), space_id="s", variant_id="v", encoding="int8")
    message.scale = 0.0

    with pytest.raises(EmbeddingError, match="scale"):
        decode(message)
