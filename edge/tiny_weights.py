"""Weights too small to matter, set to zero before a model is loaded.

Why: trained networks hold weights decayed to 1e-40. Processors compute with such numbers (and with
products that become such) many times slower; a public OSNet x0.25 ran five to seven times slower
for 751 of its 200,136 weights. The runtime's own switch (flush denormals) acts on whole threads
and changes the arithmetic of everything else in them; zeroed weights act on the model alone.
Promise: values below 1e-20 in magnitude become zero, nothing else changes, same length. Bytes that
are no ONNX model come back as they are: the runtime says what is wrong with them.
Format: protobuf, read only as deep as the tensors: ModelProto.graph (7) → GraphProto.initializer
(5) or .node (1) → NodeProto.attribute (5) → AttributeProto.t (5) → TensorProto (data_type 2,
float_data 4, raw_data 9). Source: onnx.proto, fields are frozen there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

TINY = 1e-20  # float32 keeps full precision to 1e-38; two factors of this stay out of the outputs
_FLOAT = 1  # TensorProto.DataType.FLOAT

Span = tuple[int, int]


def without_tiny_weights(content: bytes) -> bytes:
    """The same model with float32 weights below 1e-20 in magnitude set to zero."""
    try:
        spans = list(_float_spans(content))
    except _NotProtobufError:
        return content
    changed: bytearray | None = None
    for start, stop in spans:
        values = np.frombuffer(content, "<f4", (stop - start) // 4, start)
        tiny = (values != 0.0) & (np.abs(values) < TINY)
        if tiny.any():
            if changed is None:
                changed = bytearray(content)
            np.frombuffer(changed, "<f4", len(values), start)[tiny] = 0.0
    return content if changed is None else bytes(changed)


class _NotProtobufError(Exception):
    """The bytes do not follow protobuf's wire format."""


def _float_spans(content: bytes) -> Iterator[Span]:
    for graph in _messages(content, (0, len(content)), 7):
        for tensor in _messages(content, graph, 5):
            yield from _tensor_spans(content, tensor)
        for node in _messages(content, graph, 1):
            for attribute in _messages(content, node, 5):
                for tensor in _messages(content, attribute, 5):
                    yield from _tensor_spans(content, tensor)


def _tensor_spans(content: bytes, tensor: Span) -> Iterator[Span]:
    kind = 0
    found: list[Span] = []
    for field, wire, span in _fields(content, tensor):
        if field == 2 and wire == 0:
            kind = _varint(content, span[0], span[1])[0]
        elif field in (4, 9) and wire == 2 and (span[1] - span[0]) % 4 == 0:
            found.append(span)
    if kind == _FLOAT:
        yield from found


def _messages(content: bytes, within: Span, wanted: int) -> Iterator[Span]:
    for field, wire, span in _fields(content, within):
        if field == wanted and wire == 2:
            yield span


def _fields(content: bytes, within: Span) -> Iterator[tuple[int, int, Span]]:
    """Field number, wire type and the span of the value, one after the other."""
    at, stop = within
    while at < stop:
        tag, at = _varint(content, at, stop)
        wire = tag & 7
        start = at
        if wire == 0:
            _, end = _varint(content, at, stop)
        elif wire == 1:
            end = at + 8
        elif wire == 2:
            size, start = _varint(content, at, stop)
            end = start + size
        elif wire == 5:
            end = at + 4
        else:
            raise _NotProtobufError
        if end > stop:
            raise _NotProtobufError
        yield tag >> 3, wire, (start, end)
        at = end


def _varint(content: bytes, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 64:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise _NotProtobufError
