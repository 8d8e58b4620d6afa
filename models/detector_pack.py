"""Pack what the detector is trained on into a folder small enough to carry to another machine.

    python -m models.detector_pack --shared ../shared --out .pack/detector

Promise: writes `train.tar`, `held_out.tar` (COCO style, pictures at most 416 pixels) and
`people.tar` (people cut out, for pasting); with a teacher, labels that miss people are completed.
`--licence open` takes only sources whose licence allows more than research, and cuts people out of
these instead of ReID crops. Overwrites the three files; one thread; a progress bar.
"""

from __future__ import annotations

import random
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import typer
from tqdm import tqdm

from models.detector_data import (
    RESEARCH_ONLY,
    Image,
    Picture,
    add_teacher,
    cut_out,
    read_all,
    reencode,
    split,
    write_coco,
    write_cutouts,
)
from models.detector_teacher import YoloxTeacher

Licence = Literal["research", "open"]
_SEED = 0


def crops_of_tar(path: Path, folder: str, per_person: int) -> Iterator[Image]:
    """Crops of a ReID collection, at most so many per person (the name's part before `_`)."""
    chosen: dict[str, int] = {}
    with tarfile.open(path) as tar:
        members = [m for m in tar.getmembers() if f"{folder}/" in m.name and m.isfile()]
        random.Random(_SEED).shuffle(members)
        for member in members:
            person = Path(member.name).name.split("_")[0]
            if not person.isdigit() or chosen.get(person, 0) >= per_person:
                continue
            data = tar.extractfile(member)
            assert data is not None
            image = cv2.imdecode(np.frombuffer(data.read(), np.uint8), cv2.IMREAD_COLOR)
            if image is None:
                raise OSError(f"{path}: {member.name} cannot be decoded")
            chosen[person] = chosen.get(person, 0) + 1
            yield np.asarray(image, np.uint8)


def crops_of_pictures(pictures: list[Picture], least_height: int = 96) -> Iterator[Image]:
    """Upright people of labelled pictures: whole boxes, tall ones, that no other box overlaps."""
    for picture in pictures:
        image: Image | None = None
        for i, box in enumerate(picture.boxes):
            width, height = box[2:] - box[:2]
            others = np.delete(picture.boxes, i, axis=0)
            meets = (
                (others[:, 0] < box[2])
                & (others[:, 2] > box[0])
                & (others[:, 1] < box[3])
                & (others[:, 3] > box[1])
            )
            inside = box.min() > 2 and box[2] < picture.width - 2 and box[3] < picture.height - 2
            if (
                height < least_height
                or not 2.0 <= height / width <= 4.0
                or meets.any()
                or not inside
            ):
                continue
            if image is None:
                image = picture.decode()
            x1, y1, x2, y2 = box.astype(int)
            yield image[y1:y2, x1:x2]


def main(
    shared: Annotated[Path, typer.Option(help="folder with data/ and models/")],
    out: Annotated[Path, typer.Option(help="folder to write to")],
    licence: Annotated[Licence, typer.Option(help="which sources may be used")] = "research",
    quality: Annotated[int, typer.Option(help="WebP quality; higher is larger")] = 60,
    longest: Annotated[int, typer.Option(help="longest side, pixels")] = 416,
    teacher: Annotated[bool, typer.Option(help="complete labels by YOLOX-nano")] = True,
) -> None:
    """Pack pictures, labels and cut-out people."""

    pictures = read_all(shared / "data" / "persondet")
    if licence == "open":
        pictures = [p for p in pictures if p.source not in RESEARCH_ONLY]
    train, held = split(pictures)
    if licence == "research":
        market = crops_of_tar(shared / "data" / "market1501.tar", "bounding_box_train", 2)
        cuhk = crops_of_tar(shared / "data" / "cuhk03_detected.tar", "train", 1)
        crops = chain(market, cuhk)
    else:
        crops = chain(crops_of_pictures(train))
    bar = tqdm(crops, "people", unit=" crops", mininterval=5.0)
    write_cutouts(out / "people.tar", (cut_out(crop) for crop in bar))
    if teacher:
        find = YoloxTeacher(shared / "models" / "yolox_nano.onnx", 416).find
        # the teacher sees the original; a progress bar, since it takes a minute or two
        train = list(add_teacher(tqdm(train, "teacher", unit=" pictures", mininterval=5.0), find))
    # partly seen and rare views are drawn more often than the 1,400 frames of one building
    sizes = {s: sum(p.source == s for p in train) for s in {p.source for p in train}}
    mean = sum(sizes.values()) / max(1, len(sizes))
    weighted = (replace(p, weight=round((mean / sizes[p.source]) ** 0.5, 3)) for p in train)
    for name, part in (("train", weighted), ("held_out", iter(held))):
        bar = tqdm(part, name, unit=" pictures", mininterval=5.0)
        write_coco(out / f"{name}.tar", (reencode(p, longest, quality) for p in bar))


if __name__ == "__main__":
    typer.run(main)
