"""Fit a site's map, judge it, and take it into use only where it helps.

Promise: `adapt_site` either publishes a map that did better on what was held back, or raises and
leaves everything as it was. The map is numbered; the ones before it stay to go back to.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.adapt_embeddings import AdaptRecipe, Progress, fit
from models.site_acceptance import Verdict, accept, hold_back, judge
from models.site_evidence import Evidence
from reid.card import sha256_of
from reid.site_map import MapCard, encode
from reid.site_maps import SiteMaps, folder_of, site_folders


@dataclass(frozen=True)
class Published:
    """A map that is in use now: its file, its card, and what it did on what was held back."""

    path: Path
    card: MapCard
    verdict: Verdict


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
        Refused: the map does not help on what was held back.
        ModelError: what is in use now is damaged.
    """
    maps = maps_of(folder, evidence.site)
    held = hold_back(evidence, seed=seed)
    learned_from = evidence.part(~held)
    fitted = fit(learned_from, recipe, seed=seed, progress=progress)
    verdict = judge(fitted.site_map, evidence, held, fitted.transit)
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
        held_back_before=verdict.before,
        held_back_after=verdict.after,
        transit_before=_known(verdict.transit_before),
        transit_after=_known(verdict.transit_after),
        others_before=verdict.others_before,
        others_after=verdict.others_after,
    )
    return Published(maps.publish(number, fitted.site_map, card), card, verdict)


def _moment(seconds: np.floating) -> datetime.datetime | None:
    value = float(seconds)
    return datetime.datetime.fromtimestamp(value, datetime.UTC) if math.isfinite(value) else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
