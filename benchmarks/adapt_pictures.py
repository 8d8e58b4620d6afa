"""GDS on pictures, as in its paper: what each loss brings at a site that a model never saw.

    python -m benchmarks.adapt_pictures [--shared DIR] [--source FILE] [--target SET]
        [--loss LOSS ...] [--seeds N ...] [--epochs N] [--steps N] [--height N] [--width N]
        [--gds-weight W] [--true-labels] [--rows FILE.jsonl] [--runs DIR] [--curves FILE.png]
        [--table]

Each (source, target, loss, seed) is one run of models.adapt on the target's training crops without
their labels, judged on its query and gallery by the standard protocol (cosine, one vector an image,
no re-ranking). --true-labels takes the labels in place of clusters, to see what a loss brings where
no cluster is wrong. A finished run is one line of the rows file; the same call goes on where it was
stopped, within a run at the last finished epoch. `direct` is the source as it is. --table only
shows what is in the rows file. Last line: one JSON object.

A run's line holds the distances of query and gallery pairs of two cameras, by the truth, as
histograms; --curves draws them for the first seed of every loss.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.adapt_curves import BINS, across_cameras, draw_losses
from models import checkpoints
from models.adapt import LOSSES, Adaptation, PictureRecipe
from models.adapt_crops import Crops, embed, read_crops
from models.data.readers import Dataset, open_dataset
from models.evaluate import score_features
from models.osnet import OSNet
from models.site_measures import separation

ROOT = Path(__file__).resolve().parent.parent
Floats = NDArray[np.float32]
Row = dict[str, Any]
SOURCE = ROOT / "models" / "weights" / "checkpoints" / "osnet_x0_25_cuhk03.pth"
TARS = {"market1501": "market1501.tar", "cuhk03": "cuhk03_detected.tar"}
DIRECT = "direct"
KEY = ("source", "target", "loss", "seed", "schedule")


@dataclass(frozen=True)
class Target:
    """A set at the input's size: what is adapted on, and what judges."""

    dataset: Dataset
    train: Crops
    judged: Crops

    @property
    def people(self) -> NDArray[np.int64]:
        """Who each of the training crops shows."""
        return np.array([sample.person for sample in self.dataset.part(["train"])], np.int64)

    def judge(self, network: OSNet) -> Row:
        """Scores, and the distances of pairs across cameras."""
        vectors = embed(network, self.judged)
        queries = len(self.dataset.query)
        query, gallery = vectors[:queries], vectors[queries:]
        scores = score_features(query, gallery, self.dataset)
        positive, negative = across_cameras(self.dataset, query, gallery)
        return {
            "rank1": round(scores.rank1, 2),
            "map": round(scores.map, 2),
            "separation": {
                name: round(value, 4)
                for name, value in separation(positive, negative).model_dump().items()
            },
            "positive": np.histogram(positive, BINS)[0].tolist(),
            "negative": np.histogram(negative, BINS)[0].tolist(),
        }


def open_target(name: str, shared: Path, size: tuple[int, int]) -> Target:
    """A set of the shared data."""
    dataset = open_dataset(name, shared / "data" / TARS[name])

    def crops(*parts: str) -> Crops:
        names = [sample.name for sample in dataset.part(parts)]
        where = f"{name}:{'+'.join(parts)}"
        return read_crops(dataset.images, names, where, height=size[0], width=size[1])

    return Target(dataset, crops("train"), crops("query", "gallery"))


