"""Pack pictures of the rendered street, with its exact truth, to train on or to judge by.

    python -m models.detector_rendered .pack/detector/rendered.tar --first-seed 1000 --scenes 60

Promise: scene number n of a first seed is always the same; lights and views take turns. What is
seen of a person by less than a quarter is a region to ignore, by less than a twentieth nothing.
Judging uses the seeds below 100, training those from 1000 on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from tqdm import tqdm

from edge.sources.scene import LIGHTS, SceneParams, SynthScene
from models.detector_data import Picture, write_coco

_LEAST_VISIBLE, _LEAST_SEEN = 0.25, 0.05
_FPS = 1.0
_VIEWS = ("wall", "steep")


def scene_of(seed: int) -> SceneParams:
    """The scene of a seed: its light, view, size and number of people vary with it."""
    rng = np.random.default_rng(seed)
    width, height = ((640, 480), (640, 360))[seed % 2]
    return SceneParams(
        cameras=2,
        people=int(rng.integers(6, 33)),
        seed=seed,
        width=width,
        height=height,
        fps=_FPS,
        light=LIGHTS[seed % len(LIGHTS)],
        view=_VIEWS[(seed // len(LIGHTS)) % len(_VIEWS)],
    )


def render(seed: int, frames: int, quality: int = 75) -> Iterator[Picture]:
    """So many pictures of the scene of a seed, its cameras in turn, times drawn."""
    params = scene_of(seed)
    scene = SynthScene(params)
    rng = np.random.default_rng((seed, 1))
    for number in range(frames):
        camera, index = 1 + number % params.cameras, int(rng.integers(600))
        image = scene.frame(camera, index)
        people: list[tuple[float, float, float, float]] = []
        ignore: list[tuple[float, float, float, float]] = []
        for one in scene.truth(camera, index):
            if one.visible >= _LEAST_SEEN:
                row = one.clipped(params.width, params.height)
                (people if one.visible >= _LEAST_VISIBLE else ignore).append(row)
        ok, encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
        if not ok:
            raise OSError("OpenCV cannot write WebP")
        yield Picture(
            source="rendered",
            name=f"{seed}-{camera}-{index}",
            encoded=encoded.tobytes(),
            width=params.width,
            height=params.height,
            boxes=np.asarray(people, np.float32).reshape(-1, 4),
            ignore=np.asarray(ignore, np.float32).reshape(-1, 4),
        )


def main(
    out: Annotated[Path, typer.Argument(help="tar to write")],
    first_seed: Annotated[int, typer.Option(help="of the first scene")] = 1000,
    scenes: Annotated[int, typer.Option(help="how many scenes")] = 60,
    frames: Annotated[int, typer.Option(help="pictures of each")] = 5,
) -> None:
    """Render pictures with truth."""
    seeds = tqdm(range(first_seed, first_seed + scenes), "scenes", unit=" scenes", mininterval=2.0)
    write_coco(out, (picture for seed in seeds for picture in render(seed, frames)))


if __name__ == "__main__":
    typer.run(main)
