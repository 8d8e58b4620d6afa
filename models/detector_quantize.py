"""An int8 variant of our detector, admitted only by measurement.

    edge-models quantize models/weights/detector_person_416.onnx --protocol coco-person \\
        --data .pack/detector/held_out.tar --calibration .pack/detector/train.tar

Promise: a variant is kept only where it is clearly quicker on this machine and loses hardly any
recall at precision 0.9 on the pictures it is judged by; what was measured is said whichever way it
went, and a variant that fails leaves no file. Time is processor time of one thread, which
other work on the machine disturbs less than the clock on the wall.

Static QDQ, per channel (ONNX Runtime, quantization.md); what follows the last convolutions, the
decoding of boxes, stays in float, and so do the convolutions that answer.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from edge.models_dir import model_at
from edge.preprocess import Preprocessor
from models.describe import refuse_other_toml
from models.detector_data import DatasetError, Image
from models.evaluate_detector import Scene, judge, open_judged, scenes
from reid.card import InputSpec, card_path, sha256_of, write_card
from reid.golden import golden_image, golden_values

CALIBRATION_PICTURES = 128
_LEAST_RECALL = -0.01  # change of recall at precision 0.9 that is still admitted
_LEAST_GAIN = 1.15  # how much quicker it must be
_TOLERANCE = 0.05  # of golden values, relative: int8 kernels round differently by machine
Scheme = Literal["s8s8", "u8s8"]  # activations, weights; u8s8 suits VNNI, s8s8 suits ARM
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


class NotOurDetector(ValueError):
    """Only exports of our own detector are made int8 here: which layers answer is known of them."""

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        super().__init__(f"{path} {what}; give a float export of our detector with its card")


class Int8Refused(Exception):
    """The variant did not pass the gate; nothing was written."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"int8 of {path} refused: {why}; nothing was written")


def write_int8(source: Path, path: Path, pictures: Sequence[Image], scheme: Scheme) -> None:
    """Quantise a file of `detector_export.write_onnx`, calibrated on BGR pictures of any size."""
    graph = onnx.load(source).graph
    answers = [n for n in graph.node if n.op_type == "Conv" and ".answer" in n.input[1]]
    if not answers:
        raise NotOurDetector(source, "is no export of our detector, it has no answering layer")
    last = max(i for i, n in enumerate(graph.node) if n in answers)
    kept_float = [n.name for n in answers] + [n.name for n in graph.node[last + 1 :]]
    activation = QuantType.QInt8 if scheme == "s8s8" else QuantType.QUInt8
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            _Reader(pictures, _input_of(source)),
            quant_format=QuantFormat.QDQ,
            activation_type=activation,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "Relu", "Add", "Concat", "Split", "MaxPool", "Resize"],
            nodes_to_exclude=kept_float,
        )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Pictures as the box feeds them, one by one."""

    def __init__(self, pictures: Sequence[Image], spec: InputSpec) -> None:
        self._prepare = Preprocessor(spec)
        self._pictures: Iterator[Image] = iter(pictures)

    def get_next(self) -> dict[str, Any] | None:
        picture = next(self._pictures, None)
        if picture is None:
            return None
        self._prepare(picture)
        return {"images": self._prepare.input.copy()}


def _input_of(model: Path) -> InputSpec:
    shape = onnx.load(model).graph.input[0].type.tensor_type.shape.dim
    return InputSpec(
        height=shape[2].dim_value,
        width=shape[3].dim_value,
        colour="bgr",
        range=255,
        fit="letterbox_top_left",
    )


def processor_ms(path: Path, repeats: int = 40) -> float:
    """Median processor time of one run on noise, one thread, after a warm-up."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    item = session.get_inputs()[0]
    batch = np.random.default_rng(0).uniform(0, 255, item.shape).astype(np.float32)
    times = []
    for _ in range(repeats + 3):
        start = time.process_time()
        session.run(None, {item.name: batch})
        times.append(time.process_time() - start)
    return 1000 * float(np.median(times[3:]))


def passes_gate(recall_float: float, recall_int8: float, ms_float: float, ms_int8: float) -> bool:
    """Is int8 worth shipping: hardly worse, clearly quicker."""
    return recall_int8 - recall_float >= _LEAST_RECALL and ms_float >= _LEAST_GAIN * ms_int8


def quantize_detector(
    model: Path,
    out: Path | None = None,
    *,
    judge_on: Path,
    calibration: Path | None = None,
    scheme: Scheme = "u8s8",
    pictures: int = CALIBRATION_PICTURES,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Make, time and judge an int8 variant; write it with its card where it passes the gate.

    Args:
        model: a float file of `detector_export` with its card.
        out: the file to write; None: beside the model, `_int8` behind its card's name.
        judge_on, calibration: COCO-style folders or tars; None: calibrated on what it is judged by.
        pictures: how many to calibrate on.
        say: told every measurement.

    Returns:
        The file.

    Raises:
        Int8Refused: too slow, or too much recall lost; nothing was written.
        NotOurDetector: the file is no export of our detector.
        DatasetError, ModelError: as `models.evaluate_detector`.
    """
    card = model_at(model).card
    if card is None or card.golden is None:
        raise NotOurDetector(model, "has no card with golden values")
    name = f"{card.name}_int8" if out is None else out.stem
    out = out or model.with_name(f"{name}.onnx")
    refuse_other_toml(out)
    some = [image for image, _, _ in scenes(calibration or judge_on, limit=pictures)]
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / out.name
        write_int8(model, trial, some, scheme)
        times = processor_ms(model), processor_ms(trial)
        say(f"float {times[0]:.1f} ms, int8 ({scheme}) {times[1]:.1f} ms, one thread")
        if times[0] < _LEAST_GAIN * times[1]:
            raise Int8Refused(model, f"it must be {_LEAST_GAIN} times as quick")
        held = scenes(judge_on)
        recalls = [_recall(m, held, judge_on) for m in (model, trial)]
        say(f"recall at precision 0.9: float {recalls[0]:.3f}, int8 {recalls[1]:.3f}")
        if not passes_gate(recalls[0], recalls[1], *times):
            raise Int8Refused(model, f"it may lose {-_LEAST_RECALL} of recall at most")
        content = trial.read_bytes()
        prepare = Preprocessor(_input_of(model))
        prepare(golden_image(prepare.spec.height, prepare.spec.width, 1))
        session = onnxruntime.InferenceSession(trial, providers=["CPUExecutionProvider"])
        values = golden_values("detector", session.run(None, {"images": prepare.input}))
    golden = card.golden.model_copy(
        update={
            "values": tuple(round(float(v), 4) for v in values),
            "tolerance": _TOLERANCE,
        }
    )
    changes = {
        "name": name,
        "file": out.name,
        "sha256": sha256_of(content),
        "bytes": len(content),
        "parent": card.name,
        "variant_id": "int8",
        "default": False,
        "golden": golden,
        "metrics": (),
    }
    out.write_bytes(content)
    write_card(card.model_copy(update=changes), card_path(out))
    return out


def _recall(model: Path, pictures: Sequence[Scene], where: Path) -> float:
    recall = judge(open_judged(model), pictures)["recall"]
    if not isinstance(recall, float):
        raise DatasetError(where, "holds no people to judge a variant by; take a set that does")
    return recall
