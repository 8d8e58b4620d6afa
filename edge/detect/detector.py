"""A detector that is ready to look: letterbox → run → the family's decoding → suppression.

Promise: all people at or above `low_confidence`, strongest first, clipped to the frame; buffers
are kept, so a frame costs one resize, one pass to floats and the network.
Fails: ModelError at opening (what, where, what to do); ModelMisbehaved there or in `detect` when
the output is not finite, which a broken file or a broken runtime gives.
Threads: one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from edge.config import DetectConfig, RuntimeConfig
from edge.detect.adapter import Adapter, Layout
from edge.detect.nms import nms
from edge.detect.recognise import named_family, person_class, recognise
from edge.preprocess import Preprocessor
from edge.runtime import Array, Precision, RuntimeName, Session, TensorInfo, open_session
from edge.types import Detections, Image
from reid.card import Card, InputSpec, ModelFile, admitted_variant
from reid.golden import golden_image, golden_values, verify_golden
from reid.model_errors import CardMismatch, FamilyUnknown, ModelMisbehaved, WrongKind

MAX_PEOPLE = 300  # in one frame; more is a crowd that boxes do not describe
FREE_SIZE = 416  # input size where the model leaves it open and no card says it


class Detector:
    """Finds people in frames. Made by `open_detector`.

    Attributes:
        name, path: the card's name or the file's stem, and the file.
        variant_id: float32 unless the card or the runtime says otherwise.
        family: which output layout is read, and `family_from`: card, flag, metadata (what
            the exporter wrote into the file) or recognised (names, shapes and values of one run).
        runtime, precision: with what it runs.
        input: how it is fed.
        licence: one line.
    """

    def __init__(
        self,
        *,
        model: ModelFile,
        session: Session,
        adapter: Adapter,
        spec: InputSpec,
        input_name: str,
        extra_feeds: Mapping[str, Array],
        config: DetectConfig,
        family_from: str,
    ) -> None:
        self.name = model.name
        self.family = adapter.family
        self.family_from = family_from
        self.input = spec
        self.card: Card | None = model.card
        self.path = model.path
        self.variant_id = _variant_id(model.card, session)
        self.runtime: RuntimeName = session.runtime
        self.precision: Precision = session.precision
        self.licence = (
            model.card.licence_line() if model.card else f"detector {self.name}: licence unknown"
        )
        self._session = session
        self._adapter = adapter
        self._low = config.low_confidence
        self._iou = config.nms_iou if config.nms_iou is not None else adapter.nms_iou
        self._prepare = Preprocessor(spec)
        self._feeds = {input_name: self._prepare.input, **extra_feeds}

    def detect(self, image: Image) -> Detections:
        """Find people.

        Args:
            image: (h, w, 3) uint8, BGR.

        Returns:
            Detections in pixels of the image, at or above `low_confidence`, strongest first.

        Raises:
            ModelMisbehaved: a value of a candidate is not finite, or the run failed.
        """
        placement = self._prepare(image)
        outputs = self._session.run(self._feeds)
        boxes, scores = self._adapter.candidates(outputs, self._low)
        if len(scores) == 0:
            return Detections.none()
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ModelMisbehaved(
                self.name, "a box or score is not finite", "check it: edge-models check FILE"
            )
        if self._iou is None:
            kept = np.argsort(-scores, kind="stable")[:MAX_PEOPLE]
        else:
            kept = nms(boxes, scores, self._iou, MAX_PEOPLE)
        boxes = placement.to_frame(boxes[kept])
        scores = np.minimum(scores[kept], 1.0).astype(np.float32, copy=False)
        whole = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if not whole.all():  # boxes that lay in the padding only
            boxes, scores = boxes[whole], scores[whole]
        return Detections(boxes, scores)

    def golden_outputs(self, seed: int) -> list[Array]:
        """All outputs for the golden picture, for a card's golden values."""
        self._prepare(golden_image(self.input.height, self.input.width, seed))
        return self._session.run(self._feeds)


