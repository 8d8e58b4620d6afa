"""Model files that are nearly sound: small networks with something changed, and damaged bytes.

What must hold: a file is opened and run, or refused by a ModelError. Crashes of the runtime happen
in the child process (tests.fuzz.model_child); they are counted, kept as files and printed, since
they are the runtime's and not ours to mend; any other exception than ModelError fails the target.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from tests.fuzz.model_child import DETECTOR, EMBEDDER, OSNET, RECOGNISED
from tests.support.standins import write_models
from tests.unit.edge.tiny_models import mean_embedder

OPERATORS = [
    *("Identity", "Add", "Conv", "MatMul", "Reshape", "Gather", "Slice", "Concat", "Resize"),
    *("Transpose", "Tile", "Expand", "ConstantOfShape", "Range", "Loop", "If", "Scan", "TopK"),
    *("NonMaxSuppression", "MaxPool", "Pad", "LSTM", "Einsum", "QLinearConv", "Nonsense", ""),
]


class Child:
    """The process that opens files. Counts what became of them.

    Args:
        keep: folder for files that crash it.
    """

    def __init__(self, keep: Path) -> None:
        self._keep = keep
        self.answers: Counter[str] = Counter()
        # Not instrumented, and without the fuzzer's own limits.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.model_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def open(self, kind: int, content: bytes) -> None:
        """Let it open one file.

        Raises:
            AssertionError: something else than a ModelError came of it.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(struct.pack("<BI", kind, len(content)) + content)
        self._process.stdin.flush()
        answer = self._process.stdout.readline().decode(errors="replace").strip()
        outcome = answer.split(" ")[0] if not answer.startswith("crash") else answer
        self.answers[outcome] += 1
        if outcome not in ("opened", "refused") and self.answers[outcome] <= 5:
            self._keep.mkdir(parents=True, exist_ok=True)
            name = f"{outcome.replace(' ', '-')}-{self.answers[outcome]}-kind{kind}.onnx"
            (self._keep / name).write_bytes(content)
        if sum(self.answers.values()) % 100 == 0:  # libFuzzer ends the process without a word
            counts = ", ".join(f"{n} {what}" for what, n in self.answers.most_common())
            print(f"session: {counts}", file=sys.stderr)
        assert outcome != "fault", answer
        assert outcome, "the child itself has ended"


def base_models(folder: Path) -> list[tuple[int, bytes]]:
    """(kind, file) of the sound models that are changed."""
    detector = write_models(folder / "standins") / "marks.onnx"
    means = mean_embedder(folder / "means.onnx")
    weights = Path(__file__).parents[2] / "models" / "weights" / "osnet_x0_25.onnx"
    return [
        (EMBEDDER, means.read_bytes()),
        (OSNET, weights.read_bytes()),
        (DETECTOR, detector.read_bytes()),
        (RECOGNISED, detector.read_bytes()),
    ]


def changed_model(source: Any, bases: Sequence[tuple[int, bytes]]) -> tuple[int, bytes]:
    """A kind and a file.

    Args:
        source: an atheris.FuzzedDataProvider.
        bases: of `base_models`.
    """
    kind, content = source.PickValueInList(list(bases))
    if source.ConsumeProbability() < 0.1:
        return kind, source.ConsumeBytes(4096)
    how = source.ConsumeIntInRange(0, 9)  # few changes: most of the files must still be opened
    if how < 8:
        model = onnx.ModelProto.FromString(content)
        for _ in range(source.PickValueInList([1, 1, 1, 2, 4])):
            _change_graph(source, model)
        content = model.SerializeToString()
    return kind, content if how < 7 else _change_bytes(source, content)


