"""Model cards: what an ONNX file is, how it is fed, and the proof that it is that file.

A card is a TOML file beside the model (`NAME.onnx`, `NAME.toml`). The box reads pictures into the
model by it, refuses a file whose checksum, shapes or golden output differ from it, and puts its
`space_id` and `variant_id` on every embedding. A card states; it runs nothing.

    kind = "embedder"            # or "detector"
    name = "osnet-x0.25"         # what --embedder and `edge-models use` take
    file = "osnet_x0_25.onnx"    # beside the card
    sha256 = "61b2…"  bytes = 921616
    licence = "Apache-2.0"  commercial_use = false  made_by = "…"  training_data = ["…"]
    space_id = "…"  variant_id = "float32"  dimension = 512      # embedders
    parent = "…"  variant_id = "int8"            # a detector that is a variant of its parent
    family = "yolox"                                             # detectors; unset: recognised
    [input]   height, width, colour, range, mean, std, fit, pad  (unset: the family's own)
    [golden]  formula, seed, values, tolerance
    [agreement]  how this variant compares with the space's reference variant
    [[metrics]]  protocol, date, values
    [[runtimes]] runtime and precision admitted besides the plain float one

Fails: CardInvalid names the file, the field and the reason. Thread-safe: nothing is kept.
"""

from __future__ import annotations

import datetime
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reid import toml
from reid.files import replace_file
from reid.model_errors import CardInvalid, CardMismatch, LicenceRefused, ModelNotFound

Kind = Literal["detector", "embedder"]
Triple = tuple[float, float, float]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

GOLDEN_VALUES = 16  # enough to tell two networks apart, short enough to read
LEAST_SIDE, MOST_SIDE = 16, 4096  # px of a model's input
MAX_CARD_BYTES = 64 * 1024  # a card is a page of text; more is not a card


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InputSpec(_Part):
    """How pixels become the model's input: value = (pixel / 255 * range - mean) / std.

    Attributes:
        height, width: pixels of the model's input.
        colour: order of the channels the model wants.
        range: what white is before mean and std: 1 or 255.
        mean, std: per channel in the model's colour order, in units of `range`. A model that
            normalises inside has mean 0 and std 1.
        fit: letterbox keeps the aspect ratio and pads; stretch does not.
        pad: grey value of the padding, 0..255.
    """

    height: Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]
    width: Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]
    colour: Literal["bgr", "rgb"] = "rgb"
    range: Literal[1, 255] = 1
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    fit: Literal["letterbox_top_left", "letterbox_centre", "stretch"] = "stretch"
    pad: Annotated[int, Field(ge=0, le=255)] = 114

    @model_validator(mode="after")
    def _std_divides(self) -> InputSpec:
        if min(self.std) <= 0.0:
            raise ValueError(f"std must be above 0, got {self.std}")
        return self


class Golden(_Part):
    """One run whose result is known.

    Attributes:
        formula: how the input picture is made; `blocks-1` is `reid.golden.golden_image`.
        seed: its seed.
        values: what `reid.golden.golden_values` gives.
        tolerance: largest difference of one value that still passes; relative for values above 1.
    """

    formula: Literal["blocks-1"] = "blocks-1"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    values: Annotated[tuple[float, ...], Field(min_length=1, max_length=GOLDEN_VALUES)]
    tolerance: Annotated[float, Field(gt=0.0)]


class Agreement(_Part):
    """How far vectors of this variant compare with those of the space's reference variant.

    Attributes:
        reference: the variant_id it was measured against.
        cosine_mean, cosine_min: of the same crop embedded by both.
        across: metrics in % with queries from one variant and the gallery from the other.
        measured_on: what crops.
    """

    reference: str
    cosine_mean: Annotated[float, Field(ge=-1.0, le=1.0)]
    cosine_min: Annotated[float, Field(ge=-1.0, le=1.0)]
    across: dict[str, float] = {}
    measured_on: str = ""


class Metric(_Part):
    """One measured result.

    Attributes:
        protocol: data and rules, e.g. `market1501 single query cosine`.
        date: when it was measured.
        values: name -> value, e.g. rank1 = 91.5 (in %).
    """

    protocol: str
    date: datetime.date
    values: dict[str, float]


class RuntimeVariant(_Part):
    """A runtime and precision, besides plain float, that this file is admitted to run with.

    Attributes:
        runtime, precision: e.g. openvino and bf16.
        variant_id: what its vectors are called on the wire.
        tolerance: of the golden values under it.
    """

    runtime: Literal["openvino"]
    precision: Literal["bf16"]
    variant_id: Annotated[str, Field(min_length=1, max_length=128)]
    tolerance: Annotated[float, Field(gt=0.0)]
    agreement: Agreement | None = None


