"""Are mixes judged as the export will make them?"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.detector import Detector
from models.detector_calibrate import both_answers, main, shift_between
from models.detector_data import write_coco
from models.detector_metrics import Quality
from tests.unit.models.detector_pictures import boxed_picture
from tests.unit.models.test_train_detector import tiny_teacher


def test_mixed_rows_are_those_of_the_folded_network() -> None:
    torch.manual_seed(0)
    detector = Detector().eval()
    for head in detector.heads:
        nn.init.normal_(head.imitate.bias)  # type: ignore[union-attr, arg-type]
    image = np.random.default_rng(0).integers(0, 256, (416, 416, 3), np.uint8)

    own, taught, scale = both_answers(detector, image)
    detector.fold_teacher(0.5, 0.25)
    with torch.no_grad():
        folded, _ = detector(torch.from_numpy(image).permute(2, 0, 1)[None].float())

    assert scale == 1.0
    mixed = torch.cat(
        [own[..., :1].lerp(taught[..., :1], 0.5), own[..., 1:].lerp(taught[..., 1:], 0.25)], dim=2
    )
    torch.testing.assert_close(mixed, folded, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(own, folded, atol=1e-3)


def test_the_command_prints_every_mix_beside_the_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    detector = Detector()
    torch.save(
        {"shape": detector.shape.as_dict(), "weights": detector.state_dict(), "recipe": "made"},
        tmp_path / "detector.pt",
    )
    write_coco(tmp_path / "held_out.tar", [boxed_picture(), boxed_picture((20, 20, 60, 150))])

    main(
        tmp_path / "detector.pt",
        pack=tmp_path,
        reference=tiny_teacher(tmp_path / "teacher.onnx"),
        every=1,
    )

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("reference: AP50 ")
    mixes = [line.partition(":")[0] for line in printed[2:]]
    assert mixes == [f"{a:.2f} {b:.2f}" for a in (0, 0.25, 0.5, 0.75) for b in (0, 0.25, 0.5, 0.75)]
    assert all(len(line.partition(":")[2].split()) == 3 for line in printed[2:])


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_at_an_end_of_the_scale_gives_a_finite_shift(threshold: float) -> None:
    shift = shift_between(Quality(0.5, 0.4, 0.3, 10), Quality(0.5, 0.4, threshold, 10))

    assert math.isfinite(shift)


def test_the_shift_brings_our_threshold_to_the_references() -> None:
    ours, reference = Quality(0.5, 0.4, 0.3, 10), Quality(0.5, 0.4, 0.6, 10)

    shift = shift_between(ours, reference)

    assert 1 / (1 + math.exp(-(math.log(0.3 / 0.7) + shift))) == pytest.approx(0.6)
