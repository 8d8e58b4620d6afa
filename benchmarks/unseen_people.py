"""How well embedders tell apart people whom none of them was trained on, in views like a box's.

    python -m benchmarks.unseen_people [MODEL ...] [--pets FOLDER]

Three sets, none a protocol of the field, so the figures rank models and are not to be compared
with published ones. `rendered`: our street, three cameras, 75 people, a query's own camera left
out; `everyday`: the same with people in everyday clothes, who look more alike, through cameras of
other colours and sharpness. Weights whose card names `rendered:train` know both places from other
people (scenes from 5000, here below 100). `pets`, which none knows: PETS2009 S2.L1 (19 people, one
camera; vtest.avi and gt.txt in FOLDER, by default of REID_SHARED), crops of the first half of the
clip against those of the second. Crops are cut by the truth, upright people at least 50 pixels
tall, and go through the code of the box. MODEL: ONNX files with cards; by default ours and, with
REID_SHARED, the public one. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import cpu_name
from edge.sources.scene import SceneParams, SynthScene
from models import ranking
from models.evaluate import open_model
from models.lens import Lens

ROOT = Path(__file__).resolve().parent.parent
STREETS = {"rendered": ("distinct", (3, 4, 5)), "everyday": ("everyday", (6, 7, 8))}
CAMERAS = (1, 2, 3)
EVERY, FRAMES = 30, 2400  # of the rendered street: a look a second, eighty seconds
PETS_EVERY = 5
A_VIEW = 8  # crops of one person in one view
LEAST_HEIGHT, LEAST_WIDTH = 50, 14  # pixels
QUERIES = 400
BATCH = 32
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class People:
    """Crops, BGR, with who they show and in which view."""

    crops: list[Image]
    person: NDArray[np.int64]
    view: NDArray[np.int64]


def rendered(clothes: str, seeds: Sequence[int]) -> People:
    """People of rendered streets in three cameras."""
    found: list[tuple[Image, int, int]] = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        lenses = {camera: Lens.draw(rng) for camera in CAMERAS if clothes == "everyday"}
        scene = SynthScene(SceneParams(cameras=3, people=25, seed=seed, clothes=clothes))
        for index in range(0, FRAMES, EVERY):
            for camera in CAMERAS:
                frame: Image | None = None
                for seen in scene.truth(camera, index):
                    if seen.visible > 0.7:
                        frame = scene.frame(camera, index) if frame is None else frame
                        crop = _cut(frame, seen.box)
                        if crop is not None:
                            crop = lenses[camera].take(crop, rng) if lenses else crop
                            found.append((crop, seed * 1000 + seen.person, camera))
    return _some(found)


def pets(folder: Path) -> People:
    """People of PETS2009 S2.L1; a view is a half of the clip."""
    truth: dict[int, list[tuple[int, tuple[float, float, float, float]]]] = {}
    for row in np.loadtxt(folder / "gt.txt", delimiter=",", ndmin=2):
        if row[6] != 0:
            x, y, w, h = row[2:6]
            truth.setdefault(int(row[0]), []).append((int(row[1]), (x, y, x + w, y + h)))
    middle = max(truth) // 2
    found: list[tuple[Image, int, int]] = []
    for number, frame in _frames(folder / "vtest.avi"):
        if number % PETS_EVERY == 0:
            for person, box in truth.get(number, []):
                crop = _cut(frame, box)
                if crop is not None:
                    found.append((crop, person, int(number > middle)))
    return _some(found)


def _frames(path: Path) -> Iterator[tuple[int, Image]]:
    clip = cv2.VideoCapture(str(path))
    try:
        number = 0
        while True:
            read, frame = clip.read()
            if not read:
                return
            number += 1
            yield number, np.asarray(frame, np.uint8)
    finally:
        clip.release()


def _cut(frame: Image, box: tuple[float, float, float, float]) -> Image | None:
    x1, y1, x2, y2 = (max(round(value), 0) for value in box)
    crop = frame[y1:y2, x1:x2]
    if crop.shape[0] < LEAST_HEIGHT or crop.shape[1] < LEAST_WIDTH:
        return None
    return np.ascontiguousarray(crop)


def _some(found: list[tuple[Image, int, int]]) -> People:
    """At most A_VIEW crops of a person in a view, spread over the time it was seen."""
    counts = Counter((person, view) for _, person, view in found)
    seen: Counter[tuple[int, int]] = Counter()
    kept: list[tuple[Image, int, int]] = []
    for crop, person, view in found:
        key = (person, view)
        step = max(counts[key] / A_VIEW, 1.0)
        if int(seen[key] / step) != int((seen[key] - 1) / step) or seen[key] == 0:
            kept.append((crop, person, view))
        seen[key] += 1
    return People(
        [crop for crop, _, _ in kept],
        np.array([person for _, person, _ in kept], np.int64),
        np.array([view for _, _, view in kept], np.int64),
    )


def judged(model: Path, people: People) -> ranking.Scores:
    """Rank-1 and mAP of an embedder, a query's own view left out."""
    embedder = open_model(model, threads=1).embedder
    parts = range(0, len(people.crops), BATCH)
    rows = np.concatenate([embedder.embed(people.crops[at : at + BATCH]) for at in parts])
    chosen = np.random.default_rng(0).permutation(len(rows))[:QUERIES]
    return ranking.score(
        ranking.distances(rows[chosen], rows, "cosine"),
        people.person[chosen],
        people.view[chosen],
        people.person,
        people.view,
    )


def main() -> None:
    """Measure and print."""
    shared = Path(os.environ["REID_SHARED"]) if os.environ.get("REID_SHARED") else None
    weights = ROOT / "models" / "weights"
    models = [weights / "osnet_x0_25.onnx"]
    models += [shared / "models" / "osnet_x0_25_msmt17_combineall.onnx"] if shared else []
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("models", nargs="*", type=Path, default=models, metavar="MODEL")
    parser.add_argument(
        "--pets", type=Path, default=shared / "data" / "pets2009_s2l1" if shared else None
    )
    given = parser.parse_args()
    sets = {name: rendered(*street) for name, street in STREETS.items()}
    if given.pets is not None:
        sets["pets"] = pets(given.pets)
    print(f"{cpu_name()}, Python {platform.python_version()}, one thread")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, people in sets.items():
        print(f"\n{name}: {len(people.crops)} crops of {len(set(people.person.tolist()))} people")
        print(f"{'':<44}{'rank-1':>8}{'mAP':>8}")
        for model in given.models:
            scores = judged(model, people)
            print(f"{model.stem:<44}{scores.rank1:>8.2f}{scores.map:>8.2f}")
            row = {"rank1": round(scores.rank1, 2), "map": round(scores.map, 2)}
            found.setdefault(model.stem, {})[name] = row
    print(json.dumps(found))


if __name__ == "__main__":
    main()
