"""A site's derived space: vectors of the ledger through the site's map, where one is in use.

Promise: without a map, or for another space than the map's parent, vectors come back as they are
and under their own space_id; what the ledger keeps is never changed. A map taken into use or rolled
back while the matcher runs is seen at the next `refresh`. A damaged map raises at `refresh`, and
the one that was in use stays.
Threads: `refresh` from one; `derive` from any.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid.site_map import MapCard, SiteMap
from reid.site_maps import SiteMaps

Floats = NDArray[np.float32]


class DerivedSpace:
    """The derived space of one site.

    Args:
        folder: of the site's maps, as `edge-models adapt --embeddings` writes it; opened by
            `refresh`, need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._maps = SiteMaps(folder)
        self._number = 0
        self._current: tuple[SiteMap, MapCard] | None = None

    def refresh(self) -> bool:
        """Take up the map that is in use now; whether it changed.

        Raises:
            reid.model_errors.ModelError: the map or the pointer to it is damaged.
        """
        number = self._maps.current_number()
        if number == self._number:
            return False
        current = self._maps.current()
        self._current, self._number = current, number
        return True

    def derive(self, space_id: str, vectors: Floats, cameras: Sequence[str]) -> tuple[str, Floats]:
        """The space to compare in, and the vectors in it.

        Args:
            space_id: of the vectors; (n, d) float32, rows of unit length; cameras: n names.
        """
        current = self._current
        if current is None or current[1].parent != space_id:
            return space_id, vectors
        site_map, card = current
        return card.space_id, site_map.apply(vectors, cameras)
