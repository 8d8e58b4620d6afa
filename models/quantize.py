"""int8 and bfloat16 variants of an embedder, admitted only by measurement.

Promise: a variant is written, or added to a card, only after it was judged on people: it loses at
most `MAX_MAP_LOSS` points of mAP, also when its queries meet a gallery of the float model. What was
measured, latency on this machine included, stands on the card whichever way it went; whether int8
is faster depends on the processor, so the box times what is admitted before it takes it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.backends import processor_flags, processor_name
from edge.embed import Embedder
from edge.models_dir import model_at
from edge.runtime import Precision, RuntimeName, have_bf16, have_openvino, quota_threads
from models.data.readers import Dataset
from models.describe import describe, refuse_other_toml, today, write_model
from models.evaluate import (
    Judged,
    embed_samples,
    open_model,
    refuse_trained_people,
    refuse_without_queries,
    score_features,
)
from models.int8 import INT8_TOLERANCE, Crops, Int8, Scheme, is_int8, nearest_to_float, schemes_for
from models.ranking import Scores, row_cosines
from reid.card import Agreement, Card, Metric, RuntimeVariant, card_path, write_card
from reid.model_errors import CardMissing, ModelUnreadable

MAX_MAP_LOSS = 0.5  # points; issue of the house, above what a run-to-run difference is
BF16_TOLERANCE = 0.05
CALIBRATION_CROPS = 256
LATENCY_REPEATS = 30


class VariantRefused(Exception):
    """A variant loses too much; nothing was written.

    Attributes: variant, report.
    """

    def __init__(self, variant: str, report: Report) -> None:
        self.variant, self.report = variant, report
        super().__init__(
            f"{variant} refused: mAP {report.before.map:.2f} → {report.after.map:.2f} by itself, "
            f"{report.across.map:.2f} against the float gallery; at most {MAX_MAP_LOSS} may be "
            "lost; calibrate on crops of the place, or keep the float model"
        )


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        before, after: scores of the float model and of the variant.
        across: queries by the variant, gallery by the float model.
        cosine_mean, cosine_min: between both, over all query crops.
        latency_ms: median of one run, by "float batch 1", "variant batch 8", ...
        kept_float: groups of layers that stayed in float.
        scheme: number types, or the runtime's precision.
    """

    before: Scores
    after: Scores
    across: Scores
    cosine_mean: float
    cosine_min: float
    latency_ms: dict[str, float]
    kept_float: tuple[str, ...] = ()
    scheme: str = ""

    @property
    def loss(self) -> float:
        """Points of mAP lost, the worse of by itself and across."""
        return self.before.map - min(self.after.map, self.across.map)

    def agreement(self, reference: str, measured_on: str) -> Agreement:
        """The part of the card that tells how variants of the space compare."""
        return Agreement(
            reference=reference,
            cosine_mean=round(self.cosine_mean, 5),
            cosine_min=round(self.cosine_min, 5),
            across={"rank1": round(self.across.rank1, 2), "map": round(self.across.map, 2)},
            measured_on=measured_on,
        )


