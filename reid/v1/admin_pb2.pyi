from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MergeRequest(_message.Message):
    __slots__ = ("identity_id", "other_identity_id")
    IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    OTHER_IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    identity_id: str
    other_identity_id: str
    def __init__(self, identity_id: _Optional[str] = ..., other_identity_id: _Optional[str] = ...) -> None: ...

class MergeResponse(_message.Message):
    __slots__ = ("identity_id",)
    IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    identity_id: str
    def __init__(self, identity_id: _Optional[str] = ...) -> None: ...

class SplitRequest(_message.Message):
    __slots__ = ("identity_id", "tracklet_ids")
    IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    TRACKLET_IDS_FIELD_NUMBER: _ClassVar[int]
    identity_id: str
    tracklet_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, identity_id: _Optional[str] = ..., tracklet_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class SplitResponse(_message.Message):
    __slots__ = ("new_identity_id",)
    NEW_IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    new_identity_id: str
    def __init__(self, new_identity_id: _Optional[str] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("identity_id",)
    IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    identity_id: str
    def __init__(self, identity_id: _Optional[str] = ...) -> None: ...

class ForgetResponse(_message.Message):
    __slots__ = ("sightings", "keys")
    SIGHTINGS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    sightings: int
    keys: int
    def __init__(self, sightings: _Optional[int] = ..., keys: _Optional[int] = ...) -> None: ...

class SetRetentionRequest(_message.Message):
    __slots__ = ("site", "ledger_s", "identity_s")
    SITE_FIELD_NUMBER: _ClassVar[int]
    LEDGER_S_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_S_FIELD_NUMBER: _ClassVar[int]
    site: str
    ledger_s: float
    identity_s: float
    def __init__(self, site: _Optional[str] = ..., ledger_s: _Optional[float] = ..., identity_s: _Optional[float] = ...) -> None: ...

class SetRetentionResponse(_message.Message):
    __slots__ = ("ledger_s", "identity_s")
    LEDGER_S_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_S_FIELD_NUMBER: _ClassVar[int]
    ledger_s: float
    identity_s: float
    def __init__(self, ledger_s: _Optional[float] = ..., identity_s: _Optional[float] = ...) -> None: ...

class GetCalibrationRequest(_message.Message):
    __slots__ = ("site", "space_id")
    SITE_FIELD_NUMBER: _ClassVar[int]
    SPACE_ID_FIELD_NUMBER: _ClassVar[int]
    site: str
    space_id: str
    def __init__(self, site: _Optional[str] = ..., space_id: _Optional[str] = ...) -> None: ...

class PairCalibration(_message.Message):
    __slots__ = ("space_id", "camera_a", "camera_b", "positive_mean", "positive_deviation", "positive_pairs", "negative_mean", "negative_deviation", "negative_pairs")
    SPACE_ID_FIELD_NUMBER: _ClassVar[int]
    CAMERA_A_FIELD_NUMBER: _ClassVar[int]
    CAMERA_B_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_MEAN_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_PAIRS_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_MEAN_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PAIRS_FIELD_NUMBER: _ClassVar[int]
    space_id: str
    camera_a: str
    camera_b: str
    positive_mean: float
    positive_deviation: float
    positive_pairs: int
    negative_mean: float
    negative_deviation: float
    negative_pairs: int
    def __init__(self, space_id: _Optional[str] = ..., camera_a: _Optional[str] = ..., camera_b: _Optional[str] = ..., positive_mean: _Optional[float] = ..., positive_deviation: _Optional[float] = ..., positive_pairs: _Optional[int] = ..., negative_mean: _Optional[float] = ..., negative_deviation: _Optional[float] = ..., negative_pairs: _Optional[int] = ...) -> None: ...

class GetCalibrationResponse(_message.Message):
    __slots__ = ("pairs", "prior_threshold")
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    PRIOR_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[PairCalibration]
    prior_threshold: float
    def __init__(self, pairs: _Optional[_Iterable[_Union[PairCalibration, _Mapping]]] = ..., prior_threshold: _Optional[float] = ...) -> None: ...
