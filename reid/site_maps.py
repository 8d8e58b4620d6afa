"""The maps of one site in a folder: the newest in use, the older ones to go back to.

Promise: `current` is a map that was published whole, or None; publishing and rolling back change
one small file in one step, so a reader sees the old state or the new one. At most `KEPT` maps stay.
Threads and processes: many readers, one writer (`edge-models adapt`).

    MAPS/SITE                              one folder of maps a site (`folder_of`)
    FOLDER/1.npz 1.toml 2.npz 2.toml …     maps by number, never written again
    FOLDER/current                         the number in use; none, or 0: vectors stay as they are
    FOLDER/2.withdrawn                     empty: 2 was rolled back; no later rollback goes there
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

from reid.files import replace_file
from reid.model_errors import ModelUnreadable
from reid.site_map import MapCard, SiteMap, read_card, read_map, write_map

KEPT = 5
CURRENT = "current"
MOST_DIGITS = 9  # of a map's number; it grows by one a fit


def folder_of(maps: Path, site: str) -> Path:
    """The folder of a site below that of all; a site's name may hold any character, or be dots."""
    name = quote(site, safe=" ")
    return maps / (f"%2E{name[1:]}" if name.startswith(".") else name)


def site_folders(maps: Path) -> dict[str, Path]:
    """Site -> its folder below that of all, by name; none where that does not exist.

    A folder that is not named as `folder_of` names one is of no site: a volume's own lost+found.
    """
    if not maps.is_dir():
        return {}
    folders = {unquote(path.name): path for path in sorted(maps.iterdir()) if path.is_dir()}
    return {site: path for site, path in folders.items() if path == folder_of(maps, site)}


class SiteMaps:
    """The maps under one folder.

    Args:
        folder: of one site; need not exist before the first `publish`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def numbers(self) -> list[int]:
        """Published maps, rising."""
        if not self._folder.is_dir():
            return []
        return sorted(
            int(path.stem)
            for path in self._folder.glob("*.toml")
            if path.stem.isdecimal() and len(path.stem) <= MOST_DIGITS
        )

    def current_number(self) -> int:
        """The map in use; 0 for none.

        Raises:
            ModelUnreadable: the pointer holds no number.
            OSError: it cannot be read.
        """
        pointer = self._folder / CURRENT
        try:
            text = pointer.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return 0
        except IsADirectoryError as error:
            raise ModelUnreadable(pointer, "is a folder, a file expected", "delete it") from error
        if not text.isdecimal() or len(text) > MOST_DIGITS:
            raise ModelUnreadable(pointer, f"holds {text[:20]!r}, a number expected", "delete it")
        return int(text)

    def current(self) -> tuple[SiteMap, MapCard] | None:
        """The map in use.

        Raises:
            ModelError: it is damaged.
        """
        number = self.current_number()
        return self.read(number) if number else None

    def read(self, number: int) -> tuple[SiteMap, MapCard]:
        """One of the maps.

        Raises:
            ModelError: it is not there, or damaged.
        """
        return read_map(self._folder / f"{number}.npz")

    def card(self, number: int) -> MapCard:
        """The card of one of the maps; the map itself is not read.

        Raises:
            ModelError: it is not there, or damaged.
        """
        return read_card(self._folder / f"{number}.toml")

    def next_number(self) -> int:
        """What the next published map is called."""
        return max([0, self.current_number(), *self.numbers()]) + 1

    def publish(self, number: int, site_map: SiteMap, card: MapCard) -> Path:
        """Write a map and take it into use; returns its file.

        Of the older ones stay the one that was in use, then the newest that were not rolled back.
        """
        before = self.current_number()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{number}.npz"
        write_map(site_map, card, path)
        self._point(number)
        for old in self._least_wanted({number, before}):
            (self._folder / f"{old}.toml").unlink(missing_ok=True)
            (self._folder / f"{old}.npz").unlink(missing_ok=True)
            self._withdrawn(old).unlink(missing_ok=True)
        return path

    def roll_back(self) -> int | None:
        """Go back to the map before the one in use that was not itself rolled back.

        Returns its number, 0 for none; None, and nothing changes, where no map is in use. `use`
        takes up again what was rolled back.

        Raises:
            ModelError: that map is damaged; nothing changes, since nobody would take it up.
            OSError: the folder cannot be read or written.
        """
        number = self.current_number()
        if not number:
            return None
        earlier = [one for one in self.numbers() if one < number]
        before = max((one for one in earlier if not self._withdrawn(one).exists()), default=0)
        if before:
            self.read(before)
        replace_file(self._withdrawn(number), b"")
        try:
            self._point(before)
        except OSError:
            self._withdrawn(number).unlink(missing_ok=True)
            raise
        return before

    def use(self, number: int) -> None:
        """Take one of the maps into use; 0 for none.

        Raises:
            ModelError: it is not there, or damaged.
            OSError: the folder cannot be written.
        """
        if number:
            self.read(number)
            self._withdrawn(number).unlink(missing_ok=True)
        self._point(number)

    def _least_wanted(self, needed: set[int]) -> list[int]:
        """Maps beyond `KEPT`: rolled back before others, old before new."""
        wanted = sorted(
            self.numbers(),
            key=lambda one: (one in needed, not self._withdrawn(one).exists(), one),
        )
        return wanted[:-KEPT]

    def _withdrawn(self, number: int) -> Path:
        return self._folder / f"{number}.withdrawn"

    def _point(self, number: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(self._folder / CURRENT, f"{number}\n".encode("ascii"))
