"""From a checkpoint to what the box runs: ONNX with a card, one input size a file.

    edge-models export out/detector/detector.pt models/weights/detector_person_416.onnx

Promise: the file's numbers equal torch's (checked on the golden picture before the card is
written), batch normalisation is folded, the card holds checksum and golden values of that very
file. Which licence the card says follows from the recipes that had a part in the weights.
Fails: ExportError where ONNX Runtime and torch disagree; LicenceUntrue where a card would allow
commercial use of weights that a recipe not known as open had a part in.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch

from edge.preprocess import Preprocessor
from models.detector import Detector, ExportedDetector, count_cost
from models.train_detector import load_detector, recipes_of
from reid.card import (
    Card,
    Golden,
    InputSpec,
    Metric,
    card_path,
    sha256_of,
    write_card,
)
from reid.golden import golden_image, golden_values

FAMILY = "yolox-decoded"
_TOLERANCE = 2e-3  # pixels and shares: float rounding between processors stays far below
_GOLDEN_TOLERANCE = 1e-3  # of golden values, relative (reid.golden): other weights are far above
Licence = Literal["research", "open"]

_LICENCES: dict[Licence, tuple[str, bool, tuple[str, ...]]] = {
    "research": (
        "Apache-2.0 weights; trained on data for research only",
        False,
        (
            "nine public collections of people in fixed cameras and photographs (CC BY 4.0 as "
            "stated by their uploaders; Penn-Fudan: research)",
            "people cut out of Market-1501 and CUHK03 (research only)",
            "our rendered street",
            "taught by YOLOX-Nano (Apache-2.0)",
        ),
    ),
    "open": (
        "Apache-2.0 weights; trained on data stated as CC BY 4.0",
        True,
        (
            "eight public collections of people in fixed cameras and photographs (CC BY 4.0 as "
            "stated by their uploaders)",
            "our rendered street",
            "taught by YOLOX-Nano (Apache-2.0)",
        ),
    ),
}


_OPEN_RECIPES = frozenset({"detector_person_open"})  # what any other trains on is for research too


class ExportError(RuntimeError):
    """The file does not compute what torch computes.

    Attributes:
        path: the file that was to be exported, or that differs.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class LicenceUntrue(ExportError):
    """The card would say more than the recipes allow."""


@dataclass(frozen=True)
class Calibration:
    """How the scores are moved, after training: none of it changes the order of one branch.

    Attributes:
        score_share, box_share: of the imitating answer, 0..1 (Detector.fold_teacher).
        logit_shift: added to every score's logit, so that the box's thresholds fit.
    """

    score_share: float = 0.0
    box_share: float = 0.0
    logit_shift: float = 0.0


def calibrated(detector: Detector, calibration: Calibration) -> Detector:
    """A copy with the calibration folded into the last convolutions."""
    detector = copy.deepcopy(detector).eval()
    with torch.no_grad():
        detector.fold_teacher(calibration.score_share, calibration.box_share)
        for head in detector.heads:
            head.answer.bias[0] += calibration.logit_shift  # type: ignore[union-attr, index, operator]
    return detector


def input_spec(height: int, width: int) -> InputSpec:
    """How the detector wants its pictures: as YOLOX does."""
    return InputSpec(height=height, width=width, colour="bgr", range=255, fit="letterbox_top_left")


def write_onnx(detector: Detector, path: Path, height: int, width: int) -> None:
    """Write the ONNX file and check it against torch on the golden picture.

    Raises:
        ExportError: they differ by more than the tolerance.
    """
    exported = ExportedDetector(copy.deepcopy(detector), height, width).eval()
    image = torch.from_numpy(_golden_input(height, width))
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # torch says that its own exporter is old; the new one needs a package more
        warnings.simplefilter("ignore")
        torch.onnx.export(
            exported,
            (image,),
            path,
            opset_version=17,
            dynamo=False,
            input_names=["images"],
            output_names=["output"],
        )
    with torch.no_grad():
        expected = exported(image).numpy()
    worst = float(np.abs(_run(path, image.numpy()) - expected).max())
    if not worst <= _TOLERANCE * max(height, width):
        raise ExportError(path, f"ONNX Runtime differs from torch by {worst:.3g}; do not use it")


def write_detector_card(
    path: Path,
    name: str,
    height: int,
    width: int,
    licence: Licence,
    *,
    metrics: Sequence[Metric] = (),
    default: bool = False,
    notes: str = "",
    changes: Mapping[str, object] | None = None,
) -> Card:
    """Write the card beside a file that `write_onnx` made; `changes` replaces fields of it."""
    content = path.read_bytes()
    words, commercial, data = _LICENCES[licence]
    values = golden_values("detector", [_run(path, _golden_input(height, width))])
    card = Card(
        kind="detector",
        name=name,
        file=path.name,
        sha256=sha256_of(content),
        bytes=len(content),
        licence=words,
        commercial_use=commercial,
        made_by="edge-reid",
        training_data=data,
        default=default,
        family=FAMILY,
        person_class=0,
        input=input_spec(height, width),
        golden=Golden(
            values=tuple(round(float(v), 4) for v in values),
            tolerance=_GOLDEN_TOLERANCE,
        ),
        metrics=tuple(metrics),
        notes=notes,
    ).model_copy(update=dict(changes or {}))
    write_card(card, card_path(path))
    return card


def _golden_input(height: int, width: int) -> Any:
    prepare = Preprocessor(input_spec(height, width))
    prepare(golden_image(height, width, 1))
    return prepare.input.copy()


def _run(path: Path, batch: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def export_detector(
    checkpoint: Path,
    out: Path,
    *,
    height: int = 416,
    width: int = 416,
    calibration: Calibration | None = None,
    commercial_use: bool = False,
    default: bool = False,
    notes: str = "",
    changes: Mapping[str, object] | None = None,
) -> Card:
    """Export one input size with its card.

    Args:
        checkpoint: detector.pt of a training run.
        out: the ONNX file; its stem is the card's name.
        height, width: of the input, pixels, multiples of 32.
        commercial_use: the card must allow it; else it does where the recipes do.
        default: the box takes it unasked.
        changes: fields of the card to replace, where the recipe is not one of ours.

    Raises:
        ExportError: ONNX Runtime and torch disagree.
        LicenceUntrue: the recipes do not allow commercial use; nothing was written.
    """
    closed = [name for name in recipes_of(checkpoint) if name not in _OPEN_RECIPES]
    if commercial_use and closed:
        raise LicenceUntrue(
            checkpoint,
            f"was trained by {', '.join(closed)}, whose data are for research only or not known",
        )
    detector = calibrated(load_detector(checkpoint), calibration or Calibration())
    cost = count_cost(detector, height, width)
    write_onnx(detector, out, height, width)
    words = (
        f"{cost.parameters / 1e6:.2f} M parameters, {cost.multiply_adds / 1e9:.2f} G multiply-adds"
    )
    return write_detector_card(
        out,
        out.stem,
        height,
        width,
        "research" if closed else "open",
        default=default,
        notes=f"{words} at {width} x {height}. {notes}".strip(),
        changes=changes,
    )
