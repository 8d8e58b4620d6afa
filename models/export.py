"""torch → ONNX, checked.

Promise: what is written computes what the torch network computes (cosine of every row at least
`MIN_COSINE`, for batches of several sizes), passes `onnx.checker`, takes any number of crops, and
carries no paths or traces of the machine that made it. The card beside it is complete.
"""

from __future__ import annotations

import logging
import warnings
from typing import cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge.config import RuntimeConfig
from edge.runtime import open_session
from models.imagenet import MEAN, STD
from models.osnet import OSNet
from models.ranking import row_cosines
from reid.card import LEAST_SIDE
from reid.golden import golden_image

OPSET = 18
MIN_COSINE = 0.9999


class ExportError(Exception):
    """A network cannot be exported as asked; nothing was written."""


class InputTooSmall(ExportError):
    """The network's instance normalisation is left with one cell, of which there is no deviation.

    Attributes: height, width, of the input in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        super().__init__(
            f"{height}×{width} px leave the last layers of an AIN network one cell to normalise "
            f"over; give one side at least {2 * LEAST_SIDE} px, the other at least {LEAST_SIDE}"
        )


class OutputDiffers(ExportError):
    """The exported file does not compute what the network computes.

    Attributes: cosine, the worst that was seen.
    """

    def __init__(self, cosine: float) -> None:
        self.cosine = cosine
        super().__init__(
            f"torch and ONNX disagree: worst cosine {cosine:.6f}, at least {MIN_COSINE} wanted; "
            "nothing was written; try another torch or opset"
        )


class _Normalising(nn.Module):
    """The network with ImageNet's normalisation inside: takes RGB in 0..255."""

    def __init__(self, network: OSNet) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor(STD).view(1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        mean, scale = cast(Tensor, self.mean), cast(Tensor, self.scale)
        out: Tensor = self.network((images - mean) * scale)
        return out


def to_onnx(network: OSNet, height: int, width: int, *, inside: bool = False) -> bytes:
    """A network as an ONNX file: `images` (n, 3, height, width) float32 → `output` (n, 512).

    Args:
        inside: put the normalisation into the file; it then takes RGB in 0..255.

    Raises:
        InputTooSmall: the network cannot take that size.
        OutputDiffers: the file would compute something else.
    """
    if not network.arch.takes(height, width):
        raise InputTooSmall(height, width)
    whole: nn.Module = _Normalising(network) if inside else network
    whole.eval()
    # the exporter tells of its own internals, and of packages that this network does not need
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            whole,
            (torch.zeros(2, 3, height, width),),
            input_names=["images"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    _compare(whole, content, height, width, inside=inside)
    return content


def _strip(model: onnx.ModelProto) -> None:
    """Take out traces: paths of source files, stack traces, names of local functions."""
    graph = model.graph
    items = [*graph.node, *graph.initializer, *graph.input, *graph.output]
    for item in [*items, graph, model]:
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    graph.ClearField("value_info")
    graph.name = "osnet"
    model.producer_name = "edge-reid"
    model.ClearField("producer_version")


def _compare(whole: nn.Module, content: bytes, height: int, width: int, *, inside: bool) -> None:
    session = open_session(content, name="export", config=RuntimeConfig(threads=1))
    for batch in (1, 3):
        pictures = [golden_image(height, width, seed) for seed in range(1, batch + 1)]
        rgb = np.stack([picture[:, :, ::-1] for picture in pictures]).transpose(0, 3, 1, 2)
        values: NDArray[np.float32] = rgb.astype(np.float32)
        if not inside:
            mean = np.array(MEAN, np.float32).reshape(1, 3, 1, 1)
            std = np.array(STD, np.float32).reshape(1, 3, 1, 1)
            values = ((values / 255 - mean) / std).astype(np.float32)
        with torch.inference_mode():
            wanted = whole(torch.from_numpy(values.copy())).numpy()
        worst = float(row_cosines(session.run({"images": values})[0], wanted).min())
        if not worst >= MIN_COSINE:
            raise OutputDiffers(worst)
