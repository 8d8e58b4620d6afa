"""What a site's map brings, learned from stored vectors alone, and what each part of it adds.

    python -m benchmarks.bench_adapt [--shared DIR] [--model FILE] [--threads N] [--seeds N]
                                     [--all] [--cache FILE] [--pictures DIR]

Market-1501 replayed as a site (benchmarks.market_replay): the map is fitted on the training part's
vectors without labels, a tenth of its tracklets held back for acceptance, and judged on query and
gallery by the standard protocol, one vector an image, no re-ranking. Each row adds one part to the
row above; the parts with seed 1 (--all: with every seed), the whole with every seed. Below stand
the trap (a projection whose positives are of one camera) and GDS-H as the only loss. Last line: one
JSON object; its adapted figures are means over the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.market_replay import camera_names, replay
from models import ranking
from models.adapt_embeddings import AdaptRecipe, Fitted, fit
from models.data.readers import Dataset, Sample, open_dataset
from models.evaluate import embed_samples, open_model
from models.neighbours import Clustering
from models.site_acceptance import Verdict, hold_back, judge
from models.site_evidence import Evidence
from models.site_projection import ProjectionRecipe
from reid.site_map import SiteMap, encode

ROOT = Path(__file__).resolve().parent.parent
Floats = NDArray[np.float32]
MODEL = "osnet_x0_25_msmt17_combineall.onnx"
_BY_LOOKS = Clustering(eps=0.5, least=3, fewest=16)
_NO_LOSS = ProjectionRecipe(steps=0)
_CONTRASTIVE = ProjectionRecipe(gds=0.0)
_WHOLE = AdaptRecipe()
_TRAP = "trap: only pairs of one camera"
PARTS: dict[str, AdaptRecipe] = {
    "+ mean of each camera": AdaptRecipe(camera="mean", whiten=False, rounds=0),
    "+ deviation of each camera": AdaptRecipe(whiten=False, rounds=0),
    "+ whitening within tracklets": AdaptRecipe(rounds=0),
    "+ whitening within clusters": AdaptRecipe(
        rounds=1, transit_weight=0.0, clustering=_BY_LOOKS, projection=_NO_LOSS
    ),
    "+ projection, contrastive": AdaptRecipe(
        rounds=1, transit_weight=0.0, clustering=_BY_LOOKS, projection=_CONTRASTIVE
    ),
    "+ transit times in clustering": AdaptRecipe(rounds=1, projection=_CONTRASTIVE),
    "+ GDS-H in the loss": AdaptRecipe(rounds=1),
}
WHOLE = "+ second round (the whole)"
OTHERS: dict[str, AdaptRecipe] = {
    "GDS-H as the only loss": replace(
        _WHOLE, projection=ProjectionRecipe(contrastive=0.0, gds=1.0)
    ),
    "with a hidden layer of 256": replace(_WHOLE, projection=ProjectionRecipe(hidden=256)),
}


class Site:
    """Vectors of the three parts, and the judging of maps on them."""

    def __init__(self, dataset: Dataset, vectors: dict[str, Floats], space_id: str) -> None:
        self.dataset = dataset
        self.evidence, self.person = replay(dataset.train, vectors["train"], space_id=space_id)
        self._vectors = vectors

    def mapped(self, part: str, site_map: SiteMap | None) -> Floats:
        """Vectors of "query" or "gallery", through a map where one is given."""
        vectors = self._vectors[part]
        samples: list[Sample] = getattr(self.dataset, part)
        return vectors if site_map is None else site_map.apply(vectors, camera_names(samples))

    def scores(self, site_map: SiteMap | None) -> tuple[float, float]:
        """Rank-1 and mAP in %."""
        query, gallery = self.dataset.query, self.dataset.gallery
        query_vectors, gallery_vectors = (self.mapped(p, site_map) for p in ("query", "gallery"))
        found = ranking.score(
            ranking.distances(query_vectors, gallery_vectors, "cosine"),
            np.array([sample.person for sample in query]),
            np.array([sample.camera for sample in query]),
            np.array([sample.person for sample in gallery]),
            np.array([sample.camera for sample in gallery]),
        )  # fmt: skip
        return found.rank1, found.map


def embed(dataset: Dataset, model: Path, threads: int, cache: Path | None) -> dict[str, Floats]:
    """Unit vectors of every part; from the cache file where it is of this model."""
    parts = ("train", "query", "gallery")
    if cache is not None and cache.is_file():
        with np.load(cache, allow_pickle=False) as held:
            names = {part: [sample.name for sample in getattr(dataset, part)] for part in parts}
            if str(held["model"]) == model.name and all(
                list(held[f"{part}_names"]) == names[part] for part in parts
            ):
                print(f"vectors from {cache}")
                return {part: held[part] for part in parts}
    opened = open_model(model, threads=threads)
    began = time.perf_counter()
    vectors = {part: embed_samples(opened, dataset, getattr(dataset, part)) for part in parts}
    count = sum(len(rows) for rows in vectors.values())
    print(f"embedded {count} crops in {time.perf_counter() - began:.0f} s")
    if cache is not None:
        named = {f"{p}_names": np.array([s.name for s in getattr(dataset, p)]) for p in parts}
        np.savez(cache, model=np.array(model.name), **vectors, **named)  # type: ignore[arg-type]
    return vectors


def trap(evidence: Evidence, seed: int) -> SiteMap:
    """A projection of plain vectors, trained on tracklets: every positive is of one camera."""
    from models.adapt_embeddings import camera_statistics, finished_map
    from models.site_projection import train_projection

    mean, scale = camera_statistics(evidence, how="none", damping=1.0)
    learned = train_projection(
        evidence.vectors,
        evidence.tracklet,
        evidence.camera_of_vector,
        np.eye(evidence.vectors.shape[1], dtype=np.float32),
        ProjectionRecipe(across=False),
        seed=seed,
    )
    return finished_map(evidence, mean, scale, learned)


def purity(fitted: Fitted, person: NDArray[np.int64]) -> float:
    """Share of clustered tracklets that are of their cluster's main person."""
    known = fitted.labels >= 0
    main = sum(
        np.bincount(person[fitted.labels == label]).max()
        for label in range(int(fitted.labels.max()) + 1)
    )
    return float(main / known.sum())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    shared = Path(os.environ.get("REID_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--shared", type=Path, default=shared)
    parser.add_argument("--model", type=Path, help=f"default: {MODEL} of the shared models")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="the parts with every seed as well")
    parser.add_argument("--cache", type=Path, help="keep the vectors here (of people: private)")
    parser.add_argument("--pictures", type=Path, help="draw the distributions into this folder")
    parser.add_argument("--only-whole", action="store_true", help="leave the parts out")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    model: Path = given.model or given.shared / "models" / MODEL
    dataset = open_dataset("market1501", given.shared / "data" / "market1501.tar")
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, {model.name}")
    site = Site(dataset, embed(dataset, model, given.threads, given.cache), model.stem)
    evidence = site.evidence
    print(f"{len(evidence.vectors)} vectors, {evidence.tracklets} tracklets, "
          f"{len(evidence.together)} pairs seen together")  # fmt: skip
    rows: dict[str, list[tuple[float, float]]] = {"direct": [site.scores(None)]}
    _show("direct", rows["direct"])
    seeds = range(1, given.seeds + 1)
    for name, recipe in {} if given.only_whole else PARTS.items():
        rows[name] = [
            site.scores(fit(_rest(evidence, seed), recipe, seed=seed).site_map)
            for seed in (seeds if given.all else [1])
        ]
        _show(name, rows[name])
    rows[WHOLE] = []
    verdicts: list[Verdict] = []
    wholes: list[tuple[Fitted, NDArray[np.bool_]]] = []  # by seed: the map, what it never saw
    took = []
    for seed in seeds:
        held = hold_back(evidence, seed=seed)
        began = time.perf_counter()
        fitted = fit(evidence.part(~held), _WHOLE, seed=seed)
        took.append(time.perf_counter() - began)
        verdicts.append(judge(fitted.site_map, evidence, held, fitted.transit))
        rows[WHOLE].append(site.scores(fitted.site_map))
        print(f"  seed {seed}: {rows[WHOLE][-1][0]:.2f} {rows[WHOLE][-1][1]:.2f}, purity of "
              f"clusters {purity(fitted, site.person[~held]):.3f}, fitted in {took[-1]:.0f} s, "
              f"map of {len(encode(fitted.site_map))} B", flush=True)  # fmt: skip
        _show_verdict("  held back", verdicts[-1])
        wholes.append((fitted, held))
    _show(WHOLE, rows[WHOLE])
    if not given.only_whole:
        rows[_TRAP] = []
        for seed, (fitted, held) in zip(seeds, wholes if given.all else wholes[:1], strict=False):
            trapped = trap(evidence.part(~held), seed)
            rows[_TRAP].append(site.scores(trapped))
            _show_verdict("  held back", judge(trapped, evidence, held, fitted.transit))
        _show(_TRAP, rows[_TRAP])
        for name, recipe in OTHERS.items() if given.all else ():
            rows[name] = [
                site.scores(fit(_rest(evidence, seed), recipe, seed=seed).site_map)
                for seed in seeds
            ]
            _show(name, rows[name])
    if given.pictures is not None:
        from benchmarks.adapt_curves import draw

        draw(site, wholes[0][0].site_map, wholes[0][1], given.pictures)
    print(json.dumps(_summary(rows, verdicts, took)))
    return 0


