"""Sites' derived spaces: vectors of the ledger through a site's map, where one is in force.

Promise: without a map, or for another space than the map's parent, vectors come back as they are
and under their own space_id; what the ledger keeps is never changed. A map is in force from its
entry in the log on, which holds it whole: reading the log again gives the same vectors, whatever
has become of the folder that it came from.
Threads: each owner has a `DerivedSpaces` of its own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matcher.associate.model import Vectors
from reid.site_map import MapCard, SiteMap, decode

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class MapInForce:
    """A site's map: its numbers and its card."""

    site_map: SiteMap
    card: MapCard


def entry_body(number: int, card: MapCard, content: bytes) -> dict[str, object]:
    """Body of the log's entry that takes a map into force.

    Args:
        content: of the map's file, as the card names it.
    """
    return {
        "number": number,
        "card": card.model_dump(mode="json", exclude_none=True),
        "content": base64.b64encode(content).decode("ascii"),
    }


def map_in(body: bytes) -> MapInForce | None:
    """The map in the body of an entry; None where it takes the site's map out of force.

    Raises:
        reid.model_errors.ModelError, ValueError: it holds none.
    """
    said = json.loads(body)
    if not said["number"]:
        return None
    card = MapCard.model_validate(said["card"])
    content = base64.b64decode(said["content"], validate=True)
    return MapInForce(decode(content, f"the ledger's entry of {card.space_id}"), card)


class DerivedSpaces:
    """The maps in force, by site."""

    def __init__(self) -> None:
        self._maps: dict[str, MapInForce] = {}

    @property
    def maps(self) -> Mapping[str, MapInForce]:
        """What is in force, by site."""
        return self._maps

    def put(self, site: str, found: MapInForce | None) -> None:
        """Take a map into force, or the site's out of it."""
        if found is None:
            self._maps.pop(site, None)
        else:
            self._maps[site] = found

    def derive(
        self, site: str, space_id: str, vectors: Floats, cameras: Sequence[str]
    ) -> tuple[str, Floats]:
        """The space to compare in, and the vectors in it.

        Args:
            space_id: of the vectors, (n, d) float32, rows of unit length.
            cameras: n names, EDGE/CAMERA; an unknown one gets what all have in common.
        """
        found = self._maps.get(site)
        if (
            found is None
            or found.card.parent != space_id
            or found.site_map.input_dimension != vectors.shape[1]
        ):
            return space_id, vectors
        return found.card.space_id, found.site_map.apply(vectors, cameras)

    def compared(self, site: str, camera: str, stored: Mapping[str, Vectors]) -> dict[str, Vectors]:
        """A tracklet's vectors in the spaces that they are compared in.

        Args:
            camera: EDGE/CAMERA. stored: by space, as the ledger has them.
        """
        found: dict[str, Vectors] = {}
        for space_id, vectors in stored.items():
            # One tracklet at a time: a product of other shape may differ in the last digit.
            space, shots = self.derive(site, space_id, vectors.shots, [camera] * len(vectors.shots))
            found[space] = (
                vectors if shots is vectors.shots else Vectors.of(shots, vectors.qualities)
            )
        return found
