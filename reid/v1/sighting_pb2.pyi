from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TimeSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIME_SOURCE_UNSPECIFIED: _ClassVar[TimeSource]
    TIME_SOURCE_SENDER_REPORT: _ClassVar[TimeSource]
    TIME_SOURCE_ARRIVAL: _ClassVar[TimeSource]
    TIME_SOURCE_FILE: _ClassVar[TimeSource]
    TIME_SOURCE_GIVEN: _ClassVar[TimeSource]

class EmbeddingEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMBEDDING_ENCODING_UNSPECIFIED: _ClassVar[EmbeddingEncoding]
    EMBEDDING_ENCODING_FLOAT16: _ClassVar[EmbeddingEncoding]
    EMBEDDING_ENCODING_FLOAT32: _ClassVar[EmbeddingEncoding]
    EMBEDDING_ENCODING_INT8: _ClassVar[EmbeddingEncoding]
TIME_SOURCE_UNSPECIFIED: TimeSource
TIME_SOURCE_SENDER_REPORT: TimeSource
TIME_SOURCE_ARRIVAL: TimeSource
TIME_SOURCE_FILE: TimeSource
TIME_SOURCE_GIVEN: TimeSource
EMBEDDING_ENCODING_UNSPECIFIED: EmbeddingEncoding
EMBEDDING_ENCODING_FLOAT16: EmbeddingEncoding
EMBEDDING_ENCODING_FLOAT32: EmbeddingEncoding
EMBEDDING_ENCODING_INT8: EmbeddingEncoding

class Key(_message.Message):
    __slots__ = ("writer_id", "seq")
    WRITER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    writer_id: str
    seq: int
    def __init__(self, writer_id: _Optional[str] = ..., seq: _Optional[int] = ...) -> None: ...

class KeyRange(_message.Message):
    __slots__ = ("writer_id", "first", "last")
    WRITER_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    writer_id: str
    first: int
    last: int
    def __init__(self, writer_id: _Optional[str] = ..., first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class CaptureTime(_message.Message):
    __slots__ = ("unix_nanos", "source", "uncertainty_ms", "monotonic_nanos", "boot_id")
    UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_MS_FIELD_NUMBER: _ClassVar[int]
    MONOTONIC_NANOS_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    unix_nanos: int
    source: TimeSource
    uncertainty_ms: float
    monotonic_nanos: int
    boot_id: str
    def __init__(self, unix_nanos: _Optional[int] = ..., source: _Optional[_Union[TimeSource, str]] = ..., uncertainty_ms: _Optional[float] = ..., monotonic_nanos: _Optional[int] = ..., boot_id: _Optional[str] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x1", "y1", "x2", "y2")
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    X2_FIELD_NUMBER: _ClassVar[int]
    Y2_FIELD_NUMBER: _ClassVar[int]
    x1: float
    y1: float
    x2: float
    y2: float
    def __init__(self, x1: _Optional[float] = ..., y1: _Optional[float] = ..., x2: _Optional[float] = ..., y2: _Optional[float] = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("space_id", "variant_id", "encoding", "values", "scale")
    SPACE_ID_FIELD_NUMBER: _ClassVar[int]
    VARIANT_ID_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    space_id: str
    variant_id: str
    encoding: EmbeddingEncoding
    values: bytes
    scale: float
    def __init__(self, space_id: _Optional[str] = ..., variant_id: _Optional[str] = ..., encoding: _Optional[_Union[EmbeddingEncoding, str]] = ..., values: _Optional[bytes] = ..., scale: _Optional[float] = ...) -> None: ...

class Shot(_message.Message):
    __slots__ = ("captured", "box", "quality", "detector_score", "embeddings")
    CAPTURED_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_SCORE_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    captured: CaptureTime
    box: Box
    quality: float
    detector_score: float
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    def __init__(self, captured: _Optional[_Union[CaptureTime, _Mapping]] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., quality: _Optional[float] = ..., detector_score: _Optional[float] = ..., embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ...) -> None: ...

class PathPoint(_message.Message):
    __slots__ = ("offset_nanos", "box")
    OFFSET_NANOS_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    offset_nanos: int
    box: Box
    def __init__(self, offset_nanos: _Optional[int] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class EmbeddingStatistics(_message.Message):
    __slots__ = ("space_id", "count", "similarity_mean", "similarity_variance")
    SPACE_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_MEAN_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_VARIANCE_FIELD_NUMBER: _ClassVar[int]
    space_id: str
    count: int
    similarity_mean: float
    similarity_variance: float
    def __init__(self, space_id: _Optional[str] = ..., count: _Optional[int] = ..., similarity_mean: _Optional[float] = ..., similarity_variance: _Optional[float] = ...) -> None: ...

class Sighting(_message.Message):
    __slots__ = ("site", "edge_id", "camera", "tracklet_id", "revision", "final", "first_seen", "last_seen", "shots", "path", "statistics", "seen_with", "frame_width", "frame_height")
    SITE_FIELD_NUMBER: _ClassVar[int]
    EDGE_ID_FIELD_NUMBER: _ClassVar[int]
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    TRACKLET_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEEN_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    SHOTS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    SEEN_WITH_FIELD_NUMBER: _ClassVar[int]
    FRAME_WIDTH_FIELD_NUMBER: _ClassVar[int]
    FRAME_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    site: str
    edge_id: str
    camera: str
    tracklet_id: str
    revision: int
    final: bool
    first_seen: CaptureTime
    last_seen: CaptureTime
    shots: _containers.RepeatedCompositeFieldContainer[Shot]
    path: _containers.RepeatedCompositeFieldContainer[PathPoint]
    statistics: _containers.RepeatedCompositeFieldContainer[EmbeddingStatistics]
    seen_with: _containers.RepeatedScalarFieldContainer[str]
    frame_width: int
    frame_height: int
    def __init__(self, site: _Optional[str] = ..., edge_id: _Optional[str] = ..., camera: _Optional[str] = ..., tracklet_id: _Optional[str] = ..., revision: _Optional[int] = ..., final: _Optional[bool] = ..., first_seen: _Optional[_Union[CaptureTime, _Mapping]] = ..., last_seen: _Optional[_Union[CaptureTime, _Mapping]] = ..., shots: _Optional[_Iterable[_Union[Shot, _Mapping]]] = ..., path: _Optional[_Iterable[_Union[PathPoint, _Mapping]]] = ..., statistics: _Optional[_Iterable[_Union[EmbeddingStatistics, _Mapping]]] = ..., seen_with: _Optional[_Iterable[str]] = ..., frame_width: _Optional[int] = ..., frame_height: _Optional[int] = ...) -> None: ...

class SightingRecord(_message.Message):
    __slots__ = ("key", "content_hash", "sighting")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    SIGHTING_FIELD_NUMBER: _ClassVar[int]
    key: Key
    content_hash: bytes
    sighting: Sighting
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., content_hash: _Optional[bytes] = ..., sighting: _Optional[_Union[Sighting, _Mapping]] = ...) -> None: ...
