"""torch → ONNX, checked, with its card.

Promise: what is written computes what the torch network computes (cosine of every row at least
`MIN_COSINE`, for batches of several sizes), passes `onnx.checker`, takes any number of crops, and
carries no paths or traces of the machine that made it. The card beside it is complete.
"""

from __future__ import annotations

import datetime
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge.config import EmbedConfig, RuntimeConfig
from edge.embed import Embedder, golden_row
from edge.runtime import open_session
from models.augment import MEAN, STD
from models.osnet import EMBEDDING_SIZE, OSNet
from reid.card import (
    Card,
    Golden,
    InputSpec,
    Metric,
    ModelFile,
    card_path,
    sha256_of,
    write_card,
)
from reid.files import replace_file
from reid.golden import golden_image, golden_values

OPSET = 18
MIN_COSINE = 0.9999
GOLDEN_TOLERANCE = 2e-3  # float sums in another order differ by far less, another network by more
RESEARCH_LICENCE = "Apache-2.0 (weights); trained on data for research only"


class ExportError(Exception):
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


def input_spec(height: int, width: int, *, inside: bool = False) -> InputSpec:
    """How the box feeds an OSNet: RGB, stretched, ImageNet mean and deviation (or inside)."""
    if inside:
        return InputSpec(height=height, width=width, colour="rgb", range=255, fit="stretch")
    return InputSpec(
        height=height, width=width, colour="rgb", range=1, mean=MEAN, std=STD, fit="stretch"
    )


def to_onnx(network: OSNet, height: int, width: int, *, inside: bool = False) -> bytes:
    """A network as an ONNX file: `images` (n, 3, height, width) float32 → `output` (n, 512).

    Args:
        inside: put the normalisation into the file; it then takes RGB in 0..255.

    Raises:
        ExportError: the file would compute something else.
    """
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
            raise ExportError(worst)


def row_cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) cosine of corresponding rows of two (n, d)."""
    product = (one * other).sum(1)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: NDArray[np.float32] = (product / np.maximum(lengths, 1e-12)).astype(np.float32)
    return cosines


def describe(
    content: bytes,
    path: Path,
    *,
    name: str,
    spec: InputSpec,
    space_id: str,
    variant_id: str,
    training_data: Sequence[str],
    licence: str = RESEARCH_LICENCE,
    commercial_use: bool = False,
    made_by: str = "edge-reid",
    default: bool = False,
    notes: str = "",
    metrics: Sequence[Metric] = (),
    tolerance: float = GOLDEN_TOLERANCE,
) -> Card:
    """The card of an embedder's file, its golden output measured here."""
    draft = Card(
        kind="embedder",
        name=name,
        file=path.name,
        sha256=sha256_of(content),
        bytes=len(content),
        licence=licence,
        commercial_use=commercial_use,
        made_by=made_by,
        training_data=tuple(training_data),
        default=default,
        notes=notes,
        space_id=space_id,
        variant_id=variant_id,
        dimension=EMBEDDING_SIZE,
        input=spec,
        golden=Golden(seed=1, values=(0.0,), tolerance=tolerance),
        metrics=tuple(metrics),
    )
    session = open_session(content, name=path, config=RuntimeConfig(threads=1))
    embedder = Embedder(
        model=ModelFile(path, draft),
        card=draft,
        spec=spec,
        session=session,
        max_batch=EmbedConfig().max_batch,
    )
    values = golden_values("embedder", [golden_row(embedder, 1)])
    golden = Golden(seed=1, values=tuple(float(v) for v in values), tolerance=tolerance)
    return draft.model_copy(update={"golden": golden})


def describe_float(
    content: bytes,
    path: Path,
    *,
    name: str,
    size: tuple[int, int],
    training_data: Sequence[str],
    licence: str = RESEARCH_LICENCE,
    made_by: str = "edge-reid",
    notes: str = "",
    metrics: Sequence[Metric] = (),
) -> Card:
    """The card of a float OSNet with a space of its own, fed as published.

    Args:
        size: of the input, height and width.
    """
    return describe(
        content,
        path,
        name=name,
        spec=input_spec(*size),
        space_id=space_of(name, content),
        variant_id="float32",
        training_data=training_data,
        licence=licence,
        made_by=made_by,
        notes=notes,
        metrics=metrics,
    )


def write_model(content: bytes, card: Card, path: Path) -> None:
    """Write an ONNX file and its card, the file first, each whole or not at all.

    Raises:
        OSError: the folder cannot be written, or is full; no new model is left without its card.
    """
    new = not path.exists()
    replace_file(path, content)
    try:
        write_card(card, card_path(path))
    except OSError:
        if new:
            path.unlink(missing_ok=True)
        raise


def space_of(name: str, content: bytes) -> str:
    """An id for the vectors of these weights: the name, and what tells two trainings apart."""
    return f"{name}-{sha256_of(content)[:8]}"


def today() -> datetime.date:
    """The date that measurements of now are recorded under, UTC."""
    return datetime.datetime.now(datetime.UTC).date()
