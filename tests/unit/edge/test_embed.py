"""Are crops embedded in order, at unit length, in batches, and are other models refused?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.config import EmbedConfig
from edge.embed import Embedder, open_embedder
from edge.models_dir import find_model
from reid.card import ModelFile, RuntimeVariant, sha256_of
from reid.model_errors import CardMismatch, CardMissing, ModelMisbehaved, WrongKind
from tests.unit.edge.tiny_models import (
    ONE_THREAD,
    constant_detector,
    detector_card,
    embedder_card,
    mean_embedder,
    yolox_rows,
)


def opened(path: Path, *, max_batch: int = 8, **card: object) -> Embedder:
    model = ModelFile(path, embedder_card(path, **card))
    return open_embedder(model, ONE_THREAD, EmbedConfig(max_batch=max_batch))


def crops(n: int, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 256, (int(rng.integers(20, 90)), int(rng.integers(10, 40)), 3), np.uint8)
        for _ in range(n)
    ]


def test_rows_have_unit_length_in_the_order_of_the_crops(tmp_path: Path) -> None:
    embedder = opened(mean_embedder(tmp_path / "m.onnx"))
    pictures = crops(5)

    rows = embedder.embed(pictures)

    assert (rows.shape, rows.dtype) == ((5, 8), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
    for row, picture in zip(rows, pictures, strict=True):
        np.testing.assert_allclose(row, embedder.embed([picture])[0], atol=1e-6)


def test_no_crops_give_an_empty_array_of_the_right_shape(tmp_path: Path) -> None:
    embedder = opened(mean_embedder(tmp_path / "m.onnx"))

    assert embedder.embed([]).shape == (0, 8)


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_the_size_of_the_batch_does_not_change_the_rows(batch: int | None, tmp_path: Path) -> None:
    one_by_one = opened(mean_embedder(tmp_path / "a.onnx"), max_batch=1)
    batched = opened(mean_embedder(tmp_path / "b.onnx", batch=batch), max_batch=3)
    pictures = crops(10)

    np.testing.assert_allclose(one_by_one.embed(pictures), batched.embed(pictures), atol=1e-6)


def test_a_crop_that_is_a_view_of_a_frame_is_read_right(tmp_path: Path) -> None:
    embedder = opened(mean_embedder(tmp_path / "m.onnx"))
    frame = np.random.default_rng(4).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    view = frame[40:140, 100:150]

    np.testing.assert_array_equal(embedder.embed([view]), embedder.embed([view.copy()]))


def test_an_embedder_says_its_space_and_variant(tmp_path: Path) -> None:
    embedder = opened(mean_embedder(tmp_path / "m.onnx"), space_id="street", variant_id="int8-a")

    assert (embedder.space_id, embedder.variant_id, embedder.dimension) == ("street", "int8-a", 8)


def test_an_embedder_without_a_card_is_refused_with_the_command(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")

    with pytest.raises(CardMissing, match=r"edge-models check .*m\.onnx --write-card"):
        open_embedder(ModelFile(path, None), ONE_THREAD, EmbedConfig())


def test_a_detector_is_no_embedder(tmp_path: Path) -> None:
    path = constant_detector(tmp_path / "d.onnx", {"output": yolox_rows([], raw=True)})

    with pytest.raises(WrongKind, match="its card says detector; give an embedder here"):
        open_embedder(ModelFile(path, detector_card(path)), ONE_THREAD, EmbedConfig())


def test_a_card_of_another_dimension_is_refused(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")
    card = embedder_card(path).model_copy(update={"dimension": 512})

    with pytest.raises(CardMismatch, match="gives vectors of 8, its card says 512"):
        open_embedder(ModelFile(path, card), ONE_THREAD, EmbedConfig())


def test_a_card_of_another_input_size_is_refused(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")
    card = embedder_card(path)
    assert card.input is not None
    other = card.model_copy(update={"input": card.input.model_copy(update={"height": 256})})

    with pytest.raises(CardMismatch, match="takes 16×32 px, its card says 16×256"):
        open_embedder(ModelFile(path, other), ONE_THREAD, EmbedConfig())


def test_another_model_under_the_same_card_is_refused(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx", seed=1)
    card = embedder_card(path)
    mean_embedder(path, seed=2)

    with pytest.raises(CardMismatch, match="sha256 is"):
        open_embedder(ModelFile(path, card), ONE_THREAD, EmbedConfig())


def test_other_golden_values_are_refused(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")
    card = embedder_card(path, golden={"values": (0.9,) * 8, "tolerance": 0.01})

    with pytest.raises(CardMismatch, match="golden output is off by"):
        open_embedder(ModelFile(path, card), ONE_THREAD, EmbedConfig())


def test_a_precision_that_the_card_does_not_admit_is_refused(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")
    model = ModelFile(path, embedder_card(path))

    with pytest.raises(CardMismatch, match="does not admit openvino at bf16"):
        open_embedder(model, ONE_THREAD, EmbedConfig(), backend="openvino", precision="bf16")


def test_an_admitted_precision_has_its_own_variant_id(tmp_path: Path) -> None:
    path = mean_embedder(tmp_path / "m.onnx")
    admitted = RuntimeVariant(
        runtime="openvino", precision="bf16", variant_id="bf16-openvino", tolerance=0.05
    )
    model = ModelFile(path, embedder_card(path).model_copy(update={"runtimes": (admitted,)}))

    plain = open_embedder(model, ONE_THREAD, EmbedConfig(), backend="openvino")
    fast = open_embedder(model, ONE_THREAD, EmbedConfig(), backend="openvino", precision="bf16")

    assert (plain.variant_id, fast.variant_id) == ("float32", "bf16-openvino")


def test_a_vector_without_length_is_said_not_sent(tmp_path: Path) -> None:
    path = constant_detector(
        tmp_path / "m.onnx", {"output": np.zeros((1, 8), np.float32)}, height=32, width=16
    )
    model = ModelFile(path, embedder_card(mean_embedder(tmp_path / "other.onnx")))
    card = model.card
    assert card is not None
    content = path.read_bytes()
    card = card.model_copy(update={"sha256": sha256_of(content), "bytes": len(content)})
    embedder = open_embedder(ModelFile(path, card), ONE_THREAD, EmbedConfig(), verify=False)

    with pytest.raises(ModelMisbehaved, match="not finite or has no length"):
        embedder.embed(crops(1))


@pytest.mark.shared
def test_the_public_osnet_gives_its_golden_row(shared_dir: Path) -> None:
    model = find_model("osnet-x0.25-msmt17-combineall", "embedder", shared_dir / "models")

    embedder = open_embedder(model, ONE_THREAD, EmbedConfig())

    assert (embedder.dimension, embedder.embed(crops(3)).shape) == (512, (3, 512))
