"""The two distributions before and after adaptation, drawn like the paper's (arXiv:2006.00752)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.site_measures import certain_distances, separation
from reid.site_map import Separation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.bench_adapt import Site
    from models.data.readers import Dataset
    from reid.site_map import SiteMap

Floats = NDArray[np.float32]
BINS: NDArray[np.float64] = np.linspace(0.0, 2.0, 101)
_NEGATIVES = 400_000  # of the pairs of different people: a histogram needs no more


def draw(site: Site, site_map: SiteMap, held: NDArray[np.bool_], folder: Path) -> None:
    """Two pictures: pairs across cameras by the truth, and certain pairs that were held back."""
    folder.mkdir(parents=True, exist_ok=True)
    across = [
        across_cameras(site.dataset, site.mapped("query", one), site.mapped("gallery", one))
        for one in (None, site_map)
    ]
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


def across_cameras(dataset: Dataset, query: Floats, gallery: Floats) -> tuple[Floats, Floats]:
    """Distances of query and gallery pairs of two cameras: of one person, and of two."""
    of_query = np.array([(one.person, one.camera) for one in dataset.query])
    of_gallery = np.array([(one.person, one.camera) for one in dataset.gallery])
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


def draw_losses(path: Path, title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One panel a loss, from rows of benchmarks.adapt_pictures."""
    panels = [
        (name, row["rank1"], row["map"], Separation.model_validate(row["separation"]),
         np.array(row["positive"], np.float64), np.array(row["negative"], np.float64))
        for name, row in rows.items()
    ]  # fmt: skip
    figure = _figure(len(panels), title)
    centres = (BINS[1:] + BINS[:-1]) / 2
    axes_of = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axes, (name, rank1, mean_ap, found, positive, negative) in zip(
        axes_of, panels, strict=True
    ):
        for values, (colour, label, mean, std) in zip(
            (positive, negative), _kinds(found), strict=True
        ):
            density = values / (values.sum() * (BINS[1] - BINS[0]))
            axes.stairs(density, BINS, fill=True, color=colour, alpha=0.4, label=label)
            axes.plot(centres, _gauss(centres, mean, std), color=colour)
        axes.set(xlabel="Euclidean distance", xlim=(0.0, 1.8))
        axes.set_title(
            f"{name}: {rank1:.1f} / {mean_ap:.1f}\nmeans {found.positive_mean:.2f}, "
            f"{found.negative_mean:.2f}; overlap {found.overlap:.2f}",
            fontsize=9,
        )
    axes_of[0].legend(fontsize=8)
    axes_of[0].set_ylabel("density")
    figure.savefig(path, dpi=110)


def _figure(panels: int, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(3.0 * panels, 9.0), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure


def _kinds(found: Separation) -> tuple[tuple[str, str, float, float], ...]:
    return (
        ("tab:blue", "one person", found.positive_mean, found.positive_std),
        ("tab:red", "two people", found.negative_mean, found.negative_std),
    )


def _gauss(at: NDArray[np.float64], mean: float, std: float) -> NDArray[np.float64]:
    density: NDArray[np.float64] = np.exp(-(((at - mean) / std) ** 2) / 2) / (
        std * np.sqrt(2 * np.pi)
    )
    return density


def _panels(path: Path, title: str, pairs: list[tuple[Floats, Floats]]) -> None:
    figure = _figure(2, title)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, when, (positive, negative) in zip(panels, ("before", "after"), pairs, strict=True):
        found = separation(positive, negative)
        for values, (colour, name, mean, std) in zip(
            (positive, negative), _kinds(found), strict=True
        ):
            axes.hist(values, BINS, density=True, color=colour, alpha=0.4, label=name)
            axes.plot(BINS, _gauss(BINS, mean, std), color=colour)
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
