"""Does a pack hold only what its licence allows, and nothing of what is held out?"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.detector_data import read_coco, read_cutouts, write_coco
from models.detector_pack import main
from tests.unit.models.detector_pictures import boxed_picture

SOURCES = ("cafe_highview", "coco_person", "factory_cctv", "pennfudan")


def crops_tar(path: Path, folder: str, people: int) -> None:
    with tarfile.open(path, "w") as tar:
        for person in range(people):
            data = cv2.imencode(".png", np.full((128, 64, 3), 40, np.uint8))[1].tobytes()
            member = tarfile.TarInfo(f"set/{folder}/{person:04d}_c1.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    data = tmp_path / "shared" / "data"
    for source in SOURCES:
        pictures = [boxed_picture((60, 30, 110, 180), source=source)] * 5
        write_coco(data / "persondet" / f"{source}.tar", pictures)
    crops_tar(data / "market1501.tar", "bounding_box_train", 3)
    crops_tar(data / "cuhk03_detected.tar", "train", 4)
    return tmp_path / "shared"


def test_an_open_pack_holds_nothing_that_is_for_research(shared: Path, tmp_path: Path) -> None:
    for name in ("market1501.tar", "cuhk03_detected.tar"):
        (shared / "data" / name).unlink()  # it must not even look

    main(shared=shared, out=tmp_path / "pack", licence="open", teacher=False)

    train, held = (read_coco(tmp_path / "pack" / f"{name}.tar") for name in ("train", "held_out"))
    assert {p.source for p in train} == {"coco_person", "factory_cctv"}
    assert {p.source for p in held} == {"cafe_highview", "factory_cctv"}
    assert len(read_cutouts(tmp_path / "pack" / "people.tar")) == len(train)


def test_a_research_pack_holds_all_of_it_once(shared: Path, tmp_path: Path) -> None:
    main(shared=shared, out=tmp_path / "pack", licence="research", teacher=False)

    train, held = (read_coco(tmp_path / "pack" / f"{name}.tar") for name in ("train", "held_out"))
    assert sorted({p.source for p in train}) == ["coco_person", "factory_cctv", "pennfudan"]
    assert (len(train), len(held)) == (5 + 4 + 4, 5 + 1 + 1)
    assert len(read_cutouts(tmp_path / "pack" / "people.tar")) == 3 + 4