def _change_bytes(source: Any, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(source.PickValueInList([1, 1, 1, 2, 6])):
        at = source.ConsumeIntInRange(0, max(0, len(changed) - 1))
        match source.ConsumeIntInRange(0, 3):
            case 0:
                changed[at : at + 1] = bytes([source.ConsumeIntInRange(0, 255)])
            case 1:
                changed[at:at] = source.ConsumeBytes(8)
            case 2:
                del changed[at : at + source.ConsumeIntInRange(1, 64)]
            case _:
                del changed[at:]
    return bytes(changed)


def _change_graph(source: Any, model: onnx.ModelProto) -> None:
    graph = model.graph
    if not graph.node:
        return
    node = graph.node[source.ConsumeIntInRange(0, len(graph.node) - 1)]
    match source.ConsumeIntInRange(0, 17):
        case 0:
            node.op_type = source.PickValueInList(OPERATORS)
        case 1:
            _names(source, graph, node.input)
        case 2:
            _names(source, graph, node.output)
        case 3 if graph.initializer:
            tensor = graph.initializer[source.ConsumeIntInRange(0, len(graph.initializer) - 1)]
            _change_tensor(source, tensor)
        case 4:
            _change_shape(source, source.PickValueInList([*graph.input, *graph.output]))
        case 5:
            graph.node.add().CopyFrom(node)
        case 6:
            graph.node.remove(node)
        case 7 if node.attribute:
            attribute = node.attribute[source.ConsumeIntInRange(0, len(node.attribute) - 1)]
            if attribute.ints:
                at = source.ConsumeIntInRange(0, len(attribute.ints) - 1)
                attribute.ints[at] = _number(source)
            else:
                attribute.i, attribute.f = _number(source), source.ConsumeFloat()
            if source.ConsumeProbability() < 0.2:
                attribute.type = source.ConsumeIntInRange(0, 14)
        case 8:
            attribute = node.attribute.add(name=source.PickValueInList(["axis", "pads", "body"]))
            attribute.type = source.PickValueInList([1, 2, 5, 7])
            attribute.ints.extend(_number(source) for _ in range(4))
            if attribute.type == 5:
                attribute.g.ParseFromString(graph.SerializeToString())
        case 9:
            model.ir_version = source.ConsumeIntInRange(0, 14)
        case 10:
            model.opset_import[0].version = source.ConsumeIntInRange(0, 30)
            model.opset_import.add(domain=source.PickValueInList(["", "com.microsoft", "x"]))
        case 11:
            node.domain = source.PickValueInList(["com.microsoft", "ai.onnx.ml", "x"])
        case 12:
            entry = model.metadata_props.add(key=_text(source))
            entry.value = _text(source)
        case 13:
            function = model.functions.add(name=node.op_type, domain=node.domain)
            function.node.add().CopyFrom(node)
            function.input.extend(node.input)
            function.output.extend(node.output)
        case 14:
            graph.initializer.add(name=_text(source), data_type=source.ConsumeIntInRange(0, 25))
        case _ if graph.initializer:
            tensor = graph.initializer[source.ConsumeIntInRange(0, len(graph.initializer) - 1)]
            _change_numbers(source, tensor)


def _change_numbers(source: Any, tensor: onnx.TensorProto) -> None:
    """Other numbers of the same size: weights that are huge, none, or indices out of range."""
    if not tensor.raw_data:
        return
    content = bytearray(tensor.raw_data)
    for _ in range(source.ConsumeIntInRange(1, 8)):
        at = source.ConsumeIntInRange(0, max(0, len(content) // 4 - 1)) * 4
        number = source.PickValueInList([b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff" * 4, b"\0" * 4])
        content[at : at + 4] = number[: len(content) - at]
    tensor.raw_data = bytes(content)


def _number(source: Any) -> int:
    """A size, an axis, a step: small, none or far too large."""
    if source.ConsumeProbability() < 0.1:
        return int(source.ConsumeInt(8))
    return int(source.PickValueInList([-2, -1, 0, 1, 2, 3, 4, 7, 8, 16, 64, 1 << 20, 1 << 31]))


def _change_tensor(source: Any, tensor: onnx.TensorProto) -> None:
    match source.ConsumeIntInRange(0, 5):
        case 0:
            tensor.data_type = source.ConsumeIntInRange(0, 25)
        case 1:
            tensor.dims.append(_number(source))
        case 2 if tensor.dims:
            tensor.dims[0] = _number(source)
        case 3:
            tensor.raw_data = source.ConsumeBytes(64)
        case 4:
            tensor.data_location = source.ConsumeIntInRange(0, 1)
            tensor.external_data.add(key="location", value=_text(source))
        case _:
            tensor.float_data.append(source.ConsumeFloat())


def _change_shape(source: Any, value: onnx.ValueInfoProto) -> None:
    tensor = value.type.tensor_type
    match source.ConsumeIntInRange(0, 3):
        case 0:
            tensor.elem_type = source.ConsumeIntInRange(0, 25)
        case 1:
            tensor.shape.dim.add().dim_value = _number(source)
        case 2 if tensor.shape.dim:
            tensor.shape.dim[-1].dim_value = source.ConsumeIntInRange(-1, 1 << 20)
        case _:
            value.name = _text(source)


def _names(source: Any, graph: onnx.GraphProto, names: Any) -> None:
    """Another connection: to any value, also one that comes later or is the node's own."""
    known = [name for one in graph.node for name in [*one.input, *one.output]]
    name = source.PickValueInList([*known, "", "nothing"])
    if names and source.ConsumeBool():
        names[source.ConsumeIntInRange(0, len(names) - 1)] = name
    else:
        names.append(name)


def _text(source: Any) -> str:
    return str(source.ConsumeUnicodeNoSurrogates(20))
