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

from models.download import Progress, fetch
from reid.card import Card, card_from, card_path, sha256_of, write_card
from reid.model_errors import CardInvalid

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
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CardInvalid(where, f"is not TOML ({error})", "mend the catalogue") from error
    found = []
    for entry in fields.get("model", []):
        urls = entry.get("urls", [])
        if not all(
            isinstance(url, str) and url.startswith(("https://", "http://")) for url in urls
        ):
            raise CardInvalid(where, f"urls {urls} are not all http(s)", "mend the catalogue")
        found.append(Entry(card_from(entry.get("card", {}), where), tuple(urls)))
    return tuple(found)


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
        FileInTheWay: another file of that name lies there.
        DownloadError: no place gave the file.
        OSError: the folder cannot be written.
    """
    card = entry.card
    target = folder / card.file
    if target.exists():
        if sha256_of(target.read_bytes()) != card.sha256:
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


def _in_mirror(mirror: str, file: str) -> str:
    if mirror.startswith(("http://", "https://")) and not mirror.endswith(".onnx"):
        return f"{mirror.rstrip('/')}/{file}"
    return mirror
