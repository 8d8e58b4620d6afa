"""Which switch of OSNet's recipe and network does what: many short trainings, one table.

    python -m benchmarks.osnet_tables TABLE [--packs FOLDER] [--out FOLDER] [--epochs N] [--seeds N]

TABLE is `network` (the paper's ablations: number of streams, fusion, order, depth), `transfer`
(train on one set, judge on the other, both ways: kind of normalisation, with and without the
measures for other places, with rendered people beside the real ones) or `learning` (loss and
optimiser). Every run starts at random weights
and takes x0.25 through the same short schedule at 64x32 pixels, so the figures say which of two
rows is better, not how good either becomes. Each finished run is a line of FOLDER/TABLE.jsonl; the
same call goes on where it was stopped. Without --threads one thread trains, in our own CPU kernels
where the network allows. Last line: one JSON object.

The packs, all in one folder, are `edge-models pack` of market1501 (market_train.npz,
market_test.npz) and of cuhk03 (cuhk03.npz), and for `transfer` `python -m models.rendered_people`
(rendered_5000.npz --clothes distinct; everyday_6100.npz --first-seed 6100 --views
low,wall,low,wall,steep).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.machine import cpu_name
from models.osnet import Architecture
from models.recipe import Augment, DataPart, Losses, Optimise, Recipe, Stage
from models.train import Run

Source = Literal["cuhk03", "market1501"]
PACKS = ("market_train.npz", "market_test.npz", "cuhk03.npz")
DISTINCT, EVERYDAY = "rendered_5000.npz", "everyday_6100.npz"  # 1,600 rendered people each
JUDGED: Mapping[Source, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cuhk03": (("cuhk03:query",), ("cuhk03:gallery",)),
    "market1501": (("market1501:query",), ("market1501:gallery",)),
}
EPOCHS: Mapping[Source, int] = {"cuhk03": 8, "market1501": 5}  # about as many steps
ELSEWHERE = Augment(
    shift=0.05, zoom=0.08, rotate_deg=4.0, jitter=0.25, hue_deg=10.0, grey=0.08, blur=0.3
)
CASTS = replace(ELSEWHERE, cast=0.12)
PLAIN = Augment(shift=0.05, zoom=0.08, erase=0.5)
CONTRASTIVE = Losses(contrastive=1.0, classes=0.0, triplet=0.0)
MUON = Optimise(
    optimiser="muon", learning_rate=2e-2, classifier_rate=0.05, warmup_steps=50, ema=0.99
)
ADAMW = Optimise(optimiser="adamw", learning_rate=3e-3, warmup_steps=50, ema=0.99)


@dataclass(frozen=True)
class Variant:
    """One row: what it changes, and the paper's figures for it where it has some."""

    name: str
    source: Source = "cuhk03"
    network: dict[str, Any] = field(default_factory=dict)
    augment: Augment = ELSEWHERE
    losses: Losses = CONTRASTIVE
    optimise: Optimise = MUON
    paper: str = ""
    rendered: str = ""  # pack of rendered people as well, in batches of their own
    epochs: int = 0  # in place of the source's


NETWORK = (
    Variant("T = 4, unified gate", paper="93.6 / 81.0"),
    Variant("T = 3", network={"streams": 3}, paper="92.8 / 79.9"),
    Variant("T = 2", network={"streams": 2}, paper="91.7 / 77.0"),
    Variant("T = 1", network={"streams": 1}, paper="86.5 / 67.7"),
    Variant("streams of one depth", network={"equal_depth": True}, paper="91.7 / 77.9"),
    Variant("concatenation", network={"fusion": "concat"}, paper="91.4 / 77.4"),
    Variant("addition", network={"fusion": "add"}, paper="92.0 / 78.2"),
    Variant("separate gates", network={"fusion": "separate"}, paper="92.9 / 80.2"),
    Variant("stream-wise gate", network={"fusion": "streamwise"}, paper="92.6 / 80.0"),
    Variant("learned but fixed gate", network={"fusion": "fixed"}, paper="91.6 / 77.5"),
    Variant("depthwise first", network={"lite": "depthwise_first"}),
    Variant("full 3x3", network={"lite": "full"}, paper="94.0 / 82.7"),
)
_AIN: dict[str, Any] = {"normalisation": "ain"}
_LONGER: tuple[tuple[Source, int], ...] = (("cuhk03", 11), ("market1501", 7))
TRANSFER = tuple(
    variant
    for source, longer in _LONGER
    for variant in (
        Variant("AIN, for other places", source, _AIN),
        Variant("AIN, the same, white balance", source, _AIN, augment=CASTS),
        Variant("IBN, for other places", source, {"normalisation": "ibn"}),
        Variant("plain, for other places", source),
        Variant("AIN, erasing, no colours", source, _AIN, augment=PLAIN),
        Variant("plain, erasing, no colours", source, augment=PLAIN),
        Variant("AIN, for other places, longer", source, _AIN, epochs=longer),
        Variant("AIN, the same, rendered people", source, _AIN, rendered=DISTINCT, epochs=2),
        Variant("AIN, the same, rendered everyday", source, _AIN, rendered=EVERYDAY, epochs=2),
    )
)
_CLASSES = Losses(classes=1.0, triplet=0.0)
LEARNING = (
    Variant("classes, AdamW", network=_AIN, losses=_CLASSES, optimise=ADAMW),
    Variant(
        "classes and soft triplet, AdamW",
        network=_AIN,
        losses=Losses(margin=0.0),
        optimise=ADAMW,
    ),
    Variant("classes, Muon", network=_AIN, losses=_CLASSES),
    Variant("contrastive, AdamW", network=_AIN, optimise=ADAMW),
    Variant(
        "contrastive, Muon, half the rate",
        network=_AIN,
        optimise=replace(MUON, learning_rate=1e-2),
    ),
    Variant("contrastive, Muon", network=_AIN),
    Variant(
        "contrastive, later classes, Muon",
        network=_AIN,
        losses=replace(CONTRASTIVE, classes=0.5, classes_from_epoch=4),
    ),
)
TABLES = {"network": NETWORK, "transfer": TRANSFER, "learning": LEARNING}


