"""Embeddings on the wire: float16 by default, float32, int8 with a scale.

Promise: what is encoded has unit length before, and what is decoded is finite and of unit length
within 1e-2, or an `EmbeddingError` says what it was. Any thread may call.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from reid.v1.sighting_pb2 import (
    EMBEDDING_ENCODING_FLOAT16,
    EMBEDDING_ENCODING_FLOAT32,
    EMBEDDING_ENCODING_INT8,
    Embedding,
    EmbeddingEncoding,
)

Floats = npt.NDArray[np.float32]
EncodingName = Literal["float16", "float32", "int8"]

_UNIT_TOLERANCE = 1e-2
_SIZES = {
    EMBEDDING_ENCODING_FLOAT16: 2,
    EMBEDDING_ENCODING_FLOAT32: 4,
    EMBEDDING_ENCODING_INT8: 1,
}


class EmbeddingError(ValueError):
    """An embedding that the contract does not allow; the text says what was found."""


def encode(
    vector: Floats, *, space_id: str, variant_id: str, encoding: EncodingName = "float16"
) -> Embedding:
    """Write a vector as a message; it is brought to unit length first.

    Args:
        vector: (d,) finite numbers, not all zero.
        encoding: float16 (2 bytes a number; similarity kept within about 1e-4), float32, or int8
            (1 byte a number, scaled by the largest magnitude).
    Raises:
        EmbeddingError: not finite, or of length zero.
    """
    values = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(values))
    if not np.isfinite(length) or length == 0.0:
        raise EmbeddingError(f"a vector of length {length} has no direction")
    unit = values / np.float32(length)
    message = Embedding(space_id=space_id, variant_id=variant_id)
    if encoding == "float16":
        message.encoding = EMBEDDING_ENCODING_FLOAT16
        message.values = unit.astype("<f2").tobytes()
    elif encoding == "float32":
        message.encoding = EMBEDDING_ENCODING_FLOAT32
        message.values = unit.astype("<f4").tobytes()
    else:
        scale = float(np.abs(unit).max()) / 127.0
        message.encoding = EMBEDDING_ENCODING_INT8
        message.scale = scale
        message.values = np.rint(unit / np.float32(scale)).astype(np.int8).tobytes()
    return message


def decode(message: Embedding, dimension: int | None = None) -> Floats:
    """Read a vector back.

    Args:
        message: the embedding as received.
        dimension: what the space says; None where it is not known.
    Returns:
        (d,) float32 of unit length (exactly normalised after the check).
    Raises:
        EmbeddingError: unknown encoding, wrong number of bytes, not finite, not of unit length.
    """
    size = _SIZES.get(message.encoding)
    if size is None:
        name = EmbeddingEncoding.Name(message.encoding) if message.encoding <= 3 else "unknown"
        raise EmbeddingError(f"encoding {message.encoding} ({name}) is not one of the contract's")
    if dimension is not None and len(message.values) != dimension * size:
        raise EmbeddingError(
            f"{len(message.values)} bytes; {dimension} numbers of {size} bytes were announced"
        )
    if not message.values or len(message.values) % size:
        raise EmbeddingError(f"{len(message.values)} bytes are not whole numbers of {size} bytes")
    if message.encoding == EMBEDDING_ENCODING_FLOAT16:
        vector = np.frombuffer(message.values, "<f2").astype(np.float32)
    elif message.encoding == EMBEDDING_ENCODING_FLOAT32:
        vector = np.frombuffer(message.values, "<f4").astype(np.float32)
    else:
        if not (np.isfinite(message.scale) and message.scale > 0):
            raise EmbeddingError(f"scale {message.scale}; an int8 embedding needs one above 0")
        vector = np.frombuffer(message.values, np.int8).astype(np.float32)
        vector *= np.float32(message.scale)
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.sqrt(np.dot(vector, vector)))
    if not abs(length - 1.0) <= _UNIT_TOLERANCE:
        raise EmbeddingError(
            f"length {length:.4g}; unit length within {_UNIT_TOLERANCE} is required"
        )
    return vector / np.float32(length)
