"""A site's map: what turns vectors of an embedder's space into the site's derived space.

Promise: numpy alone applies it, each row for itself; the same vectors together always give the same
result, among others they may differ in the last digit (a matrix product of another shape). A file
that was cut short, changed, or is of another version or shape is refused. Vectors on the wire and
in the ledger stay in the parent space, so that a map can be fitted again or rolled back.
Threads: a `SiteMap` is never changed after it was made; any thread may apply it.

    z = (x − mean[camera]) / scale[camera]          one mean and deviation per camera
    y = z·weight + relu(z·hidden + bias)·out        a projection and, where there is one, a
    y / |y|                                         correction of one hidden layer

`N.npz` (numpy, no pickles) holds version, cameras (c,) str, mean and scale (c + 1, d) float32 whose
last row is for cameras that the map does not know, weight (d, k) float16, and, both or neither,
hidden (d, h), bias (h,) and out (h, k), float16. `N.toml` beside it is the card (`MapCard`).
"""

from __future__ import annotations

import datetime
import io
import tomllib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reid import toml
from reid.card import MAX_CARD_BYTES, Sha256, sha256_of
from reid.files import replace_file
from reid.model_errors import CardInvalid, CardMismatch, ModelNotFound, ModelUnreadable

Floats = NDArray[np.float32]
VERSION = 1
MAX_MAP_BYTES = 16 * 1024 * 1024  # a map has some hundred kB; what is larger is none
_REFIT = "fit it again: edge-models adapt --embeddings"
_TINY = 1e-12
# What numpy and zipfile give on bytes that are no map, or one of other shapes.
_NO_MAP = (
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
HIGHEST_THRESHOLD = 0.98  # of a derived space: above it nothing would ever be joined


class Separation(BaseModel):
    """How far pairs that are certain lie apart, in one space.

    Attributes:
        positive_mean, positive_std: distances (0..2) of shots of one tracklet.
        negative_mean, negative_std: of shots of people seen at once by one camera.
        overlap: area that the two Gaussians share, 0..1.
        error: share of pairs on the wrong side where both kinds of error are equal, 0..1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    positive_mean: float
    positive_std: float
    negative_mean: float
    negative_std: float
    overlap: float
    error: float


class Spread(BaseModel):
    """Mean and standard deviation (above 0) of cosine similarities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float
    std: Annotated[float, Field(gt=0)]


class Gain(BaseModel):
    """By how much a space is better than another in one measure, as shares of 1.

    Attributes:
        value: as measured; above 0 is better.
        low, high: with 95 % certainty each, the gain is not below low, and not above high.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float


class MapCard(BaseModel):
    """What a map is, from what it was fitted, and how it did on what was held back.

    Attributes:
        space_id: of the derived space: `PARENT/SITE/N`.
        parent: space_id of the vectors that it takes.
        dimension: numbers of a derived vector.
        fitted_on: counts: vectors, tracklets, cameras, clusters.
        first_seen, last_seen: span of the sightings, UTC; unset where no times were known.
        held_back: certain pairs that were not learned from, before and after.
        transit_before, transit_after: share of held-back tracklets' three nearest tracklets in
            other cameras that lie within the usual transit time, vectors alone deciding.
        pairs_gain, transit_gain: in the errors on certain pairs, and in the share within the usual
            transit time; unset in cards from before they were kept.
        others_before, others_after: similarities of held-back tracklets of two cameras, nearly all
            of two people; where thresholds lie is told by them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["site-map"]
    space_id: Annotated[str, Field(min_length=1, max_length=300)]  # never on the wire
    parent: Annotated[str, Field(min_length=1, max_length=128)]
    site: Annotated[str, Field(min_length=1, max_length=128)]
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]
    dimension: Annotated[int, Field(ge=1, le=4096)]
    made_at: datetime.datetime
    fitted_on: dict[str, int]
    first_seen: datetime.datetime | None = None
    last_seen: datetime.datetime | None = None
    held_back_before: Separation | None = None
    held_back_after: Separation | None = None
    transit_before: float | None = None
    transit_after: float | None = None
    pairs_gain: Gain | None = None
    transit_gain: Gain | None = None
    others_before: Spread | None = None
    others_after: Spread | None = None

    @property
    def helps(self) -> bool:
        """Whether it did better on what was held back; False where the card does not say."""
        before, after = self.held_back_before, self.held_back_after
        if before is None or after is None:
            return False
        if self.pairs_gain is not None:
            return surely_helps(self.pairs_gain, self.transit_gain)
        return helps(before.error, after.error, self.transit_before, self.transit_after)

    def threshold(self, parent: float) -> float | None:
        """The similarity in the derived space that a threshold of the parent space becomes.

        As many standard deviations above what other people have. None where the card has no figures
        to tell it by.
        """
        before, after = self.others_before, self.others_after
        if before is None or after is None:
            return None
        return min(after.mean + (parent - before.mean) / before.std * after.std, HIGHEST_THRESHOLD)


