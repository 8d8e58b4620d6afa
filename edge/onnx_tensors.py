"""The tensors stored in an ONNX file, found without the onnx package (it is no part of the box).

Promise: every tensor of the graph, of its constants, of its subgraphs and functions is given, in
the file's order, with where its numbers lie. Bytes that do not follow protobuf raise NotProtobuf.
Format: protobuf, read only as deep as needed; field numbers are frozen in onnx.proto.

    ModelProto    graph 7, functions 25        GraphProto     node 1, initializer 5, sparse 15
    FunctionProto node 7                       NodeProto      attribute 5
    AttributeProto  t 5, g 6, tensors 10, graphs 11           SparseTensorProto  values 1, indices 2
    TensorProto   data_type 2, float_data 4, raw_data 9, external_data 13, data_location 14
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FLOAT = 1  # TensorProto.DataType.FLOAT
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL

Span = tuple[int, int]


class NotProtobuf(Exception):
    """The bytes do not follow protobuf's wire format."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor.

    Attributes:
        kind: TensorProto.DataType.
        numbers: where its numbers lie in the file (start, stop), little-endian.
        external: its numbers lie in another file.
    """

    kind: int
    numbers: tuple[Span, ...]
    external: bool


def stored_tensors(content: bytes) -> Iterator[Tensor]:
    """All tensors of an ONNX file.

    Raises:
        NotProtobuf: while iterating, where the bytes stop making sense.
    """
    for field, span in _messages(content, (0, len(content))):
        if field == 7:
            yield from _graph(content, span)
        elif field == 25:
            for inner, node in _messages(content, span):
                if inner == 7:
                    yield from _node(content, node)


def _graph(content: bytes, graph: Span) -> Iterator[Tensor]:
    for field, span in _messages(content, graph):
        if field == 1:
            yield from _node(content, span)
        elif field == 5:
            yield _tensor(content, span)
        elif field == 15:
            for inner, tensor in _messages(content, span):
                if inner in (1, 2):
                    yield _tensor(content, tensor)


def _node(content: bytes, node: Span) -> Iterator[Tensor]:
    for field, attribute in _messages(content, node):
        if field != 5:
            continue
        for inner, span in _messages(content, attribute):
            if inner in (5, 10):
                yield _tensor(content, span)
            elif inner in (6, 11):
                yield from _graph(content, span)


def _tensor(content: bytes, tensor: Span) -> Tensor:
    kind = location = 0
    numbers: list[Span] = []
    external = False
    for field, wire, span in _fields(content, tensor):
        if wire == 0 and field == 2:
            kind = _varint(content, *span)[0]
        elif wire == 0 and field == 14:
            location = _varint(content, *span)[0]
        elif wire == 2 and field == 13:
            external = True
        elif wire == 2 and field in (4, 9):
            numbers.append(span)
    return Tensor(kind, tuple(numbers), external or location == _EXTERNAL)


def _messages(content: bytes, within: Span) -> Iterator[tuple[int, Span]]:
    for field, wire, span in _fields(content, within):
        if wire == 2:
            yield field, span


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
            raise NotProtobuf
        if end > stop:
            raise NotProtobuf
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
    raise NotProtobuf
