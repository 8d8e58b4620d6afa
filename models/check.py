"""What a file is, what the box would do with it, and how fast it is here.

Promise: every statement says where it was read: card, catalogue, flag, the file itself, or a guess.
A card is written only for what was run here; guesses stand in its notes.
Fails: ModelError where the box would refuse the file, with the box's own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge.backends import Choice, choices, processor_name, time_runs
from edge.config import DetectConfig, EmbedConfig, RuntimeConfig
from edge.detect.detector import Detector, open_detector
from edge.detect.recognise import FAMILIES, verify_task
from edge.embed import Embedder, golden_row, open_embedder
from edge.models_dir import model_at
from edge.runtime import Session, inspect, quota_threads
from reid.card import Card, Golden, InputSpec, Kind, ModelFile, card_from, sha256_of, verify_bytes
from reid.golden import golden_image, golden_values
from reid.model_errors import CardInvalid, ModelError, ModelUnreadable, WrongKind

GUESSED_EMBEDDER = InputSpec(
    height=256,
    width=128,
    colour="rgb",
    range=1,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    fit="stretch",
)  # torchreid's and FastReID's usual input; nothing in a file says it
TOLERANCE = 1e-3  # float on another processor or runtime stays far below; another model far above
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Report:
    """What `examine` found.

    Attributes:
        file: path, bytes, sha256.
        inputs, outputs: names, shapes and types.
        kind: detector or embedder, and where that was read.
        card_from: where the card was found; empty: none.
        does: what the box would do: (what, value, where it was read).
        speed: (runtime and precision, ms a run, or why not).
        licence: one line.
        trouble: why the box would refuse it; empty: it would not.
    """

    file: Path
    bytes: int
    sha256: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kind: Kind
    kind_from: str
    card_from: str
    does: tuple[tuple[str, str, str], ...] = ()
    speed: tuple[tuple[str, float | None, str], ...] = ()
    licence: str = ""
    trouble: str = ""
    processor: str = field(default_factory=processor_name)
    threads: int = field(default_factory=quota_threads)

    def as_json(self) -> dict[str, Any]:
        """For --json: the same facts."""
        return {
            "file": str(self.file),
            "bytes": self.bytes,
            "sha256": self.sha256,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "kind": self.kind,
            "kind_from": self.kind_from,
            "card_from": self.card_from,
            "does": [
                {"what": what, "value": value, "from": source} for what, value, source in self.does
            ],
            "speed": [
                {"runtime": label, "ms": ms, "refused": why} for label, ms, why in self.speed
            ],
            "licence": self.licence,
            "trouble": self.trouble,
            "processor": self.processor,
            "threads": self.threads,
        }


def examine(
    path: Path,
    *,
    detect: DetectConfig | None = None,
    runtime: RuntimeConfig | None = None,
    seconds: float = 1.0,
) -> Report:
    """Look at a file as the box would.

    Args:
        path: an ONNX file.
        detect: the family, where a flag says it.
        runtime: threads and runtimes to time.
        seconds: how long each is timed.

    Raises:
        ModelError: not a model at all, or neither a detector nor an embedder.
    """
    detect, runtime = detect or DetectConfig(), runtime or RuntimeConfig()
    model = model_at(path)
    content = ModelFile(path, None).read()
    try:
        session = inspect(content, name=path)
    except ModelUnreadable:
        if model.card is not None:
            verify_bytes(path, content, model.card)  # says more: cut short, or another file
        raise
    kind, kind_from = kind_of(model, session)
    report = Report(
        file=path,
        bytes=len(content),
        sha256=sha256_of(content),
        inputs=tuple(str(item) for item in session.inputs),
        outputs=tuple(str(item) for item in session.outputs),
        kind=kind,
        kind_from=kind_from,
        card_from=model.card_from,
        licence=model.card.licence_line() if model.card else f"{kind}: no card, licence unknown",
    )
    try:
        opened = _open(kind, model, Choice(model), detect, runtime)
    except ModelError as error:
        return replace(report, trouble=str(error))
    does = _detector_does(opened, model) if isinstance(opened, Detector) else _embedder_does(opened)
    return replace(report, does=does, speed=_speed(kind, model, detect, runtime, seconds))


def kind_of(model: ModelFile, session: Session) -> tuple[Kind, str]:
    """Detector or embedder, and where that was read.

    Raises:
        WrongKind: the shapes are neither's, or its exporter says that it was made for a third.
    """
    if model.card is not None:
        return model.card.kind, model.card_from
    verify_task(model.path, session.metadata)
    pictures = [item for item in session.inputs if len(item.shape) == 4 and item.shape[1] == 3]
    if not pictures:
        raise WrongKind(
            model.path,
            f"takes {', '.join(str(item) for item in session.inputs)} and no picture N×3×h×w",
            "it is neither a detector nor an embedder",
        )
    only = session.outputs[0]
    numbers = only.dtype.startswith("float") and len(only.shape) == 2
    rows = (None, 1, pictures[0].shape[0])  # one a picture; another number is a table of boxes
    if len(session.outputs) == 1 and numbers and only.shape[0] in rows:
        return "embedder", "the file: one output N×d"
    return "detector", "the file: its outputs are not one vector a picture"


def draft_card(
    path: Path,
    *,
    name: str | None = None,
    licence: str = UNKNOWN,
    commercial_use: bool = False,
    made_by: str = UNKNOWN,
    training_data: Sequence[str] = (),
    family: str | None = None,
    space_id: str | None = None,
    variant_id: str = "float32",
    spec: InputSpec | None = None,
) -> Card:
    """A card for a file, its golden values measured here with ONNX Runtime.

    Args:
        path: the ONNX file.
        name: the card's name; else the file's stem.
        spec: how it is fed; else the family's usual input, for embedders a guess noted as such.
        space_id: the embedder's space; else made of name and checksum, so that it is nobody's else.

    Raises:
        ModelError: neither a detector nor an embedder, it cannot be run, or a field is none for
            a card.
    """
    content = ModelFile(path, None).read()
    session = inspect(content, name=path)
    kind, _ = kind_of(ModelFile(path, None), session)
    digest = sha256_of(content)
    fields: dict[str, Any] = {
        "kind": kind,
        "name": name or path.stem,
        "file": path.name,
        "sha256": digest,
        "bytes": len(content),
        "licence": licence,
        "commercial_use": commercial_use,
        "made_by": made_by,
        "training_data": tuple(training_data),
    }
    one = RuntimeConfig(threads=1, backend="onnxruntime")
    if kind == "embedder":
        used = spec or _guessed_input(session)
        fields |= {
            "space_id": space_id or f"{name or path.stem}-{digest[:8]}",
            "variant_id": variant_id,
            "dimension": session.outputs[0].shape[1] or _dimension(session, used),
            "input": used.model_dump(exclude_unset=True),
            "golden": {"values": (0.0,), "tolerance": TOLERANCE},
        }
        if spec is None:
            fields["notes"] = "input guessed: RGB 0..1, ImageNet mean and std, stretched"
        draft = _card(fields, path)
        embedder = open_embedder(ModelFile(path, draft), one, EmbedConfig(), verify=False)
        values = golden_values("embedder", [golden_row(embedder, 1)])
    else:
        bare = open_detector(ModelFile(path, None), one, DetectConfig(family=family))
        used = spec or bare.input
        fields |= {"family": bare.family, "input": used.model_dump(exclude_unset=True)}
        draft = _card(fields, path)
        detector = open_detector(ModelFile(path, draft), one, DetectConfig())
        values = golden_values("detector", detector.golden_outputs(1))
        if not values.size:
            return draft  # it found nothing in the golden picture and says so by no rows at all
    golden = Golden(
        formula="blocks-1",
        seed=1,
        values=tuple(round(float(value), 6) for value in values),
        tolerance=TOLERANCE,
    )
    return draft.model_copy(update={"golden": golden})


def _card(fields: Mapping[str, Any], path: Path) -> Card:
    try:
        return card_from(fields, path)
    except CardInvalid as error:
        cure = "rename the file, or give the field by its option"
        raise CardInvalid(path, error.what, cure) from error


def _dimension(session: Session, spec: InputSpec) -> int:
    picture = np.zeros((1, 3, spec.height, spec.width), np.float32)
    return int(session.run({session.inputs[0].name: picture})[0].shape[1])


def _open(
    kind: Kind, model: ModelFile, choice: Choice, detect: DetectConfig, runtime: RuntimeConfig
) -> Detector | Embedder:
    if kind == "detector":
        return open_detector(
            model, runtime, detect, backend=choice.runtime, precision=choice.precision
        )
    return open_embedder(
        model, runtime, EmbedConfig(), backend=choice.runtime, precision=choice.precision
    )


def _detector_does(detector: Detector, model: ModelFile) -> tuple[tuple[str, str, str], ...]:
    card = model.card
    names = {
        "card": model.card_from,
        "flag": "flag",
        "metadata": "the exporter's note in the file",
        "recognised": "names, shapes and values of one run",
    }
    fed = model.card_from if card and card.input else f"usual for {detector.family}"
    limit = FAMILIES[detector.family].nms_iou
    suppression = f"IoU {limit}" if limit else "none, the model does it"
    return (
        ("family", detector.family, names[detector.family_from]),
        ("input", describe_input(detector.input), fed),
        ("decoding", FAMILIES[detector.family].decoding, "family"),
        (
            "suppression",
            suppression,
            "family",
        ),
        ("golden output", *_golden_line(card)),
    )


def _embedder_does(embedder: Embedder) -> tuple[tuple[str, str, str], ...]:
    return (
        ("space", embedder.space_id, "card"),
        ("variant", embedder.variant_id, "card"),
        ("dimension", str(embedder.dimension), "card"),
        ("input", describe_input(embedder.input), "card"),
        ("golden output", *_golden_line(embedder.card)),
    )


def _golden_line(card: Card | None) -> tuple[str, str]:
    if card is None or card.golden is None:
        return "not checked", "no golden values on a card"
    return "as on the card", f"run here, within {card.golden.tolerance:g}"


def describe_input(spec: InputSpec) -> str:
    """One line: size, colours, values, fit."""
    normalised = "" if (spec.mean, spec.std) == ((0.0,) * 3, (1.0,) * 3) else ", mean and std"
    return (
        f"{spec.width}×{spec.height} {spec.colour.upper()} 0..{spec.range}{normalised}, {spec.fit}"
    )


def _speed(
    kind: Kind, model: ModelFile, detect: DetectConfig, runtime: RuntimeConfig, seconds: float
) -> tuple[tuple[str, float | None, str], ...]:
    found: list[tuple[str, float | None, str]] = []
    for choice in choices(model, (), runtime):
        label = f"{choice.runtime} {choice.precision}"
        try:
            opened = _open(kind, model, choice, detect, runtime)
        except ModelError as error:
            found.append((label, None, error.what))
            continue
        picture = golden_image(opened.input.height, opened.input.width)
        if isinstance(opened, Detector):
            ms = time_runs(partial(opened.detect, picture), seconds=seconds)
        else:
            ms = time_runs(partial(opened.embed, [picture]), seconds=seconds)
        found.append((label, round(ms, 2), ""))
    return tuple(found)


def usual_input(path: Path, family: str | None) -> InputSpec:
    """How a file is fed unless someone says otherwise: its family's way, for embedders a guess.

    Raises:
        ModelError: neither a detector nor an embedder.
    """
    session = inspect(ModelFile(path, None).read(), name=path)
    if kind_of(ModelFile(path, None), session)[0] == "embedder":
        return _guessed_input(session)
    one = RuntimeConfig(threads=1, backend="onnxruntime")
    return open_detector(ModelFile(path, None), one, DetectConfig(family=family)).input


def _guessed_input(session: Session) -> InputSpec:
    shape = session.inputs[0].shape
    size = {
        "height": shape[2] or GUESSED_EMBEDDER.height,
        "width": shape[3] or GUESSED_EMBEDDER.width,
    }
    return GUESSED_EMBEDDER.model_copy(update=size)
