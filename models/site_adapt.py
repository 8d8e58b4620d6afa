"""Fit a site's map, judge it, and take it into use only where it helps.

Promise: `adapt_site` either publishes a map that surely did better on what was held back than
vectors as they are, and no worse than the map in force, or raises and leaves everything as it was.
The map is numbered; the ones before it stay to go back to. A map in force that is damaged is
compared with nothing, which is told. Time grows with the square of the tracklets, so of more than
`MOST_TRACKLETS` only the newest are used.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.adapt_embeddings import AdaptRecipe, Progress, fit
from models.site_acceptance import InForce, Verdict, accept, hold_back, judge
from models.site_evidence import Evidence
from reid.card import sha256_of
from reid.model_errors import ModelError
from reid.site_map import MapCard, encode
from reid.site_maps import SiteMaps, folder_of, site_folders

MOST_TRACKLETS = 50_000  # docs/adaptation.md gives the time


@dataclass(frozen=True)
class Published:
    """A map that is in use now: its file, its card, and what it did on what was held back.

    Attributes:
        problem: why it was not compared with the map that was in force; empty where all is well.
    """

    path: Path
    card: MapCard
    verdict: Verdict
    problem: str = ""


def maps_of(folder: Path, site: str) -> SiteMaps:
    """The maps of a site below the folder of all."""
    return SiteMaps(folder_of(folder, site))


def sites_with_maps(folder: Path) -> list[str]:
    """The sites that have maps below the folder of all, rising; none where it does not exist."""
    return sorted(site_folders(folder))


def adapt_site(
    evidence: Evidence,
    folder: Path,
    *,
    recipe: AdaptRecipe | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Published:
    """Learn a map of a site and take it into use.

    Args:
        folder: of all sites' maps.
    Raises:
        NothingToLearn: too few sightings, or clusters that collapse.
        Refused: the map does not help on what was held back, or less than the one in force.
        ModelError: what says which map is in use is damaged.
    """
    maps = maps_of(folder, evidence.site)
    evidence = newest(evidence, MOST_TRACKLETS)
    in_force, problem = _in_force(maps, evidence.space_id)
    since = None if in_force is None else in_force.fitted_until
    held = hold_back(evidence, seed=seed, since=since)
    learned_from = evidence.part(~held)
    fitted = fit(learned_from, recipe, seed=seed, progress=progress)
    verdict = judge(fitted.site_map, evidence, held, fitted.transit, in_force=in_force)
    accept(verdict)
    number = maps.next_number()
    content = encode(fitted.site_map)
    card = MapCard(
        kind="site-map",
        space_id=f"{evidence.space_id}/{evidence.site}/{number}",
        parent=evidence.space_id,
        site=evidence.site,
        sha256=sha256_of(content),
        bytes=len(content),
        dimension=fitted.site_map.dimension,
        made_at=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        fitted_on={
            "vectors": len(learned_from.vectors),
            "tracklets": learned_from.tracklets,
            "cameras": len(evidence.cameras),
            "clusters": int(fitted.labels.max(initial=-1)) + 1,
        },
        first_seen=_moment(learned_from.first.min()),
        last_seen=_moment(learned_from.last.max()),
        held_back_before=verdict.plain.before,
        held_back_after=verdict.plain.after,
        transit_before=_known(verdict.plain.transit_before),
        transit_after=_known(verdict.plain.transit_after),
        pairs_gain=verdict.plain.pairs,
        transit_gain=verdict.plain.times,
        others_before=verdict.others_before,
        others_after=verdict.others_after,
    )
    return Published(maps.publish(number, fitted.site_map, card), card, verdict, problem)


def newest(evidence: Evidence, most: int) -> Evidence:
    """The evidence of so many tracklets at most, those that began last; unknown times are oldest.

    Neighbours in time stay together, as transit times need them.
    """
    if evidence.tracklets <= most:
        return evidence
    begin = np.where(np.isfinite(evidence.first), evidence.first, -np.inf)
    kept = np.zeros(evidence.tracklets, np.bool_)
    kept[np.argsort(begin, kind="stable")[-most:]] = True
    return evidence.part(kept)


def _in_force(maps: SiteMaps, space_id: str) -> tuple[InForce | None, str]:
    """The map in force where it is of this space, and why one could not be read."""
    number = maps.current_number()
    if not number:
        return None, ""
    try:
        site_map, card = maps.read(number)
    except ModelError as error:
        return None, f"not compared with the map that was in force: {error}"
    if card.parent != space_id:
        return None, ""
    until = None if card.last_seen is None else card.last_seen.timestamp()
    return InForce(card.space_id, site_map, until), ""


def _moment(seconds: np.floating) -> datetime.datetime | None:
    value = float(seconds)
    return datetime.datetime.fromtimestamp(value, datetime.UTC) if math.isfinite(value) else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
