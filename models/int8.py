"""The int8 file of a float embedder: which layers can bear it, found by trying.

Promise: `int8_content` gives an ONNX file that has been run, and the groups of layers that stayed
in float; nothing is judged on people here, nothing is written. The calibration crops are embedded
with one group of layers in float after the other, and groups are given back to float, best first,
until the mean cosine to the float model is good or nothing helps. Of several schemes the one whose
vectors are nearest to the float model's is taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.version_converter
from google.protobuf.message import DecodeError
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
from edge.preprocess import Preprocessor
from models.describe import describe
from models.ranking import Features, row_cosines
from reid.card import Card, ModelFile

GOOD_COSINE = 0.995
INT8_TOLERANCE = 0.05  # of golden values: int8 kernels round differently from machine to machine
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
WITHOUT_DOT_PRODUCT: tuple[Scheme, ...] = ("u8s8-reduced", "u8u8")
DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}  # the last is ARM's


@dataclass(frozen=True)
class Int8:
    """An int8 file that was not judged yet.

    Attributes:
        content: the ONNX file.
        scheme: its number types.
        kept_float: groups of layers that stayed in float.
        cosine: mean over the calibration crops, to the float model.
    """

    content: bytes
    scheme: Scheme
    kept_float: tuple[str, ...]
    cosine: float


def schemes_for(flags: Set[str]) -> tuple[Scheme, ...]:
    """The number types to try on a processor of these flags (/proc/cpuinfo)."""
    return ("s8s8",) if flags & DOT_PRODUCTS else WITHOUT_DOT_PRODUCT


def nearest_to_float(
    model: Path,
    embedder: Embedder,
    crops: Crops,
    schemes: Sequence[Scheme],
    *,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Int8, dict[Scheme, float]]:
    """The scheme's file with the best cosine, and the cosine of each that was tried.

    Args:
        schemes: at least one.
    """
    found: list[Int8] = []
    for scheme in schemes:
        say(f"{scheme}:")
        found.append(int8_content(model, embedder, crops, scheme=scheme, say=say))
    return max(found, key=lambda one: one.cosine), {one.scheme: one.cosine for one in found}


def int8_content(
    model: Path,
    embedder: Embedder,
    crops: Crops,
    *,
    scheme: Scheme = "s8s8",
    say: Callable[[str], None] = lambda line: None,
) -> Int8:
    """The int8 file of a float one by one scheme.

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
        prepared = onnx.load(ready)
        groups, always_float = layer_groups(prepared), normalisations(prepared)
        inputs = _inputs(embedder, crops, prepared.graph.input[0].name)

        def attempt(kept: tuple[str, ...]) -> tuple[float, bytes]:
            path = Path(folder) / "int8.onnx"
            excluded = [*always_float, *(node for group in kept for node in groups[group])]
            _quantize_file(ready, path, scheme, inputs, excluded)
            content = path.read_bytes()
            rows = _embed(content, embedder.card, path, crops)
            cosine = float(row_cosines(wanted, rows).mean())
            say(f"float: {', '.join(kept) or 'nothing'}; mean cosine {cosine:.4f}")
            return cosine, content

        kept, cosine, content = _choose(tuple(groups), attempt)
        return Int8(content, scheme, kept, cosine)


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


def is_int8(content: bytes) -> bool:
    """Whether an ONNX file has quantised layers already."""
    try:
        nodes = onnx.load_from_string(content).graph.node
    except DecodeError:
        return False  # the runtime says what is wrong with it
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in nodes)


def normalisations(model: onnx.ModelProto) -> list[str]:
    """Names of normalisations that did not fold into a convolution: AIN's, IBN's and the neck.

    They have no integer kernel: int8 around them only rounds. They always stay in float.
    """
    kinds = ("InstanceNormalization", "BatchNormalization")
    return [node.name for node in model.graph.node if node.op_type in kinds]


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
) -> tuple[tuple[str, ...], float, bytes]:
    """Give groups back to float, best first, while the cosine is not good and something helps."""
    kept: tuple[str, ...] = ()
    cosine, content = attempt(kept)
    while cosine < GOOD_COSINE and len(kept) < len(groups):
        tries = {group: attempt((*kept, group)) for group in groups if group not in kept}
        best = max(tries, key=lambda group: tries[group][0])
        if tries[best][0] <= cosine:
            break
        kept, (cosine, content) = (*kept, best), tries[best]
    return kept, cosine, content


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


def _inputs(embedder: Embedder, crops: Crops, name: str) -> list[dict[str, Any]]:
    prepare = Preprocessor(embedder.input)
    batches = []
    for crop in crops:
        prepare(crop)
        batches.append({name: prepare.input.copy()})
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
