"""Are mixes judged as the export will make them?"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.detector import Detector
from models.detector_calibrate import both_answers, shift_between
from models.detector_metrics import Quality


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


def test_the_shift_brings_our_threshold_to_the_references() -> None:
    ours, reference = Quality(0.5, 0.4, 0.3, 10), Quality(0.5, 0.4, 0.6, 10)

    shift = shift_between(ours, reference)

    assert 1 / (1 + math.exp(-(math.log(0.3 / 0.7) + shift))) == pytest.approx(0.6)