def open_detector(
    model: ModelFile | Path,
    runtime: RuntimeConfig,
    detect: DetectConfig,
    *,
    backend: RuntimeName = "onnxruntime",
    precision: Precision = "f32",
) -> Detector:
    """Open, verify and warm a detector.

    Args:
        model: the file with its card (edge.models_dir finds both), or a bare file.
        runtime, detect: their parts of the configuration.
        backend, precision: with what to run (edge.backends chooses).

    Raises:
        ModelError: not found, not ONNX, not a detector, not as its card says, or its family
            cannot be told. The process then exits with 3.
    """
    if isinstance(model, Path):
        model = ModelFile(model, None)
    card = model.card
    if card is not None and card.kind != "detector":
        raise WrongKind(model.path, f"its card says {card.kind}", "give a detector here")
    session = open_session(
        model.read(), name=model.path, config=runtime, runtime=backend, precision=precision
    )
    picture = picture_input(model.path, session)
    height, width = _input_size(model, picture)
    extra = _extra_feeds(model.path, session, picture, height, width)

    def run(spec: InputSpec) -> list[Array]:
        prepare = Preprocessor(spec)
        prepare(golden_image(height, width, card.golden.seed if card and card.golden else 1))
        outputs = session.run({picture.name: prepare.input, **extra})
        _verify_numbers(model.path, outputs)
        return outputs

    own_spec = card.input if card else None
    probe = own_spec or InputSpec(height=height, width=width)
    family = detect.family or (card.family if card else None)
    outputs = run(probe)
    if family is not None:
        made = named_family(model.path, family, height, width, outputs)
        family_from = "flag" if detect.family else "card"
    else:
        made, family_from = recognise(
            model.path,
            height,
            width,
            outputs,
            names=[item.name for item in session.outputs],
            metadata=session.metadata,
        )
    spec = own_spec or made.default_input(height, width)
    if card is not None and card.golden is not None:
        admitted = admitted_variant(card, session.runtime, session.precision)
        tolerance = admitted.tolerance if admitted else None
        verify_golden(model.path, card.golden, golden_values("detector", run(spec)), tolerance)
    person = card.person_class if card else None
    if person is None:
        person = person_class(model.path, session.metadata)
    known = made.classes(outputs)
    if known is not None and (person or 0) >= known:
        raise CardMismatch(
            model.path,
            "person_class",
            f"people are person_class {person or 0}, and it has {known} classes, counted from 0",
            "mend person_class in its card",
        )
    layout = Layout(height, width, person)
    return Detector(
        model=model,
        session=session,
        adapter=made(layout),
        spec=spec,
        input_name=picture.name,
        extra_feeds=extra,
        config=detect,
        family_from=family_from,
    )


def _variant_id(card: Card | None, session: Session) -> str:
    admitted = admitted_variant(card, session.runtime, session.precision) if card else None
    if admitted is not None:
        return admitted.variant_id
    return (card.variant_id if card else None) or "float32"


def picture_input(where: Path | str, session: Session) -> TensorInfo:
    """The input that takes the picture: (1 or N, 3, h, w) float32.

    Raises:
        WrongKind: the model has none.
    """
    for item in session.inputs:
        if len(item.shape) == 4 and item.shape[1] == 3 and item.dtype == "float32":
            return item
    found = ", ".join(str(item) for item in session.inputs)
    raise WrongKind(
        where,
        f"takes {found}; a detector here takes pictures N×3×height×width float32",
        "export it with a float NCHW input",
    )


def _verify_numbers(where: Path | str, outputs: Sequence[Array]) -> None:
    """Refuse what no adapter can look at, and what would be taken for an empty picture.

    Raises:
        FamilyUnknown: an output is no array of numbers.
        ModelMisbehaved: a value is not finite.
    """
    for output in outputs:
        if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiu":
            raise FamilyUnknown(
                where,
                "gives an output that is no array of numbers",
                "export it with arrays as its only outputs",
            )
        if not np.isfinite(output).all():
            raise ModelMisbehaved(
                where,
                "a value of its output for the golden picture is not finite",
                "export it again, or take another file",
            )


def _extra_feeds(
    where: Path | str, session: Session, picture: TensorInfo, height: int, width: int
) -> dict[str, Array]:
    """What goes in besides the picture: D-FINE and its kin want the size to scale boxes to."""
    feeds: dict[str, Array] = {}
    for item in session.inputs:
        if item.name == picture.name:
            continue
        if len(item.shape) == 2 and item.shape[1] == 2 and item.dtype == "int64":
            feeds[item.name] = np.array([[width, height]], np.int64)
        else:
            raise WrongKind(
                where,
                f"takes a second input {item} that no detector family here has",
                "export it with the picture as its only input",
            )
    return feeds


def _input_size(model: ModelFile, picture: TensorInfo) -> tuple[int, int]:
    height, width = picture.shape[2], picture.shape[3]
    spec = model.card.input if model.card else None
    if spec is not None:
        if (height or spec.height, width or spec.width) != (spec.height, spec.width):
            raise CardMismatch(
                model.path,
                "input",
                f"takes {width}×{height} px, its card says {spec.width}×{spec.height}",
                "mend the card or give the file that belongs to it",
            )
        return spec.height, spec.width
    height, width = height or FREE_SIZE, width or FREE_SIZE
    try:
        InputSpec(height=height, width=width)
    except ValidationError as error:
        raise WrongKind(
            model.path,
            f"takes {width}×{height} px, which no detector here does",
            "export it for pictures of 16 to 4096 px a side",
        ) from error
    return height, width
