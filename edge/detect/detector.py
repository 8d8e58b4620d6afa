"""A detector that is ready to look: letterbox → run → the family's decoding → suppression.

Promise: all people at or above `low_confidence`, strongest first, clipped to the frame; buffers
are kept, so a frame costs one resize, one pass to floats and the network.
Fails: ModelError at opening (what, where, what to do); ModelMisbehaved in `detect` when the
output is not finite, which a broken file or a broken runtime gives.
Threads: one at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.config import DetectConfig, RuntimeConfig
from edge.detect.adapter import Adapter, Layout
from edge.detect.nms import nms
from edge.detect.recognise import FAMILIES, recognise
from edge.preprocess import Preprocessor
from edge.runtime import Precision, RuntimeName, Session, TensorInfo, open_session
from edge.types import Detections, Image
from reid.card import (
    Card,
    InputSpec,
    ModelFile,
    golden_image,
    golden_values,
    verify_golden,
)
from reid.model_errors import CardMismatch, FamilyUnknown, ModelMisbehaved, WrongKind

MAX_PEOPLE = 300  # in one frame; more is a crowd that boxes do not describe
FREE_SIZE = 416  # input size where the model leaves it open and no card says it


class Detector:
    """Finds people in frames. Made by `open_detector`.

    Attributes:
        name: the card's name or the file's.
        family: which output layout is read, and `family_from`: card, flag or recognised.
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
        config: DetectConfig,
        family_from: str,
    ) -> None:
        self.name = model.name
        self.family = adapter.family
        self.family_from = family_from
        self.input = spec
        self.card: Card | None = model.card
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
        self._feeds = {input_name: self._prepare.input, **adapter.extra_feeds()}

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

    def run() -> list[np.ndarray]:  # type: ignore[type-arg]
        pixels = golden_image(height, width, card.golden.seed if card and card.golden else 1)
        prepare = Preprocessor(spec)
        prepare(pixels)
        return session.run({picture.name: prepare.input})

    spec = _card_spec(card) or InputSpec(height=height, width=width, colour="bgr", range=255)
    family = detect.family or (card.family if card else None)
    if family is not None:
        if family not in FAMILIES:
            raise FamilyUnknown(
                model.path, f"there is no family {family!r}", "take one of " + ", ".join(FAMILIES)
            )
        made = FAMILIES[family]
        family_from = "flag" if detect.family else "card"
    else:
        made = recognise(model.path, height, width, run)
        family_from = "recognised"
    spec = _card_spec(card) or made.default_input(height, width)
    layout = Layout(
        picture.name,
        tuple(item.name for item in session.outputs),
        height,
        width,
        (card.person_class if card else None) or 0,
    )
    if card is not None and card.golden is not None:
        verify_golden(model.path, card.golden, golden_values("detector", run()))
    return Detector(
        model=model,
        session=session,
        adapter=made(layout),
        spec=spec,
        input_name=picture.name,
        config=detect,
        family_from=family_from,
    )


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


def _card_spec(card: Card | None) -> InputSpec | None:
    return card.input if card else None


def _input_size(model: ModelFile, picture: TensorInfo) -> tuple[int, int]:
    height, width = picture.shape[2], picture.shape[3]
    spec = _card_spec(model.card)
    if spec is not None:
        if (height or spec.height, width or spec.width) != (spec.height, spec.width):
            raise CardMismatch(
                model.path,
                "input",
                f"takes {width}×{height} px, its card says {spec.width}×{spec.height}",
                "mend the card or give the file that belongs to it",
            )
        return spec.height, spec.width
    return height or FREE_SIZE, width or FREE_SIZE
