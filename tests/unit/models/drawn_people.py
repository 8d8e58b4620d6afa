"""Tiny data sets of drawn figures: every person has colours of his own, every camera a tint."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def figure(person: int, camera: int, shot: int, height: int = 64) -> NDArray[np.uint8]:
    """A figure of two coloured blocks and a head on a grey ground, (height, height/2, 3) BGR."""
    colours = np.random.default_rng(person).integers(20, 236, (2, 3))
    random = np.random.default_rng((person, camera, shot))
    width = height // 2
    image = np.full((height, width, 3), 110 + 12 * camera, np.uint8)
    shift = int(random.integers(-2, 3))
    left, right = width // 4 + shift, 3 * width // 4 + shift
    top, colour = [tuple(int(v) for v in colours[i]) for i in (0, 1)]
    cv2.circle(image, (width // 2 + shift, height // 8), height // 12, (120, 150, 190), -1)
    cv2.rectangle(image, (left, height // 5), (right, height // 2), top, -1)
    cv2.rectangle(image, (left, height // 2), (right, height - 4), colour, -1)
    noise = random.normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def write(path: Path, image: NDArray[np.uint8]) -> None:
    """Write one image, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def market(root: Path, *, train: int = 6, test: int = 4, shots: int = 4) -> Path:
    """A set in Market-1501's layout: two cameras, junk, a distractor, one `.jpg.jpg`."""
    frame = 0
    for person in range(1, train + test + 1):
        for camera in (1, 2):
            for shot in range(shots):
                frame += 1
                name = f"{person:04d}_c{camera}s1_{frame:06d}_{shot:02d}.jpg"
                image = figure(person, camera, shot)
                if person <= train:
                    write(root / "bounding_box_train" / name, image)
                elif shot == 0:
                    write(root / "query" / name, image)
                else:
                    write(root / "bounding_box_test" / name, image)
    gallery = root / "bounding_box_test"
    write(gallery / "-1_c1s1_900001_00.jpg", figure(901, 1, 0))
    write(gallery / "0000_c2s1_900002_00.jpg", figure(902, 2, 0))
    double = gallery / f"{train + 1:04d}_c2s1_900003_00.jpg.jpg"
    write(double, figure(train + 1, 2, 9))
    return root


def tarred(folder: Path, path: Path, *, top: str = "") -> Path:
    """The folder's contents as a plain tar."""
    with tarfile.open(path, "w") as archive:
        for item in sorted(folder.rglob("*")):
            if item.is_file():
                name = item.relative_to(folder).as_posix()
                archive.add(item, f"{top}/{name}" if top else name)
    return path
