"""Does the detector keep its bounds, and is its export what the box reads?"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import pytest
import torch

from edge.config import DetectConfig, RuntimeConfig
from edge.detect.detector import open_detector
from edge.models_dir import model_at
from models.detector import Detector, boxes_of, cells, count_cost
from models.detector_export import (
    Calibration,
    calibrated,
    write_detector_card,
    write_onnx,
)
from models.detector_quantize import passes_gate, write_int8
from reid.card import read_card, sha256_of, write_card
from reid.model_errors import CardMismatch

WEIGHTS = Path(__file__).parents[3] / "models" / "weights"


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(3)
    detector = Detector().eval()
    for name, weight in detector.named_parameters():
        if name.endswith("body.1.weight") or ".answer.weight" in name:
            torch.nn.init.normal_(weight, std=2.0)  # a fresh network says the same in every cell
    return detector


def test_the_network_stays_within_a_million_parameters_and_1_1_g_multiply_adds(
    detector: Detector,
) -> None:
    cost = count_cost(detector)

    assert cost.parameters <= 1_000_000
    assert cost.multiply_adds <= 1_100_000_000


def test_a_16_to_9_input_costs_in_proportion_to_its_pixels(detector: Detector) -> None:
    square, wide = count_cost(detector), count_cost(detector, 256, 416)

    assert wide.multiply_adds / square.multiply_adds == pytest.approx(256 / 416, rel=1e-6)


def test_every_cell_answers_with_one_row(detector: Detector) -> None:
    with torch.no_grad():
        rows, imitation = detector(torch.zeros(2, 3, 64, 96))

    assert rows.shape == (2, len(cells(64, 96)), 5)
    assert imitation is None  # the imitating answer exists in training only


def test_boxes_are_distances_from_the_middle_of_their_cell() -> None:
    grid = cells(32, 32)

    boxes = boxes_of(torch.zeros(1, len(grid), 4), grid)

    assert boxes[0, 0].tolist() == [-4.0, -4.0, 12.0, 12.0]  # middle (4, 4), one stride of 8
    assert boxes[0, -1].tolist() == [-16.0, -16.0, 48.0, 48.0]  # middle (16, 16), stride 32


def test_folding_all_of_the_teacher_in_gives_the_imitating_answer(detector: Detector) -> None:
    for head in detector.heads:
        torch.nn.init.normal_(head.imitate.weight, std=0.1)
    picture = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        detector.train()
        for layer in detector.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
        _, imitation = detector(picture)
        detector.eval()
        folded, _ = calibrated(detector, Calibration(1.0, 1.0))(picture)

    assert imitation is not None
    torch.testing.assert_close(folded, imitation, rtol=1e-4, atol=1e-4)


def test_a_shift_of_the_logits_moves_every_score_and_no_box(detector: Detector) -> None:
    picture = torch.rand(1, 3, 64, 64) * 255

    with torch.no_grad():
        before, _ = detector(picture)
        after, _ = calibrated(detector, Calibration(logit_shift=0.7))(picture)

    torch.testing.assert_close(after[..., 0], before[..., 0] + 0.7)
    torch.testing.assert_close(after[..., 1:], before[..., 1:])


@pytest.mark.parametrize(("height", "width"), [(160, 160), (96, 160)])
def test_the_box_recognises_the_exported_file_and_reads_the_networks_boxes(
    detector: Detector, tmp_path: Path, height: int, width: int
) -> None:
    path = tmp_path / "ours.onnx"
    write_onnx(detector, path, height, width)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

    opened = open_detector(
        model_at(path),
        RuntimeConfig(threads=1, backend="onnxruntime"),
        DetectConfig(low_confidence=0.0, nms_iou=1.0),
    )
    found = opened.detect(image)

    with torch.no_grad():
        rows, _ = detector(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    best = int(rows[0, :, 0].argmax())
    expected = boxes_of(rows[..., 1:], cells(height, width))[0, best].numpy()
    limits = np.array([width, height, width, height], np.float32)
    assert (opened.family, opened.family_from) == ("yolox-decoded", "recognised")
    assert found.scores[0] == pytest.approx(float(rows[0, best, 0].sigmoid()), abs=1e-4)
    np.testing.assert_allclose(found.boxes[0], np.clip(expected, 0, limits), atol=0.05)


def test_the_written_card_admits_the_file_and_refuses_another_one(
    detector: Detector, tmp_path: Path
) -> None:
    path = tmp_path / "ours.onnx"
    write_onnx(detector, path, 64, 64)
    card = write_detector_card(path, "ours", 64, 64, "open")
    runtime = RuntimeConfig(threads=1, backend="onnxruntime")

    opened = open_detector(model_at(path), runtime, DetectConfig())

    assert opened.name == "ours"
    assert card.commercial_use
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CardMismatch, match="cut short"):
        open_detector(model_at(path), runtime, DetectConfig())


def test_the_written_card_refuses_other_weights_by_their_golden_values(
    detector: Detector, tmp_path: Path
) -> None:
    path, other = tmp_path / "ours.onnx", tmp_path / "other.onnx"
    write_onnx(detector, path, 64, 64)
    card = write_detector_card(path, "ours", 64, 64, "open")
    changed = copy.deepcopy(detector)
    with torch.no_grad():
        for head in changed.heads:
            head.get_parameter("answer.bias").add_(0.01)
    write_onnx(changed, other, 64, 64)
    content = other.read_bytes()
    claims = {"sha256": sha256_of(content), "bytes": len(content)}
    write_card(card.model_copy(update=claims), other.with_suffix(".toml"))

    with pytest.raises(CardMismatch, match="golden output is off"):
        open_detector(
            model_at(other), RuntimeConfig(threads=1, backend="onnxruntime"), DetectConfig()
        )


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("detector_*.toml")), ids=lambda p: p.stem)
def test_a_shipped_cards_golden_values_are_held_to_some_percent_at_most(path: Path) -> None:
    golden = read_card(path).golden

    assert golden is not None
    assert golden.tolerance <= 0.05  # relative: verify_golden divides by what is above 1


def test_weights_from_research_data_do_not_allow_commercial_use(
    detector: Detector, tmp_path: Path
) -> None:
    path = tmp_path / "ours.onnx"
    write_onnx(detector, path, 64, 64)

    card = write_detector_card(path, "ours", 64, 64, "research")

    assert not card.commercial_use
    assert "research only" in card.licence


@pytest.mark.parametrize("scheme", ["s8s8", "u8s8"])
def test_an_int8_variant_stays_near_the_float_model(
    detector: Detector, tmp_path: Path, scheme: Literal["s8s8", "u8s8"]
) -> None:
    model, variant = tmp_path / "ours.onnx", tmp_path / "int8.onnx"
    write_onnx(detector, model, 64, 64)
    pictures = [np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8) for n in range(4)]

    write_int8(model, variant, pictures, scheme)

    batch = pictures[0].transpose(2, 0, 1)[None].astype(np.float32)
    rows = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
            None, {"images": batch}
        )[0][0]
        for path in (model, variant)
    ]
    assert variant.stat().st_size < 0.4 * model.stat().st_size
    assert np.corrcoef(rows[0][:, 0], rows[1][:, 0])[0, 1] > 0.95


@pytest.mark.parametrize(
    ("recall", "ms", "passes"),
    [
        (0.890, 6.0, True),  # hardly worse, much quicker
        (0.870, 6.0, False),  # too much recall lost
        (0.890, 11.0, False),  # not clearly quicker
    ],
)
def test_int8_ships_only_where_it_is_hardly_worse_and_clearly_quicker(
    recall: float, ms: float, passes: bool
) -> None:
    assert passes_gate(0.895, recall, 12.0, ms) is passes
