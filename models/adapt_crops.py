"""Crops of people to adapt on: held at the input's size, embedded by a network in training.

Promise: `embed` gives what `network` gives in evaluation mode, to rounding. On a CPU it runs in the
box's runtime, which is several times faster there than torch: the graph is exported once for an
architecture and a size, and takes the network's weights of the moment.
Memory: the crops as bytes (10⁴ at 128×64: 250 MB), and one batch. Threads: the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge.config import RuntimeConfig
from edge.runtime import open_session
from models.augment import normalise
from models.data.store import Images, open_images
from models.export import trace
from models.osnet import EMBEDDING_SIZE, Architecture, OSNet
from models.site_projection import unit

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_BATCH = 32
RUNTIME_FROM = 2000  # crops; an export takes a CPU about as long as torch for so many


class TooFewCrops(Exception):
    """There is not enough to learn from; the text says what was found, and the cure."""


@dataclass(frozen=True)
class Crops:
    """n crops.

    Attributes:
        name: of where they are from, for messages and the card.
        images: (n, h, w, 3) uint8, RGB.
    """

    name: str
    images: NDArray[np.uint8]

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


def open_crops(folder: Path, *, height: int, width: int, least: int) -> Crops:
    """All images of a folder or a tar, in any arrangement; names say nothing.

    Raises:
        TooFewCrops: fewer than `least`. DataError: images that do not decode.
    """
    with open_images(folder) as images:
        names = images.files("")
        if len(names) < least:
            raise TooFewCrops(
                f"{folder}: {len(names)} images, at least {least} are needed; gather more crops"
            )
        return read_crops(images, names, folder.name, height=height, width=width)


def read_crops(
    images: Images, names: Sequence[str], name: str, *, height: int, width: int
) -> Crops:
    """Some images of a set."""
    import cv2

    held = np.empty((len(names), height, width, 3), np.uint8)
    for index, image in enumerate(images.all(names, name)):
        scaled = image
        if image.shape[:2] != (height, width):
            how = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
            scaled = cv2.resize(image, (width, height), interpolation=how).astype(np.uint8)
        held[index] = scaled[:, :, ::-1]
    return Crops(name, held)


def embed(
    network: OSNet, crops: Crops, rows: Ints | None = None, *, by_runtime: bool | None = None
) -> Floats:
    """(r, 512) unit vectors of some crops, of all by default; the network's mode is left alone.

    Args:
        by_runtime: through the box's runtime; by default on a CPU where there are enough crops to
            make good for the export of the graph.
    """
    if rows is None:
        rows = np.arange(len(crops))
    if by_runtime is None:
        by_runtime = _device(network).type == "cpu" and len(crops) >= RUNTIME_FROM
    forward = _by_runtime(network, crops.size) if by_runtime else _by_torch(network)
    found = np.empty((len(rows), EMBEDDING_SIZE), np.float32)
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        found[start : start + len(some)] = forward(normalise(crops.tensor(some)))
    return unit(found)


def _device(network: OSNet) -> torch.device:
    return next(network.parameters()).device


def _by_torch(network: OSNet) -> Callable[[Tensor], Floats]:
    device, training = _device(network), network.training

    def forward(batch: Tensor) -> Floats:
        network.eval()
        with torch.inference_mode():
            found: Floats = network(batch.to(device)).float().cpu().numpy()
        network.train(training)
        return found

    return forward


def _by_runtime(network: OSNet, size: tuple[int, int]) -> Callable[[Tensor], Floats]:
    model = onnx.ModelProto.FromString(_graph(network.arch, *size))
    state = network.state_dict()
    for weight in model.graph.initializer:
        if weight.name in state:
            weight.CopyFrom(onnx.numpy_helper.from_array(state[weight.name].numpy(), weight.name))
    config = RuntimeConfig(threads=torch.get_num_threads())
    session = open_session(model.SerializeToString(), name="network in training", config=config)

    def forward(batch: Tensor) -> Floats:
        found: Floats = session.run({"images": batch.contiguous().numpy()})[0]
        return found

    return forward


@lru_cache(maxsize=4)
def _graph(arch: Architecture, height: int, width: int) -> bytes:
    """The graph of an architecture, every weight by its name in the state."""
    content: bytes = trace(OSNet(arch).eval(), height, width, fold=False).SerializeToString()
    return content
