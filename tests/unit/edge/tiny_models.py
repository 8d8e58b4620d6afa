"""Tiny ONNX models made in the test: detectors with known outputs, embedders with known vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.config import EmbedConfig, RuntimeConfig
from edge.embed import golden_row, open_embedder
from edge.runtime import open_session
from reid.card import Card, Golden, InputSpec, ModelFile, card_path, sha256_of, write_card
from reid.golden import golden_values

ONE_THREAD = RuntimeConfig(threads=1, backend="onnxruntime")


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Check and write a model."""
    model.ir_version = 10
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def constant_detector(
    path: Path,
    outputs: Mapping[str, np.ndarray],
    *,
    height: int = 64,
    width: int = 64,
    input_name: str = "images",
    sizes_input: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A detector that gives the same outputs for every picture.

    With `sizes_input` there is a second input orig_target_sizes and boxes (…, 4) are given as
    shares, multiplied by [w, h, w, h] of it, as D-FINE's export does.
    """
    inputs = [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [1, 3, height, width])]
    nodes, values, made = [], [], []
    if sizes_input:
        inputs.append(
            helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, ["N", 2])
        )
        nodes.append(helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=1))
        nodes.append(helper.make_node("Concat", ["size", "size"], ["scale"], axis=1))
    for name, array in outputs.items():
        scaled = sizes_input and array.shape[-1] == 4
        inner = f"{name}_shares" if scaled else name
        values.append(numpy_helper.from_array(array, f"{inner}_value"))
        nodes.append(helper.make_node("Identity", [f"{inner}_value"], [inner]))
        if scaled:
            nodes.append(helper.make_node("Mul", [inner, "scale"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        made.append(helper.make_tensor_value_info(name, kind, list(array.shape)))
    graph = helper.make_graph(nodes, "constant", inputs, made, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return save(model, path)


def echo_detector(path: Path, *, height: int = 64, width: int = 64) -> Path:
    """Gives its input back, flattened: what the picture looks like to a model."""
    shape = [1, 3, height, width]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["output"])],
        "echo",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
    )
    return save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def mean_embedder(
    path: Path,
    *,
    dimension: int = 8,
    seed: int = 0,
    batch: int | None = None,
    height: int = 32,
    width: int = 16,
    tiny_weight: bool = False,
) -> Path:
    """Vector = mean of each channel, projected by seeded weights, plus a seeded bias."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((3, dimension)).astype(np.float32)
    if tiny_weight:
        weights[0, 0] = np.float32(1e-40)
    bias = rng.standard_normal(dimension).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["output"]),
        ],
        "means",
        [
            helper.make_tensor_value_info(
                "images", TensorProto.FLOAT, [batch or "batch", 3, height, width]
            )
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch or "batch", dimension])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    return save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def embedder_card(path: Path, *, space_id: str = "space-a", **changes: object) -> Card:
    """A true card for a `mean_embedder`, written beside it."""
    content = path.read_bytes()
    spec = InputSpec(height=32, width=16)
    fields: dict[str, object] = {
        "kind": "embedder",
        "name": path.stem,
        "file": path.name,
        "sha256": sha256_of(content),
        "bytes": len(content),
        "licence": "Apache-2.0",
        "commercial_use": True,
        "made_by": "a test",
        "space_id": space_id,
        "variant_id": "float32",
        "dimension": 8,
        "input": spec,
        "golden": Golden(values=(0.0,), tolerance=9.0),
    }
    draft = Card.model_validate({**fields, **changes})
    if "golden" not in changes:
        rough = open_embedder(ModelFile(path, draft), ONE_THREAD, EmbedConfig(), verify=False)
        row = golden_row(rough, seed=1)
        values = tuple(float(value) for value in golden_values("embedder", [row]))
        draft = draft.model_copy(update={"golden": Golden(values=values, tolerance=1e-3)})
    write_card(draft, card_path(path))
    return draft


def detector_card(path: Path, **changes: object) -> Card:
    """A true card for a detector file, written beside it."""
    content = path.read_bytes()
    session = open_session(content, name=path, config=ONE_THREAD)
    shape = session.inputs[0].shape
    picture = np.zeros([size or 1 for size in shape], np.float32)
    fields: dict[str, object] = {
        "kind": "detector",
        "name": path.stem,
        "file": path.name,
        "sha256": sha256_of(content),
        "bytes": len(content),
        "licence": "Apache-2.0",
        "commercial_use": True,
        "made_by": "a test",
        "golden": Golden(
            values=tuple(
                float(value)
                for value in golden_values(
                    "detector", session.run({session.inputs[0].name: picture})
                )
            ),
            tolerance=1e-3,
        ),
    }
    card = Card.model_validate({**fields, **changes})
    write_card(card, card_path(path))
    return card


def yolox_rows(
    people: Sequence[tuple[float, float, float, float, float]], *, size: int = 64, raw: bool
) -> np.ndarray:
    """Output (1, cells, 6) of a YOLOX for people (cx, cy, w, h, score) in input pixels."""
    cells: list[list[float]] = []
    for stride in (8, 16, 32):
        for row in range(size // stride):
            for column in range(size // stride):
                cells.append([column, row, stride])
    grid = np.array(cells, np.float32)
    rows = np.zeros((len(cells), 6), np.float32)
    if raw:
        rows[:, :2] = 0.5
        rows[:, 2:4] = -0.5
    else:
        rows[:, :2] = (grid[:, :2] + 0.5) * grid[:, 2:]
        rows[:, 2:4] = grid[:, 2:]
    for cx, cy, w, h, score in people:
        stride = 16.0
        cell = np.flatnonzero(
            (grid[:, 2] == stride) & (grid[:, 0] == cx // stride) & (grid[:, 1] == cy // stride)
        )[0]
        if raw:
            box = [
                cx / stride - grid[cell, 0],
                cy / stride - grid[cell, 1],
                np.log(w / stride),
                np.log(h / stride),
            ]
        else:
            box = [cx, cy, w, h]
        rows[cell] = [*box, 1.0, score]
    return rows[None]