def _rest(evidence: Evidence, seed: int) -> Evidence:
    return evidence.part(~hold_back(evidence, seed=seed))


def _show(name: str, figures: list[tuple[float, float]]) -> None:
    rank1, mean_ap = (statistics.mean(values) for values in zip(*figures, strict=True))
    spread = statistics.stdev([m for _, m in figures]) if len(figures) > 1 else 0.0
    print(f"{name:32s} rank-1 {rank1:6.2f}  mAP {mean_ap:6.2f} ± {spread:.2f}  n={len(figures)}",
          flush=True)  # fmt: skip


def _show_verdict(name: str, verdict: Verdict) -> None:
    found = verdict.plain
    before, after = found.before, found.after
    times = "no times" if found.times is None else f"at least {100 * found.times.low:+.1f}"
    print(f"{name}: certain pairs' errors {100 * before.error:.1f} -> {100 * after.error:.1f} %, "
          f"overlap {before.overlap:.3f} -> {after.overlap:.3f}, within the usual time "
          f"{100 * found.transit_before:.1f} -> {100 * found.transit_after:.1f} % ({times}): "
          f"{'accepted' if verdict.helps else 'refused'}", flush=True)  # fmt: skip


def _summary(
    rows: dict[str, list[tuple[float, float]]], verdicts: list[Verdict], took: list[float]
) -> dict[str, Any]:
    def mean(name: str, column: int) -> float:
        return round(statistics.mean(figures[column] for figures in rows[name]), 2)

    return {
        "direct_rank1": mean("direct", 0),
        "direct_map": mean("direct", 1),
        "adapted_rank1": mean(WHOLE, 0),
        "adapted_map": mean(WHOLE, 1),
        "adapted_maps": [round(one, 2) for _, one in rows[WHOLE]],
        "accepted": sum(verdict.helps for verdict in verdicts),
        "fit_s": round(statistics.median(took), 1),
        "parts": {name: {"rank1": mean(name, 0), "map": mean(name, 1)} for name in rows},
    }


if __name__ == "__main__":
    sys.exit(main())
