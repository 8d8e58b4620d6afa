"""Crops of people to adapt on: held at the input's size, embedded by a network in training.

Promise: every image of a folder or a tar is read, or an error names those that are none. Of more
than are asked for, the same ones are drawn each time, and how many were left out is told.
Memory: the crops as bytes (10⁴ at 128×64: 250 MB), and one batch. Threads: the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models.augment import normalise
from models.data.store import Images, open_images
from models.osnet import EMBEDDING_SIZE, OSNet
from models.site_projection import unit

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_BATCH = 128


class TooFewCrops(Exception):
    """There is not enough to learn from; the text says what was found, and the cure."""


@dataclass(frozen=True)
class Crops:
    """n crops.

    Attributes:
        name: of where they are from, for messages and the card.
        images: (n, h, w, 3) uint8, RGB.
        left_out: how many more there are where they came from.
    """

    name: str
    images: NDArray[np.uint8]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.images.shape[1], self.images.shape[2]

    def tensor(self, rows: Ints) -> Tensor:
        """(r, 3, h, w) float32, RGB in 0..1."""
        picked = torch.from_numpy(self.images[rows])
        return picked.permute(0, 3, 1, 2).float().div(255)


def open_crops(
    folder: Path, *, height: int, width: int, least: int, most: int | None = None
) -> Crops:
    """All images of a folder or a tar, in any arrangement; names say nothing.

    Args:
        most: of more, so many are drawn at random, the same for the same names.
    Raises:
        TooFewCrops: fewer than `least`. DataError: images that do not decode.
    """
    with open_images(folder) as images:
        names = images.files("")
        if len(names) < least:
            raise TooFewCrops(
                f"{folder}: {len(names)} images, at least {least} are needed; gather more crops"
            )
        total = len(names)
        if most is not None and total > most:
            drawn = np.random.default_rng(total).choice(total, most, replace=False)
            names = [names[row] for row in np.sort(drawn).tolist()]
        crops = read_crops(images, names, folder.name, height=height, width=width)
        return replace(crops, left_out=total - len(names))


def read_crops(
    images: Images, names: Sequence[str], name: str, *, height: int, width: int
) -> Crops:
    """Some images of a set."""
    import cv2

    held = np.empty((len(names), height, width, 3), np.uint8)
    all_of = images.all(names, name)
    bar = tqdm(all_of, desc="reading crops", total=len(names), leave=False, disable=None)
    for index, image in enumerate(bar):
        scaled = image
        if image.shape[:2] != (height, width):
            how = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
            scaled = cv2.resize(image, (width, height), interpolation=how).astype(np.uint8)
        held[index] = scaled[:, :, ::-1]
    return Crops(name, held)


def embed(network: OSNet, crops: Crops, rows: Ints | None = None) -> Floats:
    """(r, 512) unit vectors of some crops, of all by default, as in evaluation; the network's mode
    is left alone."""
    if rows is None:
        rows = np.arange(len(crops))
    device, training = next(network.parameters()).device, network.training
    found = np.empty((len(rows), EMBEDDING_SIZE), np.float32)
    network.eval()
    with torch.inference_mode():
        starts = range(0, len(rows), _BATCH)
        for start in tqdm(starts, desc="embedding", leave=False, disable=None):
            some = rows[start : start + _BATCH]
            batch = normalise(crops.tensor(some).to(device))
            batch = batch.contiguous(memory_format=torch.channels_last)  # half the time of planes
            found[start : start + len(some)] = network(batch).float().cpu().numpy()
    network.train(training)
    return unit(found)
