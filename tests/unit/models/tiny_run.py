"""A training run of seconds: six drawn people, two small stages."""

from __future__ import annotations

from pathlib import Path

from models.data.pack import write_pack
from models.data.readers import open_dataset
from models.osnet import Architecture
from models.recipe import Augment, DataPart, Optimise, Recipe, Stage
from tests.unit.models.drawn_people import market

TINY = Recipe(
    kind="osnet",
    name="tiny",
    data=DataPart(
        packs=("tiny.npz",),
        sources=("market1501:train",),
        evaluate_query=("market1501:query",),
        evaluate_gallery=("market1501:gallery",),
    ),
    stages=(Stage(1, 32, 16), Stage(1, 48, 24)),
    architecture=Architecture(width=0.25, normalisation="ain", neck=True),
    augment=Augment(erase=0.5, jitter=0.3, hue_deg=10, grey=0.2, blur=0.5, rotate_deg=5),
    optimise=Optimise(people=4, images=4, warmup_steps=2, learning_rate=1e-3),
)


def packed(folder: Path, shots: int) -> Path:
    """A folder with tiny.npz: six drawn people to train on, three to judge by."""
    dataset = open_dataset("market1501", market(folder / "set", train=6, test=3, shots=shots))
    parts = ["train", "query", "gallery"]
    write_pack(dataset, parts, folder / "tiny.npz", size=(32, 16), quality=90)
    return folder