def quantize(
    model: Path,
    out: Path,
    *,
    calibration: Dataset,
    judge: Dataset,
    scheme: Scheme | None = None,
    crops: int = CALIBRATION_CROPS,
    insist: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Make the int8 variant of a float model with a card, judge it, write it with its card.

    Args:
        calibration: its train part gives `crops` crops for the ranges (any part, if it has none).
        judge: set that both models are judged on.
        scheme: number types; None tries those that suit this processor and takes the best cosine.
        insist: judge although the card says the model was trained on these people; the difference
            before to after is what counts here.

    Raises:
        VariantRefused: it loses more than MAX_MAP_LOSS points of mAP.
        TrainedOnThis, DataError, ModelError: as `evaluate`.
        CardInvalid: what lies where the card of `out` belongs is none.
    """
    refuse_other_toml(out)
    refuse_without_queries(judge)
    float_model = _open_float(model)
    card = float_model.embedder.card
    if not insist:
        refuse_trained_people(float_model, judge)
    chosen = _some_crops(calibration, crops)
    schemes = (scheme,) if scheme else schemes_for(processor_flags())
    made, tried = nearest_to_float(model, float_model.embedder, chosen, schemes, say=say)
    notes = (
        f"int8 ({made.scheme}) of {card.name}; in float: {', '.join(made.kept_float) or 'nothing'};"
        f" calibrated on {len(chosen)} crops of {calibration.name}; mean cosine there: "
        + ", ".join(f"{name} {cosine:.4f}" for name, cosine in tried.items())
    )
    new_card = _int8_card(made, card, out, notes)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / out.name
        write_model(made.content, new_card, trial)
        report = _judge(model, trial, judge, say=say, kept=made.kept_float, scheme=made.scheme)
    if report.loss > MAX_MAP_LOSS:
        raise VariantRefused(new_card.variant_id or "int8", report)
    reference = card.variant_id or "float32"
    new_card = new_card.model_copy(
        update={
            "agreement": report.agreement(reference, judge.name),
            "metrics": (_metric(judge, report),),
        }
    )
    write_model(made.content, new_card, out)
    return report


def admit_bf16(
    model: Path,
    *,
    judge: Dataset,
    insist: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Judge the float file run in bfloat16 by OpenVINO, and admit it on the model's card.

    Raises:
        VariantRefused: it loses more than MAX_MAP_LOSS points of mAP.
        ModelError: OpenVINO is missing, has no bfloat16 on this processor, cannot load the file,
            or misses its golden output by more than BF16_TOLERANCE.
        TrainedOnThis, DataError: as `evaluate`.
    """
    refuse_without_queries(judge)
    if have_openvino() and not have_bf16():  # what is missing altogether is said when it is opened
        raise ModelUnreadable(
            model,
            f"cannot be judged in bfloat16: {processor_name()} has none, float would be measured",
            "judge it on a machine with bfloat16 (AVX-512 or AMX)",
        )
    float_model = _open_float(model)
    if not insist:
        refuse_trained_people(float_model, judge)
    card = float_model.embedder.card
    draft = RuntimeVariant(
        runtime="openvino",
        precision="bf16",
        variant_id="bfloat16-openvino",
        tolerance=BF16_TOLERANCE,
    )
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / model.name
        shutil.copyfile(model, trial)
        write_card(card.model_copy(update={"runtimes": (draft,)}), card_path(trial))
        report = _judge(
            model, trial, judge, say=say, runtime="openvino", precision="bf16", scheme="bfloat16"
        )
    if report.loss > MAX_MAP_LOSS:
        raise VariantRefused(draft.variant_id, report)
    admitted = draft.model_copy(
        update={"agreement": report.agreement(card.variant_id or "float32", judge.name)}
    )
    others = tuple(entry for entry in card.runtimes if entry.variant_id != draft.variant_id)
    metric = _metric(judge, report, " bfloat16-openvino")
    known = tuple(entry for entry in card.metrics if entry.protocol != metric.protocol)
    write_card(
        card.model_copy(
            update={
                "file": model.name,
                "runtimes": (*others, admitted),
                "metrics": (*known, metric),
            }
        ),
        card_path(model),
    )
    return report


def _open_float(model: Path) -> Judged:
    if model.suffix != ".onnx":
        raise ModelUnreadable(model, "is no ONNX file", "export it first: edge-models export")
    file = model_at(model)
    if file.card is None:
        raise CardMissing(
            model,
            "has no card, so no variant can say what its vectors compare with",
            f"write one: edge-models check {model} --write-card",
        )
    if is_int8(file.read()):
        raise ModelUnreadable(model, "is int8 already", "give the float model that it was made of")
    return open_model(model)


def _int8_card(made: Int8, card: Card, out: Path, notes: str) -> Card:
    assert card.input is not None  # an embedder's card has one
    return describe(
        made.content,
        out,
        name=out.stem,
        spec=card.input,
        space_id=card.space_id or "",
        variant_id=f"int8-{made.scheme}",
        training_data=card.training_data,
        licence=card.licence,
        commercial_use=card.commercial_use,
        made_by=card.made_by,
        notes=notes,
        tolerance=INT8_TOLERANCE,
    ).model_copy(update={"parent": card.name})


def _some_crops(dataset: Dataset, count: int) -> list[NDArray[np.uint8]]:
    samples = dataset.train or [*dataset.query, *dataset.gallery]
    chosen = np.random.default_rng(0).permutation(len(samples))[:count]
    names = [samples[index].name for index in chosen]
    return list(dataset.images.all(names, dataset.name))


def _judge(
    model: Path,
    variant: Path,
    judge: Dataset,
    *,
    say: Callable[[str], None],
    runtime: RuntimeName = "onnxruntime",
    precision: Precision = "f32",
    kept: tuple[str, ...] = (),
    scheme: str = "",
) -> Report:
    one = open_model(model)
    other = open_model(variant, runtime=runtime, precision=precision)
    everyone = [*judge.query, *judge.gallery]
    say(f"judging on {judge.name}: {len(everyone)} crops by each")
    first, second = (embed_samples(which, judge, everyone) for which in (one, other))
    queries = len(judge.query)
    cosines = row_cosines(first[:queries], second[:queries])
    few = list(judge.images.all([s.name for s in everyone[:8]], judge.name))
    return Report(
        before=score_features(first[:queries], first[queries:], judge),
        after=score_features(second[:queries], second[queries:], judge),
        across=score_features(second[:queries], first[queries:], judge),
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        latency_ms=_latency(one.embedder, other.embedder, few),
        kept_float=kept,
        scheme=scheme,
    )


def _latency(one: Embedder, other: Embedder, crops: Crops) -> dict[str, float]:
    """Medians of alternating runs, so that what disturbs one disturbs the other."""
    times: dict[str, list[float]] = {}
    for batch in (1, min(8, len(crops))):
        for repeat in range(LATENCY_REPEATS + 3):
            for name, embedder in (("float", one), ("variant", other)):
                begin = time.perf_counter()
                embedder.embed(crops[:batch])
                if repeat >= 3:  # warm
                    spent = 1e3 * (time.perf_counter() - begin)
                    times.setdefault(f"{name} batch {batch}", []).append(spent)
    return {name: round(float(np.median(spent)), 3) for name, spent in times.items()}


def _metric(judge: Dataset, report: Report, variant: str = "") -> Metric:
    """What was measured, the float model's figures beside the variant's, and on what machine."""
    scores = {"": report.after, "float_": report.before}
    values = {
        f"{whose}{name}": round(value, 2)
        for whose, found in scores.items()
        for name, value in (("rank1", found.rank1), ("map", found.map))
    }
    values |= {f"{name.replace(' ', '_')}_ms": value for name, value in report.latency_ms.items()}
    machine = f"{processor_name()}, {quota_threads()} threads"
    return Metric(
        protocol=f"{judge.name} single query cosine{variant}; ms on {machine}",
        date=today(),
        values=values,
    )
