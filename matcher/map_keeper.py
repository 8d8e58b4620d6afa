"""Takes sites' maps into force and out of it, as the folder given by `--maps` says.

Promise: a map is in force from an entry of the log on, which holds it whole, so that reading the
log again decides the same. A map that is damaged, of another site, without figures, or worse on
what was held back is refused and said; the one in force stays. So it does where its folder cannot
be read. Without a folder no map is in force, and the log says so where one was.
Threads: the event loop; files are read in a thread of the pool.

    FOLDER/SITE/current ──look, every second──▶ changed? ──checks──▶ entry MAP ──▶ association
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from matcher.derived import MapInForce, entry_body
from matcher.errors import MatcherError
from matcher.ledger import Ledger
from matcher.schema import EntryKind
from reid.clock import Clock
from reid.model_errors import ModelError
from reid.site_map import MapCard, encode
from reid.site_maps import SiteMaps, site_folders

LOOK_S = 1.0
_log = structlog.get_logger("maps")


@dataclass(frozen=True)
class Change:
    """What a site's folder asks for: a map (card and bytes of its file), or none (number 0)."""

    site: str
    number: int
    card: MapCard | None = None
    content: bytes = b""


class MapRefused(MatcherError):
    """A map that is not taken into force; the text says why and what to do."""


class MapFolder:
    """What the folder of all sites' maps asks for, against what is in force."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def changes(self, in_force: Mapping[str, MapInForce]) -> tuple[list[Change], dict[str, str]]:
        """What is to change, and by site what is wrong. Reads files.

        Args:
            in_force: by site.
        """
        if self._folder is None:
            return [Change(site, 0) for site in sorted(in_force)], {}
        try:
            if not self._folder.is_dir():
                return [], {"": f"{self._folder}: no such folder (--maps); maps in force stay"}
            folders = site_folders(self._folder)
        except OSError as error:
            text = f"cannot be read ({error.strerror}; --maps); maps in force stay"
            return [], {"": f"{self._folder}: {text}"}
        changes, problems = [], {}
        for site in sorted({*folders, *in_force}):
            try:
                change = self._of(site, folders.get(site), in_force.get(site))
            except (MapRefused, ModelError, OSError) as error:
                problems[site] = f"site map of {site!r} not taken into force: {error}"
            else:
                changes += [change] if change is not None else []
        return changes, problems

    def _of(self, site: str, path: Path | None, now: MapInForce | None) -> Change | None:
        if path is None:
            raise MapRefused(
                f"{self._folder} has no folder of it any more; the map in force stays: put it back,"
                " or take the map out of force with edge-match maps rollback"
            )
        maps = SiteMaps(path)
        number = maps.current_number()
        if not number:
            return Change(site, 0) if now is not None else None
        card = maps.card(number)
        if now is not None and (card.space_id, card.sha256) == (now.card.space_id, now.card.sha256):
            return None
        _admit(card, site)
        site_map, card = maps.read(number)
        return Change(site, number, card, encode(site_map))


def _admit(card: MapCard, site: str) -> None:
    """Raise MapRefused where a card says that its map is not to be used here."""
    cure = "fit one: edge-models adapt --embeddings"
    if card.site != site:
        raise MapRefused(f"{card.space_id} was fitted for site {card.site!r}; {cure}")
    if card.others_before is None or card.others_after is None:
        raise MapRefused(f"{card.space_id} does not say what thresholds become in it; {cure}")
    if not card.helps:
        before, after = card.held_back_before, card.held_back_after
        figures = (
            "has no figures of what was held back"
            if before is None or after is None
            else f"does not help on what was held back (errors on certain pairs "
            f"{100 * before.error:.1f} % before, {100 * after.error:.1f} % after)"
        )
        raise MapRefused(f"{card.space_id} {figures}; {cure}")


class MapKeeper:
    """Keeps the maps in force as the folder says.

    Attributes:
        problems: what is wrong, by site, as people read it.
    """

    def __init__(
        self,
        *,
        folder: Path | None,
        ledger: Ledger,
        in_force: Callable[[], Mapping[str, MapInForce]],
        reached: Callable[[], int],
        clock: Clock,
    ) -> None:
        """
        Args:
            in_force: the maps that association compares with.
            reached: position of the log that association has reached.
        """
        self._folder = MapFolder(folder)
        self._ledger = ledger
        self._in_force = in_force
        self._reached = reached
        self._clock = clock
        self._end: int | None = None
        self.problems: dict[str, str] = {}
        if folder is None:
            _log.info("no site maps (--maps): vectors are compared as they come")

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except MatcherError as error:
                _log.warning("maps could not be looked after; tried again", error=error)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once, and write what changes to the log.

        Raises:
            MatcherError: the ledger cannot be written.
        """
        if self._end is None:
            self._end = await self._ledger.run(lambda store: store.last_position())
        # What the log says further on may already be what the folder asks for.
        if self._reached() < self._end:
            return
        changes, problems = await asyncio.to_thread(self._folder.changes, self._in_force())
        for site, text in problems.items():
            if self.problems.get(site) != text:
                _log.error(text)
        self.problems = problems
        for change in changes:
            body: dict[str, object] = {"number": 0}
            if change.card is not None:
                body = entry_body(change.number, change.card, change.content)
            now = self._clock.unix_nanos()
            self._end = await self._ledger.run(
                lambda store, site=change.site, body=body, now=now: store.note(  # type: ignore[misc]
                    EntryKind.MAP, site, "", body, now
                )
            )
            in_force = "none" if change.card is None else change.card.space_id
            _log.info("site map taken into force", site=change.site, map=in_force)


class MapMetrics(Collector):
    """`reid_matcher_site_map{site, space_id, parent}` is 1 for every map in force."""

    def __init__(self, in_force: Callable[[], Mapping[str, MapInForce]]) -> None:
        self._in_force = in_force

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """For the registry."""
        family = GaugeMetricFamily(
            "reid_matcher_site_map",
            "Maps in force: vectors of the site and the parent space are compared in the space",
            labels=("site", "space_id", "parent"),
        )
        for site, one in sorted(self._in_force().items()):
            family.add_metric((site, one.card.space_id, one.card.parent), 1.0)
        yield family