class Card(_Part):
    """What a model file is. Fields as in the module's text; unknown fields are refused."""

    kind: Kind
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]
    licence: Annotated[str, Field(min_length=1)]
    commercial_use: bool
    made_by: Annotated[str, Field(min_length=1)]
    training_data: tuple[str, ...] = ()
    parent: str | None = None
    default: bool = False
    notes: str = ""
    space_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    variant_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    dimension: Annotated[int, Field(ge=1, le=4096)] | None = None
    family: str | None = None
    person_class: Annotated[int, Field(ge=0)] | None = None
    input: InputSpec | None = None
    golden: Golden | None = None
    agreement: Agreement | None = None
    metrics: tuple[Metric, ...] = ()
    runtimes: tuple[RuntimeVariant, ...] = ()

    @model_validator(mode="after")
    def _fields_of_its_kind(self) -> Card:
        if self.kind == "embedder":
            needed = ("space_id", "variant_id", "dimension", "input", "golden")
            missing = [name for name in needed if getattr(self, name) is None]
            if missing:
                raise ValueError(f"an embedder's card needs {', '.join(missing)}")
            foreign = [n for n in ("family", "person_class") if getattr(self, n) is not None]
        else:
            foreign = [n for n in ("space_id", "dimension") if getattr(self, n) is not None]
        if foreign:
            raise ValueError(f"{', '.join(foreign)}: not for a card of kind {self.kind!r}")
        return self

    def licence_line(self) -> str:
        """One line for start, --check and the summary."""
        use = "commercial use allowed" if self.commercial_use else "NO commercial use"
        return f"{self.kind} {self.name}: {self.licence}, {use}, by {self.made_by}"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file and what is known about it.

    Attributes:
        path: the ONNX file.
        card: its card; None where none was found (then a detector may still be recognised).
        card_from: where the card was read, for messages: a path, or the catalogue.
        why: why this file was taken for the name that was asked for.
    """

    path: Path
    card: Card | None
    card_from: str = ""
    why: str = ""

    @property
    def name(self) -> str:
        """The card's name, else the file's stem."""
        return self.card.name if self.card else self.path.stem

    def because(self, why: str) -> ModelFile:
        """The same, with a reason."""
        return replace(self, why=why)

    def read(self) -> bytes:
        """Read the file once; what is hashed is what is loaded.

        Raises:
            ModelNotFound: the file cannot be read.
            CardMismatch: length or sha256 differ from the card's.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ModelNotFound(
                self.path, f"cannot be read ({error.strerror})", "check the path and its rights"
            ) from error
        if self.card is not None:
            verify_bytes(self.path, content, self.card)
        return content


def card_path(model: Path) -> Path:
    """Where the card of an ONNX file lies: the same name with .toml."""
    return model.with_suffix(".toml")


def sha256_of(content: bytes) -> str:
    """Checksum as cards write it: 64 lower-case hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def parse_card(text: str, where: Path | str) -> Card:
    """Read a card from its text.

    Raises:
        CardInvalid: not TOML, or a field is missing, unknown or out of range.
    """
    try:
        return card_from(tomllib.loads(text), where)
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # lists in lists without end
        raise CardInvalid(where, f"is not TOML ({error})", "mend or rewrite the card") from error


def card_from(fields: Mapping[str, Any], where: Path | str) -> Card:
    """A card from its fields, e.g. a table of the catalogue.

    Raises:
        CardInvalid: a field is missing, unknown or out of range.
    """
    try:
        return Card.model_validate(fields)
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'card'}: {item['msg']}"
            for item in error.errors()[:3]
        )
        raise CardInvalid(where, reasons, "mend the field in the card") from error


def read_card(path: Path) -> Card:
    """Read the card at `path`.

    Raises:
        ModelNotFound: no such file.
        CardInvalid: it is no card.
    """
    try:
        size = path.stat().st_size
        if size > MAX_CARD_BYTES:
            raise CardInvalid(path, f"has {size} bytes, a card has a page", "check the file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelNotFound(
            path, f"cannot be read ({error.strerror})", "check the path and its rights"
        ) from error
    except UnicodeDecodeError as error:
        raise CardInvalid(path, "is not UTF-8 text", "mend or rewrite the card") from error
    return parse_card(text, path)


def write_card(card: Card, path: Path) -> None:
    """Write a card whole or not at all (a new file renamed over the old).

    Raises:
        OSError: the folder cannot be written.
    """
    replace_file(path, card_text(card).encode())


def card_text(card: Card) -> str:
    """The card as TOML; fields that were never set stay out."""
    return toml.dumps(card.model_dump(mode="python", exclude_none=True, exclude_unset=True))


def verify_bytes(path: Path, content: bytes, card: Card) -> None:
    """Check that `content` is the file the card speaks of.

    Raises:
        CardMismatch: length or sha256 differ.
    """
    cure = "fetch the file again, or write a card for this one: edge-models check --write-card"
    if len(content) != card.bytes:
        cut = "cut short: " if len(content) < card.bytes else ""
        raise CardMismatch(
            path, "bytes", f"{cut}{len(content)} bytes, its card says {card.bytes}", cure
        )
    found = sha256_of(content)
    if found != card.sha256:
        raise CardMismatch(
            path, "sha256", f"sha256 is {found[:12]}…, its card says {card.sha256[:12]}…", cure
        )


def verify_licence(model: ModelFile, *, require_commercial: bool) -> None:
    """Refuse what may not be used commercially where that was demanded.

    Raises:
        LicenceRefused: no card, or its `commercial_use` is false.
    """
    if not require_commercial:
        return
    if model.card is None:
        raise LicenceRefused(
            model.path,
            "has no card, so nothing says that it may be used commercially",
            "write a card that states its licence, or leave out --require-commercial",
        )
    if not model.card.commercial_use:
        raise LicenceRefused(
            model.path,
            f"licence {model.card.licence} with its training data does not allow commercial use",
            "take a model whose card has commercial_use = true (edge-models list), "
            "or leave out --require-commercial",
        )


def admitted_variant(card: Card, runtime: str, precision: str) -> RuntimeVariant | None:
    """The card's entry for a runtime and precision; None for plain float, or not admitted."""
    for entry in card.runtimes:
        if (entry.runtime, entry.precision) == (runtime, precision):
            return entry
    return None
