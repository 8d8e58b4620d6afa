"""int8 and bfloat16 variants of an embedder, admitted only by measurement.

Promise: a variant is written, or added to a card, only after it was judged on people: it loses at
most `MAX_MAP_LOSS` points of mAP, also when its queries meet a gallery of the float model. What was
measured, latency on this machine included, stands on the card whichever way it went; whether int8
is faster depends on the processor, so the box times what is admitted before it takes it.

Layers that hurt stay in float: the calibration crops are embedded with one group of layers in
float after the other, and groups are given back to float, best first, until the mean cosine to the
float model is good or nothing helps.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from edge.config import EmbedConfig, RuntimeConfig
from edge.embed import Embedder, open_embedder
from edge.preprocess import Planes
from edge.runtime import Precision, RuntimeName
from models.data.readers import Dataset
from models.evaluate import embed_samples, open_model, refuse_trained_people, score_features
from models.export import describe, row_cosines, today, write_model
from models.ranking import Features, Scores
from reid.card import Agreement, Card, Metric, ModelFile, RuntimeVariant, card_path, write_card

MAX_MAP_LOSS = 0.5  # points; issue of the house, above what a run-to-run difference is
GOOD_COSINE = 0.995
INT8_TOLERANCE = 0.05  # of golden values: int8 kernels round differently from machine to machine
BF16_TOLERANCE = 0.05
CALIBRATION_CROPS = 256
LATENCY_REPEATS = 30
PER_CHANNEL_OPSET = 13

Crops = Sequence[NDArray[np.uint8]]
Scheme = Literal["s8s8", "u8s8-reduced", "u8u8"]


@dataclass(frozen=True)
class SchemeTypes:
    """Number types of activations and weights; reduced keeps weights in 7 bits."""

    activation: QuantType
    weight: QuantType
    reduce_range: bool


SCHEMES: dict[Scheme, SchemeTypes] = {
    # fastest with VNNI or ARM's dot product
    "s8s8": SchemeTypes(QuantType.QInt8, QuantType.QInt8, False),
    # without VNNI, AVX2 saturates sums of 8-bit products
    "u8s8-reduced": SchemeTypes(QuantType.QUInt8, QuantType.QInt8, True),
    "u8u8": SchemeTypes(QuantType.QUInt8, QuantType.QUInt8, False),
}


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


@dataclass
class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Crops as the box feeds them, one by one."""

    batches: list[dict[str, Any]]
    _next: Iterator[dict[str, Any]] | None = field(default=None, init=False)

    def get_next(self) -> dict[str, Any] | None:
        if self._next is None:
            self._next = iter(self.batches)
        return next(self._next, None)

    def rewind(self) -> None:
        self._next = None


