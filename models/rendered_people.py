"""Pack people of the rendered street, to train an embedder on: exact identities, nobody's pictures.

    python -m models.rendered_people .pack/osnet/rendered.npz --first-seed 5000 --scenes 40

Promise: a scene is fixed by its seed. Each has 40 people, seen by four cameras in two lights; crops
are cut by the truth, moved a little as a detector's boxes are, and may show a person partly hidden.
Strangers in everyday clothes look alike, and each camera has its own colours (`models/lens.py`).
Seeds below 100 are for judging (`benchmarks.unseen_people`), those from 5000 on for training. About
20 seconds of processor and 0.9 MB a scene of some 760 crops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from edge.sources.scene import CLOTHES, VIEWS, SceneParams, SynthScene
from models.data.errors import DataError
from models.data.pack import encode, save
from models.lens import Lens

PEOPLE, CAMERAS, FRAMES = 40, 4, 30  # of a scene; frames in each light
LIGHTS = {"day": 0.4, "overcast": 0.3, "dusk": 0.15, "night": 0.15}  # how often each is drawn
LAST_INDEX = 400  # frames are drawn from so many seconds of the scene's life
A_VIEW = 4  # crops of one person by one camera in one light
LEAST_CROPS = 3  # of a person; fewer teach nothing
LEAST_VISIBLE = 0.6
LEAST_HEIGHT, LEAST_WIDTH = 45, 12  # pixels
BOX_ERROR = 0.03  # deviation of a crop's edges, of the box's side
SIZE = (128, 64)


@dataclass(frozen=True)
class Crop:
    """One person in one frame: (h, w, 3) uint8, BGR."""

    image: NDArray[np.uint8]
    person: int
    camera: int


def crops(
    seed: int,
    frames: int = FRAMES,
    clothes: str = "everyday",
    views: Sequence[str] = ("wall", "steep"),
) -> Iterator[Crop]:
    """Crops of all people of the scene of a seed, numbered 1..PEOPLE; cameras from 1.

    Args:
        seed: of the scene. frames: so many are drawn in each light.
        clothes: as in SceneParams; everyday clothes are seen through cameras of different colours,
            sharpness and compression, distinct ones as the scene gives them.
        views: of SceneParams; seeds take turns.
    """
    rng = np.random.default_rng((seed, 77))
    lights = rng.choice(list(LIGHTS), 2, replace=False, p=list(LIGHTS.values()))
    counts: Counter[tuple[str, int, int]] = Counter()
    for light in map(str, lights):
        params = SceneParams(
            cameras=CAMERAS,
            people=PEOPLE,
            seed=seed,
            fps=1.0,
            light=light,
            view=views[seed % len(views)],
            clothes=clothes,
        )
        scene = SynthScene(params)
        lenses = [Lens.draw(rng) for _ in range(CAMERAS)] if clothes == "everyday" else []
        for _ in range(frames):
            index, camera = int(rng.integers(LAST_INDEX)), int(rng.integers(1, CAMERAS + 1))
            seen = [
                one
                for one in scene.truth(camera, index)
                if one.visible > LEAST_VISIBLE and counts[light, camera, one.person] < A_VIEW
            ]
            frame = scene.frame(camera, index) if seen else None
            for one in seen:
                assert frame is not None
                box = np.array(one.clipped(params.width, params.height))
                sides = np.tile(box[2:] - box[:2], 2)
                x1, y1, x2, y2 = (box + rng.normal(0, BOX_ERROR, 4) * sides).round().astype(int)
                image = frame[max(y1, 0) : y2, max(x1, 0) : x2]
                if image.shape[0] >= LEAST_HEIGHT and image.shape[1] >= LEAST_WIDTH:
                    counts[light, camera, one.person] += 1
                    if lenses:
                        image = lenses[camera - 1].take(image, rng)
                    yield Crop(image, one.person, camera)


def main(
    out: Annotated[Path, typer.Argument(help="The pack to write (.npz).")],
    first_seed: Annotated[int, typer.Option(min=0, help="Of the first scene.")] = 5000,
    scenes: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 40,
    frames: Annotated[int, typer.Option(min=1, help="Of a scene, in each light.")] = FRAMES,
    clothes: Annotated[str, typer.Option(help="everyday or distinct.")] = "everyday",
    views: Annotated[str, typer.Option(help="Of the cameras, with commas.")] = "wall,steep",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of WebP.")] = 80,
) -> None:
    """Render people and pack their crops."""
    if not out.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.parent}", param_hint="OUT")
    if clothes not in CLOTHES:
        raise typer.BadParameter(f"{clothes}: it is {' or '.join(CLOTHES)}", param_hint="--clothes")
    places = views.split(",")
    if not set(places) <= set(VIEWS):
        raise typer.BadParameter(f"{views}: of {', '.join(VIEWS)}", param_hint="--views")
    kept: list[tuple[NDArray[np.uint8], int, int]] = []
    for number in tqdm(range(scenes), "scenes", unit=" scenes", mininterval=2.0):
        found = list(crops(first_seed + number, frames, clothes, places))
        counts = Counter(one.person for one in found)
        kept += [
            (encode(one.image, SIZE, quality), number * PEOPLE + one.person, one.camera)
            for one in found
            if counts[one.person] >= LEAST_CROPS
        ]
    try:
        size = save(
            out,
            "rendered",
            [image for image, _, _ in kept],
            size=SIZE,
            part=["train"] * len(kept),
            person=[person for _, person, _ in kept],
            camera=[camera for _, _, camera in kept],
        )
    except DataError as error:
        typer.echo(f"{out}: {error}", err=True)
        raise typer.Exit(2) from error
    people = len({person for _, person, _ in kept})
    typer.echo(f"{out}: {len(kept)} crops of {people} people, {size / 1e6:.1f} MB", err=True)


if __name__ == "__main__":
    typer.run(main)
