"""The two distributions before and after adaptation, drawn like the paper's (arXiv:2006.00752)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.site_acceptance import certain_distances, separation

if TYPE_CHECKING:
    from benchmarks.bench_adapt import Site
    from reid.site_map import SiteMap

Floats = NDArray[np.float32]
_NEGATIVES = 400_000  # of the pairs of different people: a histogram needs no more


def draw(site: Site, site_map: SiteMap, held: NDArray[np.bool_], folder: Path) -> None:
    """Two pictures: pairs across cameras by the truth, and certain pairs that were held back."""
    folder.mkdir(parents=True, exist_ok=True)
    across = [_across_cameras(site, one) for one in (None, site_map)]
    _panels(
        folder / "adaptation-across-cameras.png",
        "query and gallery, pairs of two cameras (truth)",
        across,
    )
    kept = site.evidence.part(held)
    cameras = [kept.cameras[number] for number in kept.camera_of_vector]
    certain = [
        certain_distances(vectors, kept)
        for vectors in (kept.vectors, site_map.apply(kept.vectors, cameras))
    ]
    _panels(
        folder / "adaptation-certain-pairs.png",
        "held back, certain pairs of one camera (no label)",
        certain,
    )


def _across_cameras(site: Site, site_map: SiteMap | None) -> tuple[Floats, Floats]:
    query, gallery = site.mapped("query", site_map), site.mapped("gallery", site_map)
    of_query = np.array([(one.person, one.camera) for one in site.dataset.query])
    of_gallery = np.array([(one.person, one.camera) for one in site.dataset.gallery])
    positive = []
    for row, (person, camera) in enumerate(of_query):
        same = (of_gallery[:, 0] == person) & (of_gallery[:, 1] != camera)
        positive.append(_distance(gallery[same] @ query[row]))
    random = np.random.default_rng(1)
    rows = random.integers(0, len(query), _NEGATIVES)
    columns = random.integers(0, len(gallery), _NEGATIVES)
    other = (of_query[rows, 0] != of_gallery[columns, 0]) & (
        of_query[rows, 1] != of_gallery[columns, 1]
    )
    other &= of_gallery[columns, 0] >= 0
    rows, columns = rows[other], columns[other]
    return np.concatenate(positive), _distance(np.einsum("ij,ij->i", query[rows], gallery[columns]))


def _distance(similarity: Floats) -> Floats:
    found: Floats = np.sqrt(np.maximum(2 - 2 * similarity, 0.0))
    return found


def _panels(path: Path, title: str, pairs: list[tuple[Floats, Floats]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    bins = np.linspace(0.0, 2.0, 101)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, when, (positive, negative) in zip(panels, ("before", "after"), pairs, strict=True):
        found = separation(positive, negative)
        for values, colour, name, mean, std in (
            (positive, "tab:blue", "one person", found.positive_mean, found.positive_std),
            (negative, "tab:red", "two people", found.negative_mean, found.negative_std),
        ):
            axes.hist(values, bins, density=True, color=colour, alpha=0.4, label=name)
            gauss = np.exp(-(((bins - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
            axes.plot(bins, gauss, color=colour)
        axes.set(xlabel="Euclidean distance of unit vectors", xlim=(0.0, 2.0))
        axes.set_title(
            f"{when}: means {found.positive_mean:.2f} and {found.negative_mean:.2f}, "
            f"overlap {found.overlap:.2f}",
            fontsize=10,
        )
        print(f"{path.name} {when}: {found.model_dump()}")
    panels[0].legend()
    panels[0].set_ylabel("density")
    figure.savefig(path, dpi=110)