def recipe_of(variant: Variant, seed: int, epochs: int) -> Recipe:
    """The short recipe of one row.

    Args:
        variant: of one of TABLES. seed: of weights, order and augmentation.
        epochs: of the whole run, at 64x32 pixels.
    """
    return Recipe(
        kind="osnet",
        name=f"{variant.source} {variant.name} {seed}",
        data=DataPart(
            packs=(*PACKS, variant.rendered) if variant.rendered else PACKS,
            sources=(f"{variant.source}:train", *(["rendered:train"] if variant.rendered else [])),
            batches="by_set" if variant.rendered else "mixed",
        ),
        stages=(Stage(epochs, 64, 32),),
        seed=seed,
        architecture=Architecture(width=0.25, neck=True, **variant.network),
        augment=variant.augment,
        losses=variant.losses,
        optimise=variant.optimise,
    )


def run(variant: Variant, seed: int, packs: Path, epochs: int) -> dict[str, Any]:
    """Train and judge one row on both sets; the row as a flat mapping."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        training = Run(
            recipe_of(variant, seed, epochs), packs=packs, folder=Path(folder), save_s=1e9
        )
        training.train()
        taken = time.monotonic() - begin
        row: dict[str, Any] = {"variant": variant.name, "source": variant.source, "seed": seed}
        row |= {"epochs": epochs, "steps": training.steps, "paper": variant.paper}
        for place, (query, gallery) in JUDGED.items():
            data = replace(training.recipe.data, evaluate_query=query, evaluate_gallery=gallery)
            training.recipe = replace(training.recipe, data=data)
            scores = training.evaluate().as_dict()
            row |= {f"{place}_{key}": round(scores[key], 2) for key in ("rank1", "map")}
    return row | {"seconds": round(taken)}


def main() -> int:
    """Run what is missing of one table, then print it."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    path = arguments.out / f"{arguments.table}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for seed in range(1, arguments.seeds + 1):
        for variant in TABLES[arguments.table]:
            epochs = _epochs(variant, arguments.epochs)
            key = (variant.name, variant.source, seed, epochs)
            if any((r["variant"], r["source"], r["seed"], r["epochs"]) == key for r in rows):
                continue
            row = run(variant, seed, arguments.packs, epochs)
            rows.append(row)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), file=sys.stderr, flush=True)
    told = show(arguments.table, rows, arguments.epochs)
    print(
        json.dumps(
            {"benchmark": "osnet_tables", "table": arguments.table, "rows": told}
            | {"machine": cpu_name(), "runs": sum(row["n"] for row in told)}
        )
    )
    return 0


def _epochs(variant: Variant, given: int) -> int:
    return given or variant.epochs or EPOCHS[variant.source]


def show(table: str, rows: list[dict[str, Any]], epochs: int) -> list[dict[str, Any]]:
    """Print means over the seeds, one line a variant; the same as mappings."""
    print(f"{table}: x0.25 at 64x32 from random weights; rank-1 / mAP in %, means over n seeds")
    print(
        f"{'trained on':<11} {'variant':<33} {'n':>2} {'steps':>5} {'CUHK03 val':>14} "
        f"{'Market-1501':>14} paper"
    )
    told: list[dict[str, Any]] = []
    for variant in TABLES[table]:
        key = (variant.name, variant.source, _epochs(variant, epochs))
        same = [r for r in rows if (r["variant"], r["source"], r["epochs"]) == key]
        if not same:
            continue
        mean = {
            key: round(statistics.fmean(row[key] for row in same), 2)
            for key in ("cuhk03_rank1", "cuhk03_map", "market1501_rank1", "market1501_map")
        }
        print(
            f"{variant.source:<11} {variant.name:<33} {len(same):>2} {same[0]['steps']:>5} "
            f"{mean['cuhk03_rank1']:>6.2f} / {mean['cuhk03_map']:>5.2f} "
            f"{mean['market1501_rank1']:>6.2f} / {mean['market1501_map']:>5.2f} {variant.paper}"
        )
        told.append(
            {"variant": variant.name, "source": variant.source, "n": len(same)}
            | {"steps": same[0]["steps"]}
            | mean
        )
    return told


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--packs", type=Path, default=Path(".pack/osnet"))
    parser.add_argument("--out", type=Path, default=Path("out/osnet_tables"))
    parser.add_argument("--epochs", type=int, default=0, help="0: 8 of CUHK03, 5 of Market-1501")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
