"""Public models by name: where they are fetched, what they must be, under which licence.

Promise: what `pull` leaves in a models folder has the catalogue's checksum and a card beside it;
nothing is fetched before its licence was accepted; a file of that name with other content is never
overwritten.
Fails: CatalogueError, DownloadError.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from models.download import Progress, fetch
from reid.card import Card, card_from, card_path, read_card, sha256_of, write_card
from reid.model_errors import CardInvalid, ModelError

BY_HAND = "pull it with --mirror URL_OR_FOLDER, or put the file into the models folder"


class CatalogueError(Exception):
    """A model cannot be pulled.

    Attributes: name, what, cure.
    """

    def __init__(self, name: str, what: str, cure: str) -> None:
        self.name, self.what, self.cure = name, what, cure
        super().__init__(f"{name}: {what}; {cure}")


class NotInCatalogue(CatalogueError):
    """No entry of that name."""


class LicenceNotAccepted(CatalogueError):
    """The licence was shown and not accepted."""


class NoAddress(CatalogueError):
    """The catalogue knows no place that has the file, and no mirror was named."""


class FileInTheWay(CatalogueError):
    """Another file of that name lies in the folder."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A public model.

    Attributes:
        card: what it is; also written beside the file.
        urls: where it is, best first; may be empty (then only a mirror or a hand brings it).
    """

    card: Card
    urls: tuple[str, ...]


def read_catalogue(path: Path | None = None) -> tuple[Entry, ...]:
    """The packaged catalogue, or the one at `path`.

    Raises:
        CardInvalid: an entry is not a card with urls.
        OSError: `path` cannot be read.
    """
    where = path or Path(str(resources.files("models") / "catalogue.toml"))
    try:
        fields = tomllib.loads(where.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise CardInvalid(where, f"is not TOML ({error})", "mend the catalogue") from error
    listed = fields.get("model", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise CardInvalid(where, "has no tables [[model]]", "mend the catalogue")
    found = [_entry(one, where) for one in listed]
    names = [entry.card.name for entry in found]
    for name in names:
        if names.count(name) > 1:
            raise CardInvalid(where, f"has {name} more than once", "mend the catalogue")
    return tuple(found)


def _entry(fields: dict[str, Any], where: Path) -> Entry:
    urls = fields.get("urls", [])
    if not isinstance(urls, list) or not all(
        isinstance(url, str) and url.startswith(("https://", "http://")) for url in urls
    ):
        raise CardInvalid(where, f"urls {urls} are not all http(s)", "mend the catalogue")
    card = card_from(fields.get("card", {}), where)
    if not card.file.endswith(".onnx"):  # no box would find it, and .toml is its card's own name
        raise CardInvalid(where, f"{card.name}: file {card.file} is no .onnx", "mend the catalogue")
    return Entry(card, tuple(urls))


def find_entry(name: str, entries: Sequence[Entry]) -> Entry:
    """The entry of that card name.

    Raises:
        NotInCatalogue: there is none.
    """
    for entry in entries:
        if entry.card.name == name:
            return entry
    have = ", ".join(entry.card.name for entry in entries)
    raise NotInCatalogue(name, "is not in the catalogue", f"it has {have}: edge-models list")


def pull(
    entry: Entry,
    folder: Path,
    *,
    accept: Callable[[Card], bool],
    mirrors: Sequence[str] = (),
    timeout_s: float = 20.0,
    progress: Progress | None = None,
) -> Path:
    """Bring a model into a folder.

    Args:
        entry: which.
        folder: the models folder; made where it is absent.
        accept: shown the card, says whether its licence is accepted.
        mirrors: addresses or folders that hold the file under its name; where any is given, only
            these are asked (a closed network must not try the internet).
        timeout_s: longest silence of a place.
        progress: told bytes so far and in all.

    Returns:
        The ONNX file.

    Raises:
        NoAddress: no place is known; nothing was asked.
        LicenceNotAccepted: `accept` said no; nothing was fetched.
        FileInTheWay: another file of that name lies there, or a card of another.
        DownloadError: no place gave the file.
        OSError: the folder cannot be written.
    """
    card = entry.card
    target = folder / card.file
    _refuse_other_card(card, card_path(target))
    if target.exists():
        if not target.is_file() or sha256_of(target.read_bytes()) != card.sha256:
            raise FileInTheWay(
                card.name, f"{target} is another file", "move it away or choose another folder"
            )
    else:
        places = [_in_mirror(mirror, card.file) for mirror in mirrors] or list(entry.urls)
        if not places:
            raise NoAddress(
                card.name, "no public address is known", f"{BY_HAND}; the file is {card.file}"
            )
        if not accept(card):
            raise LicenceNotAccepted(
                card.name,
                f"its licence ({card.licence}) was not accepted",
                "say --yes to accept it",
            )
        folder.mkdir(parents=True, exist_ok=True)
        fetch(
            places,
            target,
            sha256=card.sha256,
            size=card.bytes,
            timeout_s=timeout_s,
            progress=progress,
        )
    if not card_path(target).exists():
        write_card(card, card_path(target))
    return target


def _refuse_other_card(card: Card, beside: Path) -> None:
    """A box reads the card that lies there, and would refuse the file by it."""
    if not beside.exists():
        return
    cure = "move it away or choose another folder"
    try:
        other = read_card(beside)
    except ModelError as error:
        raise FileInTheWay(card.name, f"{beside} lies there and is no card", cure) from error
    if other.sha256 != card.sha256:
        raise FileInTheWay(card.name, f"{beside} is the card of another file", cure)


def _in_mirror(mirror: str, file: str) -> str:
    if mirror.startswith(("http://", "https://")) and not mirror.endswith(".onnx"):
        return f"{mirror.rstrip('/')}/{file}"
    return mirror