def run_one(
    source: Path,
    target: Target,
    recipe: PictureRecipe,
    folder: Path,
    start: Floats,
    *,
    people: NDArray[np.int64] | None = None,
) -> Row:
    """Adapt once and judge; `start` is the training crops as the source embeds them."""
    began, cpu = time.perf_counter(), time.process_time()
    run = Adaptation(source, target.train, folder, recipe=recipe, start=start, people=people)
    run.train()
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return {
        **target.judge(run.network),
        "seconds": round(time.perf_counter() - began),
        "cpu_seconds": round(time.process_time() - cpu),
        "last_epoch": last,
    }


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    size = (given.height, given.width)
    schedule = f"{given.height}x{given.width}, {given.epochs} epochs of {given.steps} batches"
    if given.gds_weight != PictureRecipe.gds_weight:
        schedule += f", GDS weight {given.gds_weight:g}"
    if given.true_labels:
        schedule += ", true labels"
    rows = read_rows(given.rows)
    done = {tuple(row[name] for name in KEY) for row in rows}
    name = given.source.stem
    wanted = [(DIRECT, 0)] + [(loss, seed) for seed in given.seeds for loss in given.loss]
    missing = [
        (loss, seed)
        for loss, seed in wanted
        if (name, given.target, loss, seed, _schedule(loss, size, schedule)) not in done
    ]
    print(f"{platform.processor() or platform.machine()}, 1 thread, {name} to {given.target}, "
          f"{schedule}; {len(missing)} of {len(wanted)} runs to do", flush=True)  # fmt: skip
    if missing and not given.table:
        target = open_target(given.target, given.shared, size)
        start: Floats | None = None
        for loss, seed in missing:
            row: Row = {"source": name, "target": given.target, "loss": loss, "seed": seed}
            row["schedule"] = _schedule(loss, size, schedule)
            if loss == DIRECT:
                row |= target.judge(checkpoints.load(given.source))
            else:
                recipe = PictureRecipe(
                    loss=loss, seed=seed, epochs=given.epochs, steps=given.steps,
                    gds_weight=given.gds_weight,
                )  # fmt: skip
                folder = given.runs / _folder(row)
                if start is None:
                    start = embed(checkpoints.load(given.source), target.train)
                people = target.people if given.true_labels else None
                row |= run_one(given.source, target, recipe, folder, start, people=people)
            rows.append(row)
            given.rows.parent.mkdir(parents=True, exist_ok=True)
            with given.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{loss} seed {seed}: rank-1 {row['rank1']:.2f} mAP {row['map']:.2f} "
                  f"({row.get('seconds', 0)} s)", flush=True)  # fmt: skip
    table = summary(rows, name, given.target, size, schedule)
    for line in table:
        print(f"{line['loss']:12s} rank-1 {line['rank1']:6.2f}  mAP {line['map']:6.2f} "
              f"± {line['spread']:.2f}  overlap {line['overlap']:.3f}  n={line['n']}")  # fmt: skip
    if given.curves is not None:
        first: dict[str, Row] = {}
        for row in _of(rows, name, given.target, size, schedule):
            first.setdefault(row["loss"], row)
        draw_losses(given.curves, f"{name} on {given.target}, pairs of two cameras (truth)", first)
    print(json.dumps({"source": name, "target": given.target, "schedule": schedule, "rows": table}))
    return 0


def read_rows(path: Path) -> list[Row]:
    """The finished runs; a line that was cut short counts as none."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: a line of {len(line)} characters was cut short, that run is done again")
    return rows


def summary(
    rows: Sequence[Row], source: str, target: str, size: tuple[int, int], schedule: str
) -> list[Row]:
    """Means over the seeds, a row a loss."""
    own = _of(rows, source, target, size, schedule)
    table = []
    for loss in (DIRECT, *LOSSES):
        of = [row for row in own if row["loss"] == loss]
        if not of:
            continue
        maps = [row["map"] for row in of]
        table.append(
            {
                "loss": loss,
                "rank1": round(statistics.mean(row["rank1"] for row in of), 2),
                "map": round(statistics.mean(maps), 2),
                "spread": round(statistics.stdev(maps), 2) if len(of) > 1 else 0.0,
                "overlap": round(statistics.mean(row["separation"]["overlap"] for row in of), 3),
                "maps": maps,
                "n": len(of),
            }
        )
    return table


def _of(
    rows: Sequence[Row], source: str, target: str, size: tuple[int, int], schedule: str
) -> list[Row]:
    return [
        row
        for row in rows
        if (row["source"], row["target"]) == (source, target)
        and row["schedule"] == _schedule(row["loss"], size, schedule)
    ]


def _schedule(loss: str, size: tuple[int, int], schedule: str) -> str:
    return f"{size[0]}x{size[1]}" if loss == DIRECT else schedule


def _folder(row: Row) -> str:
    kept = "-".join(str(row[name]) for name in KEY)
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in kept)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    shared = Path(os.environ.get("REID_SHARED", ROOT.parent / "shared"))
    out = ROOT / "out" / "adapt"
    parser.add_argument("--shared", type=Path, default=shared)
    parser.add_argument(
        "--source", type=Path, default=SOURCE, help="checkpoint (.pth), or one of the shared models"
    )
    parser.add_argument("--target", choices=sorted(TARS), default="market1501")
    parser.add_argument("--loss", nargs="+", choices=LOSSES, default=["baseline", "gds", "gds-h"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="batches of an epoch")
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--gds-weight", type=float, default=PictureRecipe.gds_weight)
    parser.add_argument(
        "--true-labels", action="store_true", help="the people of the set in place of clusters"
    )
    parser.add_argument("--rows", type=Path, default=out / "pictures.jsonl")
    parser.add_argument("--runs", type=Path, default=out / "runs", help="checkpoints of the runs")
    parser.add_argument("--curves", type=Path, help="draw the two distributions into this file")
    parser.add_argument("--table", action="store_true", help="run nothing")
    given = parser.parse_args()
    if not given.source.is_file():
        given.source = given.shared / "models" / given.source
    return given


if __name__ == "__main__":
    sys.exit(main())
