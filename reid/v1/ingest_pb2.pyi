from reid.v1 import sighting_pb2 as _sighting_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Lane(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LANE_UNSPECIFIED: _ClassVar[Lane]
    LANE_LIVE: _ClassVar[Lane]
    LANE_BACKLOG: _ClassVar[Lane]

class SkipReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SKIP_REASON_UNSPECIFIED: _ClassVar[SkipReason]
    SKIP_REASON_CAP: _ClassVar[SkipReason]
    SKIP_REASON_UNREADABLE: _ClassVar[SkipReason]
    SKIP_REASON_ERASED: _ClassVar[SkipReason]
    SKIP_REASON_DEAD_LETTER: _ClassVar[SkipReason]

class RejectReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REJECT_REASON_UNSPECIFIED: _ClassVar[RejectReason]
    REJECT_REASON_INVALID: _ClassVar[RejectReason]
    REJECT_REASON_UNKNOWN_SPACE: _ClassVar[RejectReason]
    REJECT_REASON_KEY_CONFLICT: _ClassVar[RejectReason]
    REJECT_REASON_FOREIGN: _ClassVar[RejectReason]
    REJECT_REASON_TOO_LARGE: _ClassVar[RejectReason]

class GoodbyeReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GOODBYE_REASON_UNSPECIFIED: _ClassVar[GoodbyeReason]
    GOODBYE_REASON_SHUTDOWN: _ClassVar[GoodbyeReason]
    GOODBYE_REASON_SUPERSEDED: _ClassVar[GoodbyeReason]
    GOODBYE_REASON_CLONED: _ClassVar[GoodbyeReason]
    GOODBYE_REASON_STORAGE: _ClassVar[GoodbyeReason]
    GOODBYE_REASON_OVERLOAD: _ClassVar[GoodbyeReason]
    GOODBYE_REASON_OTHER_LEDGER: _ClassVar[GoodbyeReason]
    GOODBYE_REASON_SILENT: _ClassVar[GoodbyeReason]
LANE_UNSPECIFIED: Lane
LANE_LIVE: Lane
LANE_BACKLOG: Lane
SKIP_REASON_UNSPECIFIED: SkipReason
SKIP_REASON_CAP: SkipReason
SKIP_REASON_UNREADABLE: SkipReason
SKIP_REASON_ERASED: SkipReason
SKIP_REASON_DEAD_LETTER: SkipReason
REJECT_REASON_UNSPECIFIED: RejectReason
REJECT_REASON_INVALID: RejectReason
REJECT_REASON_UNKNOWN_SPACE: RejectReason
REJECT_REASON_KEY_CONFLICT: RejectReason
REJECT_REASON_FOREIGN: RejectReason
REJECT_REASON_TOO_LARGE: RejectReason
GOODBYE_REASON_UNSPECIFIED: GoodbyeReason
GOODBYE_REASON_SHUTDOWN: GoodbyeReason
GOODBYE_REASON_SUPERSEDED: GoodbyeReason
GOODBYE_REASON_CLONED: GoodbyeReason
GOODBYE_REASON_STORAGE: GoodbyeReason
GOODBYE_REASON_OVERLOAD: GoodbyeReason
GOODBYE_REASON_OTHER_LEDGER: GoodbyeReason
GOODBYE_REASON_SILENT: GoodbyeReason

class StreamRequest(_message.Message):
    __slots__ = ("hello", "batch", "skipped", "heartbeat")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    batch: Batch
    skipped: Skipped
    heartbeat: Heartbeat
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., skipped: _Optional[_Union[Skipped, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class StreamResponse(_message.Message):
    __slots__ = ("welcome", "ack", "reject", "erase", "heartbeat_reply", "window", "goodbye")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    ERASE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_REPLY_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    ack: Ack
    reject: Reject
    erase: Erase
    heartbeat_reply: HeartbeatReply
    window: Window
    goodbye: Goodbye
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., erase: _Optional[_Union[Erase, _Mapping]] = ..., heartbeat_reply: _Optional[_Union[HeartbeatReply, _Mapping]] = ..., window: _Optional[_Union[Window, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("edge_id", "site", "writer_id", "boot_id", "software", "wire_version", "cameras", "spaces", "held", "last_ledger_id", "accept_ledger", "process_id", "issued")
    EDGE_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    WRITER_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    WIRE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    SPACES_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    LAST_LEDGER_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_LEDGER_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    edge_id: str
    site: str
    writer_id: str
    boot_id: str
    software: str
    wire_version: int
    cameras: _containers.RepeatedCompositeFieldContainer[Camera]
    spaces: _containers.RepeatedCompositeFieldContainer[Space]
    held: _containers.RepeatedCompositeFieldContainer[_sighting_pb2.KeyRange]
    last_ledger_id: str
    accept_ledger: bool
    process_id: str
    issued: _containers.RepeatedCompositeFieldContainer[_sighting_pb2.KeyRange]
    def __init__(self, edge_id: _Optional[str] = ..., site: _Optional[str] = ..., writer_id: _Optional[str] = ..., boot_id: _Optional[str] = ..., software: _Optional[str] = ..., wire_version: _Optional[int] = ..., cameras: _Optional[_Iterable[_Union[Camera, _Mapping]]] = ..., spaces: _Optional[_Iterable[_Union[Space, _Mapping]]] = ..., held: _Optional[_Iterable[_Union[_sighting_pb2.KeyRange, _Mapping]]] = ..., last_ledger_id: _Optional[str] = ..., accept_ledger: _Optional[bool] = ..., process_id: _Optional[str] = ..., issued: _Optional[_Iterable[_Union[_sighting_pb2.KeyRange, _Mapping]]] = ...) -> None: ...

class Camera(_message.Message):
    __slots__ = ("name", "width", "height")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    name: str
    width: int
    height: int
    def __init__(self, name: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Space(_message.Message):
    __slots__ = ("space_id", "dimension", "variant_ids")
    SPACE_ID_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_IDS_FIELD_NUMBER: _ClassVar[int]
    space_id: str
    dimension: int
    variant_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, space_id: _Optional[str] = ..., dimension: _Optional[int] = ..., variant_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("records", "lane")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_sighting_pb2.SightingRecord]
    lane: Lane
    def __init__(self, records: _Optional[_Iterable[_Union[_sighting_pb2.SightingRecord, _Mapping]]] = ..., lane: _Optional[_Union[Lane, str]] = ...) -> None: ...

class Skipped(_message.Message):
    __slots__ = ("ranges",)
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[SkippedRange]
    def __init__(self, ranges: _Optional[_Iterable[_Union[SkippedRange, _Mapping]]] = ...) -> None: ...

class SkippedRange(_message.Message):
    __slots__ = ("range", "reason", "skipped_unix_nanos")
    RANGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    range: _sighting_pb2.KeyRange
    reason: SkipReason
    skipped_unix_nanos: int
    def __init__(self, range: _Optional[_Union[_sighting_pb2.KeyRange, _Mapping]] = ..., reason: _Optional[_Union[SkipReason, str]] = ..., skipped_unix_nanos: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("boot_id", "monotonic_nanos", "unix_nanos", "backlog_sightings", "spool_bytes", "lag_s", "lost_before_spool", "skipped_by_cap", "reply_to_monotonic_nanos", "reply_received_monotonic_nanos", "skipped_unreadable")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    MONOTONIC_NANOS_FIELD_NUMBER: _ClassVar[int]
    UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_SIGHTINGS_FIELD_NUMBER: _ClassVar[int]
    SPOOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAG_S_FIELD_NUMBER: _ClassVar[int]
    LOST_BEFORE_SPOOL_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_BY_CAP_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_MONOTONIC_NANOS_FIELD_NUMBER: _ClassVar[int]
    REPLY_RECEIVED_MONOTONIC_NANOS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    monotonic_nanos: int
    unix_nanos: int
    backlog_sightings: int
    spool_bytes: int
    lag_s: float
    lost_before_spool: int
    skipped_by_cap: int
    reply_to_monotonic_nanos: int
    reply_received_monotonic_nanos: int
    skipped_unreadable: int
    def __init__(self, boot_id: _Optional[str] = ..., monotonic_nanos: _Optional[int] = ..., unix_nanos: _Optional[int] = ..., backlog_sightings: _Optional[int] = ..., spool_bytes: _Optional[int] = ..., lag_s: _Optional[float] = ..., lost_before_spool: _Optional[int] = ..., skipped_by_cap: _Optional[int] = ..., reply_to_monotonic_nanos: _Optional[int] = ..., reply_received_monotonic_nanos: _Optional[int] = ..., skipped_unreadable: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("ledger_id", "committed", "window_sightings", "limits", "unix_nanos", "software", "skipped")
    LEDGER_ID_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_SIGHTINGS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    ledger_id: str
    committed: _containers.RepeatedCompositeFieldContainer[_sighting_pb2.KeyRange]
    window_sightings: int
    limits: Limits
    unix_nanos: int
    software: str
    skipped: _containers.RepeatedCompositeFieldContainer[_sighting_pb2.KeyRange]
    def __init__(self, ledger_id: _Optional[str] = ..., committed: _Optional[_Iterable[_Union[_sighting_pb2.KeyRange, _Mapping]]] = ..., window_sightings: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., unix_nanos: _Optional[int] = ..., software: _Optional[str] = ..., skipped: _Optional[_Iterable[_Union[_sighting_pb2.KeyRange, _Mapping]]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("message_bytes", "batch_sightings", "cameras", "sightings_per_second")
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIGHTINGS_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    SIGHTINGS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    message_bytes: int
    batch_sightings: int
    cameras: int
    sightings_per_second: float
    def __init__(self, message_bytes: _Optional[int] = ..., batch_sightings: _Optional[int] = ..., cameras: _Optional[int] = ..., sightings_per_second: _Optional[float] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("ranges",)
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[_sighting_pb2.KeyRange]
    def __init__(self, ranges: _Optional[_Iterable[_Union[_sighting_pb2.KeyRange, _Mapping]]] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("key", "reason", "message")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    key: _sighting_pb2.Key
    reason: RejectReason
    message: str
    def __init__(self, key: _Optional[_Union[_sighting_pb2.Key, _Mapping]] = ..., reason: _Optional[_Union[RejectReason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Erase(_message.Message):
    __slots__ = ("ranges",)
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[_sighting_pb2.KeyRange]
    def __init__(self, ranges: _Optional[_Iterable[_Union[_sighting_pb2.KeyRange, _Mapping]]] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("sent_unix_nanos", "received_unix_nanos", "replied_unix_nanos", "sent_monotonic_nanos")
    SENT_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    REPLIED_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    SENT_MONOTONIC_NANOS_FIELD_NUMBER: _ClassVar[int]
    sent_unix_nanos: int
    received_unix_nanos: int
    replied_unix_nanos: int
    sent_monotonic_nanos: int
    def __init__(self, sent_unix_nanos: _Optional[int] = ..., received_unix_nanos: _Optional[int] = ..., replied_unix_nanos: _Optional[int] = ..., sent_monotonic_nanos: _Optional[int] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("sightings",)
    SIGHTINGS_FIELD_NUMBER: _ClassVar[int]
    sightings: int
    def __init__(self, sightings: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "message", "retry_after_s")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    reason: GoodbyeReason
    message: str
    retry_after_s: float
    def __init__(self, reason: _Optional[_Union[GoodbyeReason, str]] = ..., message: _Optional[str] = ..., retry_after_s: _Optional[float] = ...) -> None: ...