def quantize(
    model: Path,
    out: Path,
    *,
    calibration: Dataset,
    judge: Dataset,
    scheme: Scheme = "s8s8",
    crops: int = CALIBRATION_CROPS,
    insist: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Make the int8 variant of a float model with a card, judge it, write it with its card.

    Args:
        calibration: its train part gives `crops` crops for the ranges (any part, if it has none).
        judge: set that both models are judged on.
        insist: judge although the card says the model was trained on these people; the difference
            before to after is what counts here.

    Raises:
        VariantRefused: it loses more than MAX_MAP_LOSS points of mAP.
        TrainedOnThis, DataError, ModelError: as `evaluate`.
    """
    float_model = open_model(model)
    card = float_model.embedder.card
    if not insist:
        refuse_trained_people(float_model, judge)
    content, kept = int8_content(
        model, float_model.embedder, _some_crops(calibration, crops), scheme=scheme, say=say
    )
    new_card = _int8_card(content, card, out, scheme, kept)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / out.name
        write_model(content, new_card, trial)
        report = _judge(model, trial, judge, say=say, kept=kept, scheme=scheme)
    if report.loss > MAX_MAP_LOSS:
        raise VariantRefused(new_card.variant_id or "int8", report)
    reference = card.variant_id or "float32"
    new_card = new_card.model_copy(
        update={
            "agreement": report.agreement(reference, judge.name),
            "metrics": (_metric(judge, report.after, report.latency_ms),),
        }
    )
    write_model(content, new_card, out)
    return report


def int8_content(
    model: Path,
    embedder: Embedder,
    crops: Crops,
    *,
    scheme: Scheme = "s8s8",
    say: Callable[[str], None] = lambda line: None,
) -> tuple[bytes, tuple[str, ...]]:
    """The int8 file of a float one, not judged: (its bytes, groups of layers kept in float).

    Args:
        embedder: the float model, opened.
        crops: calibration, (h, w, 3) BGR uint8 each.
    """
    wanted = embedder.embed(crops)
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "prepared.onnx"
        recent = Path(folder) / "recent.onnx"
        onnx.save(_per_channel_opset(onnx.load(model)), recent)
        # folds norms into convolutions, so that ranges are those of the folded layers
        quant_pre_process(str(recent), str(ready), skip_symbolic_shape=True)
        groups = layer_groups(onnx.load(ready))
        inputs = _inputs(embedder, crops)

        def attempt(kept: tuple[str, ...]) -> tuple[float, bytes]:
            path = Path(folder) / "int8.onnx"
            excluded = [node for group in kept for node in groups[group]]
            _quantize_file(ready, path, scheme, inputs, excluded)
            content = path.read_bytes()
            rows = _embed(content, embedder.card, path, crops)
            cosine = float(row_cosines(wanted, rows).mean())
            say(f"float: {', '.join(kept) or 'nothing'}; mean cosine {cosine:.4f}")
            return cosine, content

        kept, content = _choose(tuple(groups), attempt)
        return content, kept


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
        ModelError: OpenVINO is missing or cannot load the file.
    """
    float_model = open_model(model)
    if not insist:
        refuse_trained_people(float_model, judge)
    card = float_model.embedder.card
    draft = RuntimeVariant(
        runtime="openvino", precision="bf16", variant_id="bfloat16-openvino", tolerance=2.0
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
        update={
            "tolerance": BF16_TOLERANCE,
            "agreement": report.agreement(card.variant_id or "float32", judge.name),
        }
    )
    others = tuple(entry for entry in card.runtimes if entry.variant_id != draft.variant_id)
    metric = _metric(judge, report.after, report.latency_ms, " bfloat16-openvino")
    write_card(
        card.model_copy(
            update={"runtimes": (*others, admitted), "metrics": (*card.metrics, metric)}
        ),
        card_path(model),
    )
    return report


def layer_groups(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Names of quantisable nodes by what they are: the groups that may stay in float.

    "gates": convolutions on pooled 1x1 maps; "stem": the first convolution and the pool after it;
    "fc": the last matrix product; "depthwise": grouped convolutions; "rest" is never given back.
    """
    sizes = {item.name: list(item.dims) for item in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    groups: dict[str, list[str]] = {"gates": [], "stem": [], "fc": [], "depthwise": []}
    for node in model.graph.node:
        if node.op_type in ("Gemm", "MatMul"):
            groups["fc"].append(node.name)
        elif node.op_type == "MaxPool":
            groups["stem"].append(node.name)
        elif node.op_type == "Conv":
            weight = sizes.get(node.input[1], [])
            attributes = {a.name: a for a in node.attribute}
            if len(weight) == 4 and weight[1] == 3:
                groups["stem"].append(node.name)
            elif "group" in attributes and attributes["group"].i > 1:
                groups["depthwise"].append(node.name)
            elif _on_pooled(node, made_by):
                groups["gates"].append(node.name)
        elif node.op_type in ("Sigmoid", "ReduceMean", "GlobalAveragePool") or (
            node.op_type == "Mul"
            and any(made_by[name].op_type == "Sigmoid" for name in node.input if name in made_by)
        ):
            groups["gates"].append(node.name)
    return {name: nodes for name, nodes in groups.items() if nodes}


def _per_channel_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network at an opset that knows scales per channel (13), if it is older."""
    opset = max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset >= PER_CHANNEL_OPSET:
        return model
    return onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET)


def _on_pooled(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto]) -> bool:
    before = made_by.get(node.input[0])
    for _ in range(3):  # pool → fc1 → ReLU → fc2
        if before is None:
            return False
        if before.op_type in ("ReduceMean", "GlobalAveragePool"):
            return True
        before = made_by.get(before.input[0])
    return False


