"""Crops of people → unit vectors, by OSNet or any other embedder with a card.

Promise: rows of unit length in the order of the crops; at most `max_batch` crops in one run;
buffers are kept, so a crop costs one resize, one pass to floats and the network. Training,
evaluation and the box embed through this very code.
Fails: ModelError at opening (an embedder needs a card, for nothing in the file says in which space
its vectors live); ModelMisbehaved in `embed` for a wrong shape or a value that is not finite.
Threads: one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge.config import EmbedConfig, RuntimeConfig
from edge.preprocess import Planes, Preprocessor
from edge.runtime import Precision, RuntimeName, Session, TensorInfo, open_session
from edge.types import Floats, Image
from reid.card import Card, InputSpec, ModelFile, admitted_variant
from reid.golden import golden_image, golden_values, verify_golden
from reid.model_errors import CardInvalid, CardMismatch, CardMissing, ModelMisbehaved, WrongKind

_SMALLEST_NORM = 1e-12  # below it a row has no direction


class Embedder:
    """Embeds crops. Made by `open_embedder`.

    Attributes:
        name, path: the card's name and the file.
        space_id: vectors compare only inside one space.
        variant_id: what computed them; variants of a space compare as their cards say.
        dimension: length of a vector.
        runtime, precision: with what it runs.
        input: how it is fed.
        licence: one line.
    """

    def __init__(
        self, *, model: ModelFile, card: Card, spec: InputSpec, session: Session, max_batch: int
    ) -> None:
        assert card.space_id and card.variant_id and card.dimension  # the card's own check
        self.name = card.name
        self.card = card
        self.space_id: str = card.space_id
        self.variant_id: str = card.variant_id
        self.dimension: int = card.dimension
        self.input = spec
        self.runtime: RuntimeName = session.runtime
        self.precision: Precision = session.precision
        self.licence = card.licence_line()
        admitted = admitted_variant(card, session.runtime, session.precision)
        if admitted is not None:
            self.variant_id = admitted.variant_id
        self.path = model.path
        self._session = session
        picture = picture_input(model.path, session)
        self._input_name = picture.name
        fixed = picture.shape[0]
        self._batch_is_fixed = fixed is not None
        self._batch = fixed or max_batch
        self._planes = Planes(spec)
        self._prepare = Preprocessor(spec) if spec.fit != "stretch" else None
        self._scaled: Image = np.empty((spec.height, spec.width, 3), np.uint8)
        self._input: Floats = np.zeros((self._batch, 3, spec.height, spec.width), np.float32)

    def embed(self, crops: Sequence[Image]) -> Floats:
        """Embed person crops.

        Args:
            crops: n images (h, w, 3), BGR uint8, h and w at least 1; may be empty.

        Returns:
            (n, dimension) float32, rows of unit length, in the order of crops.

        Raises:
            ModelMisbehaved: other output shape, a value that is not finite, a row of length 0.

        Source: Zhou et al., ICCV 2019, arXiv:1905.00953 (the network of the cards shipped here).
        """
        rows: Floats = np.empty((len(crops), self.dimension), np.float32)
        for start in range(0, len(crops), self._batch):
            part = crops[start : start + self._batch]
            for slot, crop in enumerate(part):
                self._write(crop, self._input[slot])
            rows[start : start + len(part)] = self._run(len(part))
        return rows

    def _write(self, crop: Image, out: Floats) -> None:
        if self._prepare is not None:
            self._prepare.write(crop, out)
            return
        if crop.shape == self._scaled.shape:
            self._planes.write(crop, out)
            return
        height, width = self._scaled.shape[:2]
        cv2.resize(crop, (width, height), dst=self._scaled, interpolation=cv2.INTER_LINEAR)
        self._planes.write(self._scaled, out)

    def _run(self, n: int) -> Floats:
        batch = self._input if self._batch_is_fixed else self._input[:n]
        found = self._session.run({self._input_name: batch})[0]
        if found.ndim != 2 or found.shape[1] != self.dimension or len(found) < n:
            raise ModelMisbehaved(
                self.path,
                f"gave {found.shape} for {n} crops, expected ({n}, {self.dimension})",
                "check it: edge-models check FILE",
            )
        vectors = found[:n].astype(np.float32, copy=False)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        if not (np.isfinite(norms).all() and norms.min() > _SMALLEST_NORM):
            raise ModelMisbehaved(
                self.path,
                "a vector is not finite or has no length",
                "check it: edge-models check FILE",
            )
        unit: Floats = vectors / norms[:, None]
        return unit


def open_embedder(
    model: ModelFile,
    runtime: RuntimeConfig,
    embed: EmbedConfig,
    *,
    backend: RuntimeName = "onnxruntime",
    precision: Precision = "f32",
    verify: bool = True,
) -> Embedder:
    """Open and verify an embedder.

    Args:
        model: the file with its card (edge.models_dir finds both).
        runtime, embed: their parts of the configuration.
        backend, precision: with what to run; a precision other than f32 must stand on the card.
        verify: run the golden picture; False only to write the card's golden values.

    Raises:
        ModelError: no card, not ONNX, not an embedder, or not as its card says. The process then
            exits with 3.
    """
    card = model.card
    if card is None:
        raise CardMissing(
            model.path,
            "an embedder needs a card, for nothing in the file says what its vectors compare with",
            f"write one: edge-models check {model.path} --write-card",
        )
    if card.kind != "embedder":
        raise WrongKind(model.path, f"its card says {card.kind}", "give an embedder here")
    if card.input is None or card.golden is None:
        raise CardInvalid(model.path, "its card lacks [input] or [golden]", "rewrite the card")
    session = open_session(
        model.read(), name=model.path, config=runtime, runtime=backend, precision=precision
    )
    _check_shapes(model.path, card, card.input, session)
    embedder = Embedder(
        model=model, card=card, spec=card.input, session=session, max_batch=embed.max_batch
    )
    admitted = admitted_variant(card, backend, precision)
    if precision != "f32" and admitted is None:
        raise CardMismatch(
            model.path,
            "runtimes",
            f"its card does not admit {backend} at {precision}",
            "take f32, or measure it and add it to the card: edge-models quantize",
        )
    if not verify:
        return embedder
    row = golden_row(embedder, card.golden.seed)
    verify_golden(
        model.path,
        card.golden,
        golden_values("embedder", [row]),
        admitted.tolerance if admitted else None,
    )
    return embedder


def golden_row(embedder: Embedder, seed: int) -> Floats:
    """The unit row (d,) of the card's golden picture, at the model's own input size."""
    picture = golden_image(embedder.input.height, embedder.input.width, seed)
    row: Floats = embedder.embed([picture])[0]
    return row


def picture_input(where: Path | str, session: Session) -> TensorInfo:
    """The one input of an embedder: (N, 3, h, w) float32.

    Raises:
        WrongKind: the model has another.
    """
    first = session.inputs[0]
    is_picture = len(first.shape) == 4 and first.shape[1] == 3 and first.dtype == "float32"
    if is_picture and len(session.inputs) == 1:
        return first
    found = ", ".join(str(item) for item in session.inputs)
    raise WrongKind(
        where,
        f"takes {found}; an embedder here takes pictures N×3×height×width float32",
        "export it so: edge-models export",
    )


def _check_shapes(where: Path, card: Card, spec: InputSpec, session: Session) -> None:
    picture = picture_input(where, session)
    height, width = picture.shape[2] or spec.height, picture.shape[3] or spec.width
    if (height, width) != (spec.height, spec.width):
        raise CardMismatch(
            where,
            "input",
            f"takes {width}×{height} px, its card says {spec.width}×{spec.height}",
            "mend the card or give the file that belongs to it",
        )
    shape = session.outputs[0].shape
    if len(shape) != 2:
        found = ", ".join(str(item) for item in session.outputs)
        raise WrongKind(where, f"gives {found}; an embedder gives N×d vectors", "check the file")
    if shape[1] is not None and shape[1] != card.dimension:
        raise CardMismatch(
            where,
            "dimension",
            f"gives vectors of {shape[1]}, its card says {card.dimension}",
            "mend the card or give the file that belongs to it",
        )
