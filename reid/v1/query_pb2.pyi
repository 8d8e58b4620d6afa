from reid.v1 import sighting_pb2 as _sighting_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrackletState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRACKLET_STATE_UNSPECIFIED: _ClassVar[TrackletState]
    TRACKLET_STATE_LIVE: _ClassVar[TrackletState]
    TRACKLET_STATE_ENDED: _ClassVar[TrackletState]
    TRACKLET_STATE_INTERRUPTED: _ClassVar[TrackletState]

class IdentityEventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IDENTITY_EVENT_KIND_UNSPECIFIED: _ClassVar[IdentityEventKind]
    IDENTITY_EVENT_KIND_CREATED: _ClassVar[IdentityEventKind]
    IDENTITY_EVENT_KIND_JOINED: _ClassVar[IdentityEventKind]
    IDENTITY_EVENT_KIND_MERGED: _ClassVar[IdentityEventKind]
    IDENTITY_EVENT_KIND_SPLIT: _ClassVar[IdentityEventKind]
    IDENTITY_EVENT_KIND_EXPIRED: _ClassVar[IdentityEventKind]
    IDENTITY_EVENT_KIND_FORGOTTEN: _ClassVar[IdentityEventKind]
TRACKLET_STATE_UNSPECIFIED: TrackletState
TRACKLET_STATE_LIVE: TrackletState
TRACKLET_STATE_ENDED: TrackletState
TRACKLET_STATE_INTERRUPTED: TrackletState
IDENTITY_EVENT_KIND_UNSPECIFIED: IdentityEventKind
IDENTITY_EVENT_KIND_CREATED: IdentityEventKind
IDENTITY_EVENT_KIND_JOINED: IdentityEventKind
IDENTITY_EVENT_KIND_MERGED: IdentityEventKind
IDENTITY_EVENT_KIND_SPLIT: IdentityEventKind
IDENTITY_EVENT_KIND_EXPIRED: IdentityEventKind
IDENTITY_EVENT_KIND_FORGOTTEN: IdentityEventKind

class SightingFilter(_message.Message):
    __slots__ = ("site", "cameras", "from_unix_nanos", "to_unix_nanos")
    SITE_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    FROM_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    TO_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    site: str
    cameras: _containers.RepeatedScalarFieldContainer[str]
    from_unix_nanos: int
    to_unix_nanos: int
    def __init__(self, site: _Optional[str] = ..., cameras: _Optional[_Iterable[str]] = ..., from_unix_nanos: _Optional[int] = ..., to_unix_nanos: _Optional[int] = ...) -> None: ...

class TrackletSummary(_message.Message):
    __slots__ = ("tracklet_id", "site", "edge_id", "camera", "revision", "state", "first_seen", "last_seen", "identity_id", "probability", "shots", "first_seen_unix_nanos", "last_seen_unix_nanos")
    TRACKLET_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    EDGE_ID_FIELD_NUMBER: _ClassVar[int]
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEEN_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SHOTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEEN_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    tracklet_id: str
    site: str
    edge_id: str
    camera: str
    revision: int
    state: TrackletState
    first_seen: _sighting_pb2.CaptureTime
    last_seen: _sighting_pb2.CaptureTime
    identity_id: str
    probability: float
    shots: int
    first_seen_unix_nanos: int
    last_seen_unix_nanos: int
    def __init__(self, tracklet_id: _Optional[str] = ..., site: _Optional[str] = ..., edge_id: _Optional[str] = ..., camera: _Optional[str] = ..., revision: _Optional[int] = ..., state: _Optional[_Union[TrackletState, str]] = ..., first_seen: _Optional[_Union[_sighting_pb2.CaptureTime, _Mapping]] = ..., last_seen: _Optional[_Union[_sighting_pb2.CaptureTime, _Mapping]] = ..., identity_id: _Optional[str] = ..., probability: _Optional[float] = ..., shots: _Optional[int] = ..., first_seen_unix_nanos: _Optional[int] = ..., last_seen_unix_nanos: _Optional[int] = ...) -> None: ...

class SearchSightingsRequest(_message.Message):
    __slots__ = ("embedding", "tracklet_id", "filter", "limit", "min_similarity")
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    TRACKLET_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MIN_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    embedding: _sighting_pb2.Embedding
    tracklet_id: str
    filter: SightingFilter
    limit: int
    min_similarity: float
    def __init__(self, embedding: _Optional[_Union[_sighting_pb2.Embedding, _Mapping]] = ..., tracklet_id: _Optional[str] = ..., filter: _Optional[_Union[SightingFilter, _Mapping]] = ..., limit: _Optional[int] = ..., min_similarity: _Optional[float] = ...) -> None: ...

class SearchHit(_message.Message):
    __slots__ = ("tracklet", "similarity", "probability")
    TRACKLET_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    tracklet: TrackletSummary
    similarity: float
    probability: float
    def __init__(self, tracklet: _Optional[_Union[TrackletSummary, _Mapping]] = ..., similarity: _Optional[float] = ..., probability: _Optional[float] = ...) -> None: ...

class SearchSightingsResponse(_message.Message):
    __slots__ = ("hits",)
    HITS_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[SearchHit]
    def __init__(self, hits: _Optional[_Iterable[_Union[SearchHit, _Mapping]]] = ...) -> None: ...

class ListSightingsRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: SightingFilter
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[SightingFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSightingsResponse(_message.Message):
    __slots__ = ("tracklets", "next_page_token")
    TRACKLETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tracklets: _containers.RepeatedCompositeFieldContainer[TrackletSummary]
    next_page_token: str
    def __init__(self, tracklets: _Optional[_Iterable[_Union[TrackletSummary, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ReadSightingsRequest(_message.Message):
    __slots__ = ("after_position", "site", "follow")
    AFTER_POSITION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    after_position: int
    site: str
    follow: bool
    def __init__(self, after_position: _Optional[int] = ..., site: _Optional[str] = ..., follow: _Optional[bool] = ...) -> None: ...

class ReadSightingsResponse(_message.Message):
    __slots__ = ("position", "record", "committed_unix_nanos")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    position: int
    record: _sighting_pb2.SightingRecord
    committed_unix_nanos: int
    def __init__(self, position: _Optional[int] = ..., record: _Optional[_Union[_sighting_pb2.SightingRecord, _Mapping]] = ..., committed_unix_nanos: _Optional[int] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("identity_id", "site", "first_seen_unix_nanos", "last_seen_unix_nanos", "tracklets", "cameras")
    IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEEN_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    TRACKLETS_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    identity_id: str
    site: str
    first_seen_unix_nanos: int
    last_seen_unix_nanos: int
    tracklets: _containers.RepeatedCompositeFieldContainer[TrackletSummary]
    cameras: int
    def __init__(self, identity_id: _Optional[str] = ..., site: _Optional[str] = ..., first_seen_unix_nanos: _Optional[int] = ..., last_seen_unix_nanos: _Optional[int] = ..., tracklets: _Optional[_Iterable[_Union[TrackletSummary, _Mapping]]] = ..., cameras: _Optional[int] = ...) -> None: ...

class GetIdentityRequest(_message.Message):
    __slots__ = ("identity_id",)
    IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    identity_id: str
    def __init__(self, identity_id: _Optional[str] = ...) -> None: ...

class GetIdentityResponse(_message.Message):
    __slots__ = ("identity",)
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    identity: Identity
    def __init__(self, identity: _Optional[_Union[Identity, _Mapping]] = ...) -> None: ...

class ListIdentitiesRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: SightingFilter
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[SightingFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListIdentitiesResponse(_message.Message):
    __slots__ = ("identities", "next_page_token")
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    identities: _containers.RepeatedCompositeFieldContainer[Identity]
    next_page_token: str
    def __init__(self, identities: _Optional[_Iterable[_Union[Identity, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("after_position", "site", "from_now")
    AFTER_POSITION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    FROM_NOW_FIELD_NUMBER: _ClassVar[int]
    after_position: int
    site: str
    from_now: bool
    def __init__(self, after_position: _Optional[int] = ..., site: _Optional[str] = ..., from_now: _Optional[bool] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("position", "kind", "identity_id", "other_identity_id", "tracklet", "probability", "similarity", "decided_unix_nanos")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    OTHER_IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    TRACKLET_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    DECIDED_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    position: int
    kind: IdentityEventKind
    identity_id: str
    other_identity_id: str
    tracklet: TrackletSummary
    probability: float
    similarity: float
    decided_unix_nanos: int
    def __init__(self, position: _Optional[int] = ..., kind: _Optional[_Union[IdentityEventKind, str]] = ..., identity_id: _Optional[str] = ..., other_identity_id: _Optional[str] = ..., tracklet: _Optional[_Union[TrackletSummary, _Mapping]] = ..., probability: _Optional[float] = ..., similarity: _Optional[float] = ..., decided_unix_nanos: _Optional[int] = ...) -> None: ...

class ListEdgesRequest(_message.Message):
    __slots__ = ("site",)
    SITE_FIELD_NUMBER: _ClassVar[int]
    site: str
    def __init__(self, site: _Optional[str] = ...) -> None: ...

class Edge(_message.Message):
    __slots__ = ("edge_id", "site", "connected", "last_heard_unix_nanos", "backlog_sightings", "lag_s", "committed", "skipped", "rejected", "lost_before_spool", "cameras", "clock_offset_ms", "clock_uncertainty_ms", "software", "alarms")
    EDGE_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    LAST_HEARD_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_SIGHTINGS_FIELD_NUMBER: _ClassVar[int]
    LAG_S_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    LOST_BEFORE_SPOOL_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_OFFSET_MS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_UNCERTAINTY_MS_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    edge_id: str
    site: str
    connected: bool
    last_heard_unix_nanos: int
    backlog_sightings: int
    lag_s: float
    committed: int
    skipped: int
    rejected: int
    lost_before_spool: int
    cameras: _containers.RepeatedScalarFieldContainer[str]
    clock_offset_ms: float
    clock_uncertainty_ms: float
    software: str
    alarms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, edge_id: _Optional[str] = ..., site: _Optional[str] = ..., connected: _Optional[bool] = ..., last_heard_unix_nanos: _Optional[int] = ..., backlog_sightings: _Optional[int] = ..., lag_s: _Optional[float] = ..., committed: _Optional[int] = ..., skipped: _Optional[int] = ..., rejected: _Optional[int] = ..., lost_before_spool: _Optional[int] = ..., cameras: _Optional[_Iterable[str]] = ..., clock_offset_ms: _Optional[float] = ..., clock_uncertainty_ms: _Optional[float] = ..., software: _Optional[str] = ..., alarms: _Optional[_Iterable[str]] = ...) -> None: ...

class ListEdgesResponse(_message.Message):
    __slots__ = ("edges",)
    EDGES_FIELD_NUMBER: _ClassVar[int]
    edges: _containers.RepeatedCompositeFieldContainer[Edge]
    def __init__(self, edges: _Optional[_Iterable[_Union[Edge, _Mapping]]] = ...) -> None: ...
