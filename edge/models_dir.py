"""Where models are found: a name or a file → the file with its card, and why that one.

Folders, in this order: the models folder (`--models-dir`, EDGE_MODELS_DIR, /models in the image),
then the weights that are packaged with us. A file without a card beside it gets the card of the
catalogue when its sha256 stands there (a known public file), so a read-only folder of downloads
works as it is.

`default` is, in this order: what `edge-models use` chose (current.toml in the models folder); a
card with `default = true` in the models folder; the known public file of DEFAULT_PUBLIC there; then
the same two in the packaged weights. What a person put there wins over what came with us. Where
commercial use is required, `default` passes over the cards that do not allow it, and where none of
these does, takes any that does. `ModelFile.why` says which and why.

Fails: ModelNotFound names the folders and the models that are there; CardInvalid where the card of
the asked model is broken. Broken cards of other models are listed, not raised.
Threads: any; nothing is kept but the sha256 of known files by size and time.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edge.model_pointer import POINTER, read_pointer
from reid.card import (
    Card,
    Kind,
    ModelFile,
    card_from,
    card_path,
    read_card,
    sha256_of,
)
from reid.model_errors import CardInvalid, CardMissing, ModelError, ModelNotFound, WrongKind

DEFAULT = "default"
DEFAULT_PUBLIC: Mapping[Kind, str] = {
    "detector": "yolox-nano",
    "embedder": "osnet-x0.25-msmt17-combineall",
}


@dataclass(frozen=True, slots=True)
class Listing:
    """What one folder holds.

    Attributes:
        models: files with their cards, by card name.
        bare: ONNX files that no card speaks of.
        broken: cards that cannot be read, with the reason.
    """

    models: tuple[ModelFile, ...]
    bare: tuple[Path, ...]
    broken: tuple[CardInvalid, ...]


def find_model(
    asked: str, kind: Kind, models_dir: Path | None, *, commercial: bool = False
) -> ModelFile:
    """Find a model by its card's name, by file, or `default`.

    Args:
        asked: a card's name, an ONNX file (its path, or its name in the folder), or `default`.
        kind: what it must be.
        models_dir: the models folder; None: only the packaged weights.
        commercial: `default` is to be one that may be used commercially; what was asked for by
            name is found all the same.

    Raises:
        ModelNotFound: nothing of that name; the message lists what there is.
        CardInvalid: its card is broken.
        WrongKind: its card says the other kind.
    """
    if asked == DEFAULT:
        return find_default(kind, models_dir, commercial=commercial)
    path = Path(asked)
    if models_dir is not None and path.name == asked and _is_file(models_dir / asked):
        path = models_dir / asked  # a bare file name: the folder's, else one of here
    if path.suffix == ".onnx" or _is_file(path):
        return _expect(kind, model_at(path).because(f"the file {asked} was asked for"))
    folders = _folders(models_dir)
    for folder in folders:
        listing = list_models(folder)
        for model in listing.models:
            if model.card and model.card.name == asked:
                return _expect(kind, model.because(f"the name {asked} was asked for"))
        for error in listing.broken:
            if Path(error.where).stem == asked:
                raise error
    raise _not_found(asked, kind, folders)


def find_default(kind: Kind, models_dir: Path | None, *, commercial: bool = False) -> ModelFile:
    """What `default` means here; where none may be used commercially, as if that were not asked.

    Raises:
        ModelNotFound: no default of that kind; the message says what to set.
    """
    if models_dir is not None:
        chosen = read_pointer(models_dir).chosen(kind)
        if chosen is not None:
            model = find_model(chosen, kind, models_dir)
            return model.because(f"edge-models use chose {chosen} in {models_dir / POINTER}")
    if commercial:
        for model in _commercial(kind, models_dir):
            return model
    for model in _marked(kind, models_dir):
        return model
    raise _not_found(DEFAULT, kind, _folders(models_dir))


def stand_ins(kind: Kind, models_dir: Path | None) -> Iterator[ModelFile]:
    """What may stand in for a default that cannot be opened, best first.

    Earlier choices of `edge-models use`, the newest first, then what `default` means without a
    choice. What is missing or has a broken card is left out.
    """
    chosen: tuple[str, ...] = ()
    if models_dir is not None:
        with contextlib.suppress(CardInvalid):  # a broken current.toml names nothing
            chosen = read_pointer(models_dir).history.get(kind, ())
    for name in chosen[1:]:
        if name != DEFAULT:
            with contextlib.suppress(ModelError):
                yield find_model(name, kind, models_dir).because(f"{name} was chosen before")
    yield from _marked(kind, models_dir)


def _marked(kind: Kind, models_dir: Path | None) -> Iterator[ModelFile]:
    """Models that are a default by their card or by their name, folder by folder."""
    public = DEFAULT_PUBLIC[kind]
    for folder in _folders(models_dir):
        models = [m for m in list_models(folder).models if m.card and m.card.kind == kind]
        for model in models:
            if model.card is not None and model.card.default:
                yield model.because(f"its card says default = true in {folder}")
        for model in models:
            if model.card is not None and model.card.name == public:
                yield model.because(f"the known public {public} lies in {folder}")


def _commercial(kind: Kind, models_dir: Path | None) -> Iterator[ModelFile]:
    """Models that may be used commercially: the defaults first, then the others."""
    for model in _marked(kind, models_dir):
        if model.card is not None and model.card.commercial_use:
            yield model
    for folder in _folders(models_dir):
        for model in list_models(folder).models:
            card = model.card
            if card is not None and card.kind == kind and card.commercial_use:
                yield model.because("its card allows commercial use, which no default's does")


def model_at(path: Path) -> ModelFile:
    """The file at `path` with its card: beside it, else of the catalogue, else none.

    Raises:
        ModelNotFound: no such file, or it may not be read.
        CardInvalid: the card beside it is broken.
    """
    if not _is_file(path):
        raise ModelNotFound(path, "there is no such file", "check the path: edge-models list")
    beside = card_path(path)
    if beside.is_file():
        return ModelFile(path, read_card(beside), str(beside))
    try:
        stat = path.stat()
        known = _known_file(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ModelNotFound(
            path, f"cannot be read ({error.strerror})", "check the path and its rights"
        ) from error
    return ModelFile(path, known, "the catalogue of known public files" if known else "")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # a name that is too long for any file


@lru_cache(maxsize=256)
def _known_file(path: Path, size: int, mtime_ns: int) -> Card | None:
    """The catalogue's card for a file, remembered by size and time, for folders are polled."""
    sizes = {card.bytes for card in known_cards().values()}
    if size not in sizes:
        return None
    return known_cards().get(sha256_of(path.read_bytes()))


