"""Errors about models: what is wrong, with which file, what to do.

    ModelError                     any model that is not used; processes exit with 3
    ├── ModelNotFound              no such file, no card of that name
    ├── ModelUnreadable            not ONNX, cut short, or the runtime cannot load it
    ├── CardInvalid                the card is not TOML, or a field is wrong or missing
    ├── CardMismatch               the file is not what its card says (checksum, shapes, golden)
    ├── CardMissing                an embedder without a card
    ├── WrongKind                  a detector where an embedder is needed, or the reverse
    ├── FamilyUnknown              a detector whose output no adapter reads
    ├── FamilyAmbiguous            two adapters fit; the card or a flag must choose
    ├── LicenceRefused             --require-commercial, and the card does not allow it
    └── ModelMisbehaved            an output of another shape than promised, or not finite

Facts are attributes; the text is made of them. Callers branch on the type.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ModelError(Exception):
    """A model cannot be used.

    Attributes:
        where: the file or the name that was asked for.
        what: what is wrong with it.
        cure: what to do.
    """

    code = "model"  # short and fixed, for metrics

    def __init__(self, where: Path | str, what: str, cure: str) -> None:
        self.where = str(where)
        self.what = what
        self.cure = cure
        super().__init__(f"model {self.where}: {what}; {cure}")


class ModelNotFound(ModelError):
    """No such file, or no card of that name."""

    code = "not_found"


class ModelUnreadable(ModelError):
    """The bytes are no ONNX model that this runtime can load."""

    code = "unreadable"


class CardInvalid(ModelError):
    """The card itself is wrong."""

    code = "card_invalid"


class CardMismatch(ModelError):
    """The file is not what its card says.

    Attributes:
        field: the card's field that does not hold.
    """

    code = "card_mismatch"

    def __init__(self, where: Path | str, field: str, what: str, cure: str) -> None:
        self.field = field
        super().__init__(where, what, cure)


class CardMissing(ModelError):
    """An embedder needs a card: nothing in the file says in which space its vectors live."""

    code = "card_missing"


class WrongKind(ModelError):
    """A detector where an embedder is needed, or the reverse."""

    code = "wrong_kind"


class FamilyUnknown(ModelError):
    """No adapter reads this output."""

    code = "family_unknown"


class FamilyAmbiguous(ModelError):
    """More than one adapter fits.

    Attributes:
        candidates: the families that fit.
    """

    code = "family_ambiguous"

    def __init__(self, where: Path | str, candidates: Sequence[str], why: str) -> None:
        self.candidates = tuple(candidates)
        super().__init__(
            where,
            f"could be {' or '.join(self.candidates)}: {why}",
            f'say which: family = "{self.candidates[0]}" in the card, or detect.family '
            f"(flag --detector-family)",
        )


class LicenceRefused(ModelError):
    """--require-commercial, and the card does not allow commercial use."""

    code = "licence"


class ModelMisbehaved(ModelError):
    """The output has another shape than promised, or holds a value that is not finite."""

    code = "misbehaved"