def _choose(
    groups: tuple[str, ...], attempt: Callable[[tuple[str, ...]], tuple[float, bytes]]
) -> tuple[tuple[str, ...], bytes]:
    """Give groups back to float, best first, while the cosine is not good and something helps."""
    kept: tuple[str, ...] = ()
    cosine, content = attempt(kept)
    while cosine < GOOD_COSINE and len(kept) < len(groups):
        tries = {group: attempt((*kept, group)) for group in groups if group not in kept}
        best = max(tries, key=lambda group: tries[group][0])
        if tries[best][0] <= cosine:
            break
        kept, (cosine, content) = (*kept, best), tries[best]
    return kept, content


def _quantize_file(
    ready: Path, out: Path, scheme: Scheme, inputs: list[dict[str, Any]], excluded: list[str]
) -> None:
    types = SCHEMES[scheme]
    quantize_static(
        str(ready),
        str(out),
        _Calibration(inputs),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=types.reduce_range,
        activation_type=types.activation,
        weight_type=types.weight,
        nodes_to_exclude=excluded,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"CalibMovingAverage": True, "ActivationSymmetric": False},
    )


def _int8_card(
    content: bytes, card: Card, out: Path, scheme: Scheme, kept: tuple[str, ...]
) -> Card:
    assert card.input is not None  # an embedder's card has one
    return describe(
        content,
        out,
        name=out.stem,
        spec=card.input,
        space_id=card.space_id or "",
        variant_id=f"int8-{scheme}",
        training_data=card.training_data,
        licence=card.licence,
        commercial_use=card.commercial_use,
        made_by=card.made_by,
        notes=f"int8 ({scheme}) of {card.name}; in float: {', '.join(kept) or 'nothing'}",
        tolerance=INT8_TOLERANCE,
    ).model_copy(update={"parent": card.name})


def _some_crops(dataset: Dataset, count: int) -> list[NDArray[np.uint8]]:
    samples = dataset.train or [*dataset.query, *dataset.gallery]
    chosen = np.random.default_rng(0).permutation(len(samples))[:count]
    names = [samples[index].name for index in chosen]
    return list(dataset.images.all(names, dataset.name))


def _inputs(embedder: Embedder, crops: Crops) -> list[dict[str, Any]]:
    import cv2

    spec, planes = embedder.input, Planes(embedder.input)
    name = "images"
    batches = []
    for crop in crops:
        batch = np.empty((1, 3, spec.height, spec.width), np.float32)
        scaled = cv2.resize(crop, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR)
        planes.write(scaled.astype(np.uint8, copy=False), batch[0])
        batches.append({name: batch})
    return batches


def _embed(content: bytes, card: Card, path: Path, crops: Crops) -> Features:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        assert card.input is not None
        trial = describe(
            content,
            file,
            name=card.name,
            spec=card.input,
            space_id=card.space_id or "",
            variant_id="trial",
            training_data=(),
            tolerance=INT8_TOLERANCE,
        )
        file.write_bytes(content)
        embedder = open_embedder(ModelFile(file, trial), RuntimeConfig(), EmbedConfig())
        return embedder.embed(crops)


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


def _metric(
    judge: Dataset, scores: Scores, latency_ms: dict[str, float], variant: str = ""
) -> Metric:
    values = {"rank1": round(scores.rank1, 2), "map": round(scores.map, 2)}
    values |= {f"{name.replace(' ', '_')}_ms": value for name, value in latency_ms.items()}
    return Metric(
        protocol=f"{judge.name} single query cosine{variant}", date=today(), values=values
    )