def list_models(folder: Path) -> Listing:
    """What lies in a folder, by name; a missing folder is empty."""
    models: list[ModelFile] = []
    bare: list[Path] = []
    broken: list[CardInvalid] = []
    for path in sorted(folder.glob("*.onnx")):
        try:
            model = model_at(path)
        except CardInvalid as error:
            broken.append(error)
            continue
        except ModelNotFound:
            continue  # removed between the listing and the look, or not ours to read
        if model.card is None:
            bare.append(path)
        else:
            models.append(model)
    return Listing(tuple(models), tuple(bare), tuple(broken))


def variants_of(model: ModelFile, models_dir: Path | None) -> tuple[ModelFile, ...]:
    """Other files that compute the same: admitted variants of `model`, by name.

    Embedders: another variant_id in the same space. Detectors: a card with a variant_id whose
    `parent` is this card's name. (A card in a folder is admitted: `edge-models quantize` writes
    none for a variant that loses too much.)
    """
    card = model.card
    if card is None:
        return ()
    found: dict[str, ModelFile] = {}
    for folder in _folders(models_dir):
        for other in list_models(folder).models:
            if other.card and other.card.sha256 != card.sha256 and _is_variant(other.card, card):
                found.setdefault(other.card.sha256, other)
    return tuple(found.values())


def _is_variant(other: Card, card: Card) -> bool:
    if other.kind != card.kind:
        return False
    if card.kind == "embedder":
        return other.space_id == card.space_id and other.variant_id != card.variant_id
    return other.variant_id is not None and other.parent == card.name


def packaged_dir(name: str = "weights") -> Path | None:
    """A folder or file inside the package `models`, found without importing that package.

    The box must not import `models` (it is torch's side of the house), but its weights are data.
    """
    spec = importlib.util.find_spec("models")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root) / name
        if path.exists():
            return path
    return None


@lru_cache(maxsize=1)
def known_cards() -> Mapping[str, Card]:
    """Cards of known public files by sha256, from the packaged catalogue.

    Raises:
        CardInvalid: the packaged catalogue is broken.
    """
    path = packaged_dir("catalogue.toml")
    if path is None:
        return {}
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("model", [])
    cards = [card_from(entry["card"], path) for entry in entries]
    return {card.sha256: card for card in cards}


def _folders(models_dir: Path | None) -> Sequence[Path]:
    packaged = packaged_dir()
    return [folder for folder in (models_dir, packaged) if folder is not None]


def _expect(kind: Kind, model: ModelFile) -> ModelFile:
    if model.card is not None and model.card.kind != kind:
        raise WrongKind(
            model.path, f"its card says {model.card.kind}", f"give the name of a {kind} here"
        )
    if model.card is None and kind == "embedder":
        raise CardMissing(
            model.path,
            "an embedder needs a card, for nothing in the file says what its vectors compare with",
            f"write one: edge-models check {model.path} --write-card",
        )
    return model


def _not_found(asked: str, kind: Kind, folders: Sequence[Path]) -> ModelError:
    there = [
        model.name
        for folder in folders
        for model in list_models(folder).models
        if model.card and model.card.kind == kind
    ]
    places = " and ".join(str(folder) for folder in folders) or "no folder"
    have = f"it has {', '.join(there)}" if there else f"it has no {kind} with a card"
    what = f"no default {kind}" if asked == DEFAULT else f"no {kind} of that name"
    return ModelNotFound(
        asked,
        f"{what} in {places}; {have}",
        "set --models-dir (EDGE_MODELS_DIR), or fetch one: edge-models list, edge-models pull NAME",
    )
