"""The card of an embedder's file, and the two written together.

Promise: the card is complete, its golden output measured here by the box's own code; file and card
are each written whole or not at all. Needs no torch.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from edge.config import EmbedConfig, RuntimeConfig
from edge.embed import Embedder, golden_row
from edge.runtime import inspect, open_session
from models.imagenet import MEAN, STD
from reid.card import (
    Card,
    Golden,
    InputSpec,
    Metric,
    ModelFile,
    card_path,
    read_card,
    sha256_of,
    write_card,
)
from reid.files import replace_file
from reid.golden import golden_values
from reid.model_errors import CardInvalid, ModelError, ModelUnreadable

GOLDEN_TOLERANCE = 2e-3  # float sums in another order differ by far less, another network by more
RESEARCH_LICENCE = "Apache-2.0 (weights); trained on data for research only"


def input_spec(height: int, width: int, *, inside: bool = False) -> InputSpec:
    """How the box feeds an OSNet: RGB, stretched, ImageNet mean and deviation (or inside)."""
    if inside:
        return InputSpec(height=height, width=width, colour="rgb", range=255, fit="stretch")
    return InputSpec(
        height=height, width=width, colour="rgb", range=1, mean=MEAN, std=STD, fit="stretch"
    )


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
    """The card of an embedder's file, its golden output measured here.

    Raises:
        ModelError: no runtime can load it, or its output has no fixed length.
    """
    dimension = inspect(content, name=path).outputs[0].shape[-1]
    if dimension is None:
        raise ModelUnreadable(path, "its output has no fixed length", "export it with one")
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
        dimension=dimension,
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
        CardInvalid: what lies where the card belongs is none; nothing was written.
        OSError: the folder cannot be written, or is full; no new model is left without its card.
    """
    refuse_other_toml(path)
    new = not path.exists()
    replace_file(path, content)
    try:
        write_card(card, card_path(path))
    except OSError:
        if new:
            path.unlink(missing_ok=True)
        raise


def refuse_other_toml(path: Path) -> None:
    """Refuse to write a model where its card would replace what is none, such as a recipe.

    Raises:
        CardInvalid: NAME.toml is there, and is no card.
    """
    beside = card_path(path)
    if not beside.exists():
        return
    try:
        read_card(beside)
    except ModelError as error:
        raise CardInvalid(
            beside,
            f"lies where the card of {path.name} belongs, and is no card ({error.what})",
            "move it away, or give the model another name",
        ) from error


def space_of(name: str, content: bytes) -> str:
    """An id for the vectors of these weights: the name, and what tells two trainings apart."""
    return f"{name}-{sha256_of(content)[:8]}"


def today() -> datetime.date:
    """The date that measurements of now are recorded under, UTC."""
    return datetime.datetime.now(datetime.UTC).date()