def surely_helps(pairs: Gain, transit: Gain | None) -> bool:
    """Transit times are better beyond chance and certain pairs not worse beyond it.

    Where no times are known, certain pairs are better beyond chance.
    """
    if transit is None:
        return pairs.low > 0
    return transit.low > 0 and pairs.high >= 0


def helps(
    error_before: float,
    error_after: float,
    transit_before: float | None,
    transit_after: float | None,
) -> bool:
    """Better at certain pairs or at transit times, worse at neither; times may be unknown.

    For cards that do not say how sure their gains are.
    """
    pairs = error_before - error_after
    if transit_before is None or transit_after is None:
        return pairs > 0
    times = transit_after - transit_before
    return pairs >= 0 and times >= 0 and (pairs > 0 or times > 0)


@dataclass(frozen=True)
class SiteMap:
    """The map's numbers; shapes as in the module's text.

    Raises:
        ValueError: shapes that do not fit together, or a value that is not finite.
    """

    cameras: tuple[str, ...]
    mean: Floats
    scale: Floats
    weight: Floats
    hidden: Floats | None = None
    bias: Floats | None = None
    out: Floats | None = None

    def __post_init__(self) -> None:
        rows, size = len(self.cameras) + 1, self.mean.shape[-1]
        expected: list[tuple[str, Floats | None, tuple[int, ...]]] = [
            ("mean", self.mean, (rows, size)),
            ("scale", self.scale, (rows, size)),
            ("weight", self.weight, (size, self.dimension)),
        ]
        layer = (self.hidden, self.bias, self.out)
        if any(part is not None for part in layer):
            wide = 0 if self.bias is None else len(self.bias)
            expected += [
                ("hidden", self.hidden, (size, wide)),
                ("bias", self.bias, (wide,)),
                ("out", self.out, (wide, self.dimension)),
            ]
        for name, value, shape in expected:
            if value is None or value.shape != shape:
                found = None if value is None else value.shape
                raise ValueError(f"{name}: shape {found}, expected {shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"{name}: holds values that are not finite")
        if self.scale.min() <= 0:
            raise ValueError(f"scale: {self.scale.min()} found, all above 0 expected")

    @property
    def input_dimension(self) -> int:
        """Numbers of a vector of the parent space."""
        return int(self.mean.shape[-1])

    @property
    def dimension(self) -> int:
        """Numbers of a derived vector."""
        return int(self.weight.shape[-1])

    def standardise(self, vectors: Floats, cameras: Sequence[str]) -> Floats:
        """(n, d) vectors of the parent space with their cameras' mean and deviation removed."""
        if vectors.ndim != 2 or vectors.shape[1] != self.input_dimension:
            raise ValueError(
                f"vectors: shape {vectors.shape}, expected (n, {self.input_dimension})"
            )
        if len(cameras) != len(vectors):
            raise ValueError(f"{len(cameras)} cameras for {len(vectors)} vectors")
        number = {name: index for index, name in enumerate(self.cameras)}
        rows = np.array([number.get(name, len(self.cameras)) for name in cameras], np.int64)
        standard: Floats = (vectors - self.mean[rows]) / self.scale[rows]
        return standard

    def apply(self, vectors: Floats, cameras: Sequence[str]) -> Floats:
        """Vectors of the derived space.

        Args:
            vectors: (n, d) float32, rows of unit length, of the parent space; n may be 0.
            cameras: the n cameras that saw them; unknown ones get the common mean and deviation.
        Returns:
            (n, k) float32, rows of unit length.
        Raises:
            ValueError: other shapes.
        """
        standard = self.standardise(vectors, cameras)
        mapped = standard @ self.weight
        if self.hidden is not None and self.bias is not None and self.out is not None:
            mapped = mapped + np.maximum(standard @ self.hidden + self.bias, 0.0) @ self.out
        lengths = np.linalg.norm(mapped, axis=1, keepdims=True)
        unit: Floats = (mapped / np.maximum(lengths, _TINY)).astype(np.float32)
        return unit


def encode(site_map: SiteMap) -> bytes:
    """The map as the bytes of its npz file."""
    arrays: dict[str, NDArray[np.generic]] = {
        "version": np.array(VERSION),
        "cameras": np.array(site_map.cameras, dtype=np.str_),
        "mean": site_map.mean.astype(np.float32),
        "scale": site_map.scale.astype(np.float32),
        "weight": site_map.weight.astype(np.float16),
    }
    for name in ("hidden", "bias", "out"):
        value = getattr(site_map, name)
        if value is not None:
            arrays[name] = value.astype(np.float16)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def decode(content: bytes, where: Path | str) -> SiteMap:
    """A map from the bytes of its file.

    Raises:
        ModelUnreadable: not a map of this version.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            version = int(arrays["version"])
            if version != VERSION:
                raise ModelUnreadable(where, f"is of version {version}, known is {VERSION}", _REFIT)
            layer = {
                name: arrays[name].astype(np.float32)
                for name in ("hidden", "bias", "out")
                if name in arrays
            }
            return SiteMap(
                cameras=tuple(str(name) for name in arrays["cameras"]),
                mean=arrays["mean"].astype(np.float32),
                scale=arrays["scale"].astype(np.float32),
                weight=arrays["weight"].astype(np.float32),
                **layer,
            )
    except _NO_MAP as error:
        raise ModelUnreadable(where, f"is no site map ({error})", _REFIT) from error


def write_map(site_map: SiteMap, card: MapCard, path: Path) -> None:
    """Write map and card, each whole or not at all; the card last, since it makes the map valid.

    Args:
        path: of the npz; the card lies beside it. `encode(site_map)` must be what the card names.
    Raises:
        CardMismatch: it is not.
        OSError: the folder cannot be written.
    """
    content = encode(site_map)
    _verify(path, content, card)
    text = toml.dumps(card.model_dump(mode="json", exclude_none=True))
    replace_file(path, content)
    replace_file(path.with_suffix(".toml"), text.encode())


def read_map(path: Path) -> tuple[SiteMap, MapCard]:
    """A map and its card.

    Raises:
        ModelNotFound: one of the two files cannot be read.
        CardInvalid, CardMismatch, ModelUnreadable: they are not what they should be.
    """
    card = read_card(path.with_suffix(".toml"))
    try:
        if path.stat().st_size > MAX_MAP_BYTES:
            raise ModelUnreadable(path, f"has over {MAX_MAP_BYTES} bytes, no map has", _REFIT)
        content = path.read_bytes()
    except OSError as error:
        raise _missing(error, path) from error
    _verify(path, content, card)
    site_map = decode(content, path)
    if site_map.dimension != card.dimension:
        raise CardMismatch(
            path, "dimension", f"gives {site_map.dimension}, its card says {card.dimension}", _REFIT
        )
    return site_map, card


def read_card(path: Path) -> MapCard:
    """The card in a file.

    Raises:
        ModelNotFound: the file cannot be read.
        CardInvalid: it is no card of a map.
    """
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise CardInvalid(path, "is longer than any card", _REFIT)
        return MapCard.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise _missing(error, path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError, RecursionError) as error:
        raise CardInvalid(path, str(error).replace("\n", " "), _REFIT) from error


def _missing(error: OSError, path: Path) -> ModelNotFound:
    return ModelNotFound(
        str(error.filename or path), f"cannot be read ({error.strerror})", "check path, rights"
    )


def _verify(path: Path, content: bytes, card: MapCard) -> None:
    if len(content) != card.bytes or sha256_of(content) != card.sha256:
        raise CardMismatch(
            path, "sha256", f"{len(content)} bytes that its card does not speak of", _REFIT
        )
